//! What operators ask for: of this node, or of another by way of this one.

use std::collections::BTreeSet;
use std::sync::Arc;

use ring::epoch::{Change, Refusal};
use ring::{Document, StoreId, View};
use tonic::Status;

use super::leave::{leave, may_wait};
use super::{ChangeError, Cluster};

impl Cluster {
    /// Has a store leave the ring; how far it is.
    ///
    /// # Errors
    /// Where the ring can't do without it, or it can't be reached.
    pub async fn drain(self: &Arc<Self>, store: StoreId, stop: bool) -> Result<(String, bool), Status> {
        if store != self.me() {
            return self.calls.leave(store, true, stop).await;
        }
        self.leave(stop).await.map_err(|error| status(&error))?;
        self.leaving_of(store).await
    }

    /// Whether [`drain`](Self::drain) would begin; nothing is changed.
    ///
    /// # Errors
    /// As there.
    pub async fn check_drain(&self, store: StoreId) -> Result<(), Status> {
        // It answers, so it can be told.
        let (progress, _) = self.leaving_of(store).await?;
        if !progress.is_empty() {
            return Ok(());
        }
        match self.check(|document| leave(document, store)).await {
            Err(error) if !may_wait(&error) => Err(status(&error)),
            _ => Ok(()),
        }
    }

    /// How far a store is with leaving, in words, and whether it has left.
    ///
    /// # Errors
    /// Where it can't be reached.
    pub async fn leaving_of(&self, store: StoreId) -> Result<(String, bool), Status> {
        if store != self.me() {
            return self.calls.leave(store, false, false).await;
        }
        let leaving = self.leaving();
        Ok((leaving.progress, leaving.done))
    }

    /// Gives up a member that is gone for good. As with all changes of the ring here, `dry_run` only finds out whether it
    /// would be made, and what is returned is what then keeps it from ending, if anything does.
    ///
    /// # Errors
    /// Where it is there, or the ring can't do without it.
    pub async fn forget(
        self: &Arc<Self>,
        store: StoreId,
        dry_run: bool,
    ) -> Result<Option<String>, ChangeError> {
        self.refuse_alive(&[store].into())?;
        self.make(dry_run, |document| document.change(&Change::lose(store))).await
    }

    /// Goes on without members that are gone for good, whatever that costs: the way out of a lost quorum.
    ///
    /// # Errors
    /// Where one is there, or nobody would be left.
    pub async fn write_off(
        self: &Arc<Self>,
        stores: &BTreeSet<StoreId>,
        dry_run: bool,
    ) -> Result<Option<String>, ChangeError> {
        self.refuse_alive(stores)?;
        self.make(dry_run, |document| document.write_off(stores)).await
    }

    /// Takes a change of the ring back that is under way.
    ///
    /// # Errors
    /// Where none is, or it can't be taken back.
    pub async fn revert(self: &Arc<Self>, dry_run: bool) -> Result<Option<String>, ChangeError> {
        self.make(dry_run, Document::revert).await
    }

    /// Accepts that what a lost store had is lost, or that a living one may lack samples that it acked.
    ///
    /// # Errors
    /// Where the ring doesn't allow it, or the store can't be reached.
    pub async fn accept_loss(
        self: &Arc<Self>,
        store: StoreId,
        dry_run: bool,
    ) -> Result<Option<String>, ChangeError> {
        let is_lost = self.view().document().members.get(&store).is_some_and(|member| member.state.is_lost());
        if is_lost {
            return self.make(dry_run, |document| document.accept_loss(&[store].into())).await;
        }
        let peer = |status: Status| ChangeError::Peer(status.message().to_owned());
        if dry_run {
            // It answers, so it can be told.
            self.leaving_of(store).await.map_err(peer)?;
        } else if store == self.me() {
            self.accept_own_loss().await.map_err(|error| ChangeError::Adopt(error.into()))?;
        } else {
            self.calls.accept_loss(store).await.map_err(peer)?;
        }
        Ok(None)
    }

    pub(super) async fn accept_own_loss(&self) -> tsdb::Result<()> {
        match self.keeper.get() {
            Some(keeper) => keeper.reclaim(&self.documents, &BTreeSet::new()).await,
            None => Ok(()),
        }
    }

    /// Asks for another number of copies; `confirmed` allows fewer.
    ///
    /// # Errors
    /// Where the ring doesn't allow it.
    pub async fn set_replication_factor(
        self: &Arc<Self>,
        copies: u32,
        confirmed: bool,
        dry_run: bool,
    ) -> Result<Option<String>, ChangeError> {
        self.make(dry_run, |document| document.set_replication_factor(copies, confirmed)).await
    }

    fn refuse_alive(&self, stores: &BTreeSet<StoreId>) -> Result<(), ChangeError> {
        match stores.iter().find(|store| self.is_alive(**store)) {
            Some(store) => Err(ChangeError::Alive(self.name(*store))),
            None => Ok(()),
        }
    }

    /// Makes a change of the ring, or only finds out whether it would be made; what keeps it from ending then.
    async fn make(
        self: &Arc<Self>,
        dry_run: bool,
        change: impl Fn(&Document) -> Result<Document, Refusal>,
    ) -> Result<Option<String>, ChangeError> {
        if dry_run {
            let view =
                View::new(self.check(change).await?).map_err(|error| ChangeError::Adopt(error.into()))?;
            return Ok(self.blocked(&view));
        }
        self.change(|document| change(document).map(Some)).await?;
        Ok(self.blocked(&self.view()))
    }

    /// What would come of a change of the ring now.
    async fn check<T>(&self, change: impl Fn(&Document) -> Result<T, Refusal>) -> Result<T, ChangeError> {
        let found = self.documents.current().await?.map(|(document, _)| document);
        match self.judge_found(found)? {
            Some(newer) => Ok(change(&newer)?),
            None => Ok(change(self.view().document())?),
        }
    }
}

fn status(error: &ChangeError) -> Status {
    match error {
        ChangeError::Refused(_) => Status::failed_precondition(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

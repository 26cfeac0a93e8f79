//! What operators ask for: of this node, or of another by way of this one.

use std::sync::Arc;

use ring::epoch::{Change, Refusal};
use ring::{Document, StoreId};
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

    /// Gives up a member that is gone for good.
    ///
    /// # Errors
    /// Where it is there, or the ring can't do without it.
    pub async fn forget(self: &Arc<Self>, store: StoreId) -> Result<(), ChangeError> {
        if self.is_alive(store) {
            return Err(ChangeError::Alive(self.name(store)));
        }
        self.change(|document| document.change(&Change::lose(store)).map(Some)).await.map(drop)
    }

    /// Whether [`forget`](Self::forget) would be done; nothing is changed.
    ///
    /// # Errors
    /// As there.
    pub async fn check_forget(&self, store: StoreId) -> Result<(), ChangeError> {
        if self.is_alive(store) {
            return Err(ChangeError::Alive(self.name(store)));
        }
        self.check(|document| document.change(&Change::lose(store)).map(Some)).await
    }

    /// Accepts that what a lost store had is lost, or that a living one may lack samples that it acked.
    ///
    /// # Errors
    /// Where the ring doesn't allow it, or the store can't be reached.
    pub async fn accept_loss(self: &Arc<Self>, store: StoreId) -> Result<(), ChangeError> {
        let is_lost = self.view().document().members.get(&store).is_some_and(|member| member.state.is_lost());
        if is_lost {
            let stores = [store].into();
            return self.change(|document| document.accept_loss(&stores).map(Some)).await.map(drop);
        }
        if store == self.me() {
            return self.accept_own_loss().await.map_err(|error| ChangeError::Adopt(error.into()));
        }
        self.calls.accept_loss(store).await.map_err(|status| ChangeError::Peer(status.message().to_owned()))
    }

    /// Whether [`accept_loss`](Self::accept_loss) would be done; nothing is changed.
    ///
    /// # Errors
    /// As there.
    pub async fn check_accept_loss(&self, store: StoreId) -> Result<(), ChangeError> {
        let is_lost = self.view().document().members.get(&store).is_some_and(|member| member.state.is_lost());
        if is_lost {
            return self.check(|document| document.accept_loss(&[store].into()).map(Some)).await;
        }
        // It answers, so it can be told.
        self.leaving_of(store)
            .await
            .map(drop)
            .map_err(|status| ChangeError::Peer(status.message().to_owned()))
    }

    pub(super) async fn accept_own_loss(&self) -> tsdb::Result<()> {
        match self.keeper.get() {
            Some(keeper) => keeper.reclaim(&self.documents, &std::collections::BTreeSet::new()).await,
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
    ) -> Result<(), ChangeError> {
        self.change(|document| document.set_replication_factor(copies, confirmed).map(Some)).await.map(drop)
    }

    /// Whether [`set_replication_factor`](Self::set_replication_factor) would be done; nothing is changed.
    ///
    /// # Errors
    /// As there.
    pub async fn check_replication_factor(&self, copies: u32, confirmed: bool) -> Result<(), ChangeError> {
        self.check(|document| document.set_replication_factor(copies, confirmed).map(Some)).await
    }

    /// Whether a change of the ring would be refused now.
    async fn check(
        &self,
        change: impl Fn(&Document) -> Result<Option<Document>, Refusal>,
    ) -> Result<(), ChangeError> {
        let adopted = self.view().epoch();
        let document = match self.documents.current().await? {
            Some((document, _)) if document.epoch >= adopted => document,
            older => {
                let found = older.map_or(0, |(document, _)| document.epoch);
                return Err(ChangeError::Restored { found, adopted });
            }
        };
        change(&document)?;
        Ok(())
    }
}

fn status(error: &ChangeError) -> Status {
    match error {
        ChangeError::Refused(_) => Status::failed_precondition(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

//! Changing the ring: a document is made from the one in the bucket and swapped in its place, and handed to all members.

use std::collections::BTreeSet;
use std::sync::Arc;

use ring::epoch::{Conflict, Offer, Refusal};
use ring::{Document, Epoch, StoreId, View};

use super::Cluster;
use super::calls::ask_all;
use super::drive::is_alive;
use crate::bucket;

/// Tries of a change that others win.
const SWAPS_MAX: u32 = 8;

/// Why the ring wasn't changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The ring doesn't allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The bucket is away.
    #[error("the ring can't change without the bucket: {0}")]
    Bucket(#[from] bucket::Error),
    /// The bucket holds something older than this node has adopted.
    #[error(
        "the bucket's ring document has epoch {found}, and epoch {adopted} has been adopted: was the bucket restored? \
         `carillon ring restore` puts the newest one back"
    )]
    Restored {
        /// In the bucket.
        found: Epoch,
        /// Here.
        adopted: Epoch,
    },
    /// The bucket holds no ring document any more.
    #[error(
        "the bucket holds no ring document any more: was it emptied? `carillon ring restore` puts the newest one back"
    )]
    Gone,
    /// The bucket's ring document isn't of this node's history.
    #[error(transparent)]
    OtherHistory(#[from] Conflict),
    /// Others change it all the time.
    #[error("the ring changes too often; try again")]
    Busy,
    /// It is there.
    #[error("{0} is alive: drain it instead (`carillon node drain`)")]
    Alive(String),
    /// Another node can't do its part.
    #[error("{0}")]
    Peer(String),
    /// The changed document can't be adopted here.
    #[error(transparent)]
    Adopt(#[from] super::AdoptError),
}

impl Cluster {
    /// Changes the ring: applies `change` to the document in the bucket, until it is there or nothing is to be changed
    /// (`None`); then everybody is told. Returns the epoch that came of it.
    ///
    /// # Errors
    /// Where the ring doesn't allow it, or the bucket is away.
    pub(super) async fn change(
        self: &Arc<Self>,
        change: impl Fn(&Document) -> Result<Option<Document>, Refusal>,
    ) -> Result<Option<Epoch>, ChangeError> {
        for _ in 0..SWAPS_MAX {
            let Some((document, tag)) = self.documents.current().await? else {
                return Err(ChangeError::Gone);
            };
            let newer = self.judge_found(Some(document.clone()))?;
            let changed = change(&document)?;
            if let Some(newer) = newer {
                self.adopt(newer).await?;
            }
            let Some(changed) = changed else { return Ok(None) };
            if self.documents.swap(&tag, &changed).await? {
                let epoch = self.adopt(changed).await?;
                let (cluster, view) = (self.clone(), self.view());
                tokio::spawn(async move { cluster.hand_round(&view).await });
                return Ok(Some(epoch));
            }
        }
        Err(ChangeError::Busy)
    }

    /// Judges the document that the bucket holds: what is to be adopted of it, if anything.
    ///
    /// # Errors
    /// Where it isn't the one adopted here, or a later one of the same history.
    pub(super) fn judge_found(&self, found: Option<Document>) -> Result<Option<Document>, ChangeError> {
        let view = self.view();
        let found = found.ok_or(ChangeError::Gone)?;
        match view.document().compare(&found)? {
            Offer::Newer => Ok(Some(found)),
            Offer::Same => Ok(None),
            Offer::Older => Err(ChangeError::Restored { found: found.epoch, adopted: view.epoch() }),
        }
    }

    /// Hands a document to all living members; those who go by it then.
    pub(super) async fn hand_round(&self, view: &View) -> BTreeSet<StoreId> {
        let members = self.members();
        let mut stores: BTreeSet<StoreId> =
            view.stores().map(|(_, store)| store).filter(|store| is_alive(&members, *store)).collect();
        stores.extend(view.document().transition.iter().flat_map(|transition| &transition.joins).copied());
        stores.remove(&self.me());
        let (calls, document) = (self.calls.clone(), bytes::Bytes::from(view.document().encode()));
        let answers = ask_all(stores, move |store| {
            let (calls, document) = (calls.clone(), document.clone());
            async move { calls.adopt(store, document).await }
        });
        let mut adopted: BTreeSet<StoreId> = answers
            .await
            .into_iter()
            .filter(|(_, epoch)| *epoch == view.epoch())
            .map(|(store, _)| store)
            .collect();
        // Whoever is still adopting it hasn't yet.
        let _settled = self.adopting.lock().await;
        if self.view().epoch() == view.epoch() {
            adopted.insert(self.me());
        }
        adopted
    }
}

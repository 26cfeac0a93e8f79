//! Putting the ring document back into a bucket that has lost it, or holds an older one.
//!
//! 1. Every member that answers tells its document. All must be of one history; the newest is the one to be put back, and
//!    is adopted here first.
//! 2. Enough members must have answered: R owners of each range of each open placement, as for a complete answer. A newer
//!    document by which anything was ever acknowledged was adopted by W owners, of whom one is then among them.
//!    Members that are gone for good can't answer: an operator may say so, as for `node lost`, which needs the ring document.
//! 3. It is written where there is nothing, over what is no document, or over an older one of its history, each by
//!    compare-and-swap. Any other document is left alone, with both named. The cluster's name is put back beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ring::epoch::{Conflict, Offer, Placement};
use ring::{Document, Epoch, StoreId, View, rules};

use super::calls::ask_all;
use super::documents::Found;
use super::{AdoptError, Cluster};
use crate::bucket;

/// What was put back, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The epoch of the document that the bucket holds then.
    pub epoch: Epoch,
    /// What stood there before, in words; `None` where it was this very document.
    pub instead_of: Option<String>,
    /// Members that told their document, this node among them.
    pub asked: usize,
    /// Names of members that didn't answer.
    pub silent: Vec<String>,
}

/// Why nothing was put back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Two documents that can't be of one history.
    #[error("{whose} has a ring document of another history than this node: {why}")]
    OtherHistory {
        /// A member's name, or the bucket's.
        whose: String,
        /// Which two.
        why: Conflict,
    },
    /// A newer document may be with those that don't answer.
    #[error(
        "too few members answer to know that none has a newer document: start {}, or name those that are gone for good \
         (`carillon ring restore --gone NAME --yes`)", silent.join(", ")
    )]
    Silent {
        /// Names of members that don't answer.
        silent: Vec<String>,
    },
    /// The bucket's is newer than any member's.
    #[error(
        "the bucket's ring document has epoch {found}, newer than any member's ({newest}): nothing is to be put back"
    )]
    Newer {
        /// In the bucket.
        found: Epoch,
        /// The members' newest.
        newest: Epoch,
    },
    /// It is there.
    #[error("{0} is alive, and not gone")]
    Alive(String),
    /// Somebody else writes there.
    #[error("somebody else changed the ring document meanwhile; try again")]
    Busy,
    /// The bucket can't be used, or is another cluster's.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    /// The newest document can't be adopted here.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
}

impl Cluster {
    /// Puts the newest ring document that any member has into the bucket; `gone` never answer again, and `dry_run` only
    /// finds out what would be done.
    ///
    /// # Errors
    /// Where members or bucket have documents of two histories, too few members answer, or the bucket can't be written.
    pub async fn restore_document(
        self: &Arc<Self>,
        gone: &BTreeSet<StoreId>,
        dry_run: bool,
    ) -> Result<Restored, RestoreError> {
        let own = self.view().document().clone();
        let mut told = self.documents_of_members(&own, &BTreeMap::new()).await;
        // A newer document may have members that this node has never heard of.
        let newer = newest(&own, &told, |store| self.name(store))?;
        let of_newcomers = self.documents_of_members(&newer, &told).await;
        told.extend(of_newcomers);
        let newest = newest(&own, &told, |store| self.name(store))?;
        if let Some(store) = gone.iter().find(|store| told.contains_key(store) || self.is_alive(**store)) {
            return Err(RestoreError::Alive(self.name(*store)));
        }
        let view = View::new(newest.clone()).map_err(AdoptError::from)?;
        let answered: BTreeSet<StoreId> = told.keys().copied().chain([self.me()]).collect();
        let owners = newest.members.keys().filter(|store| newest.is_owner(**store));
        let is_silent = |store: &&StoreId| {
            let is_lost = newest.members[*store].state.is_lost();
            !answered.contains(*store) && !gone.contains(*store) && !is_lost
        };
        let silent: Vec<String> = owners.filter(is_silent).map(|store| self.name(*store)).collect();
        let known: BTreeSet<StoreId> = answered.union(gone).copied().collect();
        let is_short = |placement: &Placement| rules::closing(&view, placement.id, &known).is_some();
        if newest.placements.iter().any(is_short) {
            return Err(RestoreError::Silent { silent });
        }
        let named = self.documents.cluster().await?;
        if let Some(theirs) = named.filter(|named| *named != newest.cluster) {
            let why = Conflict::OtherCluster { ours: newest.cluster, theirs };
            return Err(RestoreError::OtherHistory { whose: self.bucket.location().to_string(), why });
        }
        if !dry_run {
            // First: where another cluster is quicker, nothing of this one is written.
            let theirs = self.documents.found_cluster(newest.cluster).await?;
            if theirs != newest.cluster {
                return Err(RestoreError::Busy);
            }
            self.adopt(newest.clone()).await?;
        }
        let instead_of = self.put_back(&newest, dry_run).await?;
        if !dry_run {
            if let Some(instead_of) = &instead_of {
                tracing::warn!(
                    epoch = newest.epoch,
                    instead_of,
                    "put the ring document back into the bucket"
                );
            }
            self.note_problem("bucket", None);
        }
        Ok(Restored { epoch: newest.epoch, instead_of, asked: answered.len(), silent })
    }

    /// The documents of those members that answer and haven't told theirs yet, this node left out.
    async fn documents_of_members(
        &self,
        document: &Document,
        told: &BTreeMap<StoreId, Document>,
    ) -> BTreeMap<StoreId, Document> {
        let others =
            document.members.keys().filter(|store| **store != self.me() && !told.contains_key(store));
        let calls = self.calls.clone();
        ask_all(others.copied(), move |store| {
            let calls = calls.clone();
            async move { calls.document(store).await }
        })
        .await
    }

    /// Writes a document into the bucket unless it stands there; what stood there instead.
    async fn put_back(&self, newest: &Document, dry_run: bool) -> Result<Option<String>, RestoreError> {
        let (instead_of, written) = match self.documents.read().await {
            Ok(Found::Nothing) => ("nothing".to_owned(), dry_run || self.documents.begin(newest).await?),
            Ok(Found::Document(found, tag)) => {
                let whose = || self.bucket.location().to_string();
                match newest
                    .compare(&found)
                    .map_err(|why| RestoreError::OtherHistory { whose: whose(), why })?
                {
                    Offer::Same => return Ok(None),
                    Offer::Newer => {
                        return Err(RestoreError::Newer { found: found.epoch, newest: newest.epoch });
                    }
                    Offer::Older => {
                        let older = format!("the one of epoch {}", found.epoch);
                        (older, dry_run || self.documents.swap(&tag, newest).await?)
                    }
                }
            }
            // Says where the bucket has gone.
            Ok(Found::Mark(..)) => (String::new(), self.documents.current().await?.is_none()),
            Err(bucket::Error::Corrupt { reason, .. }) => {
                let damaged = format!("what is no ring document ({reason})");
                (damaged, dry_run || self.documents.mend(newest).await?)
            }
            Err(error) => return Err(error.into()),
        };
        if written { Ok(Some(instead_of)) } else { Err(RestoreError::Busy) }
    }
}

/// The newest of this node's document and the others'.
fn newest(
    own: &Document,
    told: &BTreeMap<StoreId, Document>,
    name: impl Fn(StoreId) -> String,
) -> Result<Document, RestoreError> {
    let all = told.values().chain([own]);
    let newest = all.max_by_key(|document| document.epoch).expect("this node's own is among them");
    let other = |store: &StoreId, why| RestoreError::OtherHistory { whose: name(*store), why };
    for (store, document) in told {
        newest.compare(document).map_err(|why| other(store, why))?;
        own.compare(document).map_err(|why| other(store, why))?;
    }
    Ok(newest.clone())
}

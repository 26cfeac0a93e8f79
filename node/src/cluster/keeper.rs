//! What this store can vouch for: that everything which it acked for a placement lies in listed blocks.
//!
//! 1. When a document is adopted that opens another placement, everything appended so far is marked: later writes have
//!    their quorum in that one too. A restart marks again: later, so never too little.
//! 2. Once nobody writes by the placement any more, the head is cut, and all local blocks are shipped and listed, until what was marked is among them.
//! 3. From then on the store vouches, unless it disclaims the placement: it may have lost what it acked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use ring::epoch::raise;
use ring::rules::sealed_by;
use ring::{Epoch, StoreId, View};
use tsdb::db::{Db, Mark};
use tsdb::model::TenantId;

use super::calls::Vouched;
use super::documents::Documents;
use crate::bucket::{self, Blocks};
use crate::env::{Clock, Pool, Work, run_on};

/// Keeps account of what lies in listed blocks.
pub(super) struct Keeper {
    db: Arc<Db>,
    blocks: Arc<Blocks>,
    clock: Arc<dyn Clock>,
    pool: Arc<dyn Pool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// For open placements of this store that another has followed: what had been appended when that one was adopted.
    marks: BTreeMap<Epoch, Mark>,
    /// Those that nobody writes by any more.
    sealed: BTreeSet<Epoch>,
    /// Those of which everything lies in listed blocks.
    safe: BTreeSet<Epoch>,
    /// By safe placement and tenant, a version of the catalog that lists all of it.
    catalogs: BTreeMap<Epoch, BTreeMap<String, u64>>,
    disclaimed: BTreeSet<Epoch>,
}

/// Why not all is safe yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotYet {
    #[error("cutting blocks: {0}")]
    Cut(String),
    #[error("uploading: {0}")]
    Upload(#[from] bucket::Error),
}

impl Keeper {
    pub(super) fn new(
        db: Arc<Db>,
        blocks: Arc<Blocks>,
        clock: Arc<dyn Clock>,
        pool: Arc<dyn Pool>,
        disclaimed: impl IntoIterator<Item = Epoch>,
    ) -> Self {
        let state = State { disclaimed: disclaimed.into_iter().collect(), ..State::default() };
        Self { db, blocks, clock, pool, state: Mutex::new(state) }
    }

    /// Takes note of an adopted document: to be called when no write by an older one is under way any more.
    pub(super) fn adopted(&self, view: &View, me: StoreId) {
        let placements = &view.document().placements;
        let earlier: BTreeSet<Epoch> = view.document().earlier().iter().map(|p| p.id).collect();
        let open: BTreeSet<Epoch> = placements.iter().map(|p| p.id).collect();
        let mine = view.document().earlier().iter().filter(|p| p.members.contains_key(&me));
        let mut state = self.state.lock();
        // A placement that is the last again, since a transition was taken back, is marked anew another time.
        state.marks.retain(|id, _| earlier.contains(id));
        state.safe.retain(|id| earlier.contains(id));
        state.catalogs.retain(|id, _| open.contains(id));
        for placement in mine {
            state.marks.entry(placement.id).or_insert_with(|| self.db.mark());
        }
        state.sealed = earlier.into_iter().filter(|id| sealed_by(view, *id).is_some()).collect();
    }

    /// What this store vouches for.
    pub(super) fn vouches(&self) -> Vouched {
        let state = self.state.lock();
        let placements: BTreeSet<Epoch> = state.safe.difference(&state.disclaimed).copied().collect();
        let mut catalogs = BTreeMap::new();
        raise(&mut catalogs, placements.iter().filter_map(|id| state.catalogs.get(id)).flatten());
        Vouched { placements, catalogs }
    }

    /// Cuts, ships and lists what is marked; at once where nothing is.
    ///
    /// # Errors
    /// What is in the way; to be tried again.
    pub(super) async fn work(&self) -> Result<(), NotYet> {
        let wanted = self.wanted();
        if wanted.is_empty() {
            return Ok(());
        }
        if !wanted.iter().all(|(_, mark)| self.db.is_flushed(*mark)) {
            self.flush().await?;
        }
        let flushed: Vec<Epoch> =
            wanted.into_iter().filter(|(_, mark)| self.db.is_flushed(*mark)).map(|(id, _)| id).collect();
        self.blocks.shipper.all(&self.db).await?;
        let mut catalogs = BTreeMap::new();
        // Of tenants too that this store has nothing of: imported blocks are nobody's, and known by their catalogs alone.
        let own = self.db.tenants().into_iter().map(|tenant| tenant.id().clone());
        let tenants: BTreeSet<TenantId> = own.chain(self.blocks.catalogs.known()).collect();
        for tenant in tenants {
            let version = self.blocks.catalogs.refresh(&tenant).await?.version();
            catalogs.insert(tenant.to_string(), version);
        }
        let mut state = self.state.lock();
        for id in flushed {
            // The ring may have been swapped back meanwhile.
            if state.marks.contains_key(&id) {
                state.safe.insert(id);
                state.catalogs.insert(id, catalogs.clone());
            }
        }
        Ok(())
    }

    /// Placements that nobody writes by any more, of which not all is safe yet.
    fn wanted(&self) -> Vec<(Epoch, Mark)> {
        let state = self.state.lock();
        let unsafe_yet = |id: &Epoch| state.sealed.contains(id) && !state.safe.contains(id);
        state.marks.iter().filter(|(id, _)| unsafe_yet(id)).map(|(id, mark)| (*id, *mark)).collect()
    }

    /// Brings everything that this store has into listed blocks, whatever it belongs to.
    ///
    /// # Errors
    /// What is in the way; to be tried again.
    pub(super) async fn empty(&self) -> Result<(), NotYet> {
        let mark = self.db.mark();
        if !self.db.is_flushed(mark) {
            self.flush().await?;
        }
        if !self.db.is_flushed(mark) {
            return Err(NotYet::Cut("samples are still in the head; trying again".to_owned()));
        }
        Ok(self.blocks.shipper.all(&self.db).await?)
    }

    async fn flush(&self) -> Result<(), NotYet> {
        let (db, now_ms) = (self.db.clone(), self.clock.now_ms());
        let done = run_on(&*self.pool, Work::Maintenance, move || db.flush(now_ms))
            .await
            .map_err(|e| NotYet::Cut(e.to_string()))?;
        for (tenant, block) in &done.cut {
            tracing::info!(%tenant, block = %block.ulid, samples = block.stats.num_samples, "cut a block for the bucket");
        }
        match done.problems.first() {
            Some(problem) => Err(NotYet::Cut(problem.error.to_string())),
            None => Ok(()),
        }
    }

    /// Whether the store doesn't count for a placement.
    pub(super) fn disclaims(&self, placement: Epoch) -> bool {
        self.state.lock().disclaimed.contains(&placement)
    }

    /// Whether it disclaims nothing that is open.
    pub(super) fn is_sound(&self) -> bool {
        self.state.lock().disclaimed.is_empty()
    }

    /// Takes back the disclaimers of placements that aren't open any more, or all; durable on return.
    pub(super) async fn reclaim(&self, documents: &Documents, keep: &BTreeSet<Epoch>) -> tsdb::Result<()> {
        let left: Vec<Epoch> = {
            let state = self.state.lock();
            if state.disclaimed.is_subset(keep) {
                return Ok(());
            }
            state.disclaimed.intersection(keep).copied().collect()
        };
        documents.disclaim(&left).await?;
        self.state.lock().disclaimed = left.into_iter().collect();
        Ok(())
    }
}

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
use tsdb::wal::WalPosition;

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
    /// Held by the one change of disclaimers at a time, ledger included.
    disclaiming: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    marks: Marks<Mark>,
    /// Those that nobody writes by any more.
    sealed: BTreeSet<Epoch>,
    /// Those of which everything lies in listed blocks.
    safe: BTreeSet<Epoch>,
    /// By safe placement and tenant, a version of the catalog that lists all of it.
    catalogs: BTreeMap<Epoch, BTreeMap<String, u64>>,
    disclaimed: BTreeSet<Epoch>,
}

/// For open placements of this store that another has followed: that one, and what had been appended when it was
/// adopted.
struct Marks<M>(BTreeMap<Epoch, (Epoch, M)>);

impl<M> Default for Marks<M> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<M> Marks<M> {
    /// Marks what another placement has come to follow; those that were marked before for one that isn't there any more
    /// too, since a transition was taken back or planned anew: what was written meanwhile belongs to them. Returns which
    /// were marked.
    fn follow(&mut self, view: &View, me: StoreId, mut mark: impl FnMut() -> M) -> BTreeSet<Epoch> {
        let placements = &view.document().placements;
        let followed = placements.iter().zip(placements.iter().skip(1));
        let mine: BTreeMap<Epoch, Epoch> =
            followed.filter(|(p, _)| p.members.contains_key(&me)).map(|(p, next)| (p.id, next.id)).collect();
        self.0.retain(|id, (next, _)| mine.get(id) == Some(next));
        let fresh: Vec<_> = mine.into_iter().filter(|(id, _)| !self.0.contains_key(id)).collect();
        for (id, next) in &fresh {
            self.0.insert(*id, (*next, mark()));
        }
        fresh.into_iter().map(|(id, _)| id).collect()
    }
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
        Self { db, blocks, clock, pool, state: Mutex::new(state), disclaiming: tokio::sync::Mutex::default() }
    }

    /// Takes note of an adopted document: to be called when no write by an older one is under way any more.
    pub(super) fn adopted(&self, view: &View, me: StoreId) {
        let placements = &view.document().placements;
        let earlier: BTreeSet<Epoch> = view.document().earlier().iter().map(|p| p.id).collect();
        let open: BTreeSet<Epoch> = placements.iter().map(|p| p.id).collect();
        let mut state = self.state.lock();
        let marked = state.marks.follow(view, me, || self.db.mark());
        state.safe.retain(|id| earlier.contains(id) && !marked.contains(id));
        state.catalogs.retain(|id, _| open.contains(id));
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
        let flushed: Vec<(Epoch, Mark)> =
            wanted.into_iter().filter(|(_, mark)| self.db.is_flushed(*mark)).collect();
        if !planted::is(planted::Bug::VouchedUnlisted) {
            self.blocks.shipper.all(&self.db).await?;
        }
        let mut catalogs = BTreeMap::new();
        // Of tenants too that this store has nothing of: imported blocks are nobody's, and known by their catalogs alone.
        let own = self.db.tenants().into_iter().map(|tenant| tenant.id().clone());
        let tenants: BTreeSet<TenantId> = own.chain(self.blocks.catalogs.known()).collect();
        for tenant in tenants {
            let version = self.blocks.catalogs.refresh(&tenant).await?.version();
            catalogs.insert(tenant.to_string(), version);
        }
        let mut state = self.state.lock();
        for (id, mark) in flushed {
            // The ring may have been swapped back meanwhile, and be marked anew.
            if state.marks.0.get(&id).is_some_and(|(_, held)| *held == mark) {
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
        state.marks.0.iter().filter(|(id, _)| unsafe_yet(id)).map(|(id, (_, mark))| (*id, *mark)).collect()
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

    /// Up to where this store's log is safe.
    pub(super) fn durable(&self) -> WalPosition {
        self.db.durable()
    }

    /// Disclaims placements; durable on return, and so for all answers that begin after it.
    pub(super) async fn disclaim(
        &self,
        documents: &Documents,
        placements: BTreeSet<Epoch>,
    ) -> tsdb::Result<()> {
        let _one = self.disclaiming.lock().await;
        let all: BTreeSet<Epoch> = self.state.lock().disclaimed.union(&placements).copied().collect();
        documents.disclaim(&all.iter().copied().collect::<Vec<_>>()).await?;
        self.state.lock().disclaimed = all;
        Ok(())
    }

    /// Takes back the disclaimers of placements that aren't open any more, or all; durable on return.
    pub(super) async fn reclaim(&self, documents: &Documents, keep: &BTreeSet<Epoch>) -> tsdb::Result<()> {
        let _one = self.disclaiming.lock().await;
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

#[cfg(test)]
mod tests {
    use ring::epoch::{Change, NewMember};
    use ring::{ClusterId, Document};
    use tsdb::db::{Append, Bounds, DbSettings};
    use tsdb::model::{Labels, Sample, TenantId};
    use tsdb::workers::Inline;

    use super::*;
    use crate::bucket::tests::{Fault, Faulty, env};
    use crate::config::{Sources, load};

    fn member(name: &str) -> NewMember {
        let [name, zone, peer_address, http_address] = [name, name, "a:1", "a:2"].map(str::to_owned);
        NewMember { name, zone, peer_address, http_address }
    }

    /// A store that kept everything alone until another joined, of which a bucket takes no block for a while.
    #[tokio::test(start_paused = true)]
    async fn a_store_vouches_when_its_blocks_are_listed_and_never_before() {
        let (store, me) = (Arc::new(Faulty::new()), StoreId(1));
        let env = env(store.clone());
        let config = load(&Sources::default()).unwrap();
        let bucket = bucket::Bucket::open("memory:", &env).unwrap();
        bucket.prove().await.unwrap();
        let blocks = Arc::new(Blocks::open(bucket, &config, &env, me).await.unwrap());
        let db = Arc::new(Db::open(env.disk.clone(), DbSettings::default(), 0, 7, &Inline).unwrap().0);
        let id = TenantId::new("t").unwrap();
        let tenant = db.tenant(&id).unwrap();
        let series = tenant.intern_unnamed(&Labels::from_sorted([("__name__", "m")])).unwrap();
        let append = Append { series, sample: Sample::float(1_700_006_400_000, 1.0) };
        tenant.append(&[append], &Bounds::ALL, &mut Vec::new()).unwrap();

        let alone = Document::found(ClusterId(9), 7, 2, &[(me, member("a"))].into()).unwrap();
        let joined = alone.change(&Change::join(StoreId(2), member("b"))).and_then(|joint| joint.finish());
        let view = View::new(joined.unwrap()).unwrap();
        blocks.shipper.belongs_to(view.document().cluster);
        let keeper = Keeper::new(db, blocks.clone(), env.clock.clone(), env.pool.clone(), []);
        keeper.adopted(&view, me);
        store.on_writes(&[Fault::Denied; 100]);
        assert!(matches!(keeper.work().await, Err(NotYet::Upload(_))));
        assert!(keeper.vouches().placements.is_empty());
        store.forget();
        keeper.work().await.unwrap();
        let (vouched, catalog) = (keeper.vouches(), blocks.catalogs.refresh(&id).await.unwrap());
        assert_eq!(vouched.placements, [1].into());
        assert_eq!((catalog.blocks().count(), vouched.catalogs["t"]), (1, catalog.version()));
    }

    #[test]
    fn a_placement_is_marked_anew_when_another_follows_it_than_was_marked() {
        let first = (1..=3).map(|n| (StoreId(n), member(&format!("n{n}")))).collect();
        let three = Document::found(ClusterId(1), 2, 3, &first).unwrap();
        let joint = three.change(&Change::join(StoreId(9), member("n9"))).unwrap();
        let again = joint.revert().unwrap().change(&Change::join(StoreId(9), member("n9"))).unwrap();
        let anew = joint.write_off(&[StoreId(9), StoreId(3)].into()).unwrap();
        let (mut marks, mut last) = (Marks::default(), 0);
        let mut follow = |document: &Document| {
            let view = View::new(document.clone()).unwrap();
            marks.follow(&view, StoreId(1), || {
                last += 1;
                last
            })
        };
        assert_eq!(follow(&three), [].into());
        assert_eq!(follow(&joint), [1].into());
        assert_eq!(follow(&joint.finish().unwrap()), [].into());
        // A node may never have seen the document that took the transition back.
        assert_eq!(follow(&again), [1].into());
        assert_eq!(follow(&joint), [1].into());
        assert_eq!(follow(&anew), [1].into());
        assert_eq!(follow(&anew.finish().unwrap()), [].into());
    }
}

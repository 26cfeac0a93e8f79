//! Where series go: from the hash of their raw labels to their replicas, without parsing or hashing a label again.
//!
//! A route is made when a series is first seen, and made again from its token when the ring document changes. It also
//! holds the series' ref in the dictionary of each peer's stream. The cache is bounded: it has two generations, and
//! when the young one is full it becomes the old one, whose routes live on if they are used again.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use ring::placement::{StoreIndex, View};
use tsdb::db::SeriesKey;
use tsdb::model::TenantId;
use xxhash_rust::xxh3::xxh3_128;

/// Routes kept, of all tenants: some 200 bytes each. Beyond it series are parsed and hashed again.
const ROUTES_MAX: usize = 2_000_000;
/// Parts of the cache, each behind its own lock.
const SHARDS: usize = 64;

/// Replicas of a series in both write sets together.
pub const HOPS_MAX: usize = 2 * ring::MAX_REPLICATION_FACTOR as usize;

/// Which of a route's hops: bit i is hop i.
pub type Hops = u32;

/// Where one series goes.
#[derive(Debug)]
pub struct Route {
    /// Its place on the ring.
    pub token: u64,
    /// The document by which the rest was made.
    pub epoch: u64,
    /// Its replicas, each once.
    pub hops: Box<[Hop]>,
    /// Of which hops how many must have a sample: for each write set.
    pub quorums: Quorums,
}

/// What makes a write safe: enough of the hops of one set, or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorums([(Hops, u32); 2]);

/// One replica of a series.
#[derive(Debug)]
pub struct Hop {
    /// Which member of the route's document.
    pub store: StoreIndex,
    /// The generation of a dictionary in the upper half, the series' ref in it in the lower. Changed only under the
    /// lock of the peer's stream.
    slot: AtomicU64,
}

impl Hop {
    /// The series' ref in the dictionary of this generation.
    pub fn name(&self, generation: u32) -> Option<u32> {
        let slot = self.slot.load(Ordering::Relaxed);
        (slot >> 32 == u64::from(generation)).then_some(slot as u32)
    }

    /// Sets the series' ref.
    pub fn set_name(&self, generation: u32, name: u32) {
        self.slot.store(u64::from(generation) << 32 | u64::from(name), Ordering::Relaxed);
    }

    /// Forgets the series' ref.
    pub fn forget(&self) {
        self.slot.store(0, Ordering::Relaxed);
    }
}

impl Quorums {
    /// Of hops and how many of them are enough, for each set; a set that isn't there has no hops and needs none.
    pub const fn of(sets: [(Hops, u32); 2]) -> Self {
        Self(sets)
    }

    /// The hops of all sets.
    pub fn hops(&self) -> Hops {
        self.0[0].0 | self.0[1].0
    }

    /// Whether these hops are enough.
    #[inline]
    pub fn met(&self, hops: Hops) -> bool {
        if planted::is(planted::Bug::OneAck) {
            return self.0.iter().all(|(set, quorum)| *quorum == 0 || set & hops != 0);
        }
        self.0.iter().all(|(set, quorum)| (set & hops).count_ones() >= *quorum)
    }
}

impl Route {
    /// Works out where a token goes.
    pub fn new(view: &View, token: u64) -> Self {
        let mut hops: Vec<Hop> = Vec::with_capacity(HOPS_MAX);
        let mut quorums = [(0, 0); 2];
        for (quorum, set) in quorums.iter_mut().zip(view.write_sets(token).iter()) {
            quorum.1 = set.quorum as u32;
            for store in set.stores {
                let at = hops.iter().position(|hop| hop.store == *store).unwrap_or_else(|| {
                    hops.push(Hop { store: *store, slot: AtomicU64::new(0) });
                    hops.len() - 1
                });
                quorum.0 |= 1 << at;
            }
        }
        Self { token, epoch: view.epoch(), hops: hops.into(), quorums: Quorums(quorums) }
    }
}

/// The routes of all tenants.
pub struct Routes {
    shards: [RwLock<Shard>; SHARDS],
    max: usize,
}

#[derive(Default)]
struct Shard {
    young: Map,
    old: Map,
}

type Map = HashMap<u128, Arc<Route>, BuildHasherDefault<Low64>>;

/// Keys are hashes already.
#[derive(Default)]
struct Low64(u64);

impl Hasher for Low64 {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u128");
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What keeps the same labels of two tenants apart.
#[derive(Clone, Copy)]
pub struct Salt(u128);

impl Salt {
    /// Of a tenant.
    pub fn of(tenant: &TenantId) -> Self {
        Self(xxh3_128(tenant.as_str().as_bytes()))
    }
}

impl Default for Routes {
    fn default() -> Self {
        Self::bounded(ROUTES_MAX)
    }
}

impl Routes {
    fn bounded(max: usize) -> Self {
        Self { shards: std::array::from_fn(|_| RwLock::default()), max }
    }

    /// The route of a series by `view`, if it was seen before.
    pub fn find(&self, salt: Salt, key: SeriesKey, view: &View) -> Option<Arc<Route>> {
        let key = key.0 ^ salt.0;
        let shard = self.shard(key);
        let (route, is_young) = {
            let shard = shard.read();
            match shard.young.get(&key) {
                Some(route) => (route.clone(), true),
                None => (shard.old.get(&key)?.clone(), false),
            }
        };
        if is_young && route.epoch == view.epoch() {
            return Some(route);
        }
        let fresh = if route.epoch == view.epoch() { route } else { Arc::new(Route::new(view, route.token)) };
        self.keep(shard, key, &fresh);
        Some(fresh)
    }

    /// Remembers the route of a series.
    pub fn insert(&self, salt: Salt, key: SeriesKey, route: &Arc<Route>) {
        let key = key.0 ^ salt.0;
        self.keep(self.shard(key), key, route);
    }

    fn shard(&self, key: u128) -> &RwLock<Shard> {
        // The map uses the lower half.
        &self.shards[(key >> 64) as usize % SHARDS]
    }

    fn keep(&self, shard: &RwLock<Shard>, key: u128, route: &Arc<Route>) {
        let mut shard = shard.write();
        if shard.young.len() >= self.max / SHARDS / 2 && !shard.young.contains_key(&key) {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(key, route.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::view;
    use super::*;

    #[test]
    fn a_route_has_each_replica_once_and_counts_both_sets() {
        let quorums = Quorums([(0b0111, 2), (0b1110, 2)]);
        assert!(quorums.met(0b0110) && quorums.met(0b1101));
        assert!(!quorums.met(0b0011) && !quorums.met(0b1100) && !quorums.met(0));
        let single = Quorums([(0b111, 2), (0, 0)]);
        assert!(single.met(0b101) && !single.met(0b100));
    }

    #[test]
    fn routes_are_found_again_made_anew_for_a_new_document_and_bounded() {
        let (old, new) = (view(3, 3, 1), view(5, 3, 2));
        let routes = Routes::bounded(2 * SHARDS * 4);
        let salt = Salt::of(&"t".parse().unwrap());
        let key = |i: u64| {
            SeriesKey(u128::from(xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes())) << 64 | u128::from(i))
        };
        routes.insert(salt, key(0), &Arc::new(Route::new(&old, 7)));
        let route = routes.find(salt, key(0), &old).unwrap();
        assert_eq!((route.token, route.epoch, route.hops.len()), (7, 1, 3));
        route.hops[0].set_name(9, 11);
        assert_eq!(routes.find(salt, key(0), &old).unwrap().hops[0].name(9), Some(11));
        assert_eq!(route.hops[0].name(8), None);
        let anew = routes.find(salt, key(0), &new).unwrap();
        assert_eq!((anew.token, anew.epoch, anew.hops[0].name(9)), (7, 2, None));
        assert!(routes.find(Salt::of(&"u".parse().unwrap()), key(0), &new).is_none());
        // What is used stays, whatever else comes.
        for i in 1..5_000 {
            routes.insert(salt, key(i), &Arc::new(Route::new(&new, i)));
            assert!(routes.find(salt, key(0), &new).is_some(), "{i}");
        }
        let kept = (1..5_000).filter(|i| routes.find(salt, key(*i), &new).is_some()).count();
        assert!(kept < 2 * SHARDS * 4, "{kept}");
    }
}

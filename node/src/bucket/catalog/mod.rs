//! Catalogs: which blocks of a tenant are in the bucket. What isn't listed is invisible, whatever files lie there.
//!
//! 1. A catalog is one document per tenant (`document`), changed by compare-and-swap alone: read, change, swap; who
//!    loses reads again. Each change carries a nonce, so that a swap whose answer was lost isn't made twice.
//! 2. A node keeps the last one it saw of each tenant in memory and in its ledger, and goes on with it while the bucket
//!    is away: an owner that no longer has what an old version doesn't list says so, and the asker calls
//!    [`Catalogs::refresh`].
//! 3. A catalog only goes forward. One that is gone, cut short, older than what was seen, or of another history (the
//!    nonces of its changes tell), is told as [`Error::CatalogLost`], and neither believed nor written to: blocks that it forgot would be lost unseen.

mod document;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tsdb::model::TenantId;
use ulid::Ulid;

pub use document::{Catalog, Listed, NOBODY};

use super::error::{Error, Result};
use super::swap::{Swapped, Tag};
use super::{Bucket, keys};
use crate::env::{Env, Ledger, Pool, on_disk};

/// Names of catalogs in the ledger begin so.
const LEDGER_PREFIX: &str = "catalog/";
/// Swaps that may be lost to others before a change is given up, to be tried again later.
const CHANGE_ATTEMPTS: u32 = 20;
/// Pause after a lost swap.
const CHANGE_PAUSE: Duration = Duration::from_millis(50);
/// Reads of a catalog that seems to have gone backwards, before that is believed: a cache may have answered.
const REGRESS_READS: u32 = 3;
const REGRESS_PAUSE: Duration = Duration::from_millis(500);
/// Tenants that are remembered; beyond it those that have no catalog are forgotten: anybody can ask for any name.
const SLOTS_MAX: usize = 10_000;
/// How long a catalog that nobody asks for is refreshed.
const WANTED_FOR: Duration = Duration::from_secs(10 * 60);

/// The catalogs that a node knows.
pub struct Catalogs {
    bucket: Arc<Bucket>,
    ledger: Arc<dyn Ledger>,
    pool: Arc<dyn Pool>,
    nonces: Mutex<StdRng>,
    tenants: Mutex<BTreeMap<TenantId, Arc<Slot>>>,
}

struct Slot {
    tenant: TenantId,
    known: ArcSwap<Catalog>,
    /// One reader or writer of the document at a time; when the last successful reading since the start began.
    turn: tokio::sync::Mutex<Option<Instant>>,
    /// Set once a question has waited for the first reading: most tenants have no catalog, and theirs mustn't wait for
    /// the bucket again and again.
    looked: tokio::sync::OnceCell<()>,
    wanted: Mutex<Instant>,
}

impl Catalogs {
    /// The catalogs in a bucket, beginning with what the ledger has of them.
    ///
    /// # Errors
    /// When the ledger fails. A catalog in it that can't be read is left out: it is in the bucket.
    pub async fn open(bucket: Arc<Bucket>, env: &Env) -> Result<Self> {
        let (ledger, pool) = (env.ledger.clone(), env.pool.clone());
        let facts = on_disk(&*pool, move || ledger.scan(LEDGER_PREFIX)).await?;
        let mut tenants = BTreeMap::new();
        for (name, bytes) in facts {
            let tenant = TenantId::new(name.trim_start_matches(LEDGER_PREFIX))?;
            match Catalog::decode(&bytes) {
                Ok(catalog) => drop(tenants.insert(tenant.clone(), Arc::new(Slot::new(tenant, catalog)))),
                Err(error) => tracing::warn!(%tenant, error, "the ledger's copy of a catalog is damaged"),
            }
        }
        Ok(Self {
            bucket,
            ledger: env.ledger.clone(),
            pool: env.pool.clone(),
            nonces: Mutex::new(nonces(env.seed)),
            tenants: Mutex::new(tenants),
        })
    }

    /// What is known of a tenant's blocks. The first question about a tenant that this store never heard of looks into
    /// the bucket; all others are answered at once, by a catalog that is refreshed in the background.
    pub async fn current(&self, tenant: &TenantId) -> Arc<Catalog> {
        let slot = self.slot(tenant);
        *slot.wanted.lock() = Instant::now();
        if slot.known.load().version == 0 {
            let look = async {
                let mut turn = slot.turn.lock().await;
                if turn.is_none() {
                    *turn = Some(Instant::now());
                    // With no version at all owners leave nothing out: complete, if they still have everything.
                    if let Err(error) = self.reload(&slot).await {
                        tracing::warn!(%tenant, %error, "the catalog can't be read");
                    }
                }
            };
            slot.looked.get_or_init(|| look).await;
        }
        slot.known.load_full()
    }

    /// Reads a tenant's catalog again.
    ///
    /// # Errors
    /// What keeps the bucket from answering; [`Error::CatalogLost`]; [`Error::Corrupt`].
    pub async fn refresh(&self, tenant: &TenantId) -> Result<Arc<Catalog>> {
        let slot = self.slot(tenant);
        let asked = Instant::now();
        let mut turn = slot.turn.lock().await;
        // Many may have waited for the same news.
        if turn.is_none_or(|began| began <= asked) {
            let began = Instant::now();
            self.reload(&slot).await?;
            *turn = Some(began);
        }
        Ok(slot.known.load_full())
    }

    /// A catalog that isn't older than `version`: what is known, or read again.
    ///
    /// # Errors
    /// Those of [`Catalogs::refresh`]; [`Error::CatalogLost`] too when the bucket's is older: somebody has seen more.
    pub async fn at_least(&self, tenant: &TenantId, version: u64) -> Result<Arc<Catalog>> {
        let known = self.current(tenant).await;
        if known.version >= version {
            return Ok(known);
        }
        let known = self.refresh(tenant).await?;
        if known.version >= version {
            return Ok(known);
        }
        Err(lost(tenant, version, Some(&known), false))
    }

    /// Whether this node knows that a block is listed; never says so of one that isn't.
    pub fn is_listed(&self, tenant: &TenantId, ulid: Ulid) -> bool {
        self.slot(tenant).known.load().blocks.contains_key(&ulid)
    }

    /// Lists a block, whose files have been read back, and returns the version that lists it. One that is listed
    /// already stays as it is.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: it may be listed all the same; do it again. The others as [`Catalogs::refresh`].
    pub async fn list_block(&self, tenant: &TenantId, block: &Listed) -> Result<u64> {
        let change = |catalog: &Catalog, next: &mut Catalog| {
            if catalog.blocks.contains_key(&block.ulid) {
                return false;
            }
            let version = next.version;
            next.blocks.insert(block.ulid, Listed { version, ..block.clone() });
            true
        };
        let catalog = self.change(tenant, change).await?;
        Ok(catalog.block(block.ulid).expect("it was just listed, or had been").version)
    }

    /// The tenants of whose blocks this node knows.
    pub fn known(&self) -> Vec<TenantId> {
        let tenants = self.tenants.lock();
        let known = tenants.values().filter(|slot| slot.known.load().version > 0);
        known.map(|slot| slot.tenant.clone()).collect()
    }

    /// The tenants that have a catalog in the bucket.
    ///
    /// # Errors
    /// What keeps the bucket from answering.
    pub async fn tenants(&self) -> Result<Vec<TenantId>> {
        let entries = self.bucket.list(&keys::catalogs()).await?;
        Ok(entries.iter().filter_map(|entry| keys::tenant_of_catalog(&entry.key)).collect())
    }

    /// Reads catalogs that questions were asked about lately again and again, until `stop`.
    pub async fn keep_fresh(&self, every: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let slots: Vec<_> = self.tenants.lock().values().cloned().collect();
            for slot in slots {
                if slot.wanted.lock().elapsed() > WANTED_FOR {
                    continue;
                }
                match stop.run_until_cancelled(self.refresh(&slot.tenant)).await {
                    None => return,
                    Some(Ok(_)) => {}
                    // One outage is one line, not one for each tenant.
                    Some(Err(error @ Error::Unreachable { .. })) => {
                        tracing::warn!(%error, "catalogs can't be refreshed");
                        break;
                    }
                    Some(Err(error)) => {
                        tracing::error!(tenant = %slot.tenant, %error, "the catalog can't be used");
                    }
                }
            }
        }
    }

    /// Changes a tenant's catalog by compare-and-swap; `change` is asked again after each loss, and answers `false`
    /// where there is nothing left to do.
    async fn change(
        &self,
        tenant: &TenantId,
        change: impl Fn(&Catalog, &mut Catalog) -> bool,
    ) -> Result<Arc<Catalog>> {
        let slot = self.slot(tenant);
        let _turn = slot.turn.lock().await;
        let nonce = nonce(&mut self.nonces.lock());
        let mut attempts = 0;
        loop {
            let tag = self.reload(&slot).await?;
            let known = slot.known.load_full();
            let mut next = known.changed(nonce);
            let is_mine = known.nonces.contains(&nonce) && !planted::is(planted::Bug::NonceIgnored);
            if is_mine || !change(&known, &mut next) {
                return Ok(known);
            }
            let (key, bytes) = (keys::catalog(tenant), Bytes::from(next.encode()));
            let swapped = match &tag {
                Some(tag) => self.bucket.swap(&key, tag, &bytes).await?,
                None => self.bucket.put_if_absent(&key, &bytes).await?,
            };
            if let Swapped::Won(_) = swapped {
                self.learn(&slot, next, bytes).await?;
                return Ok(slot.known.load_full());
            }
            attempts += 1;
            if attempts == CHANGE_ATTEMPTS {
                let what =
                    format!("{attempts} changes of the catalog of tenant {tenant} lost to others: try again");
                return Err(Error::Limit(what));
            }
            tokio::time::sleep(CHANGE_PAUSE).await;
        }
    }

    /// Reads the document and learns it; its tag, where there is one. The caller has the turn.
    async fn reload(&self, slot: &Slot) -> Result<Option<Tag>> {
        let key = keys::catalog(&slot.tenant);
        let known = slot.known.load_full();
        for read in 1.. {
            let (found, tag) = match self.bucket.get(&key).await? {
                None => (None, None),
                Some((bytes, tag)) => match Catalog::decode(&bytes) {
                    Ok(catalog) => (Some((catalog, bytes)), Some(tag)),
                    Err(reason) => return Err(Error::Corrupt { key: key.to_string(), reason }),
                },
            };
            let none = Catalog::default();
            let seen = found.as_ref().map_or(&none, |(catalog, _)| catalog);
            if seen.may_follow(&known) {
                if let Some((catalog, bytes)) = found
                    && catalog.age() > known.age()
                {
                    self.learn(slot, catalog, bytes).await?;
                }
                return Ok(tag);
            }
            if read == REGRESS_READS {
                let catalog = found.as_ref().map(|(catalog, _)| catalog);
                let is_other = catalog.is_some_and(|catalog| catalog.age() >= known.age());
                return Err(lost(&slot.tenant, known.version, catalog, is_other));
            }
            tokio::time::sleep(REGRESS_PAUSE).await;
        }
        unreachable!("the last read returns")
    }

    /// Keeps a catalog, in the ledger first: what was seen once must be seen after a restart too.
    async fn learn(&self, slot: &Slot, catalog: Catalog, bytes: Bytes) -> Result<()> {
        let (ledger, name) = (self.ledger.clone(), format!("{LEDGER_PREFIX}{}", slot.tenant));
        on_disk(&*self.pool, move || ledger.put(&name, &bytes)).await?;
        slot.known.store(Arc::new(catalog));
        Ok(())
    }

    fn slot(&self, tenant: &TenantId) -> Arc<Slot> {
        let mut tenants = self.tenants.lock();
        if let Some(slot) = tenants.get(tenant) {
            return slot.clone();
        }
        if tenants.len() >= SLOTS_MAX {
            tenants.retain(|_, slot| slot.known.load().version > 0 || Arc::strong_count(slot) > 1);
        }
        let slot = Arc::new(Slot::new(tenant.clone(), Catalog::default()));
        tenants.entry(tenant.clone()).or_insert(slot).clone()
    }
}

impl Slot {
    fn new(tenant: TenantId, catalog: Catalog) -> Self {
        Self {
            tenant,
            known: ArcSwap::from_pointee(catalog),
            turn: tokio::sync::Mutex::new(None),
            looked: tokio::sync::OnceCell::new(),
            wanted: Mutex::new(Instant::now()),
        }
    }
}

/// `is_other`: what was found is of another history.
fn lost(tenant: &TenantId, seen: u64, found: Option<&Catalog>, is_other: bool) -> Error {
    let found = match found {
        None => "gone".to_owned(),
        Some(found) if is_other => format!("one that other changes have led to version {}", found.version),
        Some(found) => format!("at version {}", found.version),
    };
    Error::CatalogLost { tenant: tenant.to_string(), seen, found }
}

/// Randomness of its own, out of the node's.
fn nonces(of_node: u128) -> StdRng {
    let mut seed = *b"the node's seed, and the catalog";
    seed[..16].copy_from_slice(&of_node.to_le_bytes());
    StdRng::from_seed(seed)
}

fn nonce(random: &mut StdRng) -> u128 {
    u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
}

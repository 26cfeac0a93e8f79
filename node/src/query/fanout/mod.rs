//! Asking all who keep something, and judging what came back.
//!
//! 1. All owners in open placements that seem to be there are asked at once, this node among them. Those that seem to be
//!    away are asked only if the others can't answer for every range: what gossip says costs or saves time, and decides
//!    nothing.
//! 2. As soon as enough owners have answered for every range, the rest has [`STRAGGLER_WAIT`] left. A peer that is dead
//!    or slow costs that, and not the query's time.
//! 3. An answer may tell of a newer ring document. Then that is waited for, and everything is asked again.
//!
//! `select` fetches series, `names` anything else; `push` has owners aggregate what they keep.

mod names;
mod push;
mod select;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use ring::epoch::Epoch;
use ring::{StoreId, View};
use tokio::time::Instant;
use tsdb::model::TenantId;

pub(super) use push::{Folding, Part, Pushed};
pub(super) use select::Fetched;
pub(super) use stream::Purse;

use super::coverage::{Coverage, Silence, Standing, judge};
use super::reach::{Owners, Reach};
use super::{Error, QueryPermit, blocks};
use crate::bucket;
use crate::bucket::catalog::Catalog;
use crate::grpc::read::Opening;
use crate::node::App;

/// How long the last nodes are waited for once the others' answers are enough.
pub(super) const STRAGGLER_WAIT: Duration = Duration::from_millis(250);

/// How often a question is planned again because the ring changed meanwhile.
const PLANS_MAX: usize = 5;

/// Asks for one question.
pub(super) struct Asker<'a> {
    pub app: &'a Arc<App>,
    pub reach: &'a Reach,
    pub tenant: &'a TenantId,
    /// Pays for what comes.
    pub purse: &'a Purse,
    pub permit: &'a QueryPermit,
}

/// By what a question is asked.
struct Plan {
    view: Arc<View>,
    /// What the bucket holds, as far as that is known.
    catalog: Arc<Catalog>,
    /// Its version; `None` where it can't be read: then everything is asked of the owners, and what they have no more is
    /// missing.
    catalog_version: Option<u64>,
}

/// All answers, by the newest that anybody knows.
struct Settled<T, B> {
    owners: Owners,
    gathered: Gathered<T>,
    catalog_version: Option<u64>,
    /// From listed blocks.
    in_bucket: Option<B>,
    /// What of those can't be read.
    unread: Option<String>,
}

impl Asker<'_> {
    /// Asks all owners, and listed blocks, again and again until nobody knows of anything newer.
    async fn settled<'a, T: Send + 'a, B: Send>(
        &'a self,
        ask: impl Fn(&Plan, StoreId, Vec<StoreId>) -> Asking<'a, T>,
        in_bucket: impl Fn(Arc<Catalog>) -> BoxFuture<'a, bucket::Result<B>>,
    ) -> Result<Settled<T, B>, Error> {
        let mut plans = Plans::default();
        loop {
            let owners = self.reach.owners();
            let catalog = blocks::catalog(self.app, &owners.view, self.tenant, plans.catalog_min).await;
            let plan = Plan {
                view: owners.view.clone(),
                catalog: catalog.as_ref().map_or_else(|_| Arc::default(), Arc::clone),
                catalog_version: catalog.as_ref().ok().map(|catalog| catalog.version()),
            };
            let asking = gather(&owners, |_| STRAGGLER_WAIT, |store, asked| ask(&plan, store, asked));
            let (gathered, found) = futures_util::future::join(asking, in_bucket(plan.catalog.clone())).await;
            let gathered = gathered?;
            if let Err(bucket::Error::Replan { .. }) = &found {
                // A listed block is gone: a newer catalog says what took its place.
                plans.again(None)?;
                self.app.blocks.catalogs.refresh(self.tenant).await?;
                let (tenant, version) = (self.tenant, plan.catalog_version);
                tracing::debug!(%tenant, version, "a listed block is gone, asking again");
                continue;
            }
            if plans.is_settled(self.reach, &owners, &gathered).await? {
                let unread = catalog.as_ref().err().or(found.as_ref().err()).map(ToString::to_string);
                let (in_bucket, catalog_version) = (found.ok(), plan.catalog_version);
                return Ok(Settled { owners, gathered, catalog_version, in_bucket, unread });
            }
        }
    }
}

/// Why a store's answer is none.
#[derive(Debug)]
enum Failure {
    /// Its own fault, or the network's: the store is silent, and others may answer for it.
    Store(String),
    /// The question itself can't go on.
    Question(Error),
}

impl Failure {
    /// Why this store has no answer of its own. What its disk doesn't give back, other owners have: it is as silent as a
    /// peer would be that met the same, so that a rotted byte costs one owner and not the answer.
    fn of_own(error: Error) -> Self {
        match error {
            Error::Storage(error @ (tsdb::Error::Corrupt { .. } | tsdb::Error::Io { .. })) => {
                tracing::warn!(%error, "this store can't read what a query needs of it, and leaves the answer to others");
                Self::Store(format!(
                    "its disk doesn't give back what was written: {error}; look at the disk, and at the block with \
                     carillon blocks verify"
                ))
            }
            error => Self::Question(error),
        }
    }
}

/// One store's answer, on its way.
type Asking<'a, T> = BoxFuture<'a, Result<(Opening, T), Failure>>;

/// What came back.
struct Gathered<T> {
    answers: BTreeMap<StoreId, (Opening, T)>,
    silent: BTreeMap<StoreId, String>,
}

/// Asks all owners. `ask` gets a store and all that are asked with it. Once the others' answers are enough, the last ones
/// are waited for as long as `last_wait` says of the time that those took.
async fn gather<'a, T: Send + 'a>(
    owners: &Owners,
    last_wait: impl Fn(Duration) -> Duration,
    ask: impl Fn(StoreId, Vec<StoreId>) -> Asking<'a, T>,
) -> Result<Gathered<T>, Error> {
    let all = || {
        let mut all = [owners.likely.clone(), owners.suspects.clone()].concat();
        all.sort_unstable();
        all
    };
    let asking = |store: StoreId, asked: Vec<StoreId>| ask(store, asked).map(move |answer| (store, answer));
    let mut gathered = Gathered { answers: BTreeMap::new(), silent: BTreeMap::new() };
    let mut waiting: FuturesUnordered<_> =
        owners.likely.iter().map(|store| asking(*store, owners.likely.clone())).collect();
    let mut outstanding = owners.likely.clone();
    let mut suspects_are_asked = false;
    let began = Instant::now();
    let (mut patience, mut deadline) = (Duration::ZERO, None);
    loop {
        // Hoping that all answer that may: if that isn't enough, whoever else there is must be asked.
        let hope = |store, placement| match gathered.answers.get(&store) {
            None if outstanding.contains(&store) => Standing::Counted,
            _ => gathered.standing(store, placement),
        };
        if !suspects_are_asked && !judge(&owners.view, &hope).0.is_empty() {
            suspects_are_asked = true;
            for store in &owners.suspects {
                waiting.push(asking(*store, all()));
                outstanding.push(*store);
            }
        }
        if outstanding.is_empty() {
            return Ok(gathered);
        }
        if deadline.is_none() && gathered.is_enough(owners) {
            patience = last_wait(began.elapsed());
            deadline = Some(Instant::now() + patience);
        }
        let next = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, waiting.next()).await,
            None => Ok(waiting.next().await),
        };
        let Ok(Some((store, answer))) = next else {
            let late = |store| (store, format!("no answer {patience:?} after the others"));
            gathered.silent.extend(outstanding.into_iter().map(late));
            return Ok(gathered);
        };
        outstanding.retain(|waiting| *waiting != store);
        match answer {
            Ok(answer) => drop(gathered.answers.insert(store, answer)),
            Err(Failure::Store(why)) => drop(gathered.silent.insert(store, why)),
            Err(Failure::Question(error)) => return Err(error),
        }
    }
}

impl<T> Gathered<T> {
    fn standing(&self, store: StoreId, placement: Epoch) -> Standing {
        match self.answers.get(&store) {
            None => Standing::Silent,
            Some(_) if planted::is(planted::Bug::DisclaimedCounts) => Standing::Counted,
            Some((opening, _)) if opening.disclaimed.contains(&placement) => Standing::Disclaimed,
            Some(_) => Standing::Counted,
        }
    }

    fn is_enough(&self, owners: &Owners) -> bool {
        judge(&owners.view, &|store, placement| self.standing(store, placement)).0.is_empty()
    }

    /// The newest document that an answer goes by.
    fn newest(&self) -> Epoch {
        self.answers.values().map(|(opening, _)| opening.epoch).max().unwrap_or(0)
    }

    /// A store's answer turned out to be none.
    fn lose(&mut self, store: StoreId, why: String) {
        self.answers.remove(&store);
        self.silent.insert(store, why);
    }

    fn coverage(&self, owners: &Owners) -> Coverage {
        let view = &owners.view;
        let (missing, lossy) = judge(view, &|store, placement| self.standing(store, placement));
        let owner = |store: &StoreId| owners.likely.contains(store) || owners.suspects.contains(store);
        let named = |store: &StoreId| match view.document().members.get(store) {
            Some(member) => format!("{} at {}", member.name, member.peer_address),
            None => store.to_string(),
        };
        let mut silent: BTreeMap<_, _> = self
            .silent
            .iter()
            .map(|(store, why)| (*store, Silence { name: named(store), why: why.clone() }))
            .collect();
        for store in owners.suspects.iter().filter(|store| !self.answers.contains_key(store)) {
            let why = "it seems to be away, and wasn't asked".to_owned();
            silent.entry(*store).or_insert_with(|| Silence { name: named(store), why });
        }
        Coverage {
            epoch: view.epoch(),
            asked: owners.likely.len() + owners.suspects.len(),
            answered: self.answers.keys().filter(|store| owner(store)).count(),
            ranges: view.read_sets().iter().map(|table| table.ranges().len()).sum(),
            missing,
            lossy,
            unread: None,
            silent,
        }
    }
}

/// Counts how often a question is planned.
#[derive(Default)]
struct Plans {
    made: usize,
    /// The version of the catalog that is needed at least.
    catalog_min: u64,
}

impl Plans {
    /// Whether answers by `owners` are good: nobody told of a newer ring document or of a newer catalog. Where somebody
    /// did, it is taken, and everything has to be asked again.
    async fn is_settled<T>(
        &mut self,
        reach: &Reach,
        owners: &Owners,
        gathered: &Gathered<T>,
    ) -> Result<bool, Error> {
        let (known, newest) = (owners.view.epoch(), gathered.newest());
        let newest = if planted::is(planted::Bug::NewerEpochIgnored) { known } else { newest };
        let catalog_min = gathered.answers.values().filter_map(|(opening, _)| opening.stale_catalog).max();
        if newest <= known && catalog_min.is_none() {
            return Ok(true);
        }
        self.again(catalog_min)?;
        if newest <= known {
            return Ok(false);
        }
        if !reach.adopted(newest).await {
            return Err(Error::Behind { known, newest });
        }
        Ok(false)
    }

    /// Plans once more, with this version of the catalog at least.
    fn again(&mut self, catalog_min: Option<u64>) -> Result<(), Error> {
        self.made += 1;
        self.catalog_min = self.catalog_min.max(catalog_min.unwrap_or(0));
        if self.made >= PLANS_MAX { Err(Error::Restless) } else { Ok(()) }
    }
}

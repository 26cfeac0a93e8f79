//! Aggregations by those who keep the series: chunks stay where they are.
//!
//! 1. All owners are asked for digests of what they select ([`super::super::digests`]): of each bucket one.
//! 2. Of buckets whose digests aren't all the same, the owners give a digest of each series.
//! 3. Each series of which all owners have the same samples is folded by the one that would else have sent its chunks, the
//!    asker itself wherever it is an owner. Of the others the chunks are fetched, once for each digest, and folded here.
//!
//! Samples that arrive between the rounds are in the answer or not, as with any question; those that had been acknowledged
//! before it are with an owner whose digest was compared. Whatever isn't as usual is left to [`super::select`]: this way is
//! cheaper, and never the only one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::FutureExt as _;
use futures_util::future::{join, join_all};
use promql::{Folded, Plan, QueryRange};
use ring::{StoreId, StoreIndex, View};
use tsdb::digest::Digest;
use tsdb::model::TenantId;
use tsdb::select::Series;

use super::super::digests::{self, Buckets};
use super::super::own::{self, Own, Roles};
use super::super::{Error, blocks};
use super::{Asker, Failure, Fetched, STRAGGLER_WAIT, gather, stream};
use crate::grpc::read::{DigestsAsk, FoldAsk, Mark, SelectAsk};

/// With fewer series of its own, the asker fetches those of others: it takes one round less.
const SERIES_MIN: usize = 256;
/// How many times as large as their states series must be, as they are stored.
const SAVED_TIMES: usize = 4;
/// Where owners differ in more than one in so many of the asker's series, there is nothing to win.
const UNLIKE_PART: usize = 2;

/// A query as its owners are asked to fold it.
pub(in super::super) struct Folding<'a> {
    pub query: &'a str,
    pub experimental: bool,
    pub range: QueryRange,
    pub plan: Arc<Plan>,
    /// Whether it is done even where little or nothing is saved.
    pub is_forced: bool,
}

/// What is at hand, and what others have folded.
pub(in super::super) struct Pushed {
    pub fetched: Fetched,
    pub parts: Vec<Part>,
}

/// What one node has folded.
pub(in super::super) struct Part {
    pub name: String,
    pub folded: Folded,
    /// By aggregation, about the bytes of its answer.
    pub bytes: Vec<usize>,
}

/// Why it isn't done this way.
enum Stop {
    /// Series are to be fetched.
    Fetch(&'static str),
    /// The question itself can't go on.
    Question(Error),
}

type Pushing<T> = Result<T, Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Question(error)
    }
}

fn fetch<T>(why: &'static str) -> Pushing<T> {
    Err(Stop::Fetch(why))
}

/// An owner that fails now is dealt with by who fetches.
fn of_owner<T>(answer: Result<T, Failure>) -> Pushing<T> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(Failure::Peer(why)) => {
            tracing::debug!(why, "an owner failed while a query was pushed down");
            fetch("an owner failed on the way")
        }
        Err(Failure::Question(error)) => Err(error.into()),
    }
}

/// Marks by store, each by selection.
type Marks = BTreeMap<StoreId, Vec<Vec<Mark>>>;

/// Series in which owners differ.
#[derive(Default)]
struct Unlike {
    /// By selection, hashes of labels.
    series: Vec<BTreeSet<u64>>,
    /// From whom their chunks are fetched.
    wanted: BTreeMap<StoreId, Vec<BTreeMap<u64, Option<Digest>>>>,
}

impl Asker<'_> {
    /// Has owners fold what they have; in vain where this way isn't good, which isn't an error: then series are fetched.
    ///
    /// # Errors
    /// Whatever keeps the question from being answered.
    pub(in super::super) async fn push(
        &self,
        folding: &Folding<'_>,
    ) -> Result<Result<Pushed, &'static str>, Error> {
        match self.try_push(folding).await {
            Ok(pushed) => Ok(Ok(pushed)),
            Err(Stop::Fetch(why)) => Ok(Err(why)),
            Err(Stop::Question(error)) => Err(error),
        }
    }

    async fn try_push(&self, folding: &Folding<'_>) -> Pushing<Pushed> {
        if folding.plan.folds() == 0 {
            return fetch("its series are needed themselves");
        }
        let owners = self.reach.owners();
        let view = owners.view.clone();
        let [table] = view.read_sets() else { return fetch("several placements are open") };
        if table.members().len() != owners.likely.len() {
            return fetch("an owner seems to be away");
        }
        let me = self.reach.ring.me();
        let Some(index) = view.index(me).filter(|index| table.members().contains(index)) else {
            return fetch("this node keeps nothing");
        };
        let Ok(catalog) = blocks::catalog(self.app, &view, self.tenant, 0).await else {
            return fetch("the catalog can't be read");
        };
        let selects = folding.plan.selects();
        if selects.iter().any(|select| catalog.blocks_in(&select.range_ms).next().is_some()) {
            return fetch("the bucket has a part");
        }
        let ask = SelectAsk {
            tenant: self.tenant.clone(),
            selects: selects.to_vec(),
            asked: owners.likely.clone(),
            catalog_version: Some(catalog.version()),
            wanted: None,
        };

        let (app, plan, own_ask) = (self.app.clone(), folding.plan.clone(), ask.clone());
        let own = self.turn.on_cores(self.app, move |cancelled| {
            let own = own::series(&app, &own_ask, &|_, _| true, &catalog, cancelled)?;
            let bytes = plan.fold_bytes(&own);
            Ok((Arc::new(own), bytes))
        });
        let (own, (state_bytes, stored_bytes)) = own.await?;
        let count = own.iter().map(Vec::len).sum::<usize>();
        if !folding.is_forced && count < SERIES_MIN {
            return fetch("there are few series");
        }
        if !folding.is_forced && state_bytes.saturating_mul(SAVED_TIMES) > stored_bytes {
            return fetch("there are many groups");
        }

        let digests = |store, asked: Vec<StoreId>| {
            let ask = DigestsAsk { select: SelectAsk { asked, ..ask.clone() }, listed: None };
            let (view, own) = (view.clone(), own.clone());
            async move {
                if store != me {
                    return stream::digests(self.reach, store, &ask, self.purse).await;
                }
                let opening = self.reach.opening(&view);
                Ok((opening, self.own_digests(view, own, ask).await.map_err(Failure::Question)?))
            }
            .boxed()
        };
        // All are needed: without the last one everything that the others did was in vain.
        let mut gathered = gather(&owners, |took| took.max(STRAGGLER_WAIT), digests).await?;
        if gathered.answers.len() != owners.likely.len() {
            return fetch("an owner is silent");
        }
        for (opening, _) in gathered.answers.values() {
            check(opening, &view)?;
        }
        let take = |own: &mut Own| std::mem::take(&mut own.marks);
        let marks: Marks = gathered.answers.iter_mut().map(|(store, (_, own))| (*store, take(own))).collect();
        let unlike = self.unlike(&view, &ask, &own, marks, count).await?;

        let (inputs, parts, fetched) = self.parts(folding, &view, index, ask, own, unlike).await?;
        let mut sources: Vec<_> = inputs.into_iter().map(|series| vec![series]).collect();
        let mut names = vec![self.app.cluster.name(me)];
        for (store, by_select) in fetched {
            names.push(self.app.cluster.name(store));
            sources.iter_mut().zip(by_select).for_each(|(sources, series)| sources.push(series));
        }
        let coverage = gathered.coverage(&owners);
        Ok(Pushed { fetched: Fetched { sources, names, coverage }, parts })
    }

    async fn own_digests(
        &self,
        view: Arc<View>,
        own: Arc<Vec<Vec<Series>>>,
        ask: DigestsAsk,
    ) -> Result<Own, Error> {
        let me = view.index(self.reach.ring.me());
        let work = move |cancelled: &Arc<AtomicBool>| {
            let DigestsAsk { select: SelectAsk { tenant, selects, .. }, listed } = &ask;
            let buckets = Buckets::new(view.current(), tenant);
            let key = view.document().digest_key;
            let marks = match listed {
                None => digests::of_buckets(&buckets, selects, &own, key, cancelled),
                Some(listed) => digests::of_series(&buckets, listed, selects, &own, (key, me), cancelled),
            };
            Ok(Own { marks: marks?, series: Vec::new() })
        };
        self.turn.on_cores(self.app, work).await
    }

    /// The series in which owners differ, by the digests of all buckets.
    async fn unlike(
        &self,
        view: &Arc<View>,
        ask: &SelectAsk,
        own: &Arc<Vec<Vec<Series>>>,
        marks: Marks,
        count: usize,
    ) -> Pushing<Unlike> {
        let (of, tenant) = (view.clone(), self.tenant.clone());
        let work = move |_: &_| Ok(unequal_buckets(&of, &tenant, &marks));
        let Some(listed) = self.turn.on_cores(self.app, work).await? else {
            return fetch("an owner's answer is malformed");
        };
        let none = vec![BTreeSet::new(); ask.selects.len()];
        if listed.iter().all(BTreeSet::is_empty) {
            return Ok(Unlike { series: none, ..Unlike::default() });
        }
        let me = self.reach.ring.me();
        let ask = DigestsAsk { select: ask.clone(), listed: Some(listed) };
        let answers = ask.select.asked.iter().map(|store| {
            let ask = ask.clone();
            async move {
                if *store == me {
                    let own = self.own_digests(view.clone(), own.clone(), ask).await;
                    return (
                        *store,
                        own.map(|own| (self.reach.opening(view), own)).map_err(Failure::Question),
                    );
                }
                (*store, stream::digests(self.reach, *store, &ask, self.purse).await)
            }
        });
        let mut marks = Marks::new();
        for (store, answer) in join_all(answers).await {
            let (opening, own) = of_owner(answer)?;
            check(&opening, view)?;
            marks.insert(store, own.marks);
        }
        let copies = view.current().rf() as usize;
        let work = move |_: &_| Ok(unlike_series(&marks, me, copies));
        let unlike = self.turn.on_cores(self.app, work).await?;
        if unlike.series.iter().map(BTreeSet::len).sum::<usize>() > count / UNLIKE_PART {
            return fetch("the owners' samples differ too much");
        }
        Ok(unlike)
    }

    /// What is left to be folded here of the asker's own, what others have folded, and what was fetched of them.
    #[allow(clippy::type_complexity, reason = "told apart by their names")]
    async fn parts(
        &self,
        folding: &Folding<'_>,
        view: &Arc<View>,
        me: StoreIndex,
        ask: SelectAsk,
        own: Arc<Vec<Vec<Series>>>,
        unlike: Unlike,
    ) -> Pushing<(Vec<Vec<Series>>, Vec<Part>, Vec<(StoreId, Vec<Vec<Series>>)>)> {
        let Unlike { series: except, wanted } = unlike;
        let elsewhere = view.current().ranges().filter(|range| !range.owners.contains(&me));
        let folders: BTreeSet<_> = elsewhere.map(|range| view.store(range.owners[0])).collect();
        let fold_ask = FoldAsk {
            tenant: self.tenant.clone(),
            asked: ask.asked.clone(),
            catalog_version: ask.catalog_version,
            query: folding.query.to_owned(),
            range: folding.range,
            experimental: folding.experimental,
            except: except.clone(),
        };
        let folds = folders.into_iter().map(|store| {
            let fold_ask = &fold_ask;
            async move { (store, stream::fold(self.reach, store, fold_ask, self.purse).await) }
        });
        let fetches = wanted.into_iter().map(|(store, wanted)| {
            let ask = SelectAsk { wanted: Some(wanted), ..ask.clone() };
            async move { (store, stream::select(self.reach, store, &ask, self.purse).await) }
        });
        let (folds, fetches) = join(join_all(folds), join_all(fetches)).await;
        let (mut parts, mut fetched) = (Vec::new(), Vec::new());
        for (store, answer) in folds {
            let (opening, folded, bytes) = of_owner(answer)?;
            check(&opening, view)?;
            if !folding.plan.accepts(&folded) {
                return fetch("an owner's answer is malformed");
            }
            parts.push(Part { name: self.app.cluster.name(store), folded, bytes });
        }
        for (store, answer) in fetches {
            let (opening, own) = of_owner(answer)?;
            check(&opening, view)?;
            fetched.push((store, own.series));
        }
        let (view, tenant, store) = (view.clone(), self.tenant.clone(), self.reach.ring.me());
        let work = move |_: &_| {
            let roles = Roles::new(&view, &tenant, store, store, &ask.asked);
            let mut own = Arc::unwrap_or_clone(own);
            for (own, except) in own.iter_mut().zip(&except) {
                own.retain(|series| {
                    roles.sends(&series.labels)
                        || (!except.is_empty() && except.contains(&series.labels.hash64()))
                });
            }
            Ok(own)
        };
        Ok((self.turn.on_cores(self.app, work).await?, parts, fetched))
    }
}

/// Whether an answer goes by what the question goes by, and its sender vouches for it.
fn check(opening: &crate::grpc::read::Opening, view: &View) -> Pushing<()> {
    if opening.epoch != view.epoch() {
        return fetch("the ring has changed");
    }
    if opening.stale_catalog.is_some() {
        return fetch("the catalog has changed");
    }
    if !opening.disclaimed.is_empty() {
        return fetch("an owner doesn't vouch for what it has");
    }
    Ok(())
}

/// By selection, the buckets that aren't the same at all of their owners, or of which somebody else has something. `None`
/// where there is no such bucket.
fn unequal_buckets(view: &View, tenant: &TenantId, marks: &Marks) -> Option<Vec<BTreeSet<u32>>> {
    let buckets = Buckets::new(view.current(), tenant);
    let selects = marks.values().map(Vec::len).max().unwrap_or(0);
    let mut unequal = Vec::with_capacity(selects);
    for select in 0..selects {
        let mut told: BTreeMap<u32, BTreeMap<StoreIndex, u128>> = BTreeMap::new();
        for (store, marks) in marks {
            let index = view.index(*store)?;
            for mark in &marks[select] {
                let bucket = u32::try_from(mark.hash).ok()?;
                told.entry(bucket).or_default().insert(index, mark.fingerprint);
            }
        }
        let mut of_select = BTreeSet::new();
        for (bucket, told) in told {
            let owners = buckets.owners(bucket)?;
            let first = told.values().next();
            if !told.keys().eq(owners) || told.values().any(|digest| Some(digest) != first) {
                of_select.insert(bucket);
            }
        }
        unequal.push(of_select);
    }
    Some(unequal)
}

/// The series that aren't the same at all `copies` owners, and from whom each version is fetched that isn't here.
fn unlike_series(marks: &Marks, me: StoreId, copies: usize) -> Unlike {
    let selects = marks.values().map(Vec::len).max().unwrap_or(0);
    let mut unlike = Unlike { series: vec![BTreeSet::new(); selects], wanted: BTreeMap::new() };
    for select in 0..selects {
        let mut told: BTreeMap<u64, Vec<(StoreId, u128)>> = BTreeMap::new();
        for (store, marks) in marks {
            for mark in &marks[select] {
                told.entry(mark.hash).or_default().push((*store, mark.fingerprint));
            }
        }
        for (hash, told) in told {
            if told.len() == copies && told.iter().all(|(_, digest)| *digest == told[0].1) {
                continue;
            }
            unlike.series[select].insert(hash);
            let mine = told.iter().find(|(store, _)| *store == me).map(|(_, digest)| *digest);
            let mut known: BTreeSet<_> = mine.into_iter().collect();
            for (store, digest) in told {
                if known.insert(digest) {
                    let wanted = unlike.wanted.entry(store).or_insert_with(|| vec![BTreeMap::new(); selects]);
                    wanted[select].insert(hash, None);
                }
            }
        }
    }
    unlike
}

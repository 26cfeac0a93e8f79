//! Aggregations by those who keep the series: chunks stay where they are.
//!
//! 1. All owners are asked for digests of what they select ([`super::super::digests`]): of each bucket one.
//! 2. Of buckets whose digests aren't all the same, the owners look again and give sketches of what their series' digests
//!    are ([`super::super::sketch`]). From those the asker reads in which series they differ. Where it can't, since more
//!    do than was to be expected, and where lists would be shorter, they give a digest of each series.
//! 3. Each series of which all owners have the same samples is folded by the one that would else have sent its chunks, the
//!    asker itself wherever it is an owner. Of the others the chunks are fetched, once for each digest, and folded here.
//!
//! Samples that arrive between the rounds are in the answer or not, as with any question; those that had been acknowledged
//! before it are with an owner whose digest was compared. Whatever isn't as usual is left to [`super::select`]: this way is
//! cheaper, and never the only one. So is an owner that is silent for too long in a later round.

mod unlike;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join, join_all};
use promql::{Folded, Plan, QueryRange};
use ring::{StoreId, StoreIndex, View};
use tokio::time::Instant;
use tsdb::select::Series;

use super::super::digests::{self, Buckets};
use super::super::own::{self, Own, Roles};
use super::super::{Error, blocks};
use super::{Asker, Failure, Fetched, STRAGGLER_WAIT, gather, stream};
use crate::bucket::catalog::Catalog;
use crate::grpc::read::{DigestsAsk, FoldAsk, SelectAsk};
use unlike::{Answers, Unlike};

/// With fewer series of its own, the asker fetches those of others: it takes one round less.
const SERIES_MIN: usize = 256;
/// How many times as large as their states series must be, as they are stored.
const SAVED_TIMES: usize = 4;
/// Where owners differ in more than one in so many of the asker's series, there is nothing to win.
const UNLIKE_PART: usize = 2;
/// How many times as long as the first round a later one may take, beside [`STRAGGLER_WAIT`]: owners have just shown how
/// fast they are.
const LATER_TIMES: u32 = 4;
/// So many steps of a fold may take as long as the first round once more. Most take much less: of series whose digests cost
/// a decoded chunk, steps cost a window each.
const STEPS_OF_ROUND: usize = 4;

/// A query as its owners are asked to fold it.
pub(in super::super) struct Folding<'a> {
    pub query: &'a str,
    pub experimental: bool,
    pub delayed_name_removal: bool,
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
        Failure::of_own(error).into()
    }
}

impl From<Failure> for Stop {
    /// An owner that fails now, this node among them, is dealt with by who fetches.
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(why) => {
                tracing::debug!(why, "an owner failed while a query was pushed down");
                Self::Fetch("an owner failed on the way")
            }
            Failure::Question(error) => Self::Question(error),
        }
    }
}

fn fetch<T>(why: &'static str) -> Pushing<T> {
    Err(Stop::Fetch(why))
}

/// What is compared, and how.
struct Comparing<'a> {
    view: &'a Arc<View>,
    catalog: &'a Arc<Catalog>,
    ask: &'a SelectAsk,
    /// How long the first round took.
    took: Duration,
}

impl Comparing<'_> {
    /// What owners answer within the time that their work may take, beside that of so many steps; who is slower is dealt
    /// with by who fetches.
    async fn within<T>(&self, steps: usize, answers: impl Future<Output = T>) -> Pushing<T> {
        let times = LATER_TIMES.saturating_add(u32::try_from(steps / STEPS_OF_ROUND).unwrap_or(u32::MAX));
        let patience = STRAGGLER_WAIT.saturating_add(self.took.saturating_mul(times));
        match tokio::time::timeout(patience, answers).await {
            Ok(answers) => Ok(answers),
            Err(_) => fetch("an owner took too long"),
        }
    }
}

/// The asker's own series, by selection.
type Owned = Arc<Vec<Vec<Series>>>;

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

        let own = self.own_series(&ask, &catalog).await?;
        let count = own.iter().map(Vec::len).sum::<usize>();
        if !folding.is_forced {
            if count < SERIES_MIN {
                return fetch("there are few series");
            }
            let (plan, own) = (folding.plan.clone(), own.clone());
            let (state_bytes, stored_bytes) =
                self.permit.on_cores(self.app, move |_| Ok(plan.fold_bytes(&own))).await?;
            if state_bytes.saturating_mul(SAVED_TIMES) > stored_bytes {
                return fetch("there are many groups");
            }
        }

        let began = Instant::now();
        let digests = |store, asked: Vec<StoreId>| {
            let ask =
                DigestsAsk { select: SelectAsk { asked, ..ask.clone() }, listed: None, is_sketched: false };
            let (view, own) = (view.clone(), own.clone());
            async move {
                if store != me {
                    return stream::digests(self.reach, store, &ask, self.purse).await;
                }
                let opening = self.reach.opening(&view);
                Ok((opening, self.own_digests(&view, own, ask).await.map_err(Failure::of_own)?))
            }
            .boxed()
        };
        // All are needed: without the last one everything that the others did was in vain.
        let gathered = gather(&owners, |took| took.max(STRAGGLER_WAIT), digests).await?;
        if gathered.answers.len() != owners.likely.len() {
            return fetch("an owner is silent");
        }
        let coverage = gathered.coverage(&owners);
        let mut answers = Answers::new();
        for (store, (opening, own)) in gathered.answers {
            check(&opening, &view)?;
            answers.insert(store, own);
        }
        let comparing = Comparing { view: &view, catalog: &catalog, ask: &ask, took: began.elapsed() };
        let (unlike, own) = self.unlike(&comparing, own, answers).await?;

        let (inputs, parts, fetched) = self.parts(folding, &comparing, index, own, unlike).await?;
        let mut sources: Vec<_> = inputs.into_iter().map(|series| vec![series]).collect();
        let mut names = vec![self.app.cluster.name(me)];
        for (store, by_select) in fetched {
            names.push(self.app.cluster.name(store));
            sources.iter_mut().zip(by_select).for_each(|(sources, series)| sources.push(series));
        }
        Ok(Pushed { fetched: Fetched { sources, names, coverage }, parts })
    }

    async fn own_series(&self, ask: &SelectAsk, catalog: &Arc<Catalog>) -> Result<Owned, Error> {
        let (app, ask, catalog) = (self.app.clone(), ask.clone(), catalog.clone());
        let work =
            move |cancelled: &Arc<AtomicBool>| own::series(&app, &ask, &|_, _| true, &catalog, cancelled);
        Ok(Arc::new(self.permit.on_cores(self.app, work).await?))
    }

    async fn own_digests(&self, view: &Arc<View>, own: Owned, ask: DigestsAsk) -> Result<Own, Error> {
        let (view, me) = (view.clone(), self.reach.ring.me());
        let work = move |cancelled: &Arc<AtomicBool>| digests::own(&view, me, &ask, &own, cancelled);
        self.permit.on_cores(self.app, work).await
    }

    /// The series in which owners differ, by the digests of all buckets; and the asker's own as they were compared.
    async fn unlike(
        &self,
        comparing: &Comparing<'_>,
        mut own: Owned,
        answers: Answers,
    ) -> Pushing<(Unlike, Owned)> {
        let Comparing { view, ask, .. } = *comparing;
        let (me, count) = (self.reach.ring.me(), own.iter().map(Vec::len).sum::<usize>());
        let own_buckets = answers[&me].marks.iter().map(Vec::len).sum::<usize>();
        let (of, tenant) = (view.clone(), self.tenant.clone());
        let work = move |_: &_| {
            let buckets = Buckets::new(of.current(), &tenant);
            let listed = unlike::unequal_buckets(&of, &buckets, &answers);
            let each = count / own_buckets.max(1);
            Ok(listed.map(|listed| (unlike::is_shorter_sketched(&buckets, &listed, each), listed)))
        };
        let Some((is_sketched, mut listed)) = self.permit.on_cores(self.app, work).await? else {
            return fetch("an owner's answer is malformed");
        };
        let mut unlike = Unlike::of(ask.selects.len());
        for is_sketched in [true, false].into_iter().skip(usize::from(!is_sketched)) {
            if listed.iter().all(BTreeSet::is_empty) {
                break;
            }
            let answers;
            (answers, own) = self.listed(comparing, &listed, is_sketched).await?;
            let (of, tenant) = (view.clone(), self.tenant.clone());
            let work = move |_: &_| {
                if is_sketched {
                    let buckets = Buckets::new(of.current(), &tenant);
                    listed = unlike.read_sketches(&of, &buckets, &answers, me, &listed);
                } else {
                    unlike.read_marks(&answers, me, of.current().rf() as usize);
                    listed.clear();
                }
                Ok((unlike, listed))
            };
            (unlike, listed) = self.permit.on_cores(self.app, work).await?;
        }
        if unlike.series.iter().map(BTreeSet::len).sum::<usize>() > count / UNLIKE_PART {
            return fetch("the owners' samples differ too much");
        }
        Ok((unlike, own))
    }

    /// Digests of the series in listed buckets, from all; and the asker's own series, which it looks for again: what came
    /// to the others since the question began has come here, too, nearly always.
    async fn listed(
        &self,
        comparing: &Comparing<'_>,
        listed: &[BTreeSet<u32>],
        is_sketched: bool,
    ) -> Pushing<(Answers, Owned)> {
        let Comparing { view, catalog, ask, .. } = *comparing;
        let me = self.reach.ring.me();
        let ask = DigestsAsk { select: ask.clone(), listed: Some(listed.to_vec()), is_sketched };
        let theirs = ask.select.asked.iter().filter(|store| **store != me).map(|store| {
            let ask = &ask;
            async move { (*store, stream::digests(self.reach, *store, ask, self.purse).await) }
        });
        let ours = async {
            let own = self.own_series(&ask.select, catalog).await?;
            Ok::<_, Error>((self.own_digests(view, own.clone(), ask.clone()).await?, own))
        };
        let (theirs, ours) = join(comparing.within(0, join_all(theirs)), ours).await;
        let (of_own, own) = ours?;
        let mut answers = Answers::from([(me, of_own)]);
        for (store, answer) in theirs? {
            let (opening, own) = answer?;
            check(&opening, view)?;
            answers.insert(store, own);
        }
        Ok((answers, own))
    }

    /// What is left to be folded here of the asker's own, what others have folded, and what was fetched of them.
    #[allow(clippy::type_complexity, reason = "told apart by their names")]
    async fn parts(
        &self,
        folding: &Folding<'_>,
        comparing: &Comparing<'_>,
        me: StoreIndex,
        own: Owned,
        unlike: Unlike,
    ) -> Pushing<(Vec<Vec<Series>>, Vec<Part>, Vec<(StoreId, Vec<Vec<Series>>)>)> {
        let Comparing { view, ask, .. } = *comparing;
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
            delayed_name_removal: folding.delayed_name_removal,
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
        let answers = join(join_all(folds), join_all(fetches));
        let (folds, fetches) = comparing.within(folding.range.grid().count, answers).await?;
        let (mut parts, mut fetched) = (Vec::new(), Vec::new());
        for (store, answer) in folds {
            let (opening, folded, bytes) = answer?;
            check(&opening, view)?;
            if !folding.plan.accepts(&folded) {
                return fetch("an owner's answer is malformed");
            }
            parts.push(Part { name: self.app.cluster.name(store), folded, bytes });
        }
        for (store, answer) in fetches {
            let (opening, own) = answer?;
            check(&opening, view)?;
            fetched.push((store, own.series));
        }
        let (view, ask, store) = (view.clone(), ask.clone(), self.reach.ring.me());
        let work = move |_: &_| {
            let roles = Roles::new(&view, &ask.tenant, store, store, &ask.asked);
            let mut own = Arc::unwrap_or_clone(own);
            for (own, except) in own.iter_mut().zip(&except) {
                own.retain(|series| {
                    roles.sends(&series.labels)
                        || (!except.is_empty() && except.contains(&series.labels.hash64()))
                });
            }
            Ok(own)
        };
        Ok((self.permit.on_cores(self.app, work).await?, parts, fetched))
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

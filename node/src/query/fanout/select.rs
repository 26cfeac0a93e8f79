//! Series from all who keep them, each at least once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::FutureExt as _;
use ring::{StoreId, View};
use tsdb::chunk::Columns;
use tsdb::digest::{Digest, DigestKey};
use tsdb::select::{Select, Series, merge_series};

use super::super::coverage::Coverage;
use super::super::own::{self, Own, mark};
use super::super::reach::Owners;
use super::super::{Error, blocks};
use super::{Asker, Failure, Gathered, Plan, Settled, stream};
use crate::bucket::catalog::Catalog;
use crate::grpc::read::{Mark, Opening, SelectAsk};

/// Series of every selection, and who answered.
pub(in super::super) struct Fetched {
    /// By selection, then by source; each sorted by labels.
    pub sources: Vec<Vec<Vec<Series>>>,
    /// What those sources are called, in their order.
    pub names: Vec<String>,
    pub coverage: Coverage,
}

impl Asker<'_> {
    /// Fetches series from all who keep any.
    ///
    /// # Errors
    /// Whatever keeps the question from being answered; missing owners aren't an error here.
    pub(in super::super) async fn fetch(&self, selects: &[Select]) -> Result<Fetched, Error> {
        let ask = |plan: &Plan, store, asked| {
            let (tenant, selects) = (self.tenant.clone(), selects.to_vec());
            let ask =
                SelectAsk { tenant, selects, asked, catalog_version: plan.catalog_version, wanted: None };
            self.one(plan.view.clone(), plan.catalog.clone(), store, ask).boxed()
        };
        let in_bucket = |catalog: Arc<Catalog>| {
            async move { blocks::select(self.app, self.tenant, &catalog, selects).await }.boxed()
        };
        let Settled { owners, mut gathered, catalog_version, in_bucket, unread } =
            self.settled(ask, in_bucket).await?;
        let digest_key = owners.view.document().digest_key;
        let mut held = Held { selects: selects.to_vec(), digest_key, ..Held::default() };
        let mut marks = BTreeMap::new();
        for (store, (_, own)) in &mut gathered.answers {
            held.sources.push((*store, std::mem::take(&mut own.series)));
            marks.insert(*store, std::mem::take(&mut own.marks));
        }
        if marks.values().flatten().any(|marks| !marks.is_empty()) {
            held = self.second_rounds(&owners, &mut gathered, marks, held, catalog_version).await?;
        }
        let mut sources: Vec<Vec<Vec<Series>>> = vec![Vec::new(); selects.len()];
        let named = held.sources.iter().map(|(store, _)| self.app.cluster.name(*store));
        let names = named.chain(in_bucket.iter().map(|_| "bucket".to_owned())).collect();
        let of_owners = held.sources.into_iter().map(|(_, by_select)| by_select);
        for by_select in of_owners.chain(in_bucket) {
            for (sources, series) in sources.iter_mut().zip(by_select) {
                sources.push(series);
            }
        }
        Ok(Fetched { sources, names, coverage: Coverage { unread, ..gathered.coverage(&owners) } })
    }

    /// One store's answer: this one's own, or a peer's.
    async fn one(
        &self,
        view: Arc<View>,
        catalog: Arc<Catalog>,
        store: StoreId,
        ask: SelectAsk,
    ) -> Result<(Opening, Own), Failure> {
        if store != self.reach.ring.me() {
            return stream::select(self.reach, store, &ask, self.purse).await;
        }
        let (app, digest_key) = (self.app.clone(), view.document().digest_key);
        // What is here costs nothing to have: all chunks, and no marks.
        let work = move |cancelled: &Arc<AtomicBool>| {
            own::select(&app, &ask, &|_| true, &catalog, digest_key, cancelled)
        };
        let own = self.permit.on_cores(self.app, work).await.map_err(Failure::of_own)?;
        self.purse.pay_for(&own.series).map_err(Failure::Question)?;
        Ok((self.reach.opening(&view), own))
    }

    /// Asks for what marks tell of and nobody has sent. A store that fails is lost: what it alone has told of won't come,
    /// its answer isn't counted, and what others have told of, too, is asked of them.
    async fn second_rounds(
        &self,
        owners: &Owners,
        gathered: &mut Gathered<Own>,
        mut marks: BTreeMap<StoreId, Vec<Vec<Mark>>>,
        mut held: Held,
        catalog_version: Option<u64>,
    ) -> Result<Held, Error> {
        let mut served: BTreeSet<(usize, Mark)> = BTreeSet::new();
        loop {
            let work = move |_: &Arc<AtomicBool>| {
                let wants = held.wants(&marks, &served)?;
                Ok((held, marks, served, wants))
            };
            let wants;
            (held, marks, served, wants) = self.permit.on_cores(self.app, work).await?;
            let asks = wants.into_iter().map(|(store, want)| {
                let ask = SelectAsk {
                    tenant: self.tenant.clone(),
                    selects: held.selects.clone(),
                    asked: owners.likely.clone(),
                    catalog_version,
                    wanted: Some(want.series),
                };
                async move { (store, want.marks, stream::select(self.reach, store, &ask, self.purse).await) }
            });
            let mut is_complete = true;
            for (store, of_store, answer) in futures_util::future::join_all(asks).await {
                match answer {
                    Ok((_, own)) => {
                        held.sources.push((store, own.series));
                        served.extend(of_store);
                    }
                    Err(Failure::Store(why)) => {
                        is_complete = false;
                        marks.remove(&store);
                        gathered.lose(store, why);
                    }
                    Err(Failure::Question(error)) => return Err(error),
                }
            }
            // Each mark is here now, or was wanted of the one store that has just served it.
            if is_complete {
                return Ok(held);
            }
        }
    }
}

/// What has come so far.
#[derive(Default)]
struct Held {
    selects: Vec<Select>,
    digest_key: u128,
    /// By arrival: series by selection.
    sources: Vec<(StoreId, Vec<Vec<Series>>)>,
}

/// What is wanted of one store.
#[derive(Default)]
struct Want {
    /// By selection: hashes of labels, with the digest of what is there already.
    series: Vec<BTreeMap<u64, Option<Digest>>>,
    /// The marks that this answers.
    marks: Vec<(usize, Mark)>,
}

impl Held {
    /// What marks tell of that isn't here and wasn't served: each from the first store that told of it.
    fn wants(
        &self,
        marks: &BTreeMap<StoreId, Vec<Vec<Mark>>>,
        served: &BTreeSet<(usize, Mark)>,
    ) -> Result<BTreeMap<StoreId, Want>, Error> {
        let mut wants: BTreeMap<StoreId, Want> = BTreeMap::new();
        let mut columns = Columns::default();
        for select in 0..self.selects.len() {
            if marks.values().all(|marks| marks[select].is_empty()) {
                continue;
            }
            let mut known: BTreeSet<Mark> =
                served.iter().filter(|(i, _)| *i == select).map(|(_, mark)| *mark).collect();
            let mut places: BTreeMap<u64, Vec<&Series>> = BTreeMap::new();
            for series in self.sources.iter().flat_map(|(_, source)| &source[select]) {
                let mark = mark(series, self.digest_key);
                known.insert(mark);
                places.entry(mark.hash).or_default().push(series);
            }
            for (store, marks) in marks {
                for mark in &marks[select] {
                    if !known.insert(*mark) {
                        continue;
                    }
                    let digest = match places.get(&mark.hash) {
                        Some(parts) => Some(self.digest(parts, select, &mut columns)?),
                        None => None,
                    };
                    let want = wants.entry(*store).or_default();
                    want.series.resize(self.selects.len(), BTreeMap::new());
                    want.series[select].insert(mark.hash, digest);
                    want.marks.push((select, *mark));
                }
            }
        }
        Ok(wants)
    }

    /// Of the samples that are here of a series.
    fn digest(&self, parts: &[&Series], select: usize, columns: &mut Columns) -> Result<Digest, Error> {
        let sources = parts.iter().map(|part| vec![(*part).clone()]).collect();
        let key = DigestKey::new(self.digest_key);
        let range_ms = &self.selects[select].range_ms;
        let merged = merge_series(sources)?;
        let digests = merged.iter().map(|series| series.digest(key, range_ms.clone(), columns));
        Ok(digests.sum::<tsdb::Result<Digest>>()?)
    }
}

#[cfg(test)]
mod tests {
    use tsdb::model::{Labels, Sample};

    use super::*;

    const KEY: u128 = 1 << 64 | 7;

    fn series(name: &str, samples: &[(i64, f64)]) -> Series {
        let samples: Vec<_> = samples.iter().map(|(t, v)| Sample::float(*t, *v)).collect();
        Series::from_samples(Labels::from_sorted([("__name__", name)]), &samples)
    }

    fn held(sources: &[(u128, Vec<Series>)]) -> Held {
        let select = Select { matchers: Vec::new(), range_ms: 0..=100, shard: None };
        let sources = sources.iter().map(|(store, series)| (StoreId(*store), vec![series.clone()])).collect();
        Held { selects: vec![select], digest_key: KEY, sources }
    }

    fn told(marks: &[(u128, &[&Series])]) -> BTreeMap<StoreId, Vec<Vec<Mark>>> {
        let of = |series: &&Series| mark(series, KEY);
        marks.iter().map(|(store, all)| (StoreId(*store), vec![all.iter().map(of).collect()])).collect()
    }

    fn wanted(wants: &BTreeMap<StoreId, Want>) -> Vec<(u128, usize)> {
        wants.iter().map(|(store, want)| (store.0, want.series[0].len())).collect()
    }

    #[test]
    fn what_is_the_same_is_not_fetched_again() {
        let (a, b) = (series("a", &[(1, 1.0)]), series("b", &[(1, 1.0)]));
        let held = held(&[(1, vec![a.clone(), b.clone()])]);
        assert!(held.wants(&told(&[(2, &[&a, &b]), (3, &[&a])]), &BTreeSet::new()).unwrap().is_empty());
    }

    #[test]
    fn what_differs_is_fetched_once_with_the_digest_of_what_is_here() {
        let (a, more) = (series("a", &[(1, 1.0)]), series("a", &[(1, 1.0), (2, 2.0)]));
        let other = series("b", &[(1, 1.0)]);
        let held = held(&[(1, vec![a.clone()])]);
        let told = told(&[(2, &[&more, &other]), (3, &[&more])]);
        let wants = held.wants(&told, &BTreeSet::new()).unwrap();
        assert_eq!(wanted(&wants), [(2, 2)]);
        let want = &wants[&StoreId(2)].series[0];
        let digest = a.digest(DigestKey::new(KEY), 0..=100, &mut Columns::default()).unwrap();
        assert_eq!(want[&a.labels.hash64()], Some(digest));
        assert_eq!(want[&other.labels.hash64()], None);
        // Served once, it isn't asked for again, whatever came: new samples may have changed it meanwhile.
        let served: BTreeSet<_> = wants.values().flat_map(|want| want.marks.clone()).collect();
        assert!(held.wants(&told, &served).unwrap().is_empty());
    }
}

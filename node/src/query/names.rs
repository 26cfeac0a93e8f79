//! What there is: labels, their values, series, metadata, exemplars, and how much of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tsdb::db::{Exemplar, Metadata, SeriesExemplars, Tenant};
use tsdb::model::{Labels, Matcher, TenantId};
use tsdb::weight::{Scale, Weight};
use ulid::Ulid;

use super::coverage::Coverage;
use super::permits::Switch;
use super::{Error, Size, fanout, permits};
use crate::bucket::remote::Weighed;
use crate::node::App;

/// Which series a question is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// One of these must match whole; none = all series.
    pub selectors: Vec<Vec<Matcher>>,
    /// Timestamps, in milliseconds, both ends included.
    pub range_ms: RangeInclusive<i64>,
}

/// A question; limits say how many entries are wanted, 0 = all.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Label names.
    Names(Scope, usize),
    /// Values of the label.
    Values(String, Scope, usize),
    /// Series' labels.
    Series(Scope, usize),
    /// Metadata of one family or of all.
    Metadata(Option<String>, usize),
    /// Exemplars.
    Exemplars(Scope),
    /// How many series of the head have each label, each series counted once.
    Counts,
    /// What reading series would take, each counted once.
    Cost(Scope),
}

/// A label's name and value.
pub type Pair = (String, String);

/// An answer: sorted, nothing twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Names or values.
    Texts(Vec<String>),
    /// Labels of series.
    Series(Vec<Labels>),
    /// By family.
    Metadata(Vec<Metadata>),
    /// By labels.
    Exemplars(Vec<SeriesExemplars>),
    /// Series by label.
    Counts(BTreeMap<Pair, u64>),
    /// What reading takes.
    Cost(Cost),
}

/// What reading series takes, of nodes and of the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// What nodes keep.
    pub nodes: Weight,
    /// What the bucket's blocks hold.
    pub bucket: Weighed,
}

impl Cost {
    /// Of all together. A series that both nodes and blocks have counts once as far as that is known: there are at least
    /// as many as where more are.
    pub fn total(&self) -> Weight {
        let (a, b) = (&self.nodes, &self.bucket.weight);
        Weight {
            series: a.series.max(b.series),
            chunks: a.chunks + b.chunks,
            samples: a.samples + b.samples,
            bytes: a.bytes + b.bytes,
        }
    }

    /// Adds what something else takes.
    pub fn add(&mut self, other: &Self) {
        let add = |sum: &mut Weight, more: &Weight| {
            sum.series += more.series;
            sum.chunks += more.chunks;
            sum.samples += more.samples;
            sum.bytes += more.bytes;
        };
        add(&mut self.nodes, &other.nodes);
        add(&mut self.bucket.weight, &other.bucket.weight);
        self.bucket.blocks_to_fetch += other.bucket.blocks_to_fetch;
        self.bucket.bytes_to_fetch += other.bucket.bytes_to_fetch;
    }
}

/// An answer, and who gave it.
#[derive(Debug)]
pub struct Answer {
    /// What was found.
    pub found: Found,
    /// What isn't as it should be.
    pub warnings: Vec<String>,
    /// Who answered.
    pub coverage: Coverage,
}

/// Answers a question.
///
/// # Errors
/// Whatever keeps it from being answered; with `partial`, missing owners are a warning.
pub(crate) async fn ask(
    app: &Arc<App>,
    tenant: TenantId,
    question: Question,
    timeout: Duration,
    partial: bool,
) -> Result<Answer, Error> {
    let switch = Switch::default();
    let asked = permits::within(timeout, async {
        let permit = app.query_permit(&tenant, &switch).await?;
        let Some(reach) = app.queries.elsewhere(app, &tenant).await else {
            let own = app.storage.existing(&tenant);
            let (of, asked, question) = (own.clone(), question.clone(), question.clone());
            let prepare = move || Ok((Size::of_names(of.as_deref(), &asked)?, ()));
            let found = permit.on_cores_by_size(app, prepare, move |(), cancelled| match own {
                Some(tenant) => question.of(&tenant, &|_| true, &|_| false, cancelled),
                None => Ok(question.nothing()),
            });
            return Ok((found.await?, Coverage::alone()));
        };
        let (own, asked) = (app.storage.existing(&tenant), question.clone());
        let size = permit.on_cores(app, move |_| Size::of_names(own.as_deref(), &asked));
        permit.has_size(size.await?);
        let purse = app.purse(&tenant);
        let asker = fanout::Asker { app, reach, tenant: &tenant, purse: &purse, permit: &permit };
        asker.ask(&question).await
    });
    let (found, coverage) = asked.await?;
    let warnings = app.queries.judged(&coverage, partial)?;
    Ok(Answer { found, warnings, coverage })
}

impl Question {
    /// The answer where there is nothing.
    pub fn nothing(&self) -> Found {
        match self {
            Self::Names(..) | Self::Values(..) => Found::Texts(Vec::new()),
            Self::Series(..) => Found::Series(Vec::new()),
            Self::Metadata(..) => Found::Metadata(Vec::new()),
            Self::Exemplars(..) => Found::Exemplars(Vec::new()),
            Self::Counts => Found::Counts(BTreeMap::new()),
            Self::Cost(_) => Found::Cost(Cost::default()),
        }
    }

    /// One answer out of several.
    pub fn merged(&self, all: impl Iterator<Item = Found>) -> Found {
        let limited = |limit: usize| if limit == 0 { usize::MAX } else { limit };
        match self {
            Self::Names(_, limit) | Self::Values(_, _, limit) => {
                let texts =
                    all.filter_map(|found| if let Found::Texts(texts) = found { Some(texts) } else { None });
                let texts: BTreeSet<_> = texts.flatten().collect();
                Found::Texts(texts.into_iter().take(limited(*limit)).collect())
            }
            Self::Series(_, limit) => {
                let series = all
                    .filter_map(|found| if let Found::Series(series) = found { Some(series) } else { None });
                let series: BTreeSet<_> = series.flatten().collect();
                Found::Series(series.into_iter().take(limited(*limit)).collect())
            }
            Self::Metadata(_, limit) => {
                let mut families: BTreeMap<String, Metadata> = BTreeMap::new();
                for metadata in
                    all.filter_map(|found| if let Found::Metadata(m) = found { Some(m) } else { None })
                {
                    for one in metadata {
                        let kept = families.entry(one.family.clone()).or_default();
                        let order = |m: &Metadata| (m.kind.clone(), m.help.clone(), m.unit.clone());
                        // Where nodes disagree, a fixed one of them, so that all answer alike.
                        if kept.family.is_empty() || order(&one) > order(kept) {
                            *kept = one;
                        }
                    }
                }
                Found::Metadata(families.into_values().take(limited(*limit)).collect())
            }
            Self::Exemplars(_) => {
                let all =
                    all.filter_map(|found| if let Found::Exemplars(e) = found { Some(e) } else { None });
                Found::Exemplars(merge_exemplars(all.flatten()))
            }
            Self::Counts => {
                let mut counts = BTreeMap::new();
                for found in all.filter_map(|found| if let Found::Counts(c) = found { Some(c) } else { None })
                {
                    for (pair, series) in found {
                        *counts.entry(pair).or_insert(0) += series;
                    }
                }
                Found::Counts(counts)
            }
            Self::Cost(_) => {
                let mut sum = Cost::default();
                for found in all {
                    if let Found::Cost(cost) = found {
                        sum.add(&cost);
                    }
                }
                Found::Cost(sum)
            }
        }
    }

    /// What one store knows. `counts` says which series it counts, `skip` which blocks not.
    ///
    /// # Errors
    /// Those of the tenant's questions; when it is cancelled.
    pub fn of(
        &self,
        tenant: &Tenant,
        counts: &dyn Fn(&Labels) -> bool,
        skip: &dyn Fn(Ulid) -> bool,
        cancelled: &AtomicBool,
    ) -> Result<Found, Error> {
        Ok(match self {
            Self::Names(scope, limit) => {
                Found::Texts(scope.gather(*limit, cancelled, |matchers, range| {
                    tenant.label_names(matchers, range, *limit)
                })?)
            }
            Self::Values(name, scope, limit) => {
                Found::Texts(scope.gather(*limit, cancelled, |matchers, range| {
                    tenant.label_values(name, matchers, range, *limit)
                })?)
            }
            Self::Series(scope, limit) => Found::Series(scope.gather(
                *limit,
                cancelled,
                |matchers, range| tenant.series(matchers, range, *limit),
            )?),
            Self::Metadata(family, limit) => Found::Metadata(tenant.metadata(family.as_deref(), *limit)),
            Self::Exemplars(scope) => {
                let mut found = Vec::new();
                for matchers in &scope.selectors {
                    permits::check(cancelled)?;
                    found.extend(tenant.exemplars(matchers, scope.range_ms.clone())?);
                }
                // Two selectors may match one series.
                found.sort_by(|a, b| a.labels.cmp(&b.labels));
                found.dedup_by(|a, b| a.labels == b.labels);
                Found::Exemplars(found)
            }
            Self::Counts => {
                let mut found = BTreeMap::new();
                tenant.head_series(&mut |labels| {
                    if counts(labels) {
                        for (name, value) in labels {
                            *found.entry((name.to_owned(), value.to_owned())).or_insert(0) += 1;
                        }
                    }
                })?;
                Found::Counts(found)
            }
            Self::Cost(scope) => {
                let mut scale = Scale::new(scope.range_ms.clone());
                for matchers in &scope.selectors {
                    permits::check(cancelled)?;
                    tenant.weigh(matchers, skip, counts, &mut scale)?;
                }
                Found::Cost(Cost { nodes: scale.weight(), ..Cost::default() })
            }
        })
    }
}

/// Exemplars of series that are the same, together: by labels, then time, nothing twice.
pub fn merge_exemplars(all: impl Iterator<Item = SeriesExemplars>) -> Vec<SeriesExemplars> {
    let mut by_labels: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
    for series in all {
        by_labels.entry(series.labels).or_default().extend(series.exemplars);
    }
    let tidy = |(labels, mut exemplars): (Labels, Vec<Exemplar>)| {
        let order = |e: &Exemplar| (e.timestamp_ms, e.labels.clone(), e.value.to_bits());
        exemplars.sort_by_cached_key(order);
        exemplars.dedup_by_key(|e| order(e));
        SeriesExemplars { labels, exemplars }
    };
    by_labels.into_iter().map(tidy).collect()
}

impl Found {
    /// The same in pieces of at most `entries`; at least one, which may be empty.
    pub fn pieces(self, entries: usize) -> Vec<Self> {
        fn cut<T>(mut all: Vec<T>, entries: usize, of: fn(Vec<T>) -> Found) -> Vec<Found> {
            let mut pieces = Vec::new();
            while all.len() > entries {
                let rest = all.split_off(entries);
                pieces.push(of(std::mem::replace(&mut all, rest)));
            }
            pieces.push(of(all));
            pieces
        }
        match self {
            Self::Texts(texts) => cut(texts, entries, Self::Texts),
            Self::Series(series) => cut(series, entries, Self::Series),
            Self::Metadata(metadata) => cut(metadata, entries, Self::Metadata),
            Self::Exemplars(exemplars) => cut(exemplars, entries, Self::Exemplars),
            Self::Counts(counts) => {
                cut(counts.into_iter().collect(), entries, |some| Self::Counts(some.into_iter().collect()))
            }
            Self::Cost(_) => vec![self],
        }
    }
}

impl Scope {
    /// Asks for each selector in turn, or once for everything; sorted, nothing twice.
    fn gather<T: Ord>(
        &self,
        limit: usize,
        cancelled: &AtomicBool,
        ask: impl Fn(&[Matcher], RangeInclusive<i64>) -> tsdb::Result<Vec<T>>,
    ) -> Result<Vec<T>, Error> {
        if self.selectors.len() < 2 {
            let matchers = self.selectors.first().map_or(&[][..], Vec::as_slice);
            return Ok(ask(matchers, self.range_ms.clone())?);
        }
        let mut all = BTreeSet::new();
        for matchers in &self.selectors {
            permits::check(cancelled)?;
            all.extend(ask(matchers, self.range_ms.clone())?);
        }
        let limit = if limit == 0 { usize::MAX } else { limit };
        Ok(all.into_iter().take(limit).collect())
    }
}

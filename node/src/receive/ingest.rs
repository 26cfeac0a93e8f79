//! From a batch to the head.
//!
//! 1. One look-up for all series by the hash of their raw labels.
//! 2. Series that are new have their labels parsed, judged and interned, if they have a sample that may be stored: one
//!    that is refused leaves nothing behind. The others cost nothing more.
//! 3. One append for all samples; a series that was collected since the look-up is interned again.
//! 4. What was refused is counted by reason, and the first is described, labels and all.
//!
//! Good samples are stored even if others are refused: the sender can't know which, and mustn't lose them.

use tsdb::db::{Append, Bounds, Outcome, SeriesRef, Tenant};
use tsdb::model::{Labels, Sample, Value};
use tsdb::wal::WalPosition;
use tsdb::{Error, Result};

use super::batch::Batch;
use crate::config::Limits;
use crate::text::shortened;

/// Parses a series' raw labels.
pub type ParseLabels = fn(&[u8], &Limits) -> Result<Labels, String>;

/// Why something wasn't stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its labels, or the sample itself, can't be stored.
    Invalid,
    /// Older than `max_backfill`, or than what retention keeps.
    TooOld,
    /// Out of order, and older than the window.
    OutOfOrder,
    /// Further ahead than `max_future`.
    TooFarAhead,
    /// A deletion covers it.
    Deleted,
    /// The tenant has as many series as it may.
    SeriesLimit,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 6] =
        [Self::Invalid, Self::TooOld, Self::OutOfOrder, Self::TooFarAhead, Self::Deleted, Self::SeriesLimit];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooOld => "too_old",
            Self::OutOfOrder => "out_of_order",
            Self::TooFarAhead => "too_far_ahead",
            Self::Deleted => "deleted",
            Self::SeriesLimit => "series_limit",
        }
    }

    /// What is said of a sample's timestamp when it is refused, for the sender to read.
    pub fn why(self) -> &'static str {
        match self {
            Self::Invalid => "can't be stored",
            Self::TooOld => "is older than max_backfill or storage.retention allows",
            Self::OutOfOrder => {
                "is older than its series' newest, and than out_of_order_window or storage.retention allows"
            }
            Self::TooFarAhead => "is further ahead than max_future allows",
            Self::Deleted => "lies in a range that was deleted",
            Self::SeriesLimit => "is of a new series, and the tenant may have no more",
        }
    }
}

/// What became of a batch.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Everything that was stored is safe once a commit has reached this.
    pub position: WalPosition,
    /// Samples that are new.
    pub stored: u64,
    /// Samples that were there already, or lost against another value of their time: successes.
    pub known: u64,
    /// How many of both are histograms.
    pub histograms: u64,
    /// Exemplars taken.
    pub exemplars: u64,
    /// Refusals by reason, as [`Reason::ALL`] orders them.
    pub refused: [u64; Reason::ALL.len()],
    /// The first that can never succeed.
    pub first: Option<String>,
    /// The first that met a limit.
    pub limited: Option<String>,
}

impl Report {
    /// All refusals.
    pub fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Counts a sample that is stored now, or was before.
    pub(super) fn take(&mut self, sample: &Sample, is_new: bool) {
        let count = if is_new { &mut self.stored } else { &mut self.known };
        *count += 1;
        self.histograms += u64::from(!matches!(sample.value, Value::Float(_)));
    }

    /// How many were refused for this reason.
    pub fn refused_for(&self, reason: Reason) -> u64 {
        self.refused[reason as usize]
    }

    /// Counts a refusal, and describes it if it is the first.
    pub(super) fn refuse(&mut self, reason: Reason, count: u64, describe: impl FnOnce() -> String) {
        self.refused[reason as usize] += count;
        let first = if reason == Reason::SeriesLimit { &mut self.limited } else { &mut self.first };
        if first.is_none() {
            *first = Some(shortened(describe()));
        }
    }
}

/// Memory that is used again from batch to batch.
#[derive(Default)]
pub struct Scratch {
    refs: Vec<SeriesRef>,
    outcomes: Vec<Outcome>,
    /// What each series of the batch is to the tenant; empty while all are known.
    standings: Vec<Standing>,
}

/// What a series of a batch is to its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has a name.
    Known,
    /// It is new, and has a sample that may be stored.
    New,
    /// It is new, and has none.
    Unwanted,
    /// It can't be, and all of its samples were refused.
    Refused,
}

/// Everything about a request that isn't the batch.
pub struct Request<'a> {
    /// Whose samples they are.
    pub tenant: &'a Tenant,
    /// What the batch's raw labels point into.
    pub body: &'a [u8],
    /// Reads them.
    pub parse_labels: ParseLabels,
    /// The tenant's limits.
    pub limits: &'a Limits,
    /// The node's wall clock.
    pub now_ms: i64,
}

impl Request<'_> {
    /// Which times are taken: what the limits allow and retention wouldn't remove at once.
    pub fn bounds(&self) -> Bounds {
        let limited = bounds(self.limits, self.now_ms);
        let Some(kept_ms) = self.tenant.settings().retention_ms else { return limited };
        let oldest_ms = self.now_ms.saturating_sub(kept_ms);
        Bounds {
            in_order_min_ms: limited.in_order_min_ms.max(oldest_ms),
            out_of_order_min_ms: limited.out_of_order_min_ms.max(oldest_ms),
            ..limited
        }
    }
}

/// Stores a batch.
///
/// # Errors
/// When nothing may be acked: [`Error::Busy`], [`Error::NoSpace`], [`Error::Stopped`] and whatever else the engine can't
/// help.
pub fn ingest(request: &Request<'_>, batch: &mut Batch, scratch: &mut Scratch) -> Result<Report> {
    let mut report = Report::default();
    refuse_undecoded(request, batch, &mut report);
    request.tenant.lookup(&batch.keys, &mut scratch.refs);
    let bounds = request.bounds();
    scratch.standings.clear();
    let has_new = scratch.refs.iter().any(|r| r.is_none());
    if has_new {
        intern_new(request, batch, scratch, &bounds, &mut report)?;
    }
    for (append, owner) in batch.appends.iter_mut().zip(&batch.owners) {
        append.series = scratch.refs[*owner as usize];
    }
    if has_new && scratch.refs.iter().any(|r| r.is_none()) {
        refuse_unwanted(request, batch, &scratch.standings, &bounds, &mut report);
        leave_out_orphans(batch);
    }

    let mut position = request.tenant.append(&batch.appends, &bounds, &mut scratch.outcomes)?;
    if scratch.outcomes.contains(&Outcome::UnknownSeries) {
        position = position.max(append_again(request, batch, scratch, &bounds, &mut report)?);
    }
    tally(request, batch, &scratch.outcomes, &mut report);

    if !batch.exemplars.is_empty() {
        let refs = &scratch.refs;
        let known = |(owner, _): &(u32, _)| !refs[*owner as usize].is_none();
        let exemplars: Vec<_> =
            batch.exemplars.drain(..).filter(known).map(|(owner, e)| (refs[owner as usize], e)).collect();
        report.exemplars = exemplars.len() as u64;
        position = position.max(request.tenant.append_exemplars(&exemplars)?);
    }
    if !batch.metadata.is_empty() {
        position = position.max(request.tenant.append_metadata(&batch.metadata)?);
    }
    report.position = position;
    Ok(report)
}

/// Counts the parts that couldn't be decoded.
pub(super) fn refuse_undecoded(request: &Request<'_>, batch: &Batch, report: &mut Report) {
    if let Some(refused) = batch.refused.described().first() {
        report.refuse(Reason::Invalid, batch.refused.count(), || match refused.series {
            Some(series) => format!("{}: {}", describe(request, batch, series), refused.why),
            None => refused.why.clone(),
        });
    }
}

/// Which times a tenant's limits allow.
pub fn bounds(limits: &Limits, now_ms: i64) -> Bounds {
    Bounds {
        in_order_min_ms: limits.max_backfill.max().map_or(i64::MIN, |age| now_ms.saturating_sub(age.ms)),
        out_of_order_min_ms: limits
            .out_of_order_window
            .max()
            .map_or(i64::MIN, |age| now_ms.saturating_sub(age.ms)),
        max_ms: limits.max_future.max().map_or(i64::MAX, |ahead| now_ms.saturating_add(ahead.ms)),
    }
}

/// Interns the series that the look-up didn't know and that have something to store.
fn intern_new(
    request: &Request<'_>,
    batch: &Batch,
    scratch: &mut Scratch,
    bounds: &Bounds,
    report: &mut Report,
) -> Result<()> {
    let Scratch { refs, standings, .. } = scratch;
    let standing = |name: &SeriesRef| if name.is_none() { Standing::Unwanted } else { Standing::Known };
    standings.extend(refs.iter().map(standing));
    for (append, owner) in batch.appends.iter().zip(&batch.owners) {
        let standing = &mut standings[*owner as usize];
        if *standing == Standing::Unwanted && bounds.refusal_of_first(&append.sample).is_none() {
            *standing = Standing::New;
        }
    }
    // Counted once for all: a hostile request refuses as many series as it has samples.
    let mut samples: Vec<u64> = Vec::new();
    // Those without samples come last: they may be of a series that another entry of the request makes.
    for pass in [Standing::New, Standing::Unwanted] {
        for series in 0..refs.len() {
            if standings[series] != pass {
                continue;
            }
            match intern(request, batch, series as u32, pass == Standing::New)? {
                Ok(Some(name)) => (refs[series], standings[series]) = (name, Standing::Known),
                Ok(None) => {}
                Err((reason, why)) => {
                    if samples.is_empty() {
                        samples.resize(refs.len(), 0);
                        batch.owners.iter().for_each(|owner| samples[*owner as usize] += 1);
                    }
                    standings[series] = Standing::Refused;
                    report.refuse(reason, samples[series].max(1), || why);
                }
            }
        }
    }
    Ok(())
}

/// Refuses the samples for which no series was made.
fn refuse_unwanted(
    request: &Request<'_>,
    batch: &Batch,
    standings: &[Standing],
    bounds: &Bounds,
    report: &mut Report,
) {
    for (at, owner) in batch.owners.iter().enumerate() {
        if standings[*owner as usize] == Standing::Unwanted
            && let Some(outcome) = bounds.refusal_of_first(&batch.appends[at].sample)
        {
            tally_one(request, batch, at, outcome, report);
        }
    }
}

/// The name of a series, which is made where there is none, or with `make` false only looked for.
fn intern(
    request: &Request<'_>,
    batch: &Batch,
    series: u32,
    make: bool,
) -> Result<Result<Option<SeriesRef>, (Reason, String)>> {
    let raw = batch.raw_labels(request.body, series);
    let labels = match (request.parse_labels)(raw, request.limits) {
        Ok(labels) => labels,
        Err(why) => return Ok(Err((Reason::Invalid, why))),
    };
    let key = batch.keys[series as usize];
    if !make {
        return Ok(Ok(request.tenant.find(key, &labels)));
    }
    match request.tenant.intern(key, &labels) {
        Ok(interned) => Ok(Ok(Some(interned))),
        Err(Error::Limit(why)) => Ok(Err((Reason::SeriesLimit, format!("{labels}: {why}")))),
        Err(Error::Invalid(why)) => Ok(Err((Reason::Invalid, format!("{labels}: {why}")))),
        Err(error) => Err(error),
    }
}

/// Takes samples without a series out of the batch.
fn leave_out_orphans(batch: &mut Batch) {
    let mut kept = 0;
    for at in 0..batch.appends.len() {
        if !batch.appends[at].series.is_none() {
            batch.appends.swap(kept, at);
            batch.owners.swap(kept, at);
            kept += 1;
        }
    }
    batch.appends.truncate(kept);
    batch.owners.truncate(kept);
}

/// Appends once more what fell to series that were collected between look-up and append.
fn append_again(
    request: &Request<'_>,
    batch: &Batch,
    scratch: &mut Scratch,
    bounds: &Bounds,
    report: &mut Report,
) -> Result<WalPosition> {
    let mut again: Vec<Append> = Vec::new();
    let mut places = Vec::new();
    for (place, owner) in batch.owners.iter().enumerate() {
        if scratch.outcomes[place] != Outcome::UnknownSeries {
            continue;
        }
        // It is gone, so this one would be the first of a new series.
        let refusal = bounds.refusal_of_first(&batch.appends[place].sample);
        match intern(request, batch, *owner, refusal.is_none())? {
            Ok(None) => scratch.outcomes[place] = refusal.expect("a series that may be made is made"),
            Ok(Some(series)) => {
                scratch.refs[*owner as usize] = series;
                again.push(Append { series, sample: batch.appends[place].sample.clone() });
                places.push(place);
            }
            Err((reason, why)) => report.refuse(reason, 1, || why),
        }
    }
    let mut outcomes = Vec::new();
    let position = request.tenant.append(&again, bounds, &mut outcomes)?;
    if outcomes.contains(&Outcome::UnknownSeries) {
        // Collected twice within a request: the sender comes again, and acking would lose a sample.
        return Err(Error::Busy("series are being collected while they are written".to_owned()));
    }
    for (place, outcome) in places.into_iter().zip(outcomes) {
        scratch.outcomes[place] = outcome;
    }
    Ok(position)
}

fn tally(request: &Request<'_>, batch: &Batch, outcomes: &[Outcome], report: &mut Report) {
    for (at, outcome) in outcomes.iter().enumerate() {
        tally_one(request, batch, at, *outcome, report);
    }
}

fn tally_one(request: &Request<'_>, batch: &Batch, at: usize, outcome: Outcome, report: &mut Report) {
    let reason = match outcome {
        Outcome::Stored | Outcome::Duplicate | Outcome::Superseded => {
            report.take(&batch.appends[at].sample, outcome == Outcome::Stored);
            return;
        }
        // Refused when it couldn't be interned again.
        Outcome::UnknownSeries => return,
        Outcome::TooOld => Reason::TooOld,
        Outcome::OutOfOrder => Reason::OutOfOrder,
        Outcome::TooFarAhead => Reason::TooFarAhead,
        Outcome::Deleted => Reason::Deleted,
        Outcome::TooLarge => Reason::Invalid,
    };
    report.refuse(reason, 1, || {
        let timestamp_ms = batch.appends[at].sample.timestamp_ms;
        let series = describe(request, batch, batch.owners[at]);
        let why =
            if outcome == Outcome::TooLarge { "has a histogram of too many buckets" } else { reason.why() };
        format!("{series}: timestamp {timestamp_ms} {why}")
    });
}

/// A series for the sender to read.
fn describe(request: &Request<'_>, batch: &Batch, series: u32) -> String {
    match (request.parse_labels)(batch.raw_labels(request.body, series), request.limits) {
        Ok(labels) => labels.to_string(),
        Err(why) => why,
    }
}

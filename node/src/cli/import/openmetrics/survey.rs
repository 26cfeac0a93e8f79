//! The first reading of a file: whether all of it can be stored, and which times it has.
//!
//! Nothing of a file is stored unless everything in it can be: what was cut short, joined, or is of another format looks
//! right for most of its length.

use std::collections::HashSet;

use tsdb::db::SeriesKey;
use tsdb::model::Value;

use super::NO_TIMESTAMP;
use super::pieces::{Pieces, Source};
use super::plan::{Counts, RANGE_MS};
use crate::cli::Failure;
use crate::config::Limits;
use crate::receive::batch::{Batch, SeriesHasher};
use crate::receive::text::{self, Format, Reader};
use crate::time::format_rfc3339;

/// Faults that are described; further ones are counted.
const FAULTS_SHOWN_MAX: usize = 20;

/// What a file holds that can be stored as a whole.
pub(super) struct Survey {
    /// Samples by shortest range of time.
    pub(super) counts: Counts,
}

/// How long the node keeps samples.
#[derive(Clone, Debug)]
pub(super) struct Retention {
    /// In milliseconds; `None` is for ever.
    pub(super) kept_ms: Option<i64>,
    /// As the node's configuration spells it.
    pub(super) shown: String,
}

/// Reads all of `source`; `progress` hears of bytes read. `now_ms` is what the retention is counted back from.
///
/// # Errors
/// The first faults, by line where that is known, and how many there are besides.
pub(super) fn survey(
    source: &Source,
    hasher: &SeriesHasher,
    retention: &Retention,
    now_ms: i64,
    progress: impl Fn(u64),
) -> Result<Survey, Failure> {
    let mut input = source.read()?;
    let mut reading = Reading::new(retention, now_ms);
    let mut reader = Reader::new(Format::OpenMetrics, NO_TIMESTAMP);
    let (mut pieces, mut batch) = (Pieces::default(), Batch::default());
    let mut ended = Ok(());
    while let Some(piece) = pieces.next(&mut input).map_err(|e| source.unreadable(&e))? {
        batch.clear();
        ended = reader.read(piece, hasher, &mut batch);
        reading.judge(piece, &batch);
        if ended.is_err() {
            break;
        }
        progress(piece.len() as u64);
    }
    let faults = ended.and_then(|()| reader.finish()).err();
    reading.finish(faults)
}

struct Reading<'a> {
    retention: &'a Retention,
    /// Older samples wouldn't be kept.
    oldest_ms: i64,
    limits: Limits,
    /// Series whose labels were looked at, by their spelling.
    known: HashSet<SeriesKey>,
    counts: Counts,
    faults: Vec<String>,
    faults_more: u64,
    /// How many samples wouldn't be kept, and the time of the oldest.
    expired: (u64, i64),
}

impl<'a> Reading<'a> {
    fn new(retention: &'a Retention, now_ms: i64) -> Self {
        Self {
            retention,
            oldest_ms: retention.kept_ms.map_or(i64::MIN, |kept_ms| now_ms.saturating_sub(kept_ms)),
            limits: Limits::default(),
            known: HashSet::new(),
            counts: Counts::new(),
            faults: Vec::new(),
            faults_more: 0,
            expired: (0, i64::MAX),
        }
    }

    fn judge(&mut self, piece: &[u8], batch: &Batch) {
        for refused in batch.refused.described() {
            self.fault(|| refused.why.clone());
        }
        self.faults_more += batch.refused.count() - batch.refused.described().len() as u64;
        for (append, owner) in batch.appends.iter().zip(&batch.owners) {
            let raw = batch.raw_labels(piece, *owner);
            if self.known.insert(batch.keys[*owner as usize])
                && let Err(why) = text::labels(raw, &self.limits)
            {
                self.fault(|| why);
            }
            debug_assert!(matches!(append.sample.value, Value::Float(_)), "text holds floats");
            let at_ms = append.sample.timestamp_ms;
            let series = || String::from_utf8_lossy(raw);
            if at_ms == NO_TIMESTAMP {
                self.fault(|| format!("{}: a sample has no timestamp", series()));
                continue;
            }
            if at_ms < 0 {
                self.fault(|| format!("{}: a sample is of before 1970", series()));
                continue;
            }
            if at_ms < self.oldest_ms {
                self.expired = (self.expired.0 + 1, self.expired.1.min(at_ms));
            }
            *self.counts.entry(at_ms.div_euclid(RANGE_MS)).or_default() += 1;
        }
    }

    fn fault(&mut self, describe: impl FnOnce() -> String) {
        if self.faults.len() < FAULTS_SHOWN_MAX {
            self.faults.push(describe());
        } else {
            self.faults_more += 1;
        }
    }

    /// `last` is what is wrong with the file as a whole.
    fn finish(mut self, last: Option<String>) -> Result<Survey, Failure> {
        let (expired, oldest_ms) = self.expired;
        let mut faults = std::mem::take(&mut self.faults);
        if self.faults_more > 0 {
            faults.push(format!("and {} faults more", self.faults_more));
        }
        if expired > 0 {
            faults.push(format!(
                "{expired} samples are older than storage.retention of this node allows ({}), the oldest of {}: raise it, \
                 or leave them out",
                self.retention.shown,
                format_rfc3339(oldest_ms)
            ));
        }
        faults.extend(last);
        if faults.is_empty() {
            return Ok(Survey { counts: self.counts });
        }
        Err(Failure::failed(format!("nothing was imported:\n{}", faults.join("\n"))))
    }
}

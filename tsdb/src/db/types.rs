//! What goes into the database and what comes back: keys, refs, bounds, outcomes.

use crate::head::SeriesRef;
use crate::head::rule::TIMESTAMP_MS_MAX;
use crate::model::{Labels, Sample};
use crate::wal::record::histograms::{HISTOGRAM_BYTES_MAX, bytes_max};

/// A caller's name for a series: its keyed 128-bit hash of the raw label bytes as they came.
///
/// The key is secret and of one process, so that nobody can make two series collide. Label bytes in another order
/// are another key of the same series; a series keeps at most [`SERIES_ALIASES_MAX`] of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey(pub u128);

/// Keys kept for one series. Senders seldom disagree about the order of labels; who does pays for parsing them.
pub const SERIES_ALIASES_MAX: u8 = 4;

/// Most bytes of a series' labels as they are stored. Receivers allow far less; this is what every record has room for.
pub const SERIES_LABELS_BYTES_MAX: usize = 1 << 20;

/// One sample for one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// From `lookup` or `intern` of the same tenant.
    pub series: SeriesRef,
    /// The sample.
    pub sample: Sample,
}

/// Which timestamps are taken, in milliseconds since the Unix epoch, ends included: judged by the entry node's wall
/// clock alone, so that skew can't split replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Oldest sample taken when it is newer than all others of its series.
    pub in_order_min_ms: i64,
    /// Oldest sample taken otherwise.
    pub out_of_order_min_ms: i64,
    /// Newest sample taken at all.
    pub max_ms: i64,
}

impl Bounds {
    /// Takes every timestamp: for imports, replays and tests.
    pub const ALL: Self = Self { in_order_min_ms: i64::MIN, out_of_order_min_ms: i64::MIN, max_ms: i64::MAX };

    /// Why a series that has no sample yet won't take this one, if it won't: to be asked before the series is made, so
    /// that a refused sample leaves nothing behind.
    pub fn refusal_of_first(&self, sample: &Sample) -> Option<Outcome> {
        if bytes_max(&sample.value).is_some_and(|bytes| bytes > HISTOGRAM_BYTES_MAX) {
            return Some(Outcome::TooLarge);
        }
        let timestamp_ms = sample.timestamp_ms;
        if timestamp_ms > self.max_ms || timestamp_ms > TIMESTAMP_MS_MAX {
            return Some(Outcome::TooFarAhead);
        }
        let is_old = timestamp_ms < self.in_order_min_ms || timestamp_ms < -TIMESTAMP_MS_MAX;
        is_old.then_some(Outcome::TooOld)
    }
}

/// What became of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is in the head, and durable once the append's WAL position is.
    Stored,
    /// The same sample was there already; it is durable once the append's WAL position is.
    Duplicate,
    /// Another value at the same timestamp stays, by the fixed order of values. A success too.
    Superseded,
    /// In order for its series, but older than [`Bounds::in_order_min_ms`].
    TooOld,
    /// Older than the series' newest sample and than [`Bounds::out_of_order_min_ms`].
    OutOfOrder,
    /// Newer than [`Bounds::max_ms`].
    TooFarAhead,
    /// The ref names no series of this tenant (it may have been collected): intern it again and append again.
    UnknownSeries,
    /// A deletion covers it.
    Deleted,
    /// A histogram that takes more than
    /// [`HISTOGRAM_BYTES_MAX`](crate::wal::record::histograms::HISTOGRAM_BYTES_MAX) in the WAL.
    TooLarge,
}

impl Outcome {
    /// Whether the sender may forget the sample.
    pub fn is_ack(self) -> bool {
        matches!(self, Self::Stored | Self::Duplicate | Self::Superseded)
    }
}

/// An example of what a series counted: usually a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// When, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The observation.
    pub value: f64,
    /// Labels of the observation, `trace_id` among them.
    pub labels: Labels,
}

/// Exemplars of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    /// The series.
    pub labels: Labels,
    /// Its exemplars by time.
    pub exemplars: Vec<Exemplar>,
}

/// What a metric's family says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// The family's name: `http_requests_total`.
    pub family: String,
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset` or `unknown`.
    pub kind: String,
    /// Help text; may be empty.
    pub help: String,
    /// Unit; may be empty.
    pub unit: String,
}

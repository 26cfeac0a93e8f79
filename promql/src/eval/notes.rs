//! What kernels find worth telling about one series. They set flags; texts are made once a series, when any is set.

use crate::annotations::{Annotations, Level};
use crate::parse::Span;
use crate::parse::string::quoted;

/// A condition of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Note {
    /// Arithmetic over a range that holds both kinds of samples.
    MixedFloatsHistograms,
    /// A function of floats met histograms beside them.
    IgnoredHistograms,
    /// A gauge histogram in a function of counters.
    NotCounter,
    /// A counter histogram in a function of gauges.
    NotGauge,
    /// Exponential and custom buckets can't be combined.
    MixedSchemas,
    /// The name doesn't look like a counter's.
    PossibleNonCounter,
    /// Custom buckets with different bounds were united by their common bounds, in a sum.
    ReconciledAddition,
    /// The same in a difference.
    ReconciledSubtraction,
    /// The same in an aggregation.
    ReconciledAggregation,
    /// Reset hints of summed histograms contradict each other.
    CounterResetsAddition,
    /// The same in a difference.
    CounterResetsSubtraction,
    /// The same in an aggregation.
    CounterResetsAggregation,
    /// A sample says that its counter started before the sample before it was taken.
    StartTimesOverlap,
}

impl Note {
    const ALL: [Self; 13] = [
        Self::MixedFloatsHistograms,
        Self::IgnoredHistograms,
        Self::NotCounter,
        Self::NotGauge,
        Self::MixedSchemas,
        Self::PossibleNonCounter,
        Self::ReconciledAddition,
        Self::ReconciledSubtraction,
        Self::ReconciledAggregation,
        Self::CounterResetsAddition,
        Self::CounterResetsSubtraction,
        Self::CounterResetsAggregation,
        Self::StartTimesOverlap,
    ];

    fn text(self, metric: &str) -> (Level, String) {
        use Level::{Info, Warning};
        let of_metric = |text: &str| format!("{text} metric name {}", quoted(metric));
        match self {
            Self::MixedFloatsHistograms => {
                (Warning, of_metric("encountered a mix of histograms and floats for"))
            }
            Self::IgnoredHistograms => {
                (Info, of_metric("ignored histograms in a range containing both floats and histograms for"))
            }
            Self::NotCounter => {
                (Warning, format!("this native histogram metric is not a counter: {}", quoted(metric)))
            }
            Self::NotGauge => {
                (Warning, format!("this native histogram metric is not a gauge: {}", quoted(metric)))
            }
            Self::MixedSchemas => (
                Warning,
                of_metric(
                    "vector contains a mix of histograms with exponential and custom buckets schemas for",
                ),
            ),
            Self::PossibleNonCounter => (
                Info,
                format!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                    quoted(metric)
                ),
            ),
            Self::ReconciledAddition => (Info, reconciled("addition")),
            Self::ReconciledSubtraction => (Info, reconciled("subtraction")),
            Self::ReconciledAggregation => (Info, reconciled("aggregation")),
            Self::CounterResetsAddition => (Warning, conflicting("addition")),
            Self::CounterResetsSubtraction => (Warning, conflicting("subtraction")),
            Self::CounterResetsAggregation => (Warning, conflicting("aggregation")),
            Self::StartTimesOverlap => (
                Warning,
                format!(
                    "sample has start time that overlaps with previous sample timestamp for metric {}",
                    quoted(metric)
                ),
            ),
        }
    }
}

fn reconciled(operation: &str) -> String {
    format!("mismatched custom buckets were reconciled during {operation}")
}

fn conflicting(operation: &str) -> String {
    format!("conflicting counter resets during histogram {operation}")
}

/// The conditions met by one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes(u32);

impl Notes {
    /// Sets one.
    pub fn add(&mut self, note: Note) {
        self.0 |= 1 << note as u8;
    }

    /// Sets those of others.
    pub fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// As a number, to be sent.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// From what [`Notes::bits`] gave; what isn't known is left out.
    pub fn from_bits(bits: u32) -> Self {
        let known = Note::ALL.iter().fold(0, |known, note| known | 1 << *note as u8);
        Self(bits & known)
    }

    /// Whether none is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one is set.
    pub fn has(self, note: Note) -> bool {
        self.0 & (1 << note as u8) != 0
    }

    /// Writes them out.
    pub fn annotate(self, annotations: &mut Annotations, metric: &str, span: Span) {
        for note in Note::ALL.into_iter().filter(|note| self.has(*note)) {
            let (level, text) = note.text(metric);
            annotations.add(level, &text, span);
        }
    }
}

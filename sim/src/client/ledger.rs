//! The ledger: each sample that was ever sent, and what its sender knows of it.

use std::collections::BTreeMap;

/// A sample's place: which series, and when (milliseconds since the Unix epoch).
pub type Place = (usize, i64);

/// What a sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Sent, and no word yet, or an error: it may exist.
    Unknown,
    /// Acked: it must exist.
    Acked,
}

/// One sample that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Its value: never the same twice.
    pub value: f64,
    /// What is known of it.
    pub fate: Fate,
}

/// All samples that were sent, by place.
#[derive(Default)]
pub struct Ledger {
    samples: BTreeMap<Place, Sample>,
}

impl Ledger {
    /// Notes that a sample is about to be sent.
    pub fn sent(&mut self, place: Place, value: f64) {
        self.samples.entry(place).or_insert(Sample { value, fate: Fate::Unknown });
    }

    /// Notes that a sample was acked.
    pub fn acked(&mut self, place: Place) {
        self.samples.get_mut(&place).expect("what is acked was sent").fate = Fate::Acked;
    }

    /// Places of acked samples in `(from_ms, to_ms]`.
    pub fn acked_between(&self, from_ms: i64, to_ms: i64) -> Vec<Place> {
        let inside = |((_, at), sample): &(&Place, &Sample)| {
            sample.fate == Fate::Acked && *at > from_ms && *at <= to_ms
        };
        self.samples.iter().filter(inside).map(|(place, _)| *place).collect()
    }

    /// How many were sent of those in `(from_ms, to_ms]`.
    pub fn sent_between(&self, from_ms: i64, to_ms: i64) -> usize {
        self.samples.keys().filter(|(_, at)| *at > from_ms && *at <= to_ms).count()
    }

    /// A sample that was sent.
    pub fn get(&self, place: Place) -> Option<Sample> {
        self.samples.get(&place).copied()
    }

    /// How many were sent, and how many of them were acked.
    pub fn totals(&self) -> (usize, usize) {
        let acked = self.samples.values().filter(|s| s.fate == Fate::Acked).count();
        (self.samples.len(), acked)
    }
}

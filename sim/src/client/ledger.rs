//! The ledger: each sample that was ever sent, and what its sender knows of it.

use std::collections::{BTreeMap, BTreeSet};

/// A sample's place. Tenants share label sets: what differs is whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The tenant, by number.
    pub tenant: usize,
    /// The series, by number.
    pub series: usize,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// A native histogram, as writers make them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Histogram {
    /// What was counted since the last reset: all buckets follow from it.
    pub level: u32,
    /// Its sum: never the same twice.
    pub sum: f64,
    /// Whether the sender says that the counter began anew here.
    pub is_reset: bool,
}

impl Histogram {
    /// Counts of its two buckets, which are never empty and grow with the level.
    pub fn buckets(&self) -> [u64; 2] {
        let level = u64::from(self.level);
        [level + 1, 2 * level + 1]
    }

    /// The count of all.
    pub fn count(&self) -> u64 {
        self.buckets().iter().sum()
    }
}

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number: never the same twice.
    Float(f64),
    /// The series ends here.
    Stale,
    /// A native histogram.
    Histogram(Histogram),
}

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
    /// What it says.
    pub value: Value,
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
    pub fn sent(&mut self, place: Place, value: Value) {
        self.samples.entry(place).or_insert(Sample { value, fate: Fate::Unknown });
    }

    /// Notes that a sample was acked.
    pub fn acked(&mut self, place: Place) {
        self.samples.get_mut(&place).expect("what is acked was sent").fate = Fate::Acked;
    }

    /// More was lost than the promise bears: what was acked may exist.
    pub fn lose(&mut self) {
        self.samples.values_mut().for_each(|sample| sample.fate = Fate::Unknown);
    }

    /// A tenant's samples in `(from_ms, to_ms]`, in order of series and time.
    pub fn between(&self, tenant: usize, from_ms: i64, to_ms: i64) -> impl Iterator<Item = (Place, Sample)> {
        let first = |tenant| Place { tenant, series: 0, at_ms: i64::MIN };
        let inside = move |place: &Place| place.at_ms > from_ms && place.at_ms <= to_ms;
        let all = self.samples.range(first(tenant)..first(tenant + 1));
        all.filter(move |(place, _)| inside(place)).map(|(place, sample)| (*place, *sample))
    }

    /// Places of a tenant's acked samples in `(from_ms, to_ms]`, as far as a range of raw samples shows them: without
    /// stale markers.
    pub fn acked_between(&self, tenant: usize, from_ms: i64, to_ms: i64) -> Vec<Place> {
        let shown =
            |(_, sample): &(Place, Sample)| sample.fate == Fate::Acked && sample.value != Value::Stale;
        self.between(tenant, from_ms, to_ms).filter(shown).map(|(place, _)| place).collect()
    }

    /// How many of a tenant's samples in `(from_ms, to_ms]` were sent, without stale markers.
    pub fn sent_between(&self, tenant: usize, from_ms: i64, to_ms: i64) -> usize {
        self.between(tenant, from_ms, to_ms).filter(|(_, sample)| sample.value != Value::Stale).count()
    }

    /// All series of a tenant of which a sample was ever sent.
    pub fn series(&self, tenant: usize) -> BTreeSet<usize> {
        self.between(tenant, i64::MIN, i64::MAX).map(|(place, _)| place.series).collect()
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

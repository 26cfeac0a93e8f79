//! The engine as a whole, on the in-memory disk.

mod acks;
mod behaviour;
mod collecting;
mod cutting;
mod folders;
mod hook;
mod mixed;
mod model;
mod resent;
mod restart;
mod retention;

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::*;
use crate::clock::ClockReading;
use crate::disk::MemoryDisk;
use crate::model::{Labels, Matcher, Sample};
use crate::select::Select;
use crate::wal::WalSettings;
use crate::workers::Inline;

/// A range's start, some time in 2023.
const BASE_MS: i64 = 1_700_006_400_000;
const HOUR_MS: i64 = 3_600_000;
const ALL_TIMES: RangeInclusive<i64> = i64::MIN..=i64::MAX;

fn settings() -> DbSettings {
    DbSettings {
        shards: 4,
        checkpoint_bytes: 1 << 20,
        wal: WalSettings { segment_bytes: 1 << 20, ..WalSettings::default() },
        ..DbSettings::default()
    }
}

fn open(disk: &Arc<MemoryDisk>) -> (Db, Recovery) {
    Db::open(disk.clone(), settings(), BASE_MS, 7, &Inline).unwrap()
}

/// Maintains; both clocks go on alike.
fn maintain(db: &Db, now_ms: i64) -> Result<Maintenance> {
    db.maintain(ClockReading { wall_ms: now_ms, elapsed_ms: now_ms.unsigned_abs() })
}

fn id() -> TenantId {
    TenantId::new("a").unwrap()
}

fn labels(series: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", series.to_string().as_str())]).unwrap()
}

fn key(series: usize) -> SeriesKey {
    SeriesKey((series as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_9e37_79b9_7f4a_7c15))
}

fn append(tenant: &Tenant, samples: &[(usize, Sample)]) -> Result<(Vec<Outcome>, WalPosition)> {
    append_within(tenant, samples, Bounds::ALL)
}

/// As a receiver does it: a series that was collected in between is interned and appended once more.
fn append_within(
    tenant: &Tenant,
    samples: &[(usize, Sample)],
    bounds: Bounds,
) -> Result<(Vec<Outcome>, WalPosition)> {
    let keys: Vec<_> = samples.iter().map(|(series, _)| key(*series)).collect();
    let mut found = Vec::new();
    tenant.lookup(&keys, &mut found);
    let mut batch = Vec::new();
    for ((series, sample), found) in samples.iter().zip(found) {
        let series = if found.is_none() { tenant.intern(key(*series), &labels(*series))? } else { found };
        batch.push(Append { series, sample: sample.clone() });
    }
    let mut outcomes = Vec::new();
    let mut position = tenant.append(&batch, &bounds, &mut outcomes)?;
    for i in 0..outcomes.len() {
        if outcomes[i] == Outcome::UnknownSeries {
            let (series, sample) = &samples[i];
            let series = tenant.intern(key(*series), &labels(*series))?;
            let mut again = Vec::new();
            let batch = [Append { series, sample: sample.clone() }];
            position = position.max(tenant.append(&batch, &bounds, &mut again)?);
            outcomes[i] = again[0];
        }
    }
    Ok((outcomes, position))
}

fn float(series: usize, timestamp_ms: i64, value: f64) -> (usize, Sample) {
    (series, Sample::float(timestamp_ms, value))
}

fn select(tenant: &Tenant, range_ms: RangeInclusive<i64>) -> Vec<(Labels, Vec<Sample>)> {
    let matchers = vec![Matcher::equal("__name__", "m")];
    let found = tenant.select(&Select { matchers, range_ms: range_ms.clone(), shard: None }).unwrap();
    assert!(found.is_sorted_by(|a, b| a.labels < b.labels));
    let within = |series: &crate::select::Series| {
        let samples = series.samples().unwrap();
        samples.into_iter().filter(|s| range_ms.contains(&s.timestamp_ms)).collect::<Vec<_>>()
    };
    found.iter().map(|s| (s.labels.clone(), within(s))).filter(|(_, s)| !s.is_empty()).collect()
}

/// The only series' samples as time and value.
fn only(tenant: &Tenant) -> Vec<(i64, f64)> {
    let mut found = select(tenant, ALL_TIMES);
    assert!(found.len() <= 1);
    let samples = found.pop().map(|(_, samples)| samples).unwrap_or_default();
    let value = |s: &Sample| match &s.value {
        crate::model::Value::Float(v) => *v,
        _ => panic!("a histogram"),
    };
    samples.iter().map(|s| (s.timestamp_ms, value(s))).collect()
}

//! A database with a client that remembers: what must be there, what may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tsdb::Error;
use tsdb::clock::ClockReading;
use tsdb::db::{
    Append, Bounds, Db, DbSettings, Maintenance, Outcome, Recovery, SeriesKey, SeriesRef, Tenant,
    TenantSettings,
};
use tsdb::disk::{Disk, MemoryDisk};
use tsdb::model::{IntHistogram, Labels, MatchOp, Matcher, Sample, Span, TenantId, Value, stale_nan};
use tsdb::select::Select;
use tsdb::wal::{WalPosition, WalSettings};
use tsdb::workers::Inline;
use xxhash_rust::xxh3::xxh3_128;

/// Tenants that write.
pub const TENANTS: usize = 3;
/// Series of a tenant that go on; others are made all the time and get a few samples.
const SERIES: usize = 24;
pub const START_MS: i64 = 1_700_006_400_000;
pub const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// Small, so that a short run goes through many segments, checkpoints and blocks.
pub fn settings() -> DbSettings {
    DbSettings {
        shards: 4,
        checkpoint_bytes: 24 << 10,
        wal: WalSettings { segment_bytes: 16 << 10, pending_bytes_max: 256 << 10, spares_max: 2 },
        tenant: TenantSettings {
            out_of_order_window_ms: 30 * MINUTE_MS,
            // Far longer than any run: only a clock that is off could make something old.
            retention_ms: Some(15 * DAY_MS),
            ..TenantSettings::default()
        },
        ..DbSettings::default()
    }
}

/// A sample's name: tenant, series, timestamp.
pub type Key = (usize, usize, i64);

/// What the client knows of a sample that it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// It must be there.
    Acked,
    /// It may be there.
    Unknown,
}

pub struct Store {
    pub disk: MemoryDisk,
    pub settings: DbSettings,
    db: Option<Db>,
    pub facts: BTreeMap<Key, Fact>,
    /// Appended and not yet acked, by the position that the ack waits for.
    waiting: Vec<(WalPosition, Vec<Key>)>,
    /// Every append that was taken, in order.
    pub appends: Vec<(WalPosition, Vec<Key>)>,
    pub now_ms: i64,
    pub rng: StdRng,
    /// Series made for a few samples so far.
    made: usize,
    /// Files of others in the data folder.
    strays: BTreeSet<PathBuf>,
}

impl Store {
    pub fn new(seed: u64, settings: DbSettings) -> Self {
        let mut store = Self {
            disk: MemoryDisk::new(),
            settings,
            db: None,
            facts: BTreeMap::new(),
            waiting: Vec::new(),
            appends: Vec::new(),
            now_ms: START_MS,
            rng: StdRng::seed_from_u64(seed),
            made: SERIES,
            strays: BTreeSet::new(),
        };
        store.open().unwrap();
        store
    }

    /// The same client before a copy of the disk.
    pub fn fork(&self) -> Self {
        Self {
            disk: self.disk.fork(),
            settings: self.settings.clone(),
            db: None,
            facts: self.facts.clone(),
            waiting: Vec::new(),
            appends: self.appends.clone(),
            now_ms: self.now_ms,
            rng: self.rng.clone(),
            made: self.made,
            strays: self.strays.clone(),
        }
    }

    pub fn db(&self) -> &Db {
        self.db.as_ref().expect("it is open")
    }

    /// Opens the database, without looking into it.
    pub fn open(&mut self) -> tsdb::Result<Recovery> {
        self.db = None;
        let seed = self.rng.random();
        let disk = Arc::new(self.disk.clone());
        let (db, recovery) = Db::open(disk, self.settings.clone(), self.now_ms, seed, &Inline)?;
        self.db = Some(db);
        Ok(recovery)
    }

    /// Ends the process, and with `power` the machine; then starts again. A start may meet one fault that is still to
    /// come; the next one succeeds.
    pub fn restart(&mut self, power: bool) -> Recovery {
        self.db = None;
        let mut power = power;
        for last in [false, true] {
            if power {
                let mut rng = StdRng::seed_from_u64(self.rng.random());
                self.disk.crash(&mut rng);
            } else {
                self.disk.kill();
            }
            self.waiting.clear();
            match self.open() {
                Ok(recovery) => return recovery,
                Err(error) => assert!(!last, "it can't start: {error}"),
            }
            power = true;
        }
        unreachable!("the second start returned or failed the test");
    }

    /// Restarts, checks that nothing is damaged and that all is there; what came back counts as acked from now on,
    /// and what didn't mustn't come later.
    pub fn restart_and_check(&mut self, power: bool) {
        let recovery = self.restart(power);
        assert!(!recovery.is_loss(), "{recovery:?}");
        assert!(recovery.damage.is_empty(), "{:?}", recovery.damage);
        self.check_strays(&recovery);
        self.check();
        let found = self.found();
        self.facts.retain(|key, _| found.contains_key(key));
        self.facts.values_mut().for_each(|fact| *fact = Fact::Acked);
    }

    /// Leaves names of others in every folder that there is, and sees to it that a power cut leaves them.
    pub fn litter(&mut self) {
        let list = |dir: &Path| self.disk.list(dir).unwrap_or_default();
        let mut folders = vec![PathBuf::new()];
        let mut at = 0;
        while let Some(folder) = folders.get(at).cloned() {
            folders.extend(list(&folder).into_iter().filter(|e| e.is_dir).map(|e| folder.join(e.name)));
            at += 1;
        }
        for folder in folders {
            for name in ["00 copy.bak", "a b.swp"] {
                let path = folder.join(name);
                if self.disk.create(&path).is_ok() {
                    self.strays.insert(path);
                }
            }
            self.disk.sync_dir(&folder).unwrap();
        }
    }

    /// A start has told of all strays that are in folders which are still there, and of nothing else.
    fn check_strays(&self, recovery: &Recovery) {
        let left = self.strays.iter().filter(|path| self.disk.size_bytes(path).unwrap().is_some());
        let left: BTreeSet<_> = left.cloned().collect();
        assert_eq!(recovery.unknown.iter().cloned().collect::<BTreeSet<_>>(), left);
    }

    /// Some batch from some tenant: mostly in order, sometimes late, sometimes sent again.
    pub fn append(&mut self) -> tsdb::Result<()> {
        let tenant = self.rng.random_range(0..TENANTS);
        let late = self.rng.random_bool(0.1);
        let timestamp_ms =
            if late { self.now_ms - self.rng.random_range(0..200) * MINUTE_MS } else { self.now_ms };
        let timestamp_ms = timestamp_ms - timestamp_ms % 5_000;
        let share = self.rng.random_range(0.1..1.0);
        let mut series: Vec<usize> = (0..SERIES).filter(|_| self.rng.random_bool(share)).collect();
        if self.rng.random_bool(0.4) {
            // New ones in the middle of the request, and some that were new a while ago.
            let new = self.rng.random_range(1..6);
            series.extend(self.made.saturating_sub(new).max(SERIES)..self.made + new);
            self.made += new;
        }
        let keys: Vec<Key> = series.into_iter().map(|series| (tenant, series, timestamp_ms)).collect();
        self.append_keys(tenant, &keys)
    }

    fn append_keys(&mut self, tenant: usize, keys: &[Key]) -> tsdb::Result<()> {
        for key in keys {
            self.facts.entry(*key).or_insert(Fact::Unknown);
        }
        let tenant = self.db().tenant(&tenant_id(tenant))?;
        let mut batch = Vec::new();
        for (_, series, timestamp_ms) in keys {
            batch.push(Append {
                series: series_ref(&tenant, *series)?,
                sample: sample(*series, *timestamp_ms),
            });
        }
        let mut outcomes = Vec::new();
        let position = tenant.append(&batch, &Bounds::ALL, &mut outcomes)?;
        let known = |outcome: &Outcome| outcome.is_ack() || *outcome == Outcome::UnknownSeries;
        assert!(outcomes.iter().all(known), "{outcomes:?}");
        let taken: Vec<Key> =
            keys.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ack()).map(|(key, _)| *key).collect();
        self.waiting.push((position, taken.clone()));
        self.appends.push((position, taken));
        Ok(())
    }

    /// Commits, and takes the acks that this allows.
    pub fn commit(&mut self) -> tsdb::Result<()> {
        let committed = self.db().commit();
        let durable = self.db().durable();
        for (_, keys) in self.waiting.extract_if(.., |(position, _)| *position <= durable) {
            for key in keys {
                self.facts.insert(key, Fact::Acked);
            }
        }
        committed.map(drop)
    }

    pub fn maintain(&mut self) -> tsdb::Result<Maintenance> {
        // Now and then one reading of the wall clock is a month off.
        let offset_ms = match self.rng.random_range(0..20) {
            0 => 30 * DAY_MS,
            1 => -30 * DAY_MS,
            _ => 0,
        };
        self.db().maintain(self.reading(offset_ms))
    }

    /// What the clocks show when the wall clock is off by so much.
    pub fn reading(&self, offset_ms: i64) -> ClockReading {
        let elapsed_ms = (self.now_ms - START_MS) as u64;
        ClockReading { wall_ms: self.now_ms + offset_ms, elapsed_ms }
    }

    pub fn flush(&mut self) -> tsdb::Result<Maintenance> {
        self.db().flush(self.now_ms)
    }

    /// One thing that a node does, time going by. Errors are what a fault may cause, and no other.
    pub fn step(&mut self) -> Result<(), Error> {
        let step = self.rng.random_range(0..20);
        match step {
            0..10 => {
                self.append()?;
                if self.rng.random_bool(0.7) { self.commit() } else { Ok(()) }
            }
            10..15 => {
                self.now_ms += self.rng.random_range(1..40) * MINUTE_MS;
                self.commit()
            }
            15..19 => self.maintain().map(drop),
            _ => self.flush().map(drop),
        }
    }

    /// Every acked sample is there, every sample that is there was sent, each once and with its value.
    pub fn check(&self) {
        let found = self.found();
        for (key, fact) in &self.facts {
            assert!(*fact == Fact::Unknown || found.contains_key(key), "{key:?} was acked and is lost");
        }
    }

    /// Acked samples that aren't there.
    pub fn missing(&self) -> Vec<Key> {
        let found = self.found();
        let acked = self.facts.iter().filter(|(_, fact)| **fact == Fact::Acked);
        acked.map(|(key, _)| *key).filter(|key| !found.contains_key(key)).collect()
    }

    /// All samples there are.
    fn found(&self) -> BTreeMap<Key, ()> {
        let mut found = BTreeMap::new();
        for tenant_index in 0..TENANTS {
            let Some(tenant) = self.db().existing_tenant(&tenant_id(tenant_index)) else { continue };
            let matchers = vec![Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap()];
            let select = Select { matchers, range_ms: i64::MIN..=i64::MAX, shard: None };
            for series in tenant.select(&select).unwrap() {
                let index: usize = series.labels.value("i").parse().unwrap();
                assert_eq!(series.labels, labels(index));
                for got in series.samples().unwrap() {
                    let key = (tenant_index, index, got.timestamp_ms);
                    assert!(self.facts.contains_key(&key), "nobody wrote {key:?}");
                    assert!(is_same(&got, &sample(index, got.timestamp_ms)), "{key:?} changed: {got:?}");
                    assert!(found.insert(key, ()).is_none(), "{key:?} is there twice");
                }
            }
        }
        found
    }
}

pub fn tenant_id(index: usize) -> TenantId {
    TenantId::new(["tenant-a", "b", "c"][index]).unwrap()
}

pub fn labels(series: usize) -> Labels {
    let name = format!("metric_{}", series % 5);
    let (i, instance) = (series.to_string(), format!("host-{}", series / 5));
    Labels::from_pairs([("__name__", &*name), ("i", &*i), ("instance", &*instance)]).unwrap()
}

pub fn series_ref(tenant: &Tenant, series: usize) -> tsdb::Result<SeriesRef> {
    let labels = labels(series);
    let key = SeriesKey(xxh3_128(labels.as_bytes()));
    let mut found = Vec::new();
    tenant.lookup(&[key], &mut found);
    if found[0].is_none() { tenant.intern(key, &labels) } else { Ok(found[0]) }
}

/// The one sample that a series has at a time. Most have floats, every sixth one integer histograms, and one in twelve
/// has floats, stale markers and histograms in turn.
pub fn sample(series: usize, timestamp_ms: i64) -> Sample {
    let noise = timestamp_ms.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64).unsigned_abs() >> 40;
    let is_mixed = series % 12 == 4;
    if is_mixed && noise % 3 == 1 {
        return Sample::float(timestamp_ms, stale_nan());
    }
    if series % 6 != 5 && !(is_mixed && noise % 3 == 2) {
        let value = if series.is_multiple_of(2) { noise as f64 } else { noise as f64 / 7.0 };
        return Sample::float(timestamp_ms, value);
    }
    // Counts grow with time, so that no reset is seen where there is none.
    let count = (timestamp_ms - START_MS + 1_000 * MINUTE_MS) as u64;
    let histogram = IntHistogram {
        schema: 2,
        count: 3 * count,
        sum: count as f64 * 0.5,
        zero_threshold: 0.001,
        zero_count: count,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        positive_buckets: vec![count, count],
        ..IntHistogram::default()
    };
    Sample { timestamp_ms, start_ms: 0, value: Value::Int(Arc::new(histogram)) }
}

/// Equal but for what a chunk derives itself: whether there was a reset before.
pub fn is_same(a: &Sample, b: &Sample) -> bool {
    let plain = |sample: &Sample| match &sample.value {
        Value::Int(histogram) => {
            let histogram =
                IntHistogram { counter_reset: Default::default(), ..IntHistogram::clone(histogram) };
            Value::Int(Arc::new(histogram))
        }
        other => other.clone(),
    };
    let is_same = match (&a.value, &b.value) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        _ => plain(a) == plain(b),
    };
    a.timestamp_ms == b.timestamp_ms && is_same
}

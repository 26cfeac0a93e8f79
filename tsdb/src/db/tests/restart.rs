//! What a start makes of a data folder, whoever does the work.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::chunk::Writes;
use crate::disk::Fault;
use crate::files::WalFile;
use crate::model::{IntHistogram, Value};
use crate::select::Series;
use crate::workers::Workers;

/// Runs tasks from the last to the first, each on a thread of its own.
struct Backwards;

#[allow(clippy::disallowed_methods, reason = "threads are what is tested")]
impl Workers for Backwards {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        for number in (0..tasks).rev() {
            std::thread::scope(|scope| {
                scope.spawn(|| task(number));
            });
        }
    }
}

/// Runs all tasks at once.
struct AtOnce;

#[allow(clippy::disallowed_methods, reason = "threads are what is tested")]
impl Workers for AtOnce {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for number in 0..tasks {
                scope.spawn(move || task(number));
            }
        });
    }
}

/// Every file of the head, by path.
fn head_files(disk: &MemoryDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for shard in disk.list(Path::new(files::HEAD_DIR)).unwrap().into_iter().filter(|entry| entry.is_dir) {
        let dir = Path::new(files::HEAD_DIR).join(shard.name);
        for file in disk.list(&dir).unwrap() {
            let path = dir.join(file.name);
            let bytes = disk.read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// Tenants that come in turn, series of every kind, a cut, late samples, a checkpoint in between.
fn lived_in(disk: &Arc<MemoryDisk>) {
    let (db, _) = open(disk);
    for step in 0..400i64 {
        let tenant = db.tenant(&TenantId::new(["b", "a", "c"][step as usize % 3]).unwrap()).unwrap();
        let mut samples: Vec<_> =
            (0..40).map(|i| float(i, BASE_MS + step * 60_000, (step * i as i64) as f64)).collect();
        let histogram = IntHistogram { count: step as u64, ..IntHistogram::default() };
        let value = Value::Int(Arc::new(histogram));
        samples.push((90, Sample { timestamp_ms: BASE_MS + step * 60_000, start_ms: 0, value }));
        samples.push(float(91, BASE_MS - step * 1000, 1.0));
        append(&tenant, &samples).unwrap();
        let metadata = Metadata { family: format!("f{}", step % 7), ..Metadata::default() };
        tenant.append_metadata(&[metadata]).unwrap();
        db.commit().unwrap();
        if step == 250 {
            assert!(!maintain(&db, BASE_MS).unwrap().cut.is_empty());
        }
    }
}

#[test]
fn a_restart_gives_the_same_on_any_number_of_threads() {
    let disk = Arc::new(MemoryDisk::new());
    lived_in(&disk);
    let outcomes = [&Inline as &dyn Workers, &Backwards, &AtOnce].map(|workers| {
        let disk = Arc::new(disk.fork());
        let (db, recovery) = Db::open(disk.clone(), settings(), BASE_MS, 7, workers).unwrap();
        let answers: Vec<_> = db
            .tenants()
            .iter()
            .map(|t| (t.id().clone(), select(t, ALL_TIMES), t.metadata(None, 0)))
            .collect();
        let names = db.tenants()[0].label_values("i", &[], ALL_TIMES, 0).unwrap();
        db.seal().unwrap();
        (format!("{recovery:?}"), format!("{answers:?}"), names, head_files(&disk))
    });
    let (recovery, answers, names, _) = &outcomes[0];
    assert!(recovery.contains("samples: ") && answers.len() > 1_000);
    assert_eq!(names.len(), 42);
    assert!(outcomes[0] == outcomes[1]);
    assert!(outcomes[0] == outcomes[2]);
}

#[test]
fn a_passing_error_of_the_disk_costs_a_start_no_block() {
    let disk = Arc::new(MemoryDisk::new());
    lived_in(&disk);
    let whole = disk.fork();
    let begun = whole.operations();
    drop(open(&Arc::new(whole.clone())));
    let operations = whole.operations() - begun;
    for after in 0..operations {
        let disk = Arc::new(disk.fork());
        disk.inject(Fault::Io { after });
        // A start that fails is tried again by whoever asked for it; one that succeeds has everything.
        if let Ok((_, recovery)) = Db::open(disk, settings(), BASE_MS, 7, &Inline) {
            assert!(!recovery.is_loss(), "operation {after}: {recovery:?}");
        }
    }
}

#[test]
fn what_a_power_cut_leaves_of_a_group_without_its_sync_is_no_loss() {
    let mut with_holes = 0;
    for seed in 0..20 {
        let disk = Arc::new(MemoryDisk::new());
        let (db, _) = open(&disk);
        let tenant = db.tenant(&id()).unwrap();
        append(&tenant, &[float(0, BASE_MS, 1.0)]).unwrap();
        db.commit().unwrap();
        for step in 1..200 {
            let samples: Vec<_> = (0..40).map(|i| float(i, BASE_MS + step, 1.0)).collect();
            append(&tenant, &samples).unwrap();
        }
        disk.inject(Fault::Power { after: 1 });
        assert!(db.commit().is_err());
        disk.crash(&mut StdRng::seed_from_u64(seed));
        // The second start finds the holes in a segment that isn't the last one any more.
        for _ in 0..2 {
            let (db, recovery) = open(&disk);
            with_holes += u32::from(recovery.wal.damage_count > 0);
            assert!(!recovery.is_loss(), "seed {seed}: {recovery:?}");
            let found = select(&db.existing_tenant(&id()).unwrap(), ALL_TIMES);
            assert_eq!(found[0].1[0].timestamp_ms, BASE_MS);
        }
    }
    assert!(with_holes > 0);
}

#[test]
fn rot_of_what_was_synced_is_a_loss() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, recovery) = open(&disk);
    assert!(!recovery.is_loss());
    let tenant = db.tenant(&id()).unwrap();
    for step in 0..3 {
        append(&tenant, &[float(0, BASE_MS + step, 1.0)]).unwrap();
        db.commit().unwrap();
    }
    drop(db);
    disk.kill();
    let segment = WalFile::Segment(1).path(Path::new(files::WAL_DIR));
    disk.flip(&segment, 70, 1).unwrap();
    assert!(open(&disk).1.is_loss());
}

/// Samples with start times, floats and histograms, in order and late, over a checkpoint, a crash and a cut.
#[test]
fn start_times_are_kept_only_where_they_are_to_be_and_survive_everything() {
    for writes in [Writes::Classic, Writes::WithStarts] {
        let disk = Arc::new(MemoryDisk::new());
        let settings = || DbSettings { writes, ..settings() };
        let reopen = || Db::open(disk.clone(), settings(), BASE_MS, 7, &Inline).unwrap().0;
        let mut db = reopen();
        let mut sent = Vec::new();
        for step in 0..100i64 {
            let timestamp_ms = BASE_MS + step * 60_000;
            // Unknown at first, and now and then later; the first series never has one.
            let start_ms =
                |i: usize| if i == 0 || step < 20 || step % 7 == 0 { 0 } else { BASE_MS - 1 - step / 30 };
            let histogram =
                IntHistogram { count: step as u64, zero_count: step as u64, ..IntHistogram::default() };
            let values = [Value::Float(0.0), Value::Float(step as f64), Value::Int(Arc::new(histogram))];
            let samples: Vec<_> = values
                .into_iter()
                .enumerate()
                .map(|(i, value)| (i, Sample { timestamp_ms, start_ms: start_ms(i), value }))
                .collect();
            let tenant = db.tenant(&id()).unwrap();
            // Every fifth comes late.
            let samples = if step % 5 == 3 {
                sent.push(samples);
                continue;
            } else {
                samples
            };
            append(&tenant, &samples).unwrap();
            sent.push(samples.clone());
            let (again, _) = append(&tenant, &samples).unwrap();
            assert!(again.iter().all(|outcome| *outcome == Outcome::Duplicate));
            if step == 50 {
                db.seal().unwrap();
                drop(tenant);
                db = reopen();
            }
        }
        let tenant = db.tenant(&id()).unwrap();
        for samples in sent.iter().skip(3).step_by(5) {
            append(&tenant, samples).unwrap();
        }
        db.commit().unwrap();
        // When a histogram's counts were reset is told by its neighbours: only the number counts.
        let shown = |sample: &Sample| {
            let number = match &sample.value {
                Value::Float(value) => *value,
                Value::Int(histogram) => histogram.count as f64,
                Value::Histogram(histogram) => histogram.count,
            };
            (sample.timestamp_ms, sample.start_ms, number)
        };
        let kept = |(timestamp_ms, start_ms, number)| match writes {
            Writes::Classic => (timestamp_ms, 0, number),
            Writes::WithStarts => (timestamp_ms, start_ms, number),
        };
        let wanted: Vec<Vec<_>> =
            (0..3).map(|i| sent.iter().map(|step| kept(shown(&step[i].1))).collect()).collect();
        let stored = |db: &Db| {
            let select =
                Select { matchers: vec![Matcher::equal("__name__", "m")], range_ms: ALL_TIMES, shard: None };
            let mut found = db.tenant(&id()).unwrap().select(&select).unwrap();
            found.sort_by(|a, b| a.labels.cmp(&b.labels));
            let samples = |series: &Series| series.samples().unwrap().iter().map(shown).collect::<Vec<_>>();
            found.iter().map(samples).collect::<Vec<_>>()
        };
        assert_eq!(stored(&db), wanted, "{writes:?}");
        drop(db);
        db = reopen();
        assert_eq!(stored(&db), wanted, "{writes:?}, after a restart");
        // The first notes what there is; an hour later it is cut.
        maintain(&db, BASE_MS + 3 * HOUR_MS).unwrap();
        maintain(&db, BASE_MS + 48 * HOUR_MS).unwrap();
        assert!(!db.local_blocks().is_empty());
        assert_eq!(stored(&db), wanted, "{writes:?}, from a block");
    }
}

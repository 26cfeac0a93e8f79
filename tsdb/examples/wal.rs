//! What the write-ahead log costs: nanoseconds a sample to encode, to append and to commit, and to read back.
//!
//! `cargo run --release -p tsdb --example wal [-- FOLDER [BATCHES [SAMPLES_PER_BATCH]]]`; the folder is made and
//! left behind, by default under the system's folder for temporary files. The log's own settings, one commit for
//! every eight batches, as eight connections make it.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and prints"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tsdb::Result;
use tsdb::disk::OsDisk;
use tsdb::head::SeriesRef;
use tsdb::model::TenantId;
use tsdb::wal::record::floats::{FloatSample, Floats, FloatsWriter};
use tsdb::wal::{Frame, RecordKind, Wal, WalPosition, WalSettings};

const BATCHES_PER_COMMIT: u64 = 8;
const SHARDS: u64 = 8;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let temporary = || std::env::temp_dir().join("carillon-wal-example");
    let folder = args.next().map_or_else(temporary, PathBuf::from);
    let mut number = |default| args.next().and_then(|a| a.parse().ok()).unwrap_or(default);
    let (batches, samples) = (number(5_000), number(2_000));

    let disk = Arc::new(OsDisk::open(&folder).map_err(|e| tsdb::Error::io("open", &folder, e))?);
    let dir = Path::new("wal");
    let tenant = TenantId::new("anonymous")?;
    let mut ignore = |_: &[tsdb::wal::RecordRef<'_>]| Ok(());
    let (wal, _) = Wal::open(disk.clone(), dir, WalSettings::default(), &mut ignore, WalPosition::START)?;

    let (mut encode, mut append, mut commit) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut writer = FloatsWriter::default();
    let mut bytes = 0;
    for batch in 0..batches {
        let start = Instant::now();
        writer.clear();
        for i in 0..samples {
            // Mostly counters and gauges of whole numbers, one in four a fraction.
            let value = if i % 4 == 0 { (batch * i) as f64 / 7.0 } else { (batch * 15 + i) as f64 };
            let series = SeriesRef::from_u64((batch % 50 * samples + i) * SHARDS);
            writer.push(FloatSample {
                series,
                timestamp_ms: 1_700_000_000_000 + (batch as i64),
                start_ms: 0,
                value,
            });
        }
        encode += start.elapsed();
        let start = Instant::now();
        let (min_ms, max_ms) = writer.times_ms();
        let payload = writer.payload();
        bytes += payload.len();
        let frame = Frame { kind: RecordKind::Floats, tenant: &tenant, shard: 0, min_ms, max_ms, payload };
        let _ = wal.append(None, &[frame])?;
        append += start.elapsed();
        if batch % BATCHES_PER_COMMIT == BATCHES_PER_COMMIT - 1 {
            let start = Instant::now();
            wal.commit()?;
            commit += start.elapsed();
        }
    }
    wal.close()?;
    let syncs = wal.stats().syncs;
    drop(wal);

    let mut seen = 0u64;
    let mut read = |records: &[tsdb::wal::RecordRef<'_>]| {
        for sample in records.iter().flat_map(|record| Floats::new(record.payload)) {
            std::hint::black_box(sample?);
            seen += 1;
        }
        Ok(())
    };
    let start = Instant::now();
    let (_, recovery) = Wal::open(disk, dir, WalSettings::default(), &mut read, WalPosition::START)?;
    let replay = start.elapsed();

    let total = batches * samples;
    println!(
        "{total} samples in {batches} batches, {syncs} syncs, {} bytes a sample",
        bytes as f64 / total as f64
    );
    for (what, took) in [("encode", encode), ("append", append), ("commit", commit)] {
        println!("{what:<10} {:6.1} ns a sample", took.as_nanos() as f64 / total as f64);
    }
    println!(
        "read back  {:6.1} ns a sample ({seen} samples, {recovery:?})",
        replay.as_nanos() as f64 / seen as f64
    );
    Ok(())
}

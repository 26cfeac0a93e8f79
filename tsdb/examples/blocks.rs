//! What writing, merging and reading blocks cost, in samples per CPU-second:
//! `cargo run --release -p tsdb --example blocks`.
//!
//! 100,000 series as node_exporter gives them, seven labels each, 480 samples 15 s apart in two hours; three blocks of
//! two hours are written, merged into one and read. Beside it what copying and checksumming the same bytes costs, read
//! from maps and written and synced as a merge does: its floor. Shown are means over some rounds, and how much of each
//! is the system's: writing to a file costs it most, and varies with where it finds memory.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a program that measures, for people to read"
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tsdb::block::{Block, BlockMeta, BlockWriter};
use tsdb::chunk::{Columns, encode};
use tsdb::compact::{merge, merged_meta};
use tsdb::disk::{Disk, OsDisk};
use tsdb::model::{Labels, MatchOp, Matcher, Sample};
use tsdb::select::{Chunk, Select};
use ulid::Ulid;

const INSTANCES: usize = 400;
const METRICS: usize = 25;
const MODES: usize = 10;
const BLOCKS: i64 = 3;
const RANGE_MS: i64 = 7_200_000;
const STEP_MS: i64 = 15_000;
const ROUNDS: u32 = 5;
const SHORT_ROUNDS: u32 = 100;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(folder.path()).unwrap());
    let contents: Vec<_> = (0..BLOCKS).map(contents).collect();
    let samples = BLOCKS as u64 * (INSTANCES * METRICS * MODES) as u64 * (RANGE_MS / STEP_MS) as u64;
    println!("{:<48} {:>9} {:>9} {:>13}", "", "CPU ms", "system", "M samples/s");
    let show = |what: &str, cpu: Cpu, samples: u64| {
        let speed = samples as f64 / (cpu.user + cpu.system) / 1e6;
        println!("{what:<48} {:>9.0} {:>9.0} {speed:>13.0}", (cpu.user + cpu.system) * 1e3, cpu.system * 1e3);
    };

    let mut blocks = Vec::new();
    let cpu = mean(ROUNDS, |round| {
        blocks.clear();
        for (number, series) in (0..).zip(&contents) {
            blocks.push(write(&disk, u128::from(round) * 100 + number, number as i64 * RANGE_MS, series));
        }
    });
    show("chunks to blocks", cpu, samples);
    let bytes: u64 = blocks.iter().map(|block| size(&*disk, block.dir())).sum();

    // In turn: the system finds memory for a file ever more slowly the more of it was used.
    let mut merged = None;
    let (mut copying, mut merging) = (Cpu::default(), Cpu::default());
    for round in 1..=ROUNDS {
        copying.add(mean(1, |_| copy(&*disk, &blocks, round)), ROUNDS);
        let mut run = |_| {
            let meta = merged_meta(Ulid(1000 + u128::from(round)), &blocks);
            merged = merge(&disk, Path::new(""), meta, &blocks).unwrap();
        };
        merging.add(mean(1, &mut run), ROUNDS);
    }
    show("their chunk files copied and summed", copying, samples);
    show("three blocks into one", merging, samples);
    let meta = merged.unwrap();
    assert_eq!(meta.stats.num_samples, samples);
    let dir = PathBuf::from(meta.ulid.to_string());
    let index = disk.size_bytes(&dir.join("index")).unwrap().unwrap();
    println!(
        "{:<48} {:.2} before, {:.2} after; index {:.1} a series",
        "bytes a sample",
        bytes as f64 / samples as f64,
        size(&*disk, &dir) as f64 / samples as f64,
        index as f64 / meta.stats.num_series as f64,
    );

    show("opening it", mean(SHORT_ROUNDS, |_| drop(black_box(Block::open(&*disk, &dir).unwrap()))), samples);
    read(&Block::open(&*disk, &dir).unwrap());
    let all = Select { matchers: Vec::new(), range_ms: i64::MIN..=i64::MAX, shard: None };
    let block = Block::open(&*disk, &dir).unwrap();
    let cpu = mean(ROUNDS, |_| {
        let mut columns = Columns::default();
        for series in block.select(&all).unwrap() {
            series.decode(i64::MIN..=i64::MAX, &mut columns).unwrap();
            black_box(&columns);
        }
    });
    show("selecting and decoding all", cpu, samples);
}

fn read(block: &Block) {
    let metric = || Matcher::equal("__name__", "node_metric_07_total");
    let matcher = |op, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
    let one =
        vec![metric(), matcher(MatchOp::Regex, "instance", "host-0?077.*"), Matcher::equal("mode", "mode-3")];
    let cases = [
        ("selecting one metric", vec![metric()]),
        ("selecting one series, its instance by a pattern", one),
        ("selecting instance=~\".*7.*\"", vec![matcher(MatchOp::Regex, "instance", ".*7.*")]),
        ("selecting all", vec![matcher(MatchOp::NotEqual, "__name__", "")]),
    ];
    for (what, matchers) in cases {
        let select = Select { matchers, range_ms: i64::MIN..=i64::MAX, shard: None };
        let mut series = 0;
        let cpu = mean(SHORT_ROUNDS, |_| series = black_box(block.select(&select).unwrap()).len());
        let seconds = cpu.user + cpu.system;
        let each = seconds * 1e9 / series as f64;
        println!("{what:<48} {:>9.2} ms for {series} series, {each:.0} ns each", seconds * 1e3);
    }
}

/// What a merge can't do without.
fn copy(disk: &dyn Disk, blocks: &[Block], round: u32) {
    let file = disk.create(Path::new(&format!("copy-{round}"))).unwrap();
    let mut buffer = Vec::with_capacity(2 << 20);
    let mut at = 0;
    let mut sum = 0;
    for block in blocks {
        let path = block.dir().join("chunks/000001");
        let source = disk.map(&path, 0..disk.size_bytes(&path).unwrap().unwrap()).unwrap();
        for chunk in source.chunks(250) {
            sum ^= crc_fast::crc32_iscsi(chunk);
            buffer.extend_from_slice(chunk);
            if buffer.len() >= 1 << 20 {
                file.write_at(at, &buffer).unwrap();
                at += buffer.len() as u64;
                buffer.clear();
            }
        }
    }
    file.sync().unwrap();
    black_box(sum);
}

/// Seconds that this thread was on a processor, for itself and in the system; the clock ticks 100 times a second.
#[derive(Clone, Copy, Default)]
struct Cpu {
    user: f64,
    system: f64,
}

impl Cpu {
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        let mut ticks = fields.skip(11).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0);
        Self { user: ticks.next().unwrap(), system: ticks.next().unwrap() }
    }

    fn add(&mut self, one: Self, of_rounds: u32) {
        self.user += one.user / f64::from(of_rounds);
        self.system += one.system / f64::from(of_rounds);
    }
}

fn mean(rounds: u32, mut run: impl FnMut(u32)) -> Cpu {
    let begun = Cpu::now();
    (1..=rounds).for_each(&mut run);
    let ended = Cpu::now();
    let rounds = f64::from(rounds);
    Cpu { user: (ended.user - begun.user) / rounds, system: (ended.system - begun.system) / rounds }
}

fn contents(block: i64) -> Vec<(Labels, Vec<Chunk>)> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut series = Vec::new();
    for metric in 0..METRICS {
        for instance in 0..INSTANCES {
            for mode in 0..MODES {
                let labels = Labels::from_pairs([
                    ("__name__", &*format!("node_metric_{metric:02}_total")),
                    ("cluster", "production-eu-west"),
                    ("cpu", &format!("{}", mode % 4)),
                    ("instance", &format!("host-{instance:04}.example.com:9100")),
                    ("job", "node_exporter"),
                    ("mode", &format!("mode-{mode}")),
                    ("zone", ["a", "b", "c"][instance % 3]),
                ])
                .unwrap();
                let kind = rng.random_range(0..4);
                let samples: Vec<_> = (0..RANGE_MS / STEP_MS)
                    .map(|i| {
                        let value = match kind {
                            0 => 1.0,
                            1 => 15.0 * i as f64,
                            2 => 150.0 * i as f64 + f64::from(rng.random_range(0u8..50)),
                            _ => f64::from(rng.random_range(0u16..1000)) / 8.0,
                        };
                        Sample::float(block * RANGE_MS + i * STEP_MS, value)
                    })
                    .collect();
                series.push((labels, samples.chunks(120).flat_map(encode).collect()));
            }
        }
    }
    series.sort_by(|(a, _), (b, _)| a.cmp(b));
    series
}

fn write(disk: &Arc<dyn Disk>, ulid: u128, start_ms: i64, series: &[(Labels, Vec<Chunk>)]) -> Block {
    let meta = BlockMeta::new(Ulid(ulid), start_ms, start_ms + RANGE_MS);
    let mut writer = BlockWriter::create(disk, Path::new(""), meta).unwrap();
    for (labels, chunks) in series {
        writer.add(labels, chunks).unwrap();
    }
    let meta = writer.finish().unwrap().unwrap();
    Block::open(&**disk, &PathBuf::from(meta.ulid.to_string())).unwrap()
}

fn size(disk: &dyn Disk, dir: &Path) -> u64 {
    let files = disk.list(dir).unwrap();
    files
        .iter()
        .map(|e| {
            if e.is_dir {
                size(disk, &dir.join(&e.name))
            } else {
                disk.size_bytes(&dir.join(&e.name)).unwrap().unwrap()
            }
        })
        .sum()
}

//! A Prometheus of its own for a test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reference::Series;
use tsdb::model::Sample;

use crate::run::Target as _;
use crate::script::When;
use crate::{api, load};

/// How long one may take to start.
const START_ATTEMPTS: u32 = 300;

/// Time of the samples that are sent to it together, in milliseconds.
const WINDOW_MS: i64 = 30 * 60 * 1000;

/// The newest Prometheus beside the system's.
pub fn program() -> Option<PathBuf> {
    let named = std::env::var_os("CARILLON_PEERS").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/carillon-peers"));
    let dir = named.or_else(home)?;
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(&dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    let found = found.into_iter().map(|path| path.join("usr/bin/prometheus")).rfind(|path| path.exists());
    if found.is_none() {
        let why = format!("no Prometheus in {}; .ci/setup puts one there", dir.display());
        assert!(std::env::var_os("CARILLON_REQUIRE_PEERS").is_none(), "{why}");
        eprintln!("SKIPPED: {why}");
    }
    found
}

/// A Prometheus with its own data, ended when dropped.
pub struct Peer {
    child: Child,
    dir: PathBuf,
    pub api: api::Api,
    /// Whether it removes names at the very end.
    pub keeps_names: bool,
}

impl Peer {
    pub fn start(program: &Path, number: u64, keeps_names: bool) -> Self {
        let dir = std::env::temp_dir().join(format!("carillon-fuzz-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("prometheus.yml"), "global: {}\n").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-remote-write-receiver")
            .arg("--storage.tsdb.retention.time=100y")
            .arg("--enable-feature=native-histograms,promql-experimental-functions")
            .args(keeps_names.then_some("--enable-feature=promql-delayed-name-removal"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let api = api::Api::new(&format!("http://127.0.0.1:{port}"), "fuzz".to_owned()).unwrap();
        let mut peer = Self { child, dir, api, keeps_names };
        for _ in 0..START_ATTEMPTS {
            if peer.api.ask("vector(1)", When::Instant(0)).is_ok() {
                return peer;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{}", std::fs::read_to_string(peer.dir.join("log")).unwrap());
    }

    pub fn load(&mut self, data: &[Series]) {
        // Of one request it takes all floats first, and then refuses the histograms before them (stale markers become
        // what the series' last sample was): each run of one kind goes into a request of its own.
        let is_float = |sample: &Sample| matches!(sample.value, tsdb::model::Value::Float(_));
        let joins =
            |a: &Sample, b: &Sample| is_float(a) == is_float(b) && !a.value.is_stale() && !b.value.is_stale();
        // It refuses what is an hour older than the newest of all series, so they come window by window.
        let window = |sample: &Sample| sample.timestamp_ms.div_euclid(WINDOW_MS);
        let windows: BTreeSet<i64> = data.iter().flat_map(|series| &series.samples).map(window).collect();
        for at in windows {
            for round in 0.. {
                let run = |series: &Series| {
                    let begin = series.samples.partition_point(|sample| window(sample) < at);
                    let end = series.samples.partition_point(|sample| window(sample) <= at);
                    let mut runs = series.samples[begin..end].chunk_by(|a, b| joins(a, b));
                    runs.nth(round).map(|run| (series.labels.clone(), run.to_vec()))
                };
                let series: Vec<_> = data.iter().filter_map(run).collect();
                if series.is_empty() {
                    break;
                }
                self.api.load(&load::Load { series }).unwrap();
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

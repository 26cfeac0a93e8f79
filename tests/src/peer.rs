//! Peers: real Prometheus servers and node_exporter, as `.ci/setup` installs them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::signal;
use crate::{Http, skip};

/// A running peer with a port of its own. Dropping it ends it.
pub struct Peer {
    child: Child,
    port: u16,
    log: PathBuf,
}

/// Ports below those that the system gives to outgoing connections: one of these could be taken between the choice and
/// the start of who shall listen on it, or while a node that is to come back to it is away.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// A port of the loopback that nobody listens on now, and that no other test of this process gets.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Processes that run at once begin far from each other.
    let first = std::process::id().wrapping_mul(2_654_435_761);
    (0..count)
        .map(|_| first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % count + PORTS.start)
        .map(|port| u16::try_from(port).expect("the range ends below 65,536"))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("some port is free")
}

/// Debian's Prometheus, or `None` with a message.
pub fn prometheus() -> Option<PathBuf> {
    installed("/usr/bin/prometheus".into())
}

/// Debian's promtool, or `None` with a message.
pub fn promtool() -> Option<PathBuf> {
    installed("/usr/bin/promtool".into())
}

/// Debian's node_exporter, or `None` with a message.
pub fn node_exporter() -> Option<PathBuf> {
    installed("/usr/bin/prometheus-node-exporter".into())
}

/// A program of the Python environment that `.ci/setup` makes (`moto_server`, `weed`, `rclone`), or `None` with a
/// message.
pub fn python_peer(name: &str) -> Option<PathBuf> {
    installed(peers_dir()?.join("python/bin").join(name))
}

/// The newest Prometheus of 3.5 or later that was unpacked beside the system, or `None` with a message.
pub fn prometheus_new() -> Option<PathBuf> {
    unpacked("prometheus-3", "usr/bin/prometheus")
}

/// The newest vmagent that was unpacked beside the system, or `None` with a message.
pub fn vmagent() -> Option<PathBuf> {
    unpacked("victoria-metrics-", "usr/bin/vmagent")
}

/// The folder of npm's client of remote write, for `require`, or `None` with a message.
pub fn npm_client() -> Option<PathBuf> {
    installed(peers_dir()?.join("npm/node_modules/prometheus-remote-write"))
}

/// A program of the newest package whose folder's name begins like this.
fn unpacked(prefix: &str, program: &str) -> Option<PathBuf> {
    let dir = peers_dir()?;
    let mut found: Vec<_> = std::fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    found.sort();
    let newest = found.pop().unwrap_or_else(|| format!("{prefix}*"));
    installed(dir.join(newest).join(program))
}

fn peers_dir() -> Option<PathBuf> {
    let named = std::env::var_os("CARILLON_PEERS").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/carillon-peers"));
    named.or_else(home)
}

fn installed(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    let why = format!("{} isn't installed; .ci/setup does that", path.display());
    // CI installs them: there, a test that quietly does nothing would be a hole.
    assert!(std::env::var_os("CARILLON_REQUIRE_PEERS").is_none(), "{why}");
    skip(&why);
    None
}

impl Peer {
    /// Starts a program that serves HTTP on `port`, with its log in `dir`, and waits until `path` answers.
    pub async fn start(program: &Path, port: u16, args: &[String], dir: &Path, path: &str) -> Self {
        Self::start_until(program, port, args, dir, path, &[200]).await
    }

    /// As [`Peer::start`], waiting for one of these statuses.
    pub async fn start_until(
        program: &Path,
        port: u16,
        args: &[String],
        dir: &Path,
        path: &str,
        statuses: &[u16],
    ) -> Self {
        let log = dir.join(format!("log-{port}"));
        let file = File::create(&log).unwrap();
        let child = Command::new(program)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut peer = Self { child, port, log };
        let http = peer.http();
        crate::eventually("a peer that answers", 60, async || {
            let ended = peer.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended: {}", program.display(), peer.log());
            http.try_get(path, &[]).await.ok().filter(|answer| statuses.contains(&answer.status))
        })
        .await;
        peer
    }

    /// Starts a Prometheus with this configuration and its data in `dir`.
    pub async fn prometheus(program: &Path, dir: &Path, config: &str, more: &[&str]) -> Self {
        let port = free_port();
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("prometheus.yml"), config.replace("SELF", &format!("127.0.0.1:{port}")))
            .unwrap();
        let mut args = vec![
            format!("--config.file={}", dir.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", dir.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        Self::start(program, port, &args, dir, "/-/ready").await
    }

    /// Its port on the loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it answers, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client of it.
    pub fn http(&self) -> Http {
        Http::new(&self.url())
    }

    /// Stops it in its tracks, as a machine that is suspended.
    pub fn pause(&self) {
        signal("STOP", self.child.id());
    }

    /// Lets a paused one go on.
    pub fn go_on(&self) {
        signal("CONT", self.child.id());
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            signal("KILL", self.child.id());
        }
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!(
                "--- the last of a peer's log\n{}\n---",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
    }
}

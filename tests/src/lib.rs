//! The harness of the tests that drive real processes: nodes of Carillon, and its peers.
//!
//! Every process listens on a free loopback port, keeps its data in a temporary folder, and is ended by its own id
//! when its handle is dropped. Peers that aren't installed (`.ci/setup`) make a test say so and pass.

#![allow(clippy::disallowed_methods, reason = "these tests are the outside world: real files, ports, time")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test panics at what it doesn't expect")]

mod binary;
pub mod cluster;
pub mod compare;
mod http;
pub mod ledger;
pub mod load;
mod peer;
mod process;
pub mod wire;

use std::path::{Path, PathBuf};

pub use binary::{carillon, promqltest};
pub use http::{Answer, Http};
pub use peer::{
    Peer, free_port, node_exporter, npm_client, prometheus, prometheus_new, promtool, python_peer, vmagent,
};
pub use process::{Ended, NodeProcess, run};

/// The folder that holds the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// A folder of recorded data beside the workspace, or `None` with a message where it isn't there.
pub fn fixtures(part: &str) -> Option<PathBuf> {
    let dir = workspace().join("../shared/fixtures").join(part);
    if dir.exists() {
        return Some(dir);
    }
    skip(&format!("{} isn't there", dir.display()));
    None
}

/// Says that a test does nothing here, and why. `.ci/run` counts these lines, and fails where there is one.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED {test}: {why}");
}

/// The wall clock in milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// How many times longer than on an idle machine something may take before a test gives up: debug builds, two cores,
/// and a dozen tests that share them. Nobody waits so long where it goes well.
pub const PATIENCE: u64 = 5;

/// Asks `check` every 100 ms until it is content.
///
/// # Panics
/// When that takes [`PATIENCE`] times `limit_s`, which is enough on an idle machine; names `what`.
pub async fn eventually<T>(what: &str, limit_s: u64, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let limit_s = limit_s * PATIENCE;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(limit_s);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {limit_s} s");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

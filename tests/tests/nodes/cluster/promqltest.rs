//! Prometheus's own PromQL scripts against a cluster.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use tests::cluster::Cluster;
use tests::{promqltest, skip, workspace};

/// PromQL's scripts.
const SCRIPTS: &str = "../shared/promqltest";
/// How many cases they have.
const CASES: usize = 1383;
/// The one whose data has start times, which come by remote write 2.0 alone, and how many cases it has.
const WITH_STARTS: (&str, usize) = ("start_timestamps.test", 18);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_passes_the_scripts_of_promql() {
    let Ok(folder) = std::fs::read_dir(workspace().join(SCRIPTS)) else {
        return skip(&format!("{SCRIPTS} isn't there"));
    };
    let is_release = std::env::var_os("CARILLON_BIN").is_some();
    let cases = if is_release { CASES } else { WITH_STARTS.1 };
    let is_wanted = |path: &PathBuf| {
        // All of them take minutes where the nodes are a debug build.
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if is_release { name.ends_with(".test") } else { name == WITH_STARTS.0 }
    };
    let scripts: Vec<_> = folder.map(|entry| entry.unwrap().path()).filter(is_wanted).collect();
    // Start times lie in this encoding alone, and names go at the very end in what scripts expect.
    let options = [
        "--query-delayed-name-removal",
        "true",
        "--storage-chunk-encoding",
        "xor2",
        "--limits-max-backfill",
        "unlimited",
        "--limits-out-of-order-window",
        "unlimited",
    ];
    let cluster = Cluster::start_with(3, 3, &options).await;
    let mut command = Command::new(promqltest());
    command.args(["--verbose", "--url", &cluster.url(0)]).args(scripts);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{errors}");
    assert!(told.contains(&format!("total: {cases} of {cases}")), "{told}");
}

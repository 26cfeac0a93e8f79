//! Prometheus's own PromQL scripts against a cluster.

use std::process::Command;

use tests::cluster::Cluster;
use tests::{promqltest, skip, workspace};

/// The script with start times: what it loads comes by remote write 2.0 alone.
const SCRIPT: &str = "../shared/promqltest/start_timestamps.test";
/// How many cases it has.
const CASES: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_passes_a_script_whose_data_has_start_times() {
    let script = workspace().join(SCRIPT);
    if !script.exists() {
        return skip(&format!("{} isn't there", script.display()));
    }
    let options = [
        "--storage-chunk-encoding",
        "xor2",
        "--limits-max-backfill",
        "unlimited",
        "--limits-out-of-order-window",
        "unlimited",
    ];
    let cluster = Cluster::start_with(3, 3, &options).await;
    let mut command = Command::new(promqltest());
    command.args(["--verbose", "--url", &cluster.url(0)]).arg(script);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{errors}");
    assert!(told.contains(&format!("total: {CASES} of {CASES}")), "{told}");
}

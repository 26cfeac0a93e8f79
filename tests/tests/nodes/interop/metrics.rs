//! `/metrics` in the hands of Prometheus's own linter.

use std::io::Write as _;
use std::process::{Command, Stdio};

use tests::NodeProcess;

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_metrics() {
    let Some(promtool) = tests::promtool() else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &[]);
    let metrics = node.http().get("/metrics", &[]).await.body;
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let ended = check.wait_with_output().unwrap();
    let said = [&ended.stdout[..], &ended.stderr[..]].concat();
    assert!(ended.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

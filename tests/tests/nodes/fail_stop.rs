//! A disk whose syncs fail: the process says why, takes no more, and ends; a start reads what the disk has.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{NodeProcess, carillon, eventually, now_ms, skip, wire};

/// Fails each `fdatasync` with EIO while the file named by `FAIL_SYNCS` exists.
const SHIM: &str = r#"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int file) {
    const char *mark = getenv("FAIL_SYNCS");
    if (mark && access(mark, F_OK) == 0) { errno = EIO; return -1; }
    return fsync(file);
}
"#;

/// The library, or `None` where there is no C compiler for it.
fn shim(dir: &Path) -> Option<PathBuf> {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, SHIM).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    built.is_ok_and(|status| status.success()).then_some(library)
}

#[tokio::test]
async fn a_node_whose_disk_fails_a_sync_says_so_and_ends_and_has_what_it_acked() {
    let dir = tempfile::tempdir().unwrap();
    let Some(library) = shim(dir.path()) else {
        skip("no C compiler builds a library that fails syncs");
        return;
    };
    let (data, mark) = (dir.path().join("data"), dir.path().join("fail"));
    let mut command = Command::new(carillon());
    command.env("LD_PRELOAD", library).env("FAIL_SYNCS", &mark);
    let arguments = ["--peer-address", "127.0.0.1:0"];
    let mut node = NodeProcess::try_start_by(command, &data, "127.0.0.1:0", &arguments).unwrap();
    let (http, at_ms) = (node.http(), now_ms());
    let sample = |value| wire::body(&[(&[("__name__", "kept")], value, at_ms + value as i64)]);
    assert_eq!(http.write(sample(1.0)).await.status, 204);

    std::fs::write(&mark, "").unwrap();
    let refused = http.write(sample(2.0)).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    // It may have ended by now.
    if let Ok(ready) = http.try_get("/-/ready", &[]).await {
        assert_eq!(ready.status, 503);
        assert!(ready.body.contains("the WAL can't be written"), "{}", ready.body);
    }
    eventually("the process ends", 60, async || node.ended().then_some(())).await;
    assert_eq!(node.exit_code(), Some(1), "{}", node.log());
    assert!(node.log().contains("the store has stopped"), "{}", node.log());

    std::fs::remove_file(&mark).unwrap();
    let node = NodeProcess::start(&data, &[]);
    let found = node.http().query("kept", at_ms + 1).await;
    assert_eq!(found[0]["value"][1], "1", "{found}");
}

//! A disk that fills up: writes are refused as "try again", questions are answered, and with room all is well again.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tests::ledger::{Fate, Ledger};
use tests::{NodeProcess, eventually, now_ms, skip, wire};

/// Room for the segments of a WAL that are laid out ahead, and some.
const DISK_BYTES: u64 = 512 << 20;
/// New series a request, with labels that make it a megabyte of WAL.
const SERIES: usize = 250;
const PAD_BYTES: usize = 2000;
/// More than the disk can hold.
const REQUESTS_MAX: usize = 2000;

/// A file system of its own, unmounted when dropped.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this process mayn't mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={DISK_BYTES}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all the room there is.
    fn fill(&self) -> PathBuf {
        let file = self.path().join("filler");
        // `dd` ends at "no space left", as it should.
        drop(
            Command::new("dd")
                .args(["if=/dev/zero", "bs=64k"])
                .arg(format!("of={}", file.display()))
                .output(),
        );
        file
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["-l"]).arg(self.dir.path()).status());
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers_by_itself() {
    let Some(disk) = SmallDisk::mount() else {
        skip("this process mayn't mount a small disk");
        return;
    };
    let data = disk.path().join("data");
    let mut node = NodeProcess::start(&data, &[]);
    let (http, begin_ms) = (node.http(), now_ms() - 3_600_000);
    let pad = "x".repeat(PAD_BYTES);
    let mut ledger = Ledger::default();
    let mut at_ms = begin_ms;
    let mut send = async |ledger: &mut Ledger| {
        at_ms += 100;
        let names: Vec<_> = (0..SERIES).map(|s| format!("{at_ms}-{s}")).collect();
        let labels: Vec<_> = names
            .iter()
            .map(|n| [("__name__", "full"), ("pad", pad.as_str()), ("series", n.as_str())])
            .collect();
        let samples: Vec<wire::Sample<'_>> = labels.iter().map(|l| (&l[..], at_ms as f64, at_ms)).collect();
        let answer = http.write(wire::body(&samples)).await;
        let fate = if answer.status < 300 { Fate::Acked } else { Fate::Unknown };
        names.iter().for_each(|name| ledger.note(name, at_ms, at_ms as f64, fate));
        (answer, at_ms)
    };
    assert!(send(&mut ledger).await.0.status < 300);
    let filler = disk.fill();

    // Segments that were laid out ahead still take some.
    let mut refused = None;
    for _ in 0..REQUESTS_MAX {
        let (answer, _) = send(&mut ledger).await;
        if answer.status >= 300 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a full disk refuses at some time");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("space"), "{}", refused.body);
    let answered = http.form("/api/v1/query", &[("query", "count(full)")]).await;
    assert_eq!(answered.status, 200, "questions are answered meanwhile: {}", answered.body);

    std::fs::remove_file(filler).unwrap();
    eventually("writes are taken again", 30, async || {
        let (answer, _) = send(&mut ledger).await;
        (answer.status < 300).then_some(())
    })
    .await;

    node.kill();
    let node = NodeProcess::start(&data, &[]);
    // Each series has one sample, whose value is its time.
    let (expr, end_ms) = (format!("max by (series) (last_over_time(full[{}ms]))", at_ms - begin_ms), at_ms);
    let found = node.http().query(&expr, end_ms).await;
    let matrix: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|series| {
            let value = series["value"][1].as_str().unwrap();
            let at_s = value.parse::<f64>().unwrap() / 1000.0;
            json!({"metric": series["metric"], "values": [[at_s, value]]})
        })
        .collect();
    let findings = ledger.check(&json!(matrix));
    let (lost, invented) = (findings.lost.len(), findings.invented.len());
    assert!(findings.is_empty(), "of {} acked {lost} are lost, {invented} were never sent", ledger.acked());
}

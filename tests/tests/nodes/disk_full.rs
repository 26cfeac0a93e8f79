//! A disk that fills up: writes are refused as "try again", questions are answered, and with room all is well again.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::ledger::{Fate, Ledger};
use tests::{Answer, Http, NodeProcess, eventually, now_ms, skip, wire};

/// Room for the segments of a WAL that are laid out ahead, and some.
const DISK_BYTES: u64 = 512 << 20;
/// New series a request, with labels that make it half a megabyte of WAL.
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

/// Requests of series that nobody has seen before.
struct Sender {
    http: Http,
    begin_ms: i64,
    /// What became of the samples of each request.
    sent: Vec<Ledger>,
}

impl Sender {
    /// Sends the next one.
    async fn send(&mut self) -> Answer {
        let number = self.sent.len();
        let request = number.to_string();
        let names: Vec<_> = (0..SERIES).map(|s| format!("{number}-{s}")).collect();
        // A value of its own for each series, so that no dictionary makes it small.
        let pads: Vec<_> = names.iter().map(|name| format!("{name:x<PAD_BYTES$}")).collect();
        let labels: Vec<_> = names
            .iter()
            .zip(&pads)
            .map(|(name, pad)| {
                [
                    ("__name__", "full"),
                    ("pad", pad.as_str()),
                    ("request", &request),
                    ("series", name.as_str()),
                ]
            })
            .collect();
        let (at_ms, value) = (self.at_ms(number), number as f64);
        let samples: Vec<wire::Sample<'_>> = labels.iter().map(|l| (&l[..], value, at_ms)).collect();
        let answer = self.http.write(wire::body(&samples)).await;
        let fate = if answer.status < 300 { Fate::Acked } else { Fate::Unknown };
        let mut ledger = Ledger::default();
        names.iter().for_each(|name| ledger.note(name, at_ms, value, fate));
        self.sent.push(ledger);
        answer
    }

    fn at_ms(&self, number: usize) -> i64 {
        self.begin_ms + number as i64 * 100
    }

    /// Asks for the samples of one request after the other: no question is about more series than a request has, so
    /// that it is answered as fast by a node that isn't optimised, or shares its cores.
    async fn check(&self, http: &Http) {
        for (number, ledger) in self.sent.iter().enumerate() {
            let query = format!("full{{request=\"{number}\"}}[1s]");
            let findings = ledger.check(&http.query(&query, self.at_ms(number)).await);
            let (lost, invented) = (findings.lost.len(), findings.invented.len());
            let acked = ledger.acked();
            assert!(
                findings.is_empty(),
                "request {number}: of {acked} acked {lost} are lost, {invented} were never sent"
            );
        }
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
    let mut sender = Sender { http: node.http(), begin_ms: now_ms() - 3_600_000, sent: Vec::new() };
    assert!(sender.send().await.status < 300);
    let filler = disk.fill();

    // Segments that were laid out ahead still take some.
    let mut refused = None;
    for _ in 0..REQUESTS_MAX {
        let answer = sender.send().await;
        if answer.status >= 300 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a full disk refuses at some time");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("space"), "{}", refused.body);
    let answered = node.http().form("/api/v1/query", &[("query", "count(full{request='0'})")]).await;
    assert_eq!(answered.status, 200, "questions are answered meanwhile: {}", answered.body);

    std::fs::remove_file(filler).unwrap();
    eventually("writes are taken again", 30, async || (sender.send().await.status < 300).then_some(())).await;

    node.kill();
    let node = NodeProcess::start(&data, &[]);
    sender.check(&node.http()).await;
    let acked: usize = sender.sent.iter().map(Ledger::acked).sum();
    println!("a full disk: {acked} samples acked of {} requests, none lost or invented", sender.sent.len());
}

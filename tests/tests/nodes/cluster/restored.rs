//! A bucket that loses the ring document, and a disk that is put back to a snapshot of a node that ran on.
//!
//! Varied: who starts while the document is gone (a member, a newcomer). Held fixed: three nodes, three copies.

use std::path::Path;
use std::time::Duration;

use tests::cluster::Cluster;
use tests::eventually;

use super::{all_is_well, load};

/// Long enough for a watermark to be raised and told: `RAISE_EVERY` in `node/src/cluster/rollback.rs`, and looks.
const MARKED_AFTER: Duration = Duration::from_secs(24);

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        // A node that runs may take a file away meanwhile, as amid any snapshot.
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_document_that_is_lost_under_load_is_put_back_by_the_verb() {
    let mut cluster = Cluster::start(3, 3).await;
    let load = load("restored", &cluster, &[0, 1]);
    eventually("some samples are acked", 30, async || (load.acked() > 100).then_some(())).await;
    std::fs::remove_file(cluster.bucket().join("carillon/ring")).unwrap();
    eventually("it is told of", 60, async || {
        cluster.run(0, &["status"]).stderr.contains("carillon ring restore").then_some(())
    })
    .await;
    // A member starts without it; a newcomer founds nothing.
    cluster.kill(2);
    cluster.begin(2);
    cluster.ready(2, 60).await;
    let newcomer = cluster.place("z0");
    let stray = std::thread::scope(|scope| {
        let started = scope.spawn(|| cluster.try_begin(newcomer, &[]));
        let dry = cluster.run(1, &["ring", "restore"]);
        assert!(dry.code == Some(0) && dry.stderr.contains("with --yes it is done"), "{dry:?}");
        assert!(
            !cluster.bucket().join("carillon/ring").exists(),
            "neither a dry run nor a newcomer writes it"
        );
        let done = cluster.run(1, &["ring", "restore", "--yes", "-o", "json"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        started.join().unwrap()
    });
    let stray = stray.unwrap_or_else(|log| panic!("the newcomer didn't start:\n{log}"));
    eventually("it has joined", 60, async || {
        let members = cluster.asked(0, "members").await;
        let active = members.as_array()?.iter().filter(|member| member["state"] == "active").count();
        (active == 4).then_some(())
    })
    .await;
    drop(stray);
    let mut book = load.finish().await;
    book.refusals.clear();
    all_is_well(&cluster, &book).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_disk_that_is_put_back_under_load_loses_nothing() {
    let mut cluster = Cluster::start_with(3, 3, &["--hints-max-bytes", "0"]).await;
    let load = load("put_back", &cluster, &[0, 1]);
    eventually("some samples are acked", 30, async || (load.acked() > 100).then_some(())).await;
    let members = cluster.asked(2, "members").await;
    let store = members.as_array().unwrap().iter().find(|m| m["me"] == true).unwrap()["store"].clone();
    let (disk, snapshot) = (cluster.data_dir(2), cluster.dir().join("snapshot"));
    copy(&disk, &snapshot);
    tokio::time::sleep(MARKED_AFTER).await;
    cluster.kill(2);
    cluster.wipe(2);
    copy(&snapshot, &disk);
    cluster.begin(2);
    cluster.ready(2, 60).await;
    eventually("it has become another store", 60, async || {
        let members = cluster.asked(2, "members").await;
        let me = members.as_array()?.iter().find(|member| member["me"] == true)?;
        (me["state"] == "active" && me["store"] != store).then_some(())
    })
    .await;
    let mut book = load.finish().await;
    book.refusals.clear();
    cluster.replicas_equal(120).await;
    all_is_well(&cluster, &book).await;
}

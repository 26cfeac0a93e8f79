//! Disks replaced one after the other, the next as soon as `/-/safe` says so. Varied: which node is asked. Held fixed: three
//! nodes, three copies, no hints, so that a copy comes by repair and by the bucket alone.

use tests::cluster::Cluster;
use tests::eventually;

use super::{all_is_well, load};

#[tokio::test(flavor = "multi_thread")]
async fn all_disks_are_replaced_as_soon_as_it_is_safe_and_nothing_is_lost() {
    let mut cluster = Cluster::start_with(3, 3, &["--hints-max-bytes", "0"]).await;
    let load = load("replaced", &cluster, &[0, 1, 2]);
    eventually("some samples are acked", 30, async || (load.acked() > 200).then_some(())).await;
    let mut book = load.finish().await;
    for node in 0..3 {
        safe(&cluster, (node + 1) % 3).await;
        cluster.kill(node);
        cluster.wipe(node);
        let other = (node + 1) % 3;
        let asked = cluster.http(other).get("/-/safe", &[]).await;
        assert!(asked.status == 503 && asked.body.contains("is away"), "{} {}", asked.status, asked.body);
        cluster.begin(node);
        // Asked at once, it never says so before the old disk is made good for.
        safe(&cluster, node).await;
        let ring = cluster.asked(node, "ring").await;
        assert!(!ring["problems"].to_string().contains("lost more copies"), "{ring}");
        let stores = ring["placements"].as_array().unwrap().iter().flat_map(|one| one["members"].as_array());
        let members = cluster.asked(node, "members").await;
        for store in stores.flatten() {
            let state = members.as_array().unwrap().iter().find(|one| one["store"] == store["store"]);
            assert_eq!(state.unwrap()["state"], "active", "{members}");
        }
    }
    book.refusals.clear();
    all_is_well(&cluster, &book).await;
    let status = cluster.run(0, &["status", "-o", "table"]);
    assert!(status.stdout.contains("safe to take"), "{status:?}");
}

/// Waits until a node says that the next may be taken.
pub(super) async fn safe(cluster: &Cluster, node: usize) {
    let http = cluster.http(node);
    eventually("it is safe to take the next node", 60, async || {
        let answer = http.try_get("/-/safe", &[]).await.ok()?;
        if answer.status == 503 {
            assert!(!answer.body.is_empty());
        }
        (answer.status == 200).then_some(())
    })
    .await;
}

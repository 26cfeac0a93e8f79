//! 3 → 6 → 3 under load: no write fails, no answer is short, the load is spread, and little moves.

use std::collections::BTreeMap;
use std::time::Duration;

use tests::cluster::Cluster;
use tests::eventually;

use super::{all_is_well, load};

/// How far a node's share of the load may lie from the mean.
const SPREAD_MAX: f64 = 0.05;

/// Shares of the replica load by name, as a node tells them.
async fn shares(cluster: &Cluster) -> BTreeMap<String, f64> {
    let members = cluster.asked(0, "members").await;
    let active = members.as_array().cloned().unwrap_or_default();
    let share = |m: &serde_json::Value| {
        let name = m["name"].as_str().unwrap_or_default().to_owned();
        m["ownership"].as_f64().filter(|share| *share > 0.0).map(|share| (name, share))
    };
    active.iter().filter_map(share).collect()
}

async fn is_even(cluster: &Cluster, nodes: usize) -> BTreeMap<String, f64> {
    let shares = shares(cluster).await;
    assert_eq!(shares.len(), nodes, "{shares:?}");
    let mean = shares.values().sum::<f64>() / nodes as f64;
    for (name, share) in &shares {
        assert!((share / mean - 1.0).abs() <= SPREAD_MAX, "{name} has {share}: {shares:?}");
    }
    shares
}

#[tokio::test(flavor = "multi_thread")]
async fn three_grow_to_six_and_shrink_to_three_under_load() {
    // One zone: with four nodes in three zones, the one in the larger zone would have to carry more.
    let mut cluster = Cluster::start(3, 1).await;
    let mut load = load("grow", &cluster, &[0, 1, 2]);
    for node in 0..3 {
        load.read_through(cluster.http(node));
    }
    is_even(&cluster, 3).await;
    for node in 3..6 {
        let before = shares(&cluster).await;
        cluster.place("z0");
        cluster.begin(node);
        cluster.ready(node, 60).await;
        cluster.agreed(60).await;
        load.read_through(cluster.http(node));
        let after = is_even(&cluster, node + 1).await;
        let moved: f64 = before.iter().map(|(name, share)| (share - after[name]).max(0.0)).sum();
        let most = 1.1 / after.len() as f64;
        assert!(moved <= most, "{moved} of all moved to the {}th node, at most {most}", node + 1);
    }
    for node in 3..6 {
        load.stop_reading_through(&cluster.http(node)).await;
        let drained = cluster.run(node, &["node", "drain", "--yes"]);
        assert_eq!(drained.code, Some(0), "{}{}", drained.stdout, drained.stderr);
        let name = cluster.name(node).to_owned();
        eventually("a drained node owns nothing", 60, async || {
            (!shares(&cluster).await.contains_key(&name)).then_some(())
        })
        .await;
        cluster.stop(node);
        is_even(&cluster, 8 - node).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let book = load.finish().await;
    all_is_well(&cluster, &book).await;
    cluster.replicas_equal(60).await;
}

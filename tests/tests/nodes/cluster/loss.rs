//! Nodes that die under load: the writers notice nothing, nothing acked is lost, and replicas become equal again.

use std::time::Duration;

use tests::cluster::Cluster;

use super::{all_is_well, load};

/// How long the load runs before, during and after what happens.
const A_WHILE: Duration = Duration::from_secs(4);
/// Until replicas must be equal after a node's return.
const EQUAL_WITHIN_S: u64 = 30;

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_is_killed_under_load_and_comes_back() {
    killed_under_load_and_back("one_of_three", Cluster::start(3, 3).await, 0, &[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_of_two_out_of_six_is_killed_under_load_and_comes_back() {
    killed_under_load_and_back("a_zone", Cluster::start(6, 3).await, 3, &[2, 5]).await;
}

/// Kills nodes while the first two are written to and `reader` is asked, and starts them again.
async fn killed_under_load_and_back(name: &'static str, mut cluster: Cluster, reader: usize, gone: &[usize]) {
    let mut load = load(name, &cluster, &[0, 1]);
    load.read_through(cluster.http(reader));
    tokio::time::sleep(A_WHILE).await;
    gone.iter().for_each(|node| cluster.kill(*node));
    tokio::time::sleep(A_WHILE).await;
    gone.iter().for_each(|node| cluster.begin(*node));
    cluster.all_ready(30).await;
    tokio::time::sleep(A_WHILE).await;
    let book = load.finish().await;
    cluster.replicas_equal(EQUAL_WITHIN_S).await;
    all_is_well(&cluster, &book).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_restart_one_after_the_other_under_load() {
    let mut cluster = Cluster::start(5, 5).await;
    // A writer whose own node goes turns to the next: it loses connections, and is refused nothing.
    let mut load = load("rolling", &cluster, &[0, 1, 2, 3, 4]);
    load.read_through(cluster.http(0));
    for node in [1, 2, 3, 4] {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.stop(node);
        cluster.begin(node);
        cluster.ready(node, 30).await;
    }
    tokio::time::sleep(A_WHILE).await;
    let book = load.finish().await;
    cluster.stop(0);
    cluster.begin(0);
    cluster.ready(0, 30).await;
    cluster.replicas_equal(EQUAL_WITHIN_S).await;
    all_is_well(&cluster, &book).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_killed_at_once_and_come_back_with_everything() {
    let mut cluster = Cluster::start(3, 3).await;
    let load = load("mass", &cluster, &[0, 1, 2]);
    tokio::time::sleep(A_WHILE).await;
    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..3 {
        cluster.begin(node);
    }
    cluster.all_ready(60).await;
    tokio::time::sleep(A_WHILE).await;
    let mut book = load.finish().await;
    // While a quorum was away, refusing was right.
    book.refusals.clear();
    cluster.replicas_equal(EQUAL_WITHIN_S).await;
    all_is_well(&cluster, &book).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_an_empty_disk_gets_everything_back_without_hints() {
    // No hints: repair alone has to do it.
    let mut cluster = Cluster::start_with(3, 3, &["--hints-max-bytes", "0"]).await;
    let load = load("wiped", &cluster, &[0, 1]);
    tokio::time::sleep(A_WHILE).await;
    cluster.kill(2);
    tokio::time::sleep(A_WHILE).await;
    cluster.wipe(2);
    cluster.begin(2);
    cluster.ready(2, 60).await;
    tokio::time::sleep(A_WHILE).await;
    let book = load.finish().await;
    let begin = std::time::Instant::now();
    cluster.replicas_equal(120).await;
    println!("repair alone: {} acked samples equal again after {:.0?}", book.ledger.acked(), begin.elapsed());
    all_is_well(&cluster, &book).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_gone_is_an_error_that_names_them_never_a_short_answer() {
    let mut cluster = Cluster::start(3, 3).await;
    let load = load("two_gone", &cluster, &[0]);
    tokio::time::sleep(A_WHILE).await;
    let before = load.acked();
    assert!(before > 0);
    cluster.kill(1);
    cluster.kill(2);
    tokio::time::sleep(A_WHILE).await;
    let asked = cluster.http(0).get("/api/v1/query", &[("query", "two_gone[2h]")]).await;
    assert_eq!(asked.status, 503, "{}", asked.body);
    assert_eq!(asked.json()["errorType"], "unavailable", "{}", asked.body);
    assert!(asked.body.contains("node1") && asked.body.contains("node2"), "{}", asked.body);
    let flagged = [("query", "count(two_gone)"), ("partial_response", "true")];
    let flagged = cluster.http(0).get("/api/v1/query", &flagged).await;
    assert_eq!(flagged.status, 200, "{}", flagged.body);
    assert!(flagged.json()["warnings"].as_array().is_some_and(|w| !w.is_empty()), "{}", flagged.body);
    let mut book = load.finish().await;
    assert!(!book.refusals.is_empty());
    let refusal = &book.refusals[0];
    assert!(refusal.starts_with("status 503") && refusal.contains("node"), "{refusal}");
    book.refusals.clear();
    cluster.begin(1);
    cluster.begin(2);
    cluster.all_ready(60).await;
    cluster.replicas_equal(EQUAL_WITHIN_S).await;
    all_is_well(&cluster, &book).await;
}

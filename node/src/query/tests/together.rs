//! Answers that are the same through every node, each sample once.

use serde_json::{Value, json};

use super::*;

async fn through_each(cluster: &Cluster, path: &str) -> Vec<Value> {
    let mut answers = Vec::new();
    for member in &cluster.members {
        let answer = member.node.get(path).await;
        let coverage = answer.headers["x-carillon-coverage"].to_str().unwrap().to_owned();
        assert!(coverage.starts_with("complete; "), "{path}: {coverage}");
        answers.push(answer.data());
    }
    answers
}

#[tokio::test]
async fn every_node_gives_the_same_answer() {
    for (stores, rf) in [(3, 3), (3, 2), (5, 3), (4, 1)] {
        let cluster = Cluster::of(stores, rf).await;
        cluster.fill(30);
        let time = NOW_MS / 1000;
        for path in [
            format!("/api/v1/query?time={time}&query=sum(count_over_time({{job=\"a\"}}[5m]))"),
            format!("/api/v1/query?time={time}&query={{job=\"a\"}}"),
            format!("/api/v1/query?time={time}&query=m1%2Bon(job)m2"),
            format!("/api/v1/query_range?start={}&end={time}&step=15&query={{job=\"a\"}}", time - 120),
            "/api/v1/labels".to_owned(),
            "/api/v1/label/__name__/values".to_owned(),
            "/api/v1/label/__name__/values?limit=3".to_owned(),
            "/api/v1/series?match[]={job=\"a\"}".to_owned(),
            "/api/v1/status/tsdb?limit=5".to_owned(),
        ] {
            let answers = through_each(&cluster, &path).await;
            assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{stores} {rf} {path}: {answers:#?}");
        }
        let counted = through_each(
            &cluster,
            &format!("/api/v1/query?time={time}&query=sum(count_over_time({{job=\"a\"}}[5m]))"),
        )
        .await;
        assert_eq!(counted[0]["result"][0]["value"][1], "240", "{stores} {rf}");
        let tsdb = through_each(&cluster, "/api/v1/status/tsdb").await;
        assert_eq!(tsdb[0]["headStats"]["numSeries"], 30, "{stores} {rf}");
        assert_eq!(tsdb[0]["seriesCountByLabelValuePair"][0], json!({"name": "job=a", "value": 30}));
    }
}

#[tokio::test]
async fn what_only_one_replica_has_is_found() {
    let cluster = Cluster::of(3, 3).await;
    cluster.fill(30);
    // Each misses something else: a series, samples at the end, samples in the middle.
    cluster.write("late", 1.0, NOW_MS - 30_000, &[2, 3]);
    cluster.write("late", 2.0, NOW_MS - 15_000, &[1, 3]);
    cluster.write("late", 3.0, NOW_MS, &[1, 2]);
    cluster.write("only", 5.0, NOW_MS, &[1, 2]);
    let time = NOW_MS / 1000;
    for (name, count) in [("late", "3"), ("only", "1")] {
        let path = format!("/api/v1/query?time={time}&query=count_over_time({name}[5m])");
        for answer in through_each(&cluster, &path).await {
            assert_eq!(answer["result"][0]["value"][1], count, "{name}");
        }
    }
}

#[tokio::test]
async fn conflicting_values_are_settled_alike() {
    let cluster = Cluster::of(3, 3).await;
    cluster.write("m", 1.0, NOW_MS, &[2, 3]);
    cluster.write("m", 7.0, NOW_MS, &[1, 3]);
    cluster.write("m", 4.0, NOW_MS, &[1, 2]);
    for answer in through_each(&cluster, &format!("/api/v1/query?time={}&query=m", NOW_MS / 1000)).await {
        assert_eq!(answer["result"][0]["value"][1], "7");
    }
}

#[tokio::test]
async fn open_placements_are_asked_too() {
    let mut cluster = Cluster::of(3, 1).await;
    cluster.fill(30);
    // The first leaves; what it took stays with it until it is in blocks.
    let joint = cluster.document.change(&ring::epoch::Change::leave(StoreId(1))).unwrap();
    cluster.adopt(joint.finish().unwrap());
    cluster.write("m0", 9.0, NOW_MS, &[]);
    let path = format!("/api/v1/query?time={}&query=sum(count_over_time({{job=\"a\"}}[5m]))", NOW_MS / 1000);
    for answer in through_each(&cluster, &path).await {
        assert_eq!(answer["result"][0]["value"][1], "241");
    }
}

#[tokio::test]
async fn a_newer_document_is_waited_for_and_all_is_asked_again() {
    let mut cluster = Cluster::of(3, 2).await;
    cluster.fill(30);
    let joint = cluster.document.change(&ring::epoch::Change::leave(StoreId(3))).unwrap();
    for member in &cluster.members[1..] {
        member.adopt(&joint);
    }
    let path = format!("/api/v1/query?time={}&query=count({{job=\"a\"}})", NOW_MS / 1000);
    let asking = cluster.members[0].node.get(&path);
    let telling = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.members[0].adopt(&joint);
    };
    let (answer, ()) = tokio::join!(asking, telling);
    assert_eq!(answer.data()["result"][0]["value"][1], "30");
    assert!(
        answer.headers["x-carillon-coverage"].to_str().unwrap().ends_with(&format!("epoch={}", joint.epoch))
    );
    cluster.document = joint;
}

#[tokio::test]
async fn a_query_without_series_asks_nobody() {
    let cluster = Cluster::of(3, 3).await;
    cluster.kill(2).await;
    cluster.kill(3).await;
    assert_eq!(cluster.members[0].node.get("/api/v1/query?query=1%2B1").await.data()["result"][1], "2");
}

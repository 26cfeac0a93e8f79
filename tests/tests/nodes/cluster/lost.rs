//! Nodes whose disks are gone for good, up to a lost quorum: one verb leads out of it, nothing that a living node has is
//! ever left out of an answer that counts as complete, and what is in the way stands where an operator looks.
//!
//! Varied: how many of how many are lost; whether empty nodes come in their stead before or after; whether the one that
//! alone has the samples is there while operators act. Held fixed: all copies are equal when disks are lost, but where
//! the test says otherwise.

use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::{eventually, now_ms, wire};

const SERIES: usize = 100;
/// Asked of each node while one is silent; each may wait for that one.
const QUESTIONS: usize = 3;

/// Writes a sample of each of these series through a node.
async fn write(cluster: &Cluster, node: usize, name: &str, series: &[String]) -> u16 {
    let labels: Vec<_> = series.iter().map(|s| [("__name__", name), ("series", s.as_str())]).collect();
    let samples: Vec<wire::Sample<'_>> = labels.iter().map(|l| (&l[..], 1.5, now_ms() - 1000)).collect();
    cluster.http(node).write(wire::body(&samples)).await.status
}

fn series() -> Vec<String> {
    (0..SERIES).map(|s| s.to_string()).collect()
}

/// What a node says to how many series there are: the number, or nothing where it refuses to answer.
async fn count(cluster: &Cluster, node: usize, name: &str) -> Option<usize> {
    let expr = format!("count({name}) or vector(0)");
    let answer = cluster.http(node).get("/api/v1/query", &[("query", &expr)]).await;
    if answer.status == 503 {
        return None;
    }
    assert_eq!(answer.status, 200, "{}", answer.body);
    let result = &answer.json()["data"]["result"][0]["value"][1];
    Some(result.as_str().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{}", answer.body)))
}

/// Waits until a node sees exactly these nodes away.
async fn sees_away(cluster: &Cluster, node: usize, away: usize) {
    eventually("a death is seen", 60, async || {
        let members = cluster.asked(node, "members").await;
        let is_away = |member: &&Value| member["alive"] == false && member["state"] == "active";
        (members.as_array()?.iter().filter(is_away).count() == away).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_disks_are_lost_and_the_third_alone_has_everything() {
    let mut cluster = Cluster::start(3, 3).await;
    assert!(write(&cluster, 0, "kept", &series()).await < 300);
    cluster.replicas_equal(30).await;
    for node in [1, 2] {
        cluster.kill(node);
        cluster.wipe(node);
    }
    sees_away(&cluster, 0, 2).await;
    assert_eq!(count(&cluster, 0, "kept").await, None);
    let status = cluster.run(0, &["status"]);
    let advice = "`carillon node lost ";
    assert!(status.code == Some(1) && status.stderr.contains(advice), "{status:?}");
    let ready = cluster.http(0).get("/-/ready", &[]).await;
    assert!(ready.status == 200 && ready.body.contains(advice), "{}", ready.body);

    // Empty nodes in their stead can't take their places as long as nobody has said that these are lost.
    for node in [1, 2] {
        cluster.begin(node);
    }
    eventually("the change can't end", 60, async || {
        let problems = cluster.asked(0, "ring").await["problems"].to_string();
        problems.contains("under way can't end").then_some(())
    })
    .await;
    let dry = cluster.run(0, &["node", "lost", "node1", "node2"]);
    assert!(dry.code == Some(0) && dry.stderr.contains("with --yes it is done"), "{dry:?}");

    // The only one that has the samples is silent while an operator gives the others up: there is no answer, never a
    // short one.
    cluster.process(0).pause();
    let lost = cluster.run(1, &["node", "lost", "node1", "node2", "--yes", "-o", "json"]);
    assert_eq!(lost.code, Some(0), "{lost:?}");
    for _ in 0..QUESTIONS {
        assert_eq!(count(&cluster, 1, "kept").await, None);
    }
    cluster.process(0).go_on();

    cluster.all_ready(60).await;
    let settled = async || {
        let ring = cluster.agreed(60).await;
        (ring["placements"].as_array().map(Vec::len) == Some(1)).then_some(ring)
    };
    let ring = eventually("a settled ring", 60, settled).await;
    assert_eq!(ring["effective_rf"], 3, "{ring}");
    for node in 0..3 {
        assert_eq!(count(&cluster, node, "kept").await, Some(SERIES), "node {node}");
        assert!(write(&cluster, node, "more", &series()).await < 300, "node {node}");
    }
    eventually("a cluster that is well", 60, async || {
        (cluster.run(0, &["status"]).code == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_is_lost_while_fewer_copies_are_asked_for() {
    let mut cluster = Cluster::start(2, 2).await;
    assert!(write(&cluster, 0, "kept", &series()).await < 300);
    cluster.replicas_equal(30).await;
    let status = cluster.run(0, &["status", "-o", "table"]);
    assert!(status.stdout.contains("writes stop while one node is away"), "{status:?}");
    cluster.kill(1);
    sees_away(&cluster, 0, 1).await;
    assert_eq!(write(&cluster, 0, "more", &series()).await, 503);
    assert_eq!(count(&cluster, 0, "kept").await, Some(SERIES));

    // A verb that can't succeed alone says so at once, and what leads on.
    let forget = cluster.run(0, &["node", "forget", "node1", "--yes"]);
    assert!(forget.code == Some(1) && forget.stderr.contains("carillon node lost"), "{forget:?}");
    let fewer = cluster.run(0, &["ring", "replication-factor", "1", "--yes"]);
    assert!(fewer.code == Some(0) && fewer.stderr.contains("`carillon node lost node1 --yes`"), "{fewer:?}");
    let lost = cluster.run(0, &["node", "lost", "node1", "--yes"]);
    assert_eq!(lost.code, Some(0), "{lost:?}");
    let ring = cluster.agreed(60).await;
    assert_eq!((&ring["effective_rf"], &ring["replication_factor"]), (&json!(1), &json!(1)), "{ring}");
    assert!(write(&cluster, 0, "more", &series()).await < 300);
    for name in ["kept", "more"] {
        assert_eq!(count(&cluster, 0, name).await, Some(SERIES));
    }
}

/// Four nodes, no hints: `s` is acked by two of its owners while the third restarts; then one of the two is lost, and the
/// other falls silent.
#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_loss_never_stands_for_the_owner_that_is_left() {
    let mut cluster = Cluster::start_with(4, 4, &["--hints-max-bytes", "0"]).await;
    let asked: Vec<Value> = (0..400).map(|i| json!({"__name__": "s", "series": i.to_string()})).collect();
    let form = [("series", Value::from(asked).to_string())];
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let owners = cluster.http(0).form("/api/v1/cluster/owners", &form).await.json()["data"].clone();
    let is_kept_by_the_last_three = |one: &&Value| {
        let owners: Vec<_> = one["owners"].as_array().into_iter().flatten().collect();
        (1..4).all(|node| owners.iter().any(|owner| **owner == cluster.name(node)))
    };
    let owned = owners.as_array().unwrap().iter().filter(is_kept_by_the_last_three);
    let owned: Vec<String> =
        owned.map(|one| one["series"]["series"].as_str().unwrap_or_default().to_owned()).collect();
    assert!(!owned.is_empty(), "{owners}");

    cluster.kill(2);
    assert!(write(&cluster, 1, "s", &owned).await < 300);
    cluster.kill(3);
    cluster.wipe(3);
    cluster.begin(2);
    cluster.ready(2, 60).await;
    sees_away(&cluster, 2, 1).await;
    cluster.process(1).pause();
    for verb in ["forget", "accept-loss"] {
        let done = cluster.run(2, &["node", verb, "node3", "--yes"]);
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    // Repair may have been faster; what isn't allowed is an answer without what node1 has.
    let mut refused = 0;
    for _ in 0..QUESTIONS {
        for node in [0, 2] {
            match count(&cluster, node, "s").await {
                None => refused += 1,
                Some(found) => assert_eq!(found, owned.len(), "a short answer of node {node}"),
            }
        }
    }
    println!("{refused} of {} questions refused while node1 was silent", 2 * QUESTIONS);
    cluster.process(1).go_on();
    cluster.all_ready(60).await;
    cluster.agreed(60).await;
    for node in 0..3 {
        eventually("everything is there", 60, async || {
            let found = count(&cluster, node, "s").await?;
            assert_eq!(found, owned.len(), "a short answer of node {node}");
            Some(())
        })
        .await;
    }
}

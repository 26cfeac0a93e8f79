//! How clusters come to be, and what keeps two of them apart.

use std::time::{Duration, Instant};

use tests::cluster::Cluster;
use tests::{eventually, now_ms, wire};

const TWENTY: usize = 20;

/// What all must see of the members: how many are alive.
async fn alive(cluster: &Cluster, node: usize) -> usize {
    let members = cluster.asked(node, "members").await;
    let members = members.as_array().cloned().unwrap_or_default();
    members.iter().filter(|member| member["alive"] == true).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_nodes_form_one_ring_and_all_see_a_death() {
    let begin = Instant::now();
    let mut cluster = Cluster::start(TWENTY, 4).await;
    let ring = cluster.agreed(60).await;
    let formed = begin.elapsed();
    let members = ring["placements"].as_array().and_then(|all| all.last()).unwrap();
    assert_eq!(members["members"].as_array().map(Vec::len), Some(TWENTY), "{ring}");
    cluster.kill(7);
    let begin = Instant::now();
    for node in cluster.running() {
        eventually("a death that everybody sees", 60, async || {
            (alive(&cluster, node).await == TWENTY - 1).then_some(())
        })
        .await;
    }
    println!("20 nodes: one ring after {formed:.1?}, a death seen by all after {:.1?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_anywhere_is_read_everywhere_in_the_same_bytes() {
    let cluster = Cluster::start(3, 3).await;
    let now_ms = now_ms();
    for node in 0..3 {
        let series: Vec<_> = (0..50).map(|s| format!("{node}-{s}")).collect();
        let labels: Vec<_> = series.iter().map(|s| [("__name__", "any"), ("series", s.as_str())]).collect();
        let samples: Vec<wire::Sample<'_>> = labels.iter().map(|l| (&l[..], 1.5, now_ms - 1000)).collect();
        let answer = cluster.http(node).write(wire::body(&samples)).await;
        assert!(answer.status < 300, "{}", answer.body);
    }
    let time = format!("{:.3}", now_ms as f64 / 1000.0);
    let mut bodies = Vec::new();
    for path in ["/api/v1/query", "/api/v1/series", "/api/v1/label/series/values"] {
        for node in 0..3 {
            let asked = [("query", "any"), ("time", &*time), ("match[]", "any")];
            let answer = cluster.http(node).get(path, &asked).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            bodies.push(answer.body);
        }
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{path}: {bodies:?}");
        assert!(bodies[0].contains("2-49"), "{path}: {}", bodies[0]);
        bodies.clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_what_each_node_does_and_which_is_away() {
    let mut cluster = Cluster::start(3, 3).await;
    cluster.kill(2);
    for node in [0, 1] {
        eventually("a death that both see", 60, async || (alive(&cluster, node).await == 2).then_some(()))
            .await;
    }
    let shown = cluster.run(0, &["status", "-o", "json"]);
    assert_eq!(shown.code, Some(1), "{shown:?}");
    let status: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let problems = status["problems"].to_string();
    assert!(problems.contains("too few copies") && problems.contains(cluster.name(2)), "{problems}");
    let log = cluster.process(0).log();
    assert_eq!(log.matches("a node is away").count(), 1, "{log}");
    for (member, node) in [0, 1, 2].map(|at| (&status["members"][at], &status["nodes"][at])) {
        if member["name"] == cluster.name(2) {
            assert!(node.is_null(), "{status}");
            continue;
        }
        assert_eq!(node["store"], member["store"], "{status}");
        assert_eq!((&node["doing"], &node["bucket"]["failures"]), (&"serving".into(), &0.into()), "{status}");
        assert!(node["disk"]["free_bytes"].as_u64() > Some(0) && node["hints"]["bytes"] == 0, "{status}");
    }
    let table = cluster.run(1, &["status", "-o", "table"]);
    for part in ["3 (2 alive)", "serving", "away", "lacking", "not well"] {
        assert!(table.stdout.contains(part), "{part} is missing in\n{}", table.stdout);
    }

    // Without a quorum nothing is well, and whoever looks at metrics sees it too.
    cluster.kill(1);
    eventually("two deaths", 60, async || (alive(&cluster, 0).await == 1).then_some(())).await;
    let shown = cluster.run(0, &["status"]);
    assert_eq!(shown.code, Some(1), "{shown:?}");
    assert!(shown.stderr.contains("no quorum") && shown.stderr.contains(cluster.name(1)), "{shown:?}");
    let metrics = cluster.http(0).get("/metrics", &[]).await.body;
    let value = |family: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(family)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{family} is missing in {metrics}")).parse::<f64>().unwrap()
    };
    assert_eq!(value("carillon_cluster_members_away"), 2.0);
    assert!(value("carillon_ring_ranges_without_quorum") > 0.0 && value("carillon_ring_epoch") > 0.0);
    let page = cluster.http(0).get("/", &[]).await.body;
    assert!(page.contains("no quorum") && page.contains("1 alive"), "{page}");

    for node in [1, 2] {
        cluster.begin(node);
    }
    cluster.all_ready(60).await;
    eventually("a cluster that is well again", 60, async || {
        (cluster.run(0, &["status"]).code == Some(0)).then_some(())
    })
    .await;
    let log = cluster.process(0).log();
    assert!(log.contains("a node is back"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_destroys_shows_first_whether_it_can_be_done_and_is_logged_with_its_caller() {
    let mut cluster = Cluster::start(3, 3).await;
    let name = cluster.name(2).to_owned();
    for args in [
        &["ring", "replication-factor", "0"][..],
        &["ring", "replication-factor", "12"],
        &["ring", "replication-factor", "3"],
        &["node", "drain", &name],
        &["node", "decommission", &name],
        &["node", "forget", &name],
    ] {
        let dry = cluster.run(0, args);
        let real = cluster.run(0, &[args, &["--yes"]].concat());
        assert_eq!((dry.code, &dry.stderr), (Some(1), &real.stderr), "{args:?}: {dry:?} {real:?}");
        assert_eq!(real.code, Some(1), "{args:?}");
    }
    for copies in ["2", "5"] {
        let dry = cluster.run(0, &["ring", "replication-factor", copies]);
        assert!(dry.code == Some(0) && dry.stderr.contains("with --yes it is done"), "{dry:?}");
        assert_eq!(cluster.asked(0, "ring").await["replication_factor"], 3, "nothing is changed");
    }
    let real = cluster.run(0, &["ring", "replication-factor", "5", "--yes"]);
    assert_eq!(real.code, Some(0), "{real:?}");
    let ring = cluster.asked(0, "ring").await;
    assert_eq!((&ring["effective_rf"], &ring["replication_factor"]), (&3.into(), &5.into()));
    let status = cluster.run(0, &["status"]);
    assert!(
        status.code == Some(1) && status.stderr.contains("5 of each sample are wanted and 3 kept"),
        "{status:?}"
    );
    let log = cluster.process(0).log();
    let line = log.lines().rfind(|line| line.contains("a request to change state")).unwrap();
    for part in
        ["level=warn", "caller=127.0.0.1:", "replication_factor", "\\\"value\\\":\\\"5\\\"", "status=200"]
    {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_another_cluster_is_refused_by_name() {
    let mut cluster = Cluster::start(1, 1).await;
    let other = Cluster::start(1, 1).await;
    let stray = cluster.place("z1");
    let bucket = other.bucket().display().to_string();
    // The seeds are of one cluster, the bucket is the other's.
    let refused = cluster.try_begin_with(stray, &bucket, &[]);
    let log = match refused {
        Err(log) => log,
        Ok(mut process) => {
            eventually("the stray node ends", 30, async || process.ended().then_some(())).await;
            process.log()
        }
    };
    let ids = [cluster.asked(0, "ring").await, other.asked(0, "ring").await];
    for id in ids.iter().map(|ring| ring["cluster"].as_str().unwrap()) {
        assert!(log.contains(id), "{id} isn't named:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_with_data_grows_to_three() {
    let mut cluster = Cluster::start(1, 1).await;
    let mut load = super::load("grown", &cluster, &[0]);
    load.read_through(cluster.http(0));
    tokio::time::sleep(Duration::from_secs(4)).await;
    for zone in ["z1", "z2"] {
        let node = cluster.place(zone);
        cluster.begin(node);
        cluster.ready(node, 60).await;
        load.read_through(cluster.http(node));
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let book = load.finish().await;
    cluster.agreed(30).await;
    super::all_is_well(&cluster, &book).await;
    // The old data, too, is on all three in the end.
    cluster.replicas_equal(120).await;
    cluster.kill(0);
    super::complete(&cluster, &book).await;
}

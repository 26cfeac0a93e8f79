//! Real Prometheus servers send to a cluster: one to a node, and an HA pair of it to two others. Each node answers as
//! Prometheus does, and the pair, one of which is paused for a while, looks like one server that never was away.
//!
//! `CARILLON_PAUSE_S` says how long it is paused (.ci/long: 300).

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tests::cluster::Cluster;
use tests::{Http, Peer, free_port, node_exporter, now_ms, prometheus_new};

use crate::interop::stage::{Stage, seconds};

/// Questions that each node is asked beside a Prometheus 3.
const QUESTIONS: usize = 60;
const DEFAULT_PAUSE_S: u64 = 12;
/// How long both of the pair run before and after the pause.
const TOGETHER: Duration = Duration::from_secs(10);
/// The pair's tenant: the questions above shall not meet its series.
const TENANT: &str = "pair";
/// A gap penalty may cost a scrape where one server takes over from the other; scrapes are a second apart.
const GAP_MS_MAX: i64 = 3000;

fn configuration(replica: &str, exporter: u16, receiver: &str) -> String {
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, external_labels: {{replica: {replica}}}}}\n\
         scrape_configs:\n  - {{job_name: node, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}\n\
         remote_write:\n  - {{url: '{receiver}/api/v1/write', headers: {{X-Scope-OrgID: {TENANT}}}, \
         queue_config: {{batch_send_deadline: 500ms}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_answers_as_prometheus_does_and_a_pair_looks_like_one() {
    let cluster = Cluster::start_with(3, 3, &["--limits-replica-labels", "replica"]).await;
    let nodes = (0..3).map(|node| cluster.http(node)).collect();
    // Both at once: most of either is waiting.
    let (single, pair) = (cluster.dir().join("single"), cluster.dir().join("pair"));
    std::fs::create_dir_all(&single).unwrap();
    std::fs::create_dir_all(&pair).unwrap();
    let (stage, ()) = tokio::join!(Stage::set(&single, nodes), a_pair(&cluster, &pair));
    if let Some(stage) = stage {
        stage.ask(QUESTIONS).await;
    }
}

async fn a_pair(cluster: &Cluster, dir: &Path) {
    let (Some(program), Some(exporter)) = (prometheus_new(), node_exporter()) else { return };
    let pause_s =
        std::env::var("CARILLON_PAUSE_S").ok().and_then(|s| s.parse().ok()).unwrap_or(DEFAULT_PAUSE_S);
    let port = free_port();
    let listen = [format!("--web.listen-address=127.0.0.1:{port}")];
    let exporter = Peer::start(&exporter, port, &listen, dir, "/").await;
    let start = async |name: &str, node: usize| {
        let config = configuration(name, exporter.port(), &cluster.url(node));
        Peer::prometheus(&program, &dir.join(name), &config, &[]).await
    };
    let (a, _b) = (start("a", 1).await, start("b", 2).await);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let from_ms = now_ms();
    tokio::time::sleep(TOGETHER).await;
    a.pause();
    tokio::time::sleep(Duration::from_secs(pause_s)).await;
    a.go_on();
    tokio::time::sleep(TOGETHER).await;
    // The last seconds are still under way.
    let to_ms = now_ms() - 3000;
    for node in 0..3 {
        looks_like_one(&cluster.http(node).tenant(TENANT), from_ms, to_ms).await;
    }
}

async fn looks_like_one(node: &Http, from_ms: i64, to_ms: i64) {
    let span = format!("{}ms", to_ms - from_ms);
    // No double: one series, where there would be two. No gap: in its samples.
    let up = node.query(&format!("up[{span}]"), to_ms).await;
    assert_eq!(up.as_array().map(Vec::len), Some(1), "{up}");
    assert_eq!(up[0]["metric"]["replica"], Value::Null, "{up}");
    let times: Vec<i64> = up[0]["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| (point[0].as_f64().unwrap() * 1000.0).round() as i64)
        .collect();
    for (before, after) in times.iter().zip(&times[1..]) {
        assert!((1..=GAP_MS_MAX).contains(&(after - before)), "{before} then {after} in {times:?}");
    }
    assert!(times[0] - from_ms <= GAP_MS_MAX && to_ms - times[times.len() - 1] <= GAP_MS_MAX, "{times:?}");
    // No false reset: a node_exporter's counters of CPU time only grow.
    let resets = node.query(&format!("sum(resets(node_cpu_seconds_total[{span}]))"), to_ms).await;
    assert_eq!(resets[0]["value"][1], "0", "{resets}");
    // As a panel asks: one line a mode, a point each second, and never more CPU time than there is.
    let rate = "sum by (mode) (rate(node_cpu_seconds_total[5s])) / on () group_left () count(node_cpu_seconds_total{mode=\"idle\"})";
    let (start, end) = (seconds(from_ms + 6000), seconds(to_ms));
    let range = [("query", rate), ("start", &start), ("end", &end), ("step", "1")];
    let answer = node.form("/api/v1/query_range", &range).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let lines = answer.json()["data"]["result"].as_array().cloned().unwrap_or_default();
    assert!(lines.len() >= 4, "{}", answer.body);
    let steps = ((to_ms - from_ms - 6000) / 1000) as usize + 1;
    for line in lines {
        let points = line["values"].as_array().unwrap();
        assert_eq!(points.len(), steps, "{}", line["metric"]);
        for point in points {
            let share: f64 = point[1].as_str().unwrap().parse().unwrap();
            assert!((0.0..=1.5).contains(&share), "{point} of {}", line["metric"]);
        }
    }
}

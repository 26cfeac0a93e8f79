//! HA pairs: one series out of two.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{NOW_MS, TestNode, series};

/// Two servers that scrape the same, one with a gap of five minutes.
async fn pair(yaml: &str) -> TestNode {
    let node = TestNode::with(yaml).await;
    let scraped = |from: i64| (from..1200).step_by(15).map(|s| (NOW_MS - 1_200_000 + s * 1000, s as f64));
    let a: Vec<_> = scraped(0).filter(|(_, s)| !(300.0..600.0).contains(s)).collect();
    let b: Vec<_> = scraped(7).collect();
    let of =
        |replica, samples: &[(i64, f64)]| series(&[("__name__", "up_total"), ("replica", replica)], samples);
    assert_eq!(node.write(vec![of("a", &a), of("b", &b)]).await.status, StatusCode::NO_CONTENT);
    node
}

async fn count(node: &TestNode, more: &str) -> Vec<(Value, f64)> {
    let url = format!("/api/v1/query?query=count_over_time(up_total[20m])&time={}{more}", NOW_MS / 1000 - 1);
    let data = node.get(&url).await.data();
    let of = |s: &Value| (s["metric"].clone(), s["value"][1].as_str().unwrap().parse().unwrap());
    data["result"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test]
async fn replicas_are_merged_by_setting_or_parameter() {
    for (yaml, more) in [
        ("limits: {replica_labels: [replica]}\n", ""),
        ("tenants: {default: {replica_labels: \"replica,other\"}}\n", "&dedup=true"),
        ("", "&replicaLabels[]=replica"),
    ] {
        let node = pair(yaml).await;
        let found = count(&node, more).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, json!({}));
        assert!((found[0].1 - 80.0).abs() <= 1.0, "{found:?}");
    }
}

#[tokio::test]
async fn replicas_stay_apart_without_a_setting_and_where_asked() {
    let node = pair("").await;
    assert_eq!(count(&node, "").await.len(), 2);
    let node = pair("limits: {replica_labels: [replica]}\n").await;
    assert_eq!(count(&node, "&dedup=false").await.len(), 2);
    assert_eq!(count(&node, "&replicaLabels[]=zone").await.len(), 2);
    let (status, kind, _) = node.get("/api/v1/query?query=up&dedup=perhaps").await.error();
    assert_eq!((status, kind.as_str()), (400, "bad_data"));
    let (status, ..) = node.get("/api/v1/query?query=up&replicaLabels[]=__name__").await.error();
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_matcher_on_a_replica_label_picks_one() {
    let node = pair("limits: {replica_labels: [replica]}\n").await;
    let data = node
        .get(&format!("/api/v1/query?query=up_total{{replica=\"b\"}}&time={}", NOW_MS / 1000))
        .await
        .data();
    assert_eq!(data["result"][0]["metric"], json!({"__name__": "up_total"}));
    assert_eq!(data["result"][0]["value"][1], "1192");
}

#[tokio::test]
async fn series_and_labels_show_no_replica() {
    let node = pair("limits: {replica_labels: [replica]}\n").await;
    assert_eq!(node.get("/api/v1/series?match[]=up_total").await.data(), json!([{"__name__": "up_total"}]));
    assert_eq!(node.get("/api/v1/series?match[]=up_total&limit=1").await.json().get("warnings"), None);
    assert_eq!(node.get("/api/v1/labels").await.data(), json!(["__name__"]));
    assert_eq!(node.get("/api/v1/label/replica/values").await.data(), json!(["a", "b"]));
    assert_eq!(node.get("/api/v1/labels?dedup=false").await.data(), json!(["__name__", "replica"]));
}

//! Status pages, and what is empty but valid.

use axum::http::StatusCode;

use super::{NOW_MS, TestNode, series};

#[tokio::test]
async fn status_pages_have_what_clients_look_for() {
    let node = TestNode::start().await;
    node.write(vec![series(&[("__name__", "m"), ("a", "b")], &[(NOW_MS, 1.0)])]).await;
    let tsdb = node.get("/api/v1/status/tsdb").await.data();
    assert_eq!(tsdb["headStats"]["numSeries"], 1);
    assert_eq!(tsdb["seriesCountByMetricName"], serde_json::json!([{"name": "m", "value": 1}]));
    assert_eq!(node.get("/api/v1/status/tsdb?limit=1000000").await.error().0, 400);
    assert_eq!(node.get("/api/v1/status/flags").await.data()["wal-sync"], "group");
    assert!(node.get("/api/v1/status/config").await.data()["yaml"].as_str().unwrap().contains("sync: group"));
    assert_eq!(node.get("/api/v1/status/runtimeinfo").await.data()["storageRetention"], "unlimited");
    assert_eq!(node.get("/api/v1/status/walreplay").await.data()["state"], "done");
    assert_eq!(node.get("/api/v1/rules").await.data(), serde_json::json!({"groups": []}));
    assert_eq!(node.get("/api/v1/alerts").await.data(), serde_json::json!({"alerts": []}));
    for path in ["targets", "alertmanagers", "metadata"] {
        assert!(node.get(&format!("/api/v1/{path}")).await.data().is_object());
    }
}

#[tokio::test]
async fn the_process_answers() {
    let node = TestNode::start().await;
    for path in ["/", "/-/healthy", "/-/ready", "/prometheus/-/healthy", "/metrics"] {
        assert_eq!(node.get(path).await.status, StatusCode::OK, "{path}");
    }
    let metrics = node.get("/metrics").await;
    for name in [
        "carillon_http_requests_total{path=\"/-/healthy\",code=\"200\"} 2",
        "carillon_head_series 0",
        "process_cpu_",
    ] {
        assert!(metrics.text().contains(name), "{name}: {}", metrics.text());
    }
    assert!(metrics.text().ends_with("# EOF\n"));
    let reload = node.post("/-/reload", &[("x-carillon-change", "yes")], "").await;
    assert_eq!(reload.status, StatusCode::INTERNAL_SERVER_ERROR, "a test has nothing to read again");
}

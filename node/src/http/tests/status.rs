//! Status pages, and what is empty but valid.

use axum::body::Body;
use axum::http::{Request, StatusCode};

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
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for name in [
        "carillon_http_requests_total{path=\"/-/healthy\",code=\"200\"} 2",
        "carillon_head_series 0",
        "process_cpu_",
    ] {
        assert!(metrics.text().contains(name), "{name}: {}", metrics.text());
    }
    assert!(
        !metrics.text().contains("# EOF")
            && metrics.text().contains("# TYPE carillon_http_requests_total counter\n")
    );
    let asked = Request::get("/metrics")
        .header("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    let metrics = node.send(asked.body(Body::empty()).unwrap()).await;
    assert_eq!(metrics.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(metrics.text().ends_with("# EOF\n"));
    let reload = node.post("/-/reload", &[("x-carillon-change", "yes")], "").await;
    assert_eq!(reload.status, StatusCode::INTERNAL_SERVER_ERROR, "a test has nothing to read again");
}

#[tokio::test]
async fn whether_the_next_node_may_be_taken_is_told_in_text_and_json() {
    let node = TestNode::start().await;
    assert_eq!(node.get("/-/safe?scope=node").await.status, StatusCode::OK);
    assert_eq!(node.get("/-/safe?scope=zone").await.error().0, 400);
    let early = node.get("/-/safe").await;
    assert_eq!(early.status, StatusCode::SERVICE_UNAVAILABLE, "nothing was compared since the start");
    assert!(early.text().contains("repair hasn't compared"), "{}", early.text());
    let asked = Request::get("/-/safe").header("accept", "application/json").body(Body::empty()).unwrap();
    let early = node.send(asked).await.json();
    assert_eq!((&early["safe"], early["reasons"].as_array().unwrap().len()), (&false.into(), 1), "{early}");
    assert_eq!(node.get("/api/v1/cluster/safe").await.data(), early);
    // The first look of repair, which has nobody to compare with.
    for _ in 0..1000 {
        if node.get("/-/safe").await.status == StatusCode::OK {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(node.get("/-/safe").await.text().starts_with("It is safe"));
}

#[tokio::test]
async fn what_scrapes_and_notifications_would_fill_is_empty_but_valid() {
    let node = TestNode::start().await;
    for (path, wanted) in [
        ("targets/metadata", serde_json::json!([])),
        ("scrape_pools", serde_json::json!({"scrapePools": []})),
        ("notifications", serde_json::json!([])),
    ] {
        assert_eq!(node.get(&format!("/api/v1/{path}")).await.data(), wanted, "{path}");
    }
}

#[tokio::test]
async fn the_page_shows_what_status_shows_and_links_to_prometheuss_pages_lead_there() {
    let node = TestNode::start().await;
    let page = node.get("/").await;
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    for part in ["1 (1 alive)", "copies", "bucket", "free", "lacking", "hints", "serving", "well"] {
        assert!(page.text().contains(part), "{part} is missing in\n{}", page.text());
    }
    for command in
        ["curl --data-binary", "carillon query instant", "carillon status --url http://127.0.0.1:2"]
    {
        assert!(page.text().contains(command), "{command} is missing in\n{}", page.text());
    }
    assert!(!page.text().contains("<script"));
    for (from, to) in [
        ("/graph", "/"),
        ("/graph?g0.expr=up&g0.tab=1", "/?g0.expr=up&g0.tab=1"),
        ("/query?g0.expr=up", "/?g0.expr=up"),
        ("/prometheus/graph/?g0.expr=up", "/prometheus/?g0.expr=up"),
    ] {
        let answer = node.get(from).await;
        assert_eq!(
            (answer.status, answer.headers["location"].to_str().unwrap()),
            (StatusCode::FOUND, to),
            "{from}"
        );
    }
    let asked = node.get("/prometheus/?g0.expr=sum(up)%3Cscript%3E").await;
    assert!(asked.text().contains("<code>sum(up)&lt;script&gt;</code>"), "{}", asked.text());
    assert!(asked.text().contains("api/v1/query?query=sum%28up%29%3Cscript%3E"), "{}", asked.text());
}

/// Each family that a node tells of stands on the page of metrics, which is written from what it tells.
#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a page of the repository isn't in a data folder")]
async fn the_reference_of_metrics_is_current() {
    use std::fmt::Write as _;
    let node = TestNode::start().await;
    let metrics = node.get("/metrics").await;
    let mut families: Vec<(&str, &str, &str)> = Vec::new();
    let mut help = ("", "");
    for line in metrics.text().lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ').unwrap();
        } else if let Some((family, kind)) =
            line.strip_prefix("# TYPE ").and_then(|told| told.split_once(' '))
        {
            assert_eq!(family, help.0, "help stands above the type");
            families.push((family, kind, help.1));
        }
    }
    families.sort_unstable();
    for family in [
        "carillon_cluster_members",
        "carillon_cluster_members_away",
        "carillon_ring_epoch",
        "carillon_ring_ranges_under_replicated",
        "carillon_ring_ranges_without_quorum",
        "carillon_hints_bytes",
        "carillon_repair_windows_lacking",
        "carillon_bucket_blocks_waiting",
        "carillon_bucket_upload_failures_total",
        "carillon_clock_offset_seconds",
        "carillon_disk_free_bytes",
    ] {
        assert!(families.iter().any(|(name, ..)| *name == family), "{family} is missing");
    }
    let mut page = String::from(
        "# Metrics\n\nWhat a node tells of itself on `/metrics`, as Prometheus's text format or as OpenMetrics, \
         whichever a scraper asks for.\nGenerated from what a node tells.\n\n| family | type | what it is |\n|---|---|---|\n",
    );
    for (family, kind, help) in families {
        writeln!(page, "| `{family}` | {kind} | {help} |").unwrap();
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == page,
        "docs/metrics.md isn't current: run UPDATE_DOCS=1 cargo test -p node --lib reference_of_metrics"
    );
}

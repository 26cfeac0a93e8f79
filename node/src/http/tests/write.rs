//! Writes, good and bad.

use axum::http::StatusCode;
use prost::Message as _;
use proto::prometheus as pb;
use tsdb::model::STALE_NAN_BITS;

use super::{NOW_MS, TestNode, series};

#[tokio::test]
async fn what_is_written_can_be_asked_for_under_every_alias() {
    let node = TestNode::start().await;
    let request = |n: i64| pb::WriteRequest {
        timeseries: vec![series(&[("__name__", "m"), ("n", &n.to_string())], &[(NOW_MS, n as f64)])],
        metadata: Vec::new(),
    };
    for (n, path) in
        ["/api/v1/write", "/api/v1/receive", "/api/v1/push", "/prometheus/api/v1/write"].iter().enumerate()
    {
        let body = snap::raw::Encoder::new().compress_vec(&request(n as i64).encode_to_vec()).unwrap();
        let answer = node.post(path, &[], body).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    }
    let answer = node.get("/api/v1/query?query=sum(m)").await;
    assert_eq!(answer.data()["result"][0]["value"][1], "6");
}

#[tokio::test]
async fn the_same_samples_again_are_a_success() {
    let node = TestNode::start().await;
    let all = || vec![series(&[("__name__", "m")], &[(NOW_MS - 1000, 1.0), (NOW_MS, f64::NAN)])];
    for _ in 0..3 {
        assert_eq!(node.write(all()).await.status, StatusCode::NO_CONTENT);
    }
    let stale = vec![series(&[("__name__", "m")], &[(NOW_MS + 1, f64::from_bits(STALE_NAN_BITS))])];
    assert_eq!(node.write(stale).await.status, StatusCode::NO_CONTENT);
    let result = node.get(&format!("/api/v1/query?query=m&time={}", (NOW_MS + 2) / 1000 + 1)).await.data();
    assert_eq!(result["result"].as_array().unwrap().len(), 0, "the series has ended");
}

#[tokio::test]
async fn good_samples_are_stored_beside_bad_ones_and_the_first_bad_one_is_named() {
    let node = TestNode::start().await;
    let day_ms = 86_400_000;
    let answer = node
        .write(vec![
            series(&[("__name__", "good")], &[(NOW_MS, 1.0)]),
            series(&[("job", "nameless")], &[(NOW_MS, 1.0)]),
            series(&[("__name__", "old")], &[(NOW_MS - 2 * day_ms, 1.0)]),
            series(&[("__name__", "ahead")], &[(NOW_MS + day_ms, 1.0)]),
            series(&[("__name__", "good"), ("b", "1"), ("b", "1")], &[(NOW_MS, 1.0)]),
            series(&[("__name__", "good"), ("", "x")], &[(NOW_MS, 1.0)]),
        ])
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let text = answer.text();
    assert!(text.contains("__name__ is missing") && text.contains("nameless"), "{text}");
    assert!(text.contains("(and 4 more)"), "{text}");
    assert_eq!(
        node.get("/api/v1/query?query=count({__name__=~\".%2B\"})").await.data()["result"][0]["value"][1],
        "1"
    );
}

#[tokio::test]
async fn labels_in_any_order_find_the_same_series() {
    let node = TestNode::start().await;
    let orders: [&[(&str, &str)]; 6] = [
        &[("__name__", "m"), ("a", "1"), ("b", "2")],
        &[("b", "2"), ("a", "1"), ("__name__", "m")],
        &[("a", "1"), ("b", "2"), ("__name__", "m")],
        &[("b", "2"), ("__name__", "m"), ("a", "1")],
        // More orders than a series has keys, one with a label that is absent.
        &[("a", "1"), ("__name__", "m"), ("b", "2")],
        &[("b", "2"), ("absent", ""), ("__name__", "m"), ("a", "1")],
    ];
    // Each on its own, again when it is known, and all in one request.
    for round in 0..2 {
        for (at, order) in orders.iter().enumerate() {
            let sample = (NOW_MS - 1000 + 100 * round + at as i64, 1.0);
            assert_eq!(node.write(vec![series(order, &[sample])]).await.status, StatusCode::NO_CONTENT);
        }
    }
    let together =
        orders.iter().enumerate().map(|(at, order)| series(order, &[(NOW_MS - 500 + at as i64, 1.0)]));
    assert_eq!(node.write(together.collect()).await.status, StatusCode::NO_CONTENT);
    let answer = node.get("/api/v1/query?query=count_over_time({__name__=~\".%2B\"}[1h])").await.data();
    let found = answer["result"].as_array().unwrap();
    assert_eq!((found.len(), &found[0]["value"][1]), (1, &"18".into()), "{answer}");
    assert_eq!(found[0]["metric"], serde_json::json!({"a": "1", "b": "2"}));
}

#[tokio::test]
async fn labels_that_blocks_have_too_are_stored() {
    let node = TestNode::start().await;
    let order = |id: &str| {
        series(&[("__name__", "orders"), ("carillon_replica", "r"), ("tenant_id", id)], &[(NOW_MS, 1.0)])
    };
    assert_eq!(node.write(vec![order("42"), order("43")]).await.status, StatusCode::NO_CONTENT);
    let answer = node.get("/api/v1/query?query=orders{tenant_id=\"42\"}").await.data();
    assert_eq!(answer["result"][0]["metric"]["tenant_id"], "42", "{answer}");
}

#[tokio::test]
async fn each_age_has_its_reason() {
    let node = TestNode::start().await;
    let hour_ms = 3_600_000;
    let m = |age_ms: i64| vec![series(&[("__name__", "m")], &[(NOW_MS - age_ms, 1.0)])];
    assert_eq!(node.write(m(0)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.write(m(hour_ms)).await.status, StatusCode::NO_CONTENT, "inside the out-of-order window");
    for (age_ms, wanted) in [(3 * hour_ms, "out_of_order_window"), (-hour_ms, "max_future")] {
        let answer = node.write(m(age_ms)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.text().contains(wanted) && answer.text().starts_with("m: "), "{}", answer.text());
    }
    let fresh = vec![series(&[("__name__", "fresh")], &[(NOW_MS - 23 * hour_ms, 1.0)])];
    assert_eq!(node.write(fresh).await.status, StatusCode::NO_CONTENT, "in order, and inside max_backfill");
    let old = vec![series(&[("__name__", "other")], &[(NOW_MS - 25 * hour_ms, 1.0)])];
    assert!(node.write(old).await.text().contains("max_backfill"));
}

#[tokio::test]
async fn a_tenants_limits_can_be_lifted_or_tightened() {
    let yaml = "tenants:\n  free: {max_backfill: unlimited, out_of_order_window: unlimited, max_future: unlimited}\n  \
                tiny: {max_series: 2}\n";
    let node = TestNode::with(yaml).await;
    let body = |names: &[&str], at: i64| {
        let timeseries = names.iter().map(|n| series(&[("__name__", n)], &[(at, 1.0)])).collect();
        let plain = pb::WriteRequest { timeseries, metadata: Vec::new() }.encode_to_vec();
        snap::raw::Encoder::new().compress_vec(&plain).unwrap()
    };
    for at in [NOW_MS * 2, 0, NOW_MS] {
        let answer = node.post("/api/v1/write", &[("x-scope-orgid", "free")], body(&["m"], at)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    }
    let answer =
        node.post("/api/v1/write", &[("thanos-tenant", "tiny")], body(&["a", "b", "c", "d"], NOW_MS)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers.contains_key("retry-after"));
    assert!(answer.text().contains("and may have 2 (and 1 more)"), "{}", answer.text());
}

#[tokio::test]
async fn broken_bodies_are_refused() {
    let node = TestNode::start().await;
    let plain = pb::WriteRequest {
        timeseries: vec![series(&[("__name__", "m")], &[(NOW_MS, 1.0)]); 20],
        metadata: Vec::new(),
    }
    .encode_to_vec();
    let whole = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    for cut in 1..whole.len() {
        let answer = node.post("/api/v1/write", &[], whole[..cut].to_vec()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "cut at {cut}");
    }
    let broken = snap::raw::Encoder::new().compress_vec(&plain[..plain.len() - 3]).unwrap();
    assert_eq!(node.post("/api/v1/write", &[], broken).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(node.post("/api/v1/write", &[], "not snappy").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(node.get("/api/v1/query?query=m").await.data()["result"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn bombs_and_large_bodies_are_refused_before_they_are_read() {
    let node = TestNode::with("http: {max_body: 1kB, max_decompressed_body: 1MiB}\n").await;
    let bomb = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let answer = node.post("/api/v1/write", &[], bomb).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.text().contains("declares 4294967295"), "{}", answer.text());
    let large = node.post("/api/v1/write", &[], vec![0; 1001]).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut zeros, &vec![b'\n'; 900_000]).unwrap();
    let zeros = zeros.finish().unwrap();
    assert!(zeros.len() < 1000);
    let twice = [zeros.clone(), zeros].concat();
    if twice.len() < 1000 {
        let gzip = [("content-encoding", "gzip")];
        assert_eq!(
            node.post("/api/v1/import/prometheus", &gzip, twice).await.status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
    }
}

#[tokio::test]
async fn bytes_in_work_are_bounded() {
    let node = TestNode::with("http: {max_in_flight: 1kB}\n").await;
    let many =
        (0..100).map(|i| series(&[("__name__", "m"), ("i", &i.to_string())], &[(NOW_MS, 1.0)])).collect();
    let answer = node.write(many).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after") && answer.text().contains("http.max_in_flight"));
    assert_eq!(node.app.in_flight.used(), 0);
}

#[tokio::test]
async fn other_kinds_of_bodies_are_named() {
    let node = TestNode::start().await;
    for headers in [
        [("content-encoding", "zstd"), ("content-type", "application/x-protobuf")],
        [("content-encoding", "snappy"), ("content-type", "application/json")],
        [
            ("content-encoding", "snappy"),
            ("content-type", "application/x-protobuf;proto=io.prometheus.write.v3.Request"),
        ],
    ] {
        let answer = node.post("/api/v1/write", &headers, vec![0]).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{headers:?}");
    }
}

#[tokio::test]
async fn text_is_imported_plain_and_compressed() {
    let node = TestNode::start().await;
    let text = format!("# TYPE hits counter\nhits_total{{a=\"b\"}} 3 {NOW_MS}\nnow 1\n");
    assert_eq!(
        node.post("/api/v1/import/prometheus", &[], text.clone()).await.status,
        StatusCode::NO_CONTENT
    );
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, text.replace("hits", "zipped").as_bytes()).unwrap();
    let headers = [("content-encoding", "gzip")];
    let answer = node.post("/api/v1/import/prometheus", &headers, gzip.finish().unwrap()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    let openmetrics = format!("om 1 {} # {{trace_id=\"x\"}} 1\n# EOF\n", NOW_MS / 1000);
    let headers = [("content-type", "application/openmetrics-text; version=1.0.0")];
    let answer = node.post("/api/v1/import/prometheus", &headers, openmetrics).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    let found = node.get("/api/v1/query?query=count({__name__=~\"hits_total|zipped_total|now|om\"})").await;
    assert_eq!(found.data()["result"][0]["value"][1], "4");

    let bad = node.post("/api/v1/import/prometheus", &[], "ok 1\nbad line here\n").await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert!(bad.text().contains("line 2"), "{}", bad.text());
    let headers = [("content-encoding", "gzip")];
    assert_eq!(
        node.post("/api/v1/import/prometheus", &headers, "no gzip").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn nothing_is_stored_of_openmetrics_that_is_not_whole() {
    let node = TestNode::start().await;
    let now_s = NOW_MS / 1000;
    let headers = [("content-type", "application/openmetrics-text; version=1.0.0")];
    let lines =
        format!("# TYPE kept counter\nkept_total{{a=\"1\"}} 1 {now_s}\nkept_total{{a=\"2\"}} 2 {now_s}\n");
    for (body, wanted) in [
        (lines.clone(), "does not end with # EOF"),
        (format!("{lines}kept_total{{a=\"3\"}} 17"), "does not end with # EOF"),
        (format!("{lines}# EO"), "does not end with # EOF"),
        (format!("{lines}# EOF\n{lines}# EOF\n"), "line 5: there is data after # EOF"),
        (
            format!("{lines}kept_total 1 {NOW_MS}\n# EOF\n"),
            "line 4: \"1767225600000\" isn't a time in seconds",
        ),
        (format!("{lines}this is no line\n# EOF\n"), "line 4"),
        (format!("{lines}kept_total{{a=\"1\",a=\"1\"}} 1\nx{{ 1\n# EOF\n"), "(and 1 more)"),
    ] {
        let answer = node.post("/api/v1/import/prometheus", &headers, body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.text().contains(wanted), "{body}: {}", answer.text());
        let found = node.get("/api/v1/series?match[]={__name__=~\".%2B\"}").await;
        assert_eq!(found.data(), serde_json::json!([]), "{body}");
    }
    let whole = node.post("/api/v1/import/prometheus", &headers, format!("{lines}# EOF\n")).await;
    assert_eq!(whole.status, StatusCode::NO_CONTENT, "{}", whole.text());
}

#[tokio::test]
async fn what_retention_would_remove_is_refused_and_names_the_option() {
    let yaml =
        "storage: {retention: 30d}\nlimits: {max_backfill: unlimited, out_of_order_window: unlimited}\n";
    let node = TestNode::with(yaml).await;
    let day_ms = 86_400_000;
    let at = |days: i64| NOW_MS - days * day_ms;
    let sent = [series(&[("__name__", "written")], &[(at(40), 1.0), (at(20), 2.0), (at(31), 3.0)])];
    let written = node.write(sent.to_vec()).await;
    let text = format!("text 1 {}\ntext 2 {}\ntext 3 {}\n", at(40), at(20), at(31));
    let imported = node.post("/api/v1/import/prometheus", &[], text).await;
    for answer in [written, imported] {
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(
            answer.text().contains("storage.retention") && answer.text().contains("(and 1 more)"),
            "{}",
            answer.text()
        );
    }
    for name in ["written", "text"] {
        let url = format!("/api/v1/query?query=count_over_time({name}[60d])&time={}", NOW_MS / 1000);
        assert_eq!(node.get(&url).await.data()["result"][0]["value"][1], "1", "{name}");
    }
}

#[tokio::test]
async fn nothing_is_stored_of_a_gzip_body_that_was_cut() {
    use std::io::Write as _;
    let node = TestNode::start().await;
    let text: String =
        (0..200).map(|i| format!("cut{{i=\"{i}\",r=\"{:x}\"}} {i} {NOW_MS}\n", i * i * 7919)).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    for end in (0..gzip.len()).step_by(97).chain(gzip.len() - 9..gzip.len()) {
        let headers = [("content-encoding", "gzip")];
        let answer = node.post("/api/v1/import/prometheus", &headers, gzip[..end].to_vec()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{end} of {} bytes", gzip.len());
    }
    let found = node.get("/api/v1/series?match[]=cut").await;
    assert_eq!(found.data(), serde_json::json!([]));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers_by_itself() {
    tokio::time::pause();
    let node = TestNode::start().await;
    let m = |n: i64| vec![series(&[("__name__", "m")], &[(NOW_MS + n, n as f64)])];
    assert_eq!(node.write(m(0)).await.status, StatusCode::NO_CONTENT);
    node.disk.set_capacity(Some(0));
    let wide = "x".repeat(8000);
    let mut n = 0;
    let refused = loop {
        n += 1;
        let wide = (0..100)
            .map(|i| {
                series(&[("__name__", "fill"), ("i", &format!("{n}-{i}")), ("wide", &wide)], &[(NOW_MS, 1.0)])
            })
            .collect();
        let answer = node.write(wide).await;
        if answer.status != StatusCode::NO_CONTENT {
            break answer;
        }
        assert!(n < 1000, "a disk without room must refuse at last");
    };
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.text());
    assert!(refused.headers.contains_key("retry-after"));
    node.disk.set_capacity(None);
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        if node.write(m(1000)).await.status == StatusCode::NO_CONTENT {
            let found = node.get(&format!("/api/v1/query?query=m&time={}", NOW_MS / 1000 + 1)).await;
            assert_eq!(found.data()["result"][0]["value"][1], "1000");
            return;
        }
    }
    panic!("writes are still refused");
}

#[tokio::test]
async fn what_was_acked_survives_a_crash() {
    let mut node = TestNode::start().await;
    for round in 0..3 {
        let all = (0..50)
            .map(|i| series(&[("__name__", "m"), ("i", &i.to_string())], &[(NOW_MS + round, f64::from(i))]))
            .collect();
        assert_eq!(node.write(all).await.status, StatusCode::NO_CONTENT);
        node = node.crash("").await;
        let url = format!("/api/v1/query?query=sum(count_over_time(m[5m]))&time={}", NOW_MS / 1000 + 1);
        assert_eq!(node.get(&url).await.data()["result"][0]["value"][1], ((round + 1) * 50).to_string());
    }
}

#[tokio::test]
async fn native_histograms_exemplars_and_metadata_are_taken() {
    let node = TestNode::start().await;
    let histogram = pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(3)),
        sum: 4.5,
        positive_spans: vec![pb::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![1, 1],
        timestamp: NOW_MS,
        ..Default::default()
    };
    let exemplar = pb::Exemplar { labels: Vec::new(), value: 1.0, timestamp: NOW_MS };
    let request = pb::WriteRequest {
        timeseries: vec![pb::TimeSeries {
            histograms: vec![histogram],
            exemplars: vec![exemplar],
            ..series(&[("__name__", "h")], &[])
        }],
        metadata: vec![pb::MetricMetadata {
            r#type: 3,
            metric_family_name: "h".to_owned(),
            help: "A \"histogram\"".to_owned(),
            unit: "s".to_owned(),
        }],
    };
    let answer = node.write_request(&request).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    let found = node.get("/api/v1/query?query=h").await.data();
    assert_eq!(
        found["result"][0]["histogram"][1],
        serde_json::json!({"count": "3", "sum": "4.5", "buckets": [[0, "0.5", "1", "1"], [0, "1", "2", "2"]]})
    );
    let exemplars = node.get("/api/v1/query_exemplars?query=rate(h[5m])%2Bh").await.data();
    let wanted = serde_json::json!({"labels": {}, "value": "1", "timestamp": NOW_MS / 1000});
    assert_eq!(exemplars, serde_json::json!([{"seriesLabels": {"__name__": "h"}, "exemplars": [wanted]}]));
    let metadata = node.get("/api/v1/metadata?metric=h").await.data();
    assert_eq!(
        metadata,
        serde_json::json!({"h": [{"type": "histogram", "help": "A \"histogram\"", "unit": "s"}]})
    );
}

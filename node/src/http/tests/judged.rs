//! Series are made after their samples are judged.

use super::*;

/// Series that each have a sample, or none, that can't be stored.
fn refused() -> Vec<pb::TimeSeries> {
    let of = |i: &str, samples: &[(i64, f64)]| series(&[("__name__", "phantom"), ("i", i)], samples);
    let exemplar = |labels: usize| pb::Exemplar {
        labels: vec![pb::Label { name: "trace_id".to_owned(), value: "x".to_owned() }; labels],
        value: 1.0,
        timestamp: NOW_MS,
    };
    // Its buckets hold more than it says.
    let bad = pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(1)),
        positive_spans: vec![pb::BucketSpan { offset: 0, length: 1 }],
        positive_deltas: vec![7],
        timestamp: NOW_MS,
        ..Default::default()
    };
    vec![
        of("old", &[(NOW_MS - 48 * 3_600_000, 1.0), (NOW_MS - 49 * 3_600_000, 1.0)]),
        of("ahead", &[(NOW_MS + 3_600_000, 1.0)]),
        of("far", &[(i64::MAX, 1.0)]),
        pb::TimeSeries { histograms: vec![bad], ..of("histogram", &[]) },
        pb::TimeSeries { exemplars: vec![exemplar(1)], ..of("exemplar", &[]) },
        pb::TimeSeries { exemplars: vec![exemplar(2)], ..of("two names", &[]) },
        of("empty", &[]),
    ]
}

async fn is_untouched(node: &TestNode, series: u64) {
    assert_eq!(node.get("/api/v1/label/__name__/values").await.data(), serde_json::json!(["good"]));
    assert_eq!(node.get("/api/v1/series?match[]=phantom").await.data(), serde_json::json!([]));
    let tenants = node.app.storage.db().tenants();
    assert_eq!(tenants.iter().map(|tenant| tenant.series_count()).sum::<u64>(), series);
}

#[tokio::test]
async fn what_is_refused_leaves_no_series_and_takes_nobodys_place() {
    let node = TestNode::with("limits: {max_series: 4}").await;
    let good = |i: i64| series(&[("__name__", "good"), ("i", &i.to_string())], &[(NOW_MS, 1.0)]);
    assert_eq!(node.write(vec![good(0)]).await.status, StatusCode::NO_CONTENT);
    for _ in 0..2 {
        let answer = node.write(refused()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.text().contains("(and 5 more)"), "{}", answer.text());
        is_untouched(&node, 1).await;
    }
    let answer = node.write((1..4).map(good).collect()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    is_untouched(&node, 4).await;
}

#[tokio::test]
async fn a_series_is_made_for_its_good_samples_whatever_stands_beside_them() {
    let node = TestNode::start().await;
    let labels = [("__name__", "good")];
    let exemplar = pb::Exemplar { labels: Vec::new(), value: 1.0, timestamp: NOW_MS };
    // As Prometheus sends them, an exemplar has an entry of its own; here even before the series' first sample.
    let answer = node
        .write(vec![
            pb::TimeSeries { exemplars: vec![exemplar], ..series(&labels, &[]) },
            series(&labels, &[(NOW_MS - 48 * 3_600_000, 1.0)]),
            series(&labels, &[(NOW_MS + 3_600_000, 1.0), (NOW_MS, 2.0)]),
        ])
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text().contains("(and 1 more)"), "{}", answer.text());
    assert_eq!(node.get("/api/v1/query?query=good").await.data()["result"][0]["value"][1], "2");
    let exemplars = node.get("/api/v1/query_exemplars?query=good").await.data();
    assert_eq!(exemplars[0]["exemplars"][0]["value"], "1");
}

#[tokio::test]
async fn a_sample_that_was_stored_is_a_duplicate_however_old_it_has_become() {
    let node = TestNode::with("limits: {max_backfill: unlimited, out_of_order_window: unlimited}").await;
    let old = || vec![series(&[("__name__", "good")], &[(NOW_MS - 48 * 3_600_000, 1.0)])];
    assert_eq!(node.write(old()).await.status, StatusCode::NO_CONTENT);
    // After a restart its labels aren't known by their hash, and it is older than is allowed now.
    let node = node.crash("limits: {max_backfill: 1h}").await;
    let answer = node.write(old()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
}

//! A request with floats, stale markers and native histograms of one series: one answer from whoever took it, from its
//! replicas, from who got it as a hint, and after the power was gone.

use super::*;

/// What is asked, at [`NOW_MS`].
const ASKED: [&str; 3] = ["resets(m[10m])", "histogram_count(increase(m[10m]))", "count_over_time(m[10m])"];

fn histogram(age_ms: i64, counts: [i64; 2], hint: pb::histogram::ResetHint) -> pb::Histogram {
    pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(counts.iter().sum::<i64>().unsigned_abs())),
        sum: 1.0,
        zero_threshold: 0.001,
        positive_spans: vec![pb::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![counts[0], counts[1] - counts[0]],
        reset_hint: hint.into(),
        timestamp: NOW_MS - age_ms,
        ..Default::default()
    }
}

fn stale(age_ms: i64) -> (i64, f64) {
    (NOW_MS - age_ms, f64::from_bits(tsdb::model::STALE_NAN_BITS))
}

/// A counter that comes and goes, and was reset meanwhile as its sender knows, though its counts don't show it.
fn flapping(i: &str) -> Vec<pb::TimeSeries> {
    use pb::histogram::ResetHint::{Unknown, Yes};
    let labels = [("__name__", "m"), ("i", i)];
    let of = |histograms| pb::TimeSeries { histograms, ..series(&labels, &[]) };
    vec![
        of(vec![histogram(60_000, [5, 5], Unknown)]),
        series(&labels, &[stale(50_000)]),
        of(vec![histogram(40_000, [6, 6], Yes)]),
        series(&labels, &[stale(30_000)]),
        of(vec![histogram(20_000, [7, 7], Unknown)]),
    ]
}

/// The same with one entry a series, in which each type is listed by itself.
fn flapping_in_one_entry(i: &str) -> Vec<pb::TimeSeries> {
    let parts = flapping(i);
    let histograms = parts.iter().flat_map(|part| part.histograms.clone()).collect();
    let samples = parts.iter().flat_map(|part| part.samples.clone()).collect();
    vec![pb::TimeSeries { labels: parts[0].labels.clone(), samples, histograms, ..Default::default() }]
}

async fn answers(node: &TestNode, series: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for query in ASKED {
        let query = query.replace("m[", &format!("m{{i=\"{series}\"}}["));
        let data = node.get(&format!("/api/v1/query?query={query}&time={}", NOW_MS / 1000)).await.data();
        answers.push(data["result"][0]["value"][1].as_str().unwrap_or("none").to_owned());
    }
    answers
}

/// Waits until `node` answers as wanted, which the last replica may do after the write was acked.
async fn expect(node: &TestNode, series: &str, wanted: &[String]) {
    let mut last = Vec::new();
    for _ in 0..250 {
        last = answers(node, series).await;
        if last == *wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(last, wanted, "series {series}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_types_of_one_request_are_answered_alike_by_all_and_after_a_crash() {
    let one_by_one = TestNode::start().await;
    for part in flapping("0") {
        assert_eq!(one_by_one.write(vec![part]).await.status, StatusCode::NO_CONTENT);
    }
    let wanted = answers(&one_by_one, "0").await;
    assert_eq!((wanted[0].as_str(), wanted[2].as_str()), ("1", "3"));

    let mut members = Members::start(3, &view(3, 3, 1)).await;
    for (node, series) in [(0, "0"), (1, "1")] {
        let answer = members.write(node, flapping(series)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    }
    let answer = members.write(0, flapping_in_one_entry("2")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    for member in &members.0 {
        for series in ["0", "1", "2"] {
            expect(&member.node, series, &wanted).await;
        }
    }
    // One that is away gets it as a hint.
    members.0[2].down().await;
    let answer = members.write(0, flapping("3")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    let hints = members.0[0].node.app.replicator.hints().clone();
    members.0[2].up(CUT_OFF).await;
    for _ in 0..250 {
        hints.hurry();
        if answers(&members.0[2].node, "3").await == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    expect(&members.0[2].node, "3", &wanted).await;

    let node = TestNode::start().await;
    assert_eq!(node.write(flapping("0")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.write(flapping_in_one_entry("1")).await.status, StatusCode::NO_CONTENT);
    for series in ["0", "1"] {
        assert_eq!(answers(&node, series).await, wanted);
    }
    let node = node.crash("").await;
    for series in ["0", "1"] {
        assert_eq!(answers(&node, series).await, wanted, "after the power was gone");
    }
}

/// What every replica refuses leaves no series at any of them, whoever took the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_samples_leave_no_series_at_any_replica() {
    let members = Members::start(3, &view(3, 3, 1)).await;
    let exemplar = pb::Exemplar { labels: Vec::new(), value: 1.0, timestamp: NOW_MS };
    let mut batch = samples(3, 1.0);
    for (i, age_ms) in [("old", 48 * 3_600_000), ("ahead", -3_600_000)] {
        let refused = series(&[("__name__", "phantom"), ("i", i)], &[(NOW_MS - age_ms, 1.0)]);
        batch.push(pb::TimeSeries { exemplars: vec![exemplar.clone()], ..refused });
    }
    batch.push(series(&[("__name__", "phantom"), ("i", "empty")], &[]));
    let lone = series(&[("__name__", "phantom"), ("i", "exemplar")], &[]);
    batch.push(pb::TimeSeries { exemplars: vec![exemplar], ..lone });
    for through in [0, 1] {
        let answer = members.write(through, batch.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
        assert!(answer.text().contains("and 1 more"), "{}", answer.text());
    }
    members.have(0..3, 3).await;
    for member in &members.0 {
        let names = member.node.get("/api/v1/label/__name__/values").await.data();
        assert_eq!(names, serde_json::json!(["m"]));
    }
}

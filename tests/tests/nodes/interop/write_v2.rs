//! A real Prometheus 3 sends all it scrapes by remote write 2.0: floats, native histograms, and classic ones that it
//! has converted to custom buckets. Whoever is asked, it or we, has the same.

use std::time::Duration;

use serde_json::Value;
use tests::compare::{TOLERANCE, difference, is_close};
use tests::{Http, NodeProcess, Peer, eventually, now_ms, prometheus_new};

use super::stage::seconds;

/// How long it scrapes, once a second. It begins to send some seconds after its first scrapes, which aren't asked for.
const SCRAPED: Duration = Duration::from_secs(30);
/// Ranges asked, within that, windows of 8 s before them included.
const RANGE_MS: i64 = 8_000;

const NATIVE: &str = "prometheus_http_request_duration_seconds{job=\"native\"}";
const CUSTOM: &str = "prometheus_http_response_size_bytes{job=\"custom\"}";

const FLOATS: [&str; 6] = [
    "{__name__=~\"prometheus_tsdb_head_.*\"}",
    "up",
    "rate(prometheus_http_requests_total[8s])",
    "sum by (job) (scrape_samples_scraped)",
    "count by (__name__) ({__name__=~\".+\"})",
    "changes(process_resident_memory_bytes[8s])",
];

const OF_HISTOGRAMS: [&str; 6] = [
    "histogram_count(H)",
    "histogram_sum(rate(H[8s]))",
    "histogram_quantile(0.9, sum(rate(H[8s])))",
    "histogram_fraction(0, 100, H)",
    "histogram_avg(H)",
    "resets(H[8s])",
];

fn configuration(receiver: &str) -> String {
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n  \
         - {{job_name: native, static_configs: [{{targets: ['SELF']}}]}}\n  \
         - {{job_name: custom, scrape_protocols: [PrometheusText0.0.4], convert_classic_histograms_to_nhcb: true,\n     \
         static_configs: [{{targets: ['SELF']}}]}}\n\
         remote_write:\n  \
         - {{url: '{receiver}/api/v1/write', protobuf_message: io.prometheus.write.v2.Request,\n     \
         send_native_histograms: true, send_exemplars: true, queue_config: {{batch_send_deadline: 500ms}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_3_sends_by_remote_write_2_is_what_it_has() {
    let Some(program) = prometheus_new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&dir.path().join("node"), &[]);
    let ours = node.http();
    let features = "--enable-feature=native-histograms,exemplar-storage,metadata-wal-records,\
                    promql-experimental-functions";
    let sender =
        Peer::prometheus(&program, &dir.path().join("sender"), &configuration(ours.base()), &[features])
            .await;
    tokio::time::sleep(SCRAPED).await;
    let at_ms = now_ms() - 1000;
    // As far back as any question below reaches.
    let all = "{__name__=~\".+\"}[18s]";
    eventually("we have been sent all samples", 60, async || {
        let (ours, theirs) = (ours.query(all, at_ms).await, sender.http().query(all, at_ms).await);
        (samples(&ours) == samples(&theirs) && samples(&ours) > 0).then_some(())
    })
    .await;

    let expressions = OF_HISTOGRAMS.iter().flat_map(|e| [NATIVE, CUSTOM].map(|h| e.replace('H', h)));
    let mut wrong = Vec::new();
    for expr in FLOATS.into_iter().map(str::to_owned).chain(expressions) {
        for shift_ms in [0, -337] {
            let (end, start) = (seconds(at_ms + shift_ms), seconds(at_ms + shift_ms - RANGE_MS));
            let instant = [("query", expr.as_str()), ("time", end.as_str())];
            let range = [("query", expr.as_str()), ("start", &start), ("end", &end), ("step", "1")];
            for (path, form) in [("/api/v1/query", &instant[..]), ("/api/v1/query_range", &range)] {
                let (a, b) = (data(&ours, path, form).await, data(&sender.http(), path, form).await);
                assert!(!b["result"].as_array().unwrap().is_empty(), "{expr} finds nothing");
                wrong.extend(difference(&a, &b, TOLERANCE).map(|what| format!("{expr}: {what}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Buckets and all.
    for histogram in [NATIVE, CUSTOM] {
        let (a, b) = (sorted(&ours, histogram, at_ms).await, sorted(&sender.http(), histogram, at_ms).await);
        assert!(b[0]["histogram"][1]["buckets"].is_array(), "{histogram}: {b}");
        // Bounds are powers of fractions, which both round in their own way.
        assert!(is_close(&a, &b, TOLERANCE), "{histogram}: {a} against {b}");
    }
    let metadata = ours.get("/api/v1/metadata", &[("metric", "prometheus_http_requests_total")]).await.json();
    assert_eq!(metadata["data"]["prometheus_http_requests_total"][0]["type"], "counter");
    // It reads the headers that tell what was written, and counts what they don't tell as failed.
    for kind in ["samples", "histograms"] {
        let sum = async |what: &str| {
            let metric = format!("sum(prometheus_remote_storage_{kind}_{what})");
            sender.http().query(&metric, at_ms).await[0]["value"][1].clone()
        };
        assert_eq!(sum("failed_total").await, "0", "{kind}");
        assert!(sum("total").await.as_str().unwrap().parse::<f64>().unwrap() > 0.0, "{kind}");
    }
}

/// A vector by labels.
async fn sorted(http: &Http, query: &str, at_ms: i64) -> Value {
    let mut series = http.query(query, at_ms).await.as_array().cloned().unwrap_or_default();
    series.sort_by_key(|series| series["metric"].to_string());
    Value::Array(series)
}

/// How many samples a matrix holds.
fn samples(matrix: &Value) -> usize {
    let series = matrix.as_array().into_iter().flatten();
    let points = series.flat_map(|series| [&series["values"], &series["histograms"]]);
    points.map(|points| points.as_array().map_or(0, Vec::len)).sum()
}

async fn data(http: &Http, path: &str, form: &[(&str, &str)]) -> Value {
    let answer = http.form(path, form).await;
    assert_eq!(answer.status, 200, "{form:?}: {}", answer.body);
    answer.json()["data"].clone()
}

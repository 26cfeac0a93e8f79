//! Remote write 2.0: what its specification demands of a receiver, a test for each demand.

use axum::http::StatusCode;
use prost::Message as _;
use proto::prometheus_v2 as pb;
use tsdb::model::STALE_NAN_BITS;

use super::{Answer, NOW_MS, TestNode, series as first_series};

const TYPE: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// Symbols in the order in which they are first named.
struct Symbols(Vec<String>);

impl Symbols {
    fn new() -> Self {
        Self(vec![String::new()])
    }

    fn at(&mut self, text: &str) -> u32 {
        let at = self.0.iter().position(|s| s == text).unwrap_or_else(|| {
            self.0.push(text.to_owned());
            self.0.len() - 1
        });
        at as u32
    }

    fn series(&mut self, labels: &[(&str, &str)]) -> pb::TimeSeries {
        let labels_refs = labels.iter().flat_map(|(n, v)| [self.at(n), self.at(v)]).collect();
        pb::TimeSeries { labels_refs, ..Default::default() }
    }

    fn float(&mut self, labels: &[(&str, &str)], timestamp: i64, value: f64) -> pb::TimeSeries {
        let samples = vec![pb::Sample { value, timestamp, start_timestamp: 0 }];
        pb::TimeSeries { samples, ..self.series(labels) }
    }

    fn histogram(&mut self, labels: &[(&str, &str)], histogram: pb::Histogram) -> pb::TimeSeries {
        pb::TimeSeries { histograms: vec![histogram], ..self.series(labels) }
    }

    fn request(self, timeseries: Vec<pb::TimeSeries>) -> pb::Request {
        pb::Request { symbols: self.0, timeseries }
    }
}

fn histogram(timestamp: i64) -> pb::Histogram {
    pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(3)),
        sum: 4.5,
        positive_spans: vec![pb::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![1, 1],
        timestamp,
        ..Default::default()
    }
}

fn custom_buckets(timestamp: i64) -> pb::Histogram {
    pb::Histogram {
        count: Some(pb::histogram::Count::CountFloat(3.0)),
        sum: 4.5,
        schema: -53,
        custom_values: vec![1.0, 2.0],
        positive_spans: vec![pb::BucketSpan { offset: 0, length: 2 }],
        positive_counts: vec![1.0, 2.0],
        timestamp,
        ..Default::default()
    }
}

fn compressed(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}

async fn send(node: &TestNode, request: &pb::Request) -> Answer {
    send_body(node, compressed(&request.encode_to_vec())).await
}

async fn send_body(node: &TestNode, body: Vec<u8>) -> Answer {
    let headers = [
        ("content-encoding", "snappy"),
        ("content-type", TYPE),
        ("x-prometheus-remote-write-version", "2.0.0"),
    ];
    node.post("/api/v1/write", &headers, body).await
}

/// Samples, histograms and exemplars written, as the answer's headers have them.
fn written(answer: &Answer) -> [u64; 3] {
    ["samples", "histograms", "exemplars"].map(|kind| {
        let name = format!("x-prometheus-remote-write-{kind}-written");
        answer
            .headers
            .get(&name)
            .unwrap_or_else(|| panic!("{name} is missing"))
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    })
}

async fn value(node: &TestNode, query: &str) -> String {
    let data = node.get(&format!("/api/v1/query?query={query}")).await.data();
    data["result"][0]["value"][1].as_str().unwrap_or_default().to_owned()
}

/// Everything at once.
fn whole() -> pb::Request {
    let mut symbols = Symbols::new();
    let (help, unit) = (symbols.at("Requests served"), symbols.at("seconds"));
    let trace = [symbols.at("trace_id"), symbols.at("abc")];
    let counter = pb::TimeSeries {
        exemplars: vec![pb::Exemplar { labels_refs: trace.to_vec(), value: 1.0, timestamp: NOW_MS }],
        metadata: Some(pb::Metadata { r#type: 1, help_ref: help, unit_ref: unit }),
        ..symbols.float(&[("__name__", "requests_total"), ("job", "a")], NOW_MS, 7.0)
    };
    let timeseries = vec![
        counter,
        symbols.float(&[("__name__", "up"), ("job", "a")], NOW_MS, 1.0),
        symbols.histogram(&[("__name__", "native"), ("job", "a")], histogram(NOW_MS)),
        symbols.histogram(&[("__name__", "custom"), ("job", "a")], custom_buckets(NOW_MS)),
    ];
    symbols.request(timeseries)
}

#[tokio::test]
async fn must_support_the_request_of_2_0_and_answer_204_without_a_body() {
    let node = TestNode::start().await;
    let answer = send(&node, &whole()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    assert!(answer.body.is_empty());
    assert_eq!(value(&node, "sum(requests_total)%2Bsum(up)").await, "8");
    assert_eq!(value(&node, "histogram_count(native)").await, "3");
    assert_eq!(value(&node, "histogram_sum(custom)").await, "4.5");
    let metadata = node.get("/api/v1/metadata").await.data();
    let told = &metadata["requests_total"][0];
    assert_eq!((told["type"].as_str(), told["unit"].as_str()), (Some("counter"), Some("seconds")));
    let path = format!("/api/v1/query_exemplars?query=requests_total&start=0&end={}", NOW_MS / 1000 + 1);
    let exemplars = node.get(&path).await.data();
    assert_eq!(exemplars[0]["exemplars"][0]["labels"]["trace_id"], "abc");
}

#[tokio::test]
async fn must_send_the_precise_number_written_of_each_kind() {
    let node = TestNode::start().await;
    assert_eq!(written(&send(&node, &whole()).await), [2, 2, 1]);
    // Those that are there already are written too: a sender that comes again hears the same.
    assert_eq!(written(&send(&node, &whole()).await), [2, 2, 1]);
    assert_eq!(written(&send(&node, &pb::Request::default()).await), [0, 0, 0]);
}

#[tokio::test]
async fn must_not_answer_2xx_when_anything_was_not_written_and_must_say_what_in_the_body() {
    let node = TestNode::start().await;
    let mut symbols = Symbols::new();
    let broken = pb::Histogram { count: Some(pb::histogram::Count::CountInt(9)), ..histogram(NOW_MS) };
    let beyond = pb::TimeSeries {
        labels_refs: vec![1, 2, 3, 900],
        samples: vec![pb::Sample { value: 1.0, timestamp: NOW_MS, start_timestamp: 0 }; 3],
        ..Default::default()
    };
    let timeseries = vec![
        symbols.float(&[("__name__", "good")], NOW_MS, 1.0),
        symbols.float(&[("__name__", "old")], NOW_MS - 2 * 86_400_000, 1.0),
        symbols.histogram(&[("__name__", "fine")], histogram(NOW_MS)),
        symbols.histogram(&[("__name__", "broken")], broken),
        beyond,
    ];
    let answer = send(&node, &symbols.request(timeseries)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(written(&answer), [1, 1, 0]);
    let text = answer.text();
    assert!(
        text.contains("broken") && text.contains("its count is 9") && text.contains("(and 4 more)"),
        "{text}"
    );
    assert_eq!(value(&node, "good").await, "1");
    assert_eq!(value(&node, "histogram_count(fine)").await, "3");
}

#[tokio::test]
async fn must_answer_415_to_content_that_it_does_not_support() {
    let node = TestNode::start().await;
    let body = compressed(&whole().encode_to_vec());
    for (encoding, kind) in [
        ("zstd", TYPE),
        ("gzip", TYPE),
        ("snappy", "application/x-protobuf;proto=io.prometheus.write.v3.Request"),
        ("snappy", "application/x-protobuf;proto="),
        ("snappy", "application/json;proto=io.prometheus.write.v2.Request"),
        ("snappy", "text/plain"),
    ] {
        let headers = [("content-encoding", encoding), ("content-type", kind)];
        let answer = node.post("/api/v1/write", &headers, body.clone()).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{encoding} {kind}");
        assert!(!answer.body.is_empty());
    }
    assert_eq!(value(&node, "up").await, "");
}

#[tokio::test]
async fn must_tell_messages_apart_by_the_content_type_alone() {
    let node = TestNode::start().await;
    let first = proto::prometheus::WriteRequest {
        timeseries: vec![first_series(&[("__name__", "first")], &[(NOW_MS, 1.0)])],
        metadata: Vec::new(),
    };
    let first = compressed(&first.encode_to_vec());
    for kind in
        [None, Some("application/x-protobuf"), Some("application/x-protobuf;proto=prometheus.WriteRequest")]
    {
        let mut headers =
            vec![("content-encoding", "snappy"), ("x-prometheus-remote-write-version", "2.0.0")];
        headers.extend(kind.map(|kind| ("content-type", kind)));
        let answer = node.post("/api/v1/write", &headers, first.clone()).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{kind:?}");
        assert!(!answer.headers.contains_key("x-prometheus-remote-write-samples-written"), "it is for 2.0");
    }
    assert_eq!(value(&node, "first").await, "1");
    let second = compressed(&whole().encode_to_vec());
    for kind in [
        TYPE,
        "Application/X-Protobuf; Proto=io.prometheus.write.v2.Request",
        "application/x-protobuf; charset=utf-8; proto=\"io.prometheus.write.v2.Request\"",
    ] {
        let headers = [
            ("content-encoding", "snappy"),
            ("content-type", kind),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ];
        let answer = node.post("/api/v1/write", &headers, second.clone()).await;
        assert_eq!((answer.status, written(&answer)), (StatusCode::NO_CONTENT, [2, 2, 1]), "{kind}");
    }
    // Of one read as the other nothing is left, thanks to reserved numbers.
    assert_eq!(written(&send_body(&node, first).await), [0, 0, 0]);
}

#[tokio::test]
async fn must_answer_400_to_what_can_never_be_written() {
    let node = TestNode::start().await;
    let mut cases: Vec<(&str, pb::Request)> = Vec::new();
    let mut case = |why, make: &dyn Fn(&mut Symbols) -> pb::TimeSeries| {
        let mut symbols = Symbols::new();
        let series = make(&mut symbols);
        cases.push((why, symbols.request(vec![series])));
    };
    let name = [("__name__", "m")];
    case("__name__ is missing", &|s| s.float(&[("job", "a")], NOW_MS, 1.0));
    case("occurs twice", &|s| s.float(&[("__name__", "m"), ("a", "1"), ("a", "2")], NOW_MS, 1.0));
    case("empty name", &|s| s.float(&[("", "1"), ("__name__", "m")], NOW_MS, 1.0));
    case("neither samples nor histograms", &|s| s.series(&name));
    case("both samples and histograms", &|s| pb::TimeSeries {
        histograms: vec![histogram(NOW_MS)],
        ..s.float(&name, NOW_MS, 1.0)
    });
    case("__name__ is missing", &|s| pb::TimeSeries {
        labels_refs: Vec::new(),
        ..s.float(&name, NOW_MS, 1.0)
    });
    case("odd in number", &|s| pb::TimeSeries { labels_refs: vec![1], ..s.float(&name, NOW_MS, 1.0) });
    case("refers to symbol 77", &|s| pb::TimeSeries {
        labels_refs: vec![1, 77],
        ..s.float(&name, NOW_MS, 1.0)
    });
    case("exemplar has no timestamp", &|s| pb::TimeSeries {
        exemplars: vec![pb::Exemplar { value: 1.0, ..Default::default() }],
        ..s.series(&name)
    });
    for (wanted, request) in cases {
        let answer = send(&node, &request).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wanted}");
        assert!(answer.text().contains(wanted), "{wanted}: {}", answer.text());
        assert_eq!(written(&answer), [0, 0, 0], "{wanted}");
    }
}

#[tokio::test]
async fn must_refuse_a_symbols_table_that_does_not_begin_with_an_empty_string() {
    let node = TestNode::start().await;
    let mut request = whole();
    request.symbols[0] = "x".to_owned();
    let answer = send(&node, &request).await;
    assert_eq!((answer.status, written(&answer)), (StatusCode::BAD_REQUEST, [0, 0, 0]));
    assert!(answer.text().contains("the first symbol isn't empty"), "{}", answer.text());
}

#[tokio::test]
async fn must_take_snappys_block_format_and_no_other() {
    let node = TestNode::start().await;
    let plain = whole().encode_to_vec();
    let mut framed = snap::write::FrameEncoder::new(Vec::new());
    std::io::Write::write_all(&mut framed, &plain).unwrap();
    for body in [plain, framed.into_inner().unwrap(), Vec::new()] {
        let answer = send_body(&node, body).await;
        assert_eq!((answer.status, written(&answer)), (StatusCode::BAD_REQUEST, [0, 0, 0]));
    }
}

#[tokio::test]
async fn must_be_idempotent_where_it_asks_for_a_retry() {
    let node = TestNode::with("limits: {max_series: 2}\n").await;
    let request = || {
        let mut symbols = Symbols::new();
        let timeseries = ["a", "b", "c"].map(|name| symbols.float(&[("__name__", name)], NOW_MS, 1.0)).into();
        symbols.request(timeseries)
    };
    for _ in 0..2 {
        let answer = send(&node, &request()).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(written(&answer), [2, 0, 0]);
    }
    assert_eq!(value(&node, "count_over_time(a[1h])").await, "1");
}

#[tokio::test]
async fn must_treat_a_start_time_of_0_as_unset_and_keep_any_other_where_it_is_told_to() {
    for (yaml, wanted) in [("storage: {chunk_encoding: xor2}\n", NOW_MS - 60_000), ("", 0)] {
        let node = TestNode::with(yaml).await;
        let mut symbols = Symbols::new();
        let mut counter = symbols.float(&[("__name__", "c_total")], NOW_MS, 10.0);
        counter.samples[0].start_timestamp = NOW_MS - 60_000;
        let unset = symbols.float(&[("__name__", "unset_total")], NOW_MS, 10.0);
        let request = symbols.request(vec![counter, unset]);
        // Twice: what is dropped must not make another sample of it.
        for _ in 0..2 {
            assert_eq!(written(&send(&node, &request).await), [2, 0, 0]);
        }
        let tenant = node.app.intake.tenant(&"default".parse().unwrap()).unwrap();
        let select = tsdb::select::Select {
            matchers: vec![tsdb::model::Matcher::equal("__name__", "c_total")],
            range_ms: i64::MIN..=i64::MAX,
            shard: None,
        };
        let found = tenant.select(&select).unwrap();
        let samples = found[0].samples().unwrap();
        assert_eq!(samples.iter().map(|sample| sample.start_ms).collect::<Vec<_>>(), [wanted]);
    }
}

#[tokio::test]
async fn must_take_stale_markers_as_the_end_of_a_series() {
    let node = TestNode::start().await;
    let mut symbols = Symbols::new();
    let mut ended = symbols.float(&[("__name__", "m")], NOW_MS - 10_000, 1.0);
    ended.samples.push(pb::Sample {
        value: f64::from_bits(STALE_NAN_BITS),
        timestamp: NOW_MS,
        start_timestamp: 0,
    });
    let answer = send(&node, &symbols.request(vec![ended])).await;
    assert_eq!((answer.status, written(&answer)), (StatusCode::NO_CONTENT, [2, 0, 0]));
    let at = |ms: i64| format!("/api/v1/query?query=m&time={}", ms / 1000);
    assert_eq!(node.get(&at(NOW_MS - 5_000)).await.data()["result"].as_array().unwrap().len(), 1);
    assert_eq!(node.get(&at(NOW_MS)).await.data()["result"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn must_read_later_versions_of_2_x_and_skip_what_it_does_not_know() {
    let node = TestNode::start().await;
    let mut symbols = Symbols::new();
    let mut series = symbols.float(&[("__name__", "m")], NOW_MS, 1.0).encode_to_vec();
    series.extend([0xba, 0x3e, 1, 0]); // field 999, of a kind to come
    let mut plain = symbols.request(Vec::new()).encode_to_vec();
    plain.extend([0x2a, series.len() as u8]);
    plain.extend(&series);
    plain.extend([0xc0, 0x3e, 7]);
    let answer = send_body(&node, compressed(&plain)).await;
    assert_eq!((answer.status, written(&answer)), (StatusCode::NO_CONTENT, [1, 0, 0]));
}

#[tokio::test]
async fn names_may_be_any_utf_8_and_nothing_else() {
    let node = TestNode::start().await;
    let mut symbols = Symbols::new();
    let series = symbols.float(&[("__name__", "größe.m²"), ("näme", "w€rt")], NOW_MS, 3.0);
    assert_eq!(written(&send(&node, &symbols.request(vec![series])).await), [1, 0, 0]);
    let mut plain = vec![0x22, 0, 0x22, 8];
    plain.extend(b"__name__");
    plain.extend([0x22, 1, 0xff]);
    let series = pb::TimeSeries { labels_refs: vec![1, 2], ..Symbols::new().float(&[], NOW_MS, 1.0) };
    plain.extend(pb::Request { symbols: Vec::new(), timeseries: vec![series] }.encode_to_vec());
    let answer = send_body(&node, compressed(&plain)).await;
    assert_eq!((answer.status, written(&answer)), (StatusCode::BAD_REQUEST, [0, 0, 0]));
    assert!(answer.text().contains("isn't UTF-8"), "{}", answer.text());
}

#[tokio::test]
async fn references_in_any_order_find_the_series_that_the_other_protocol_made() {
    let node = TestNode::start().await;
    let sorted = [("__name__", "m"), ("a", "1"), ("b", "2")];
    node.write(vec![first_series(&sorted, &[(NOW_MS - 2, 1.0)])]).await;
    let mut symbols = Symbols::new();
    let reversed = [("b", "2"), ("a", "1"), ("__name__", "m")];
    let timeseries = vec![
        symbols.float(&reversed, NOW_MS - 1, 2.0),
        symbols.float(&[("z", "1"), ("z", "1")], NOW_MS, 3.0),
    ];
    let answer = send(&node, &symbols.request(timeseries)).await;
    assert_eq!((answer.status, written(&answer)), (StatusCode::BAD_REQUEST, [1, 0, 0]));
    assert!(answer.text().contains("\"z\" occurs twice"), "{}", answer.text());
    let found = node.get("/api/v1/query?query=count_over_time({__name__=~\".%2B\"}[1h])").await.data();
    assert_eq!(
        (found["result"].as_array().unwrap().len(), &found["result"][0]["value"][1]),
        (1, &"2".into())
    );
}

#[tokio::test]
async fn labels_beyond_a_tenants_limits_are_refused_alone_and_bytes_beyond_the_nodes_together() {
    let node = TestNode::with("http: {max_in_flight: 256kB}\n").await;
    let mut symbols = Symbols::new();
    let long = "x".repeat(9_000);
    let timeseries = vec![
        symbols.float(&[("__name__", "long"), ("a", &long)], NOW_MS, 1.0),
        symbols.float(&[("__name__", "short")], NOW_MS, 1.0),
    ];
    let request = symbols.request(timeseries);
    let answer = send(&node, &request).await;
    assert_eq!((answer.status, written(&answer)), (StatusCode::BAD_REQUEST, [1, 0, 0]));
    assert!(answer.text().contains("max_label_value_length"), "{}", answer.text());
    let many = vec![request.timeseries[0].clone(); 20];
    let answer = send(&node, &pb::Request { timeseries: many, ..request }).await;
    assert_eq!((answer.status, written(&answer)), (StatusCode::PAYLOAD_TOO_LARGE, [0, 0, 0]));
    assert!(answer.text().contains("http.max_in_flight"), "{}", answer.text());
}

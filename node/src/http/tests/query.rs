//! Questions.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use super::{NOW_MS, TestNode, series};

async fn filled() -> TestNode {
    let node = TestNode::start().await;
    let points: Vec<_> = (0..20i64).map(|i| (NOW_MS + i * 15_000, i as f64 * 1.5)).collect();
    let all = vec![
        series(&[("__name__", "m"), ("job", "a")], &points),
        series(&[("__name__", "m"), ("job", "b")], &points),
    ];
    assert_eq!(node.write(all).await.status, StatusCode::NO_CONTENT);
    node
}

#[tokio::test]
async fn instant_and_range_queries_by_get_and_form() {
    let node = filled().await;
    let at = NOW_MS / 1000 + 60;
    for answer in [
        node.get(&format!("/api/v1/query?query=m%7Bjob%3D%22a%22%7D&time={at}")).await,
        node.form("/prometheus/api/v1/query", &format!("query=m%7Bjob%3D%22a%22%7D&time={at}")).await,
    ] {
        let data = answer.data();
        assert_eq!(data["resultType"], "vector");
        assert_eq!(
            data["result"],
            serde_json::json!([{"metric": {"__name__": "m", "job": "a"}, "value": [at, "6"]}])
        );
    }
    let range = node
        .form("/api/v1/query_range", &format!("query=sum(m)&start={}&end={at}&step=30s", NOW_MS / 1000))
        .await;
    let start = NOW_MS / 1000;
    assert_eq!(
        range.data(),
        serde_json::json!({"resultType": "matrix", "result": [
            {"metric": {}, "values": [[start, "0"], [start + 30, "6"], [start + 60, "12"]]}
        ]})
    );
    assert_eq!(range.headers["content-type"], "application/json");
}

#[tokio::test]
async fn what_grafana_asks_on_save_and_test() {
    let node = TestNode::start().await;
    let answer = node.form("/api/v1/query", "query=1%2B1&time=4").await;
    assert_eq!(answer.text(), r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#);
    let info = node.get("/api/v1/status/buildinfo").await.data();
    assert!(info["version"].is_string() && info.get("features").is_none());
}

#[tokio::test]
async fn limits_cut_with_a_warning_and_stats_come_when_asked() {
    let node = filled().await;
    let answer = node.get(&format!("/api/v1/query?query=m&time={}&limit=1&stats=all", NOW_MS / 1000)).await;
    assert_eq!(answer.data()["result"].as_array().unwrap().len(), 1);
    assert!(answer.json()["warnings"][0].as_str().unwrap().contains("truncated due to limit"));
    assert!(answer.data()["stats"]["samples"]["totalQueryableSamples"].is_number());
}

#[tokio::test]
async fn stats_count_samples_by_step_as_prometheus_does() {
    let node = filled().await;
    let start = NOW_MS / 1000 + 60;
    let range = format!("query=sum(rate(m%5B30s%5D))&start={start}&end={}&step=15", start + 30);
    let all = node.get(&format!("/api/v1/query_range?{range}&stats=all")).await.data();
    let samples = &all["stats"]["samples"];
    let per_step = serde_json::json!([[start, 4], [start + 15, 4], [start + 30, 4]]);
    assert_eq!(samples["totalQueryableSamplesPerStep"], per_step);
    assert_eq!(samples["totalQueryableSamples"], 12);
    assert!(samples["peakSamples"].as_u64().unwrap() > 0);
    for timing in ["evalTotalTime", "queryPreparationTime", "innerEvalTime", "execQueueTime", "execTotalTime"]
    {
        assert!(all["stats"]["timings"][timing].is_number(), "{timing}");
    }
    assert!(all["stats"]["carillon"]["cpuSeconds"].is_number());
    let sums = node.get(&format!("/api/v1/query_range?{range}&stats=true")).await.data();
    assert!(sums["stats"]["samples"].get("totalQueryableSamplesPerStep").is_none());
    assert_eq!(sums["stats"]["samples"]["totalQueryableSamples"], 12);
    for none in ["", "&stats="] {
        let data = node.get(&format!("/api/v1/query_range?{range}{none}")).await.data();
        assert!(data.get("stats").is_none());
    }
    let answer = node.get("/metrics").await;
    let metrics = answer.text();
    assert!(metrics.contains("carillon_query_cpu_seconds_count{asked_by=\"client\"} 4"), "{metrics}");
}

#[tokio::test]
async fn a_query_is_explained_step_by_step() {
    let node = filled().await;
    let at = NOW_MS / 1000 + 60;
    for answer in [
        node.get(&format!("/api/v1/query_explain?query=sum(rate(m%5B30s%5D))&time={at}")).await,
        node.form("/api/v1/query_explain", &format!("query=sum(rate(m%5B30s%5D))&time={at}")).await,
    ] {
        let data = answer.data();
        let sum = &data["plan"];
        let (window, select) = (&sum["inputs"][0], &sum["inputs"][0]["inputs"][0]);
        for (step, kind, series, samples) in
            [(sum, "aggregate", 1, 1), (window, "window", 2, 2), (select, "select", 2, 4)]
        {
            assert_eq!(
                (&step["step"], &step["series"], &step["samples"]),
                (&kind.into(), &series.into(), &samples.into())
            );
            assert!(step["bytes"].as_u64().unwrap() > 0 && step["seconds"].is_number());
            assert_eq!(step["node"], sum["node"]);
        }
        let source = &select["sources"][0];
        assert_eq!((&source["node"], &source["series"]), (&sum["node"], &2.into()));
        assert_eq!(source["bytes"], select["bytes"]);
        assert_eq!(data["stats"]["samples"]["totalQueryableSamples"], 4);
    }
    let over = node.get(&format!("/api/v1/query_explain?query=m&start={at}&end={}&step=15", at + 30)).await;
    assert_eq!(over.data()["plan"]["samples"].as_u64(), Some(2 * 7));
    let refused = node.get("/api/v1/query_explain?query=sum(").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_a_query_would_cost_is_told_before_it_runs() {
    let node = filled().await;
    let at = NOW_MS / 1000 + 60;
    let explained = node.get(&format!("/api/v1/query_explain?query=sum(rate(m%5B30s%5D))&time={at}")).await;
    let select = &explained.data()["plan"]["inputs"][0]["inputs"][0];
    for answer in [
        node.get(&format!("/api/v1/query_cost?query=sum(rate(m%5B30s%5D))&time={at}")).await,
        node.form("/api/v1/query_cost", &format!("query=sum(rate(m%5B30s%5D))&time={at}")).await,
    ] {
        let data = answer.data();
        assert_eq!((&data["steps"], &data["selects"].as_array().unwrap().len()), (&1.into(), &1));
        let cost = &data["selects"][0];
        for key in ["series", "bytes"] {
            assert_eq!((&cost[key], &data[key]), (&select[key], &select[key]), "{key}");
        }
        let start = (at - 30) as f64 + 0.001;
        assert_eq!((cost["start"].as_f64(), &cost["end"]), (Some(start), &at.into()));
        assert_eq!((&cost["chunks"], &cost["blocksToFetch"]), (&2.into(), &0.into()));
        assert!((2..=6).contains(&cost["samples"].as_u64().unwrap()), "{cost}");
        assert!(cost["selector"].as_str().unwrap().contains("__name__"), "{cost}");
        assert_eq!(data["memory"]["rowBytes"], 2 * 8);
    }
    let over = format!("/api/v1/query_cost?query=m%2Bn&start={at}&end={}&step=15", at + 30);
    let over = node.get(&over).await;
    let data = over.data();
    assert_eq!((&data["steps"], &data["series"]), (&3.into(), &2.into()));
    assert_eq!(data["selects"].as_array().unwrap().len(), 2);
    for refused in ["query=sum(", "query=m&start=0&end=11001&step=1", "query=m&time=x"] {
        let answer = node.get(&format!("/api/v1/query_cost?{refused}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{refused}");
    }
}

#[tokio::test]
async fn errors_say_which_parameter_and_have_prometheus_kinds() {
    let node = filled().await;
    let range = "/api/v1/query_range?query=m";
    for (url, status, kind, wanted) in [
        ("/api/v1/query", 400, "bad_data", "invalid parameter \"query\""),
        ("/api/v1/query?query=sum(", 400, "bad_data", "1:5: parse error"),
        ("/api/v1/query?query=m&time=x", 400, "bad_data", "invalid parameter \"time\""),
        ("/api/v1/query?query=m&timeout=x", 400, "bad_data", "invalid parameter \"timeout\""),
        ("/api/v1/query?query=m&limit=-1", 400, "bad_data", "invalid parameter \"limit\""),
        ("/api/v1/query?query=m&lookback_delta=x", 400, "bad_data", "invalid parameter \"lookback_delta\""),
        (&format!("{range}&end=1&step=1"), 400, "bad_data", "invalid parameter \"start\""),
        (&format!("{range}&start=1&end=0&step=1"), 400, "bad_data", "invalid parameter \"end\""),
        (&format!("{range}&start=0&end=1&step=0"), 400, "bad_data", "invalid parameter \"step\""),
        (&format!("{range}&start=0&end=11001&step=1"), 400, "bad_data", "11,000 steps"),
        (&format!("{range}%5B5m%5D&start=0&end=1&step=1"), 400, "bad_data", "range"),
        ("/api/v1/query?query=m%20%2B%20on()%20m", 422, "execution", ""),
        ("/api/v1/query?query=m&timeout=0", 503, "timeout", "query.timeout"),
        ("/api/v1/nothing", 404, "not_found", "/api/v1/nothing"),
    ] {
        let url = if url.contains("on()") { format!("{url}&time={}", NOW_MS / 1000) } else { url.to_owned() };
        let (found_status, found_kind, message) = node.get(&url).await.error();
        assert_eq!((found_status, found_kind.as_str()), (status, kind), "{url}: {message}");
        assert!(message.contains(wanted), "{url}: {message}");
    }
    let most = node.get(&format!("{range}&start=0&end=11000&step=1")).await;
    assert_eq!(most.status, StatusCode::OK);
}

#[tokio::test]
async fn a_look_back_of_nothing_or_less_is_the_default() {
    let node = filled().await;
    let url = format!("/api/v1/query?query=m&time={}", NOW_MS / 1000 + 60);
    let usual = node.get(&url).await.data();
    assert!(!usual["result"].as_array().unwrap().is_empty());
    for delta in ["0", "0s", "-1", "-5m"] {
        assert_eq!(node.get(&format!("{url}&lookback_delta={delta}")).await.data(), usual, "{delta}");
    }
}

#[tokio::test]
async fn hostile_queries_get_a_clear_error() {
    let node = TestNode::start().await;
    let deep = format!("query={}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let (status, kind, message) = node.form("/api/v1/query", &deep).await.error();
    assert_eq!((status, kind.as_str()), (400, "bad_data"));
    assert!(message.contains("nest"), "{message}");
    let regex = format!("query=m%7Ba%3D~%22{}%22%7D", "a".repeat(1 << 20));
    let (status, kind, _) = node.form("/api/v1/query", &regex).await.error();
    assert_eq!((status, kind.as_str()), (400, "bad_data"));
    let large = format!("query=1&x={}", "a".repeat(9 << 20));
    assert_eq!(
        node.form("/api/v1/query", &large).await.status,
        StatusCode::OK,
        "as long as Prometheus takes"
    );
    let huge = format!("query=%22{}%22", "a".repeat(11 << 20));
    let (status, kind, message) = node.form("/api/v1/query", &huge).await.error();
    assert_eq!((status, kind.as_str()), (413, "bad_data"));
    assert!(message.contains("http.max_query_body"), "{message}");
}

#[tokio::test]
async fn answers_are_compressed_when_asked_for() {
    let node = filled().await;
    let url = format!("/api/v1/query_range?query=m&start={0}&end={0}.9&step=0.001", NOW_MS / 1000);
    let plain = node.get(&url).await;
    assert!(plain.body.len() > 10_000);
    for encoding in ["gzip", "zstd"] {
        let request = Request::get(&url).header("accept-encoding", encoding).body(Body::empty()).unwrap();
        let packed = node.send(request).await;
        assert_eq!(packed.headers["content-encoding"], encoding);
        assert!(packed.body.len() < plain.body.len() / 4);
    }
    let mut text = Vec::new();
    let request = Request::get(&url).header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let packed = node.send(request).await.body;
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut text).unwrap();
    assert_eq!(text, plain.body);
}

#[tokio::test]
async fn queries_are_formatted_and_parsed() {
    let node = TestNode::start().await;
    let formatted = node.form("/api/v1/format_query", "query=foo%2Fbar").await.data();
    assert_eq!(formatted, "foo / bar");
    let parsed = node.get("/api/v1/parse_query?query=foo%2Fbar").await.data();
    assert_eq!(parsed["type"], "binaryExpr");
    assert_eq!(node.get("/api/v1/parse_query?query=foo%2F").await.error().0, 400);
}

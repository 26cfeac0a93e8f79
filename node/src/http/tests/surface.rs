//! Whatever is asked for and however: the envelope, and what Prometheus does.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use super::{NOW_MS, TestNode, series};

#[tokio::test]
async fn every_error_comes_in_the_envelope() {
    let node = TestNode::start().await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    let parts = ("content-type", "multipart/form-data; boundary=x");
    let many = "a&".repeat(100_001);
    let long = format!("query=1&x={}", "a".repeat(11 << 20));
    for (method, path, header, body, status) in [
        ("GET", "/api/v1/nothing", None, "", 404),
        ("GET", "/nothing", None, "", 404),
        ("GET", "/api/v1/label/%ff/values", None, "", 400),
        ("GET", "/api/v1/label/%/values", None, "", 400),
        ("GET", "/prometheus/api/v1/upload/block/%80/check", None, "", 400),
        ("POST", "/api/v1/label/job/values", Some(form), "", 405),
        ("DELETE", "/api/v1/query", None, "", 405),
        ("PUT", "/api/v1/series", None, "", 405),
        ("GET", "/api/v1/write", None, "", 405),
        ("GET", "/-/reload", None, "", 405),
        ("POST", "/metrics", None, "", 405),
        ("POST", "/api/v1/query", Some(parts), "--x", 415),
        ("POST", "/api/v1/query", Some(form), &long, 413),
        ("POST", "/api/v1/query", Some(form), &many, 400),
        ("POST", "/api/v1/query", Some(("content-type", "application/json")), "[1]", 400),
    ] {
        let mut request = Request::builder().method(method).uri(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let answer = node.send(request.body(Body::from(body.to_owned())).unwrap()).await;
        assert_eq!(answer.headers["content-type"], "application/json", "{method} {path}");
        let (found, kind, message) = answer.error();
        assert_eq!(found, status, "{method} {path}: {message}");
        assert!(!kind.is_empty() && !message.is_empty(), "{method} {path}: {kind} {message}");
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{method} {path}");
    }
}

#[tokio::test]
async fn head_is_answered_where_prometheus_answers_it() {
    let node = TestNode::start().await;
    for (path, status) in [
        ("/-/healthy", 200),
        ("/prometheus/-/healthy", 200),
        ("/api/v1/query?query=1", 405),
        ("/api/v1/labels", 405),
        ("/metrics", 405),
        ("/nothing", 404),
    ] {
        let answer = node.send(Request::head(path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn slashes_too_many_lead_where_the_path_leads_for_every_method() {
    let node = TestNode::start().await;
    node.write(vec![series(&[("__name__", "m")], &[(NOW_MS, 1.0)])]).await;
    for path in
        ["//api/v1/query", "/api/v1/query/", "/prometheus//api//v1/query/", "//prometheus/api/v1/query//"]
    {
        assert_eq!(node.get(&format!("{path}?query=m")).await.data()["result"][0]["value"][1], "1", "{path}");
        assert_eq!(node.form(path, "query=m").await.data()["result"][0]["value"][1], "1", "{path}");
    }
    for path in ["/prometheus", "/prometheus/", "//"] {
        assert_eq!(node.get(path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn parameters_come_as_json_too() {
    let node = TestNode::start().await;
    let json = [("content-type", "application/json")];
    let answer = node.post("/api/v1/query", &json, r#"{"query": "1+1", "time": 4}"#).await;
    assert_eq!(answer.data()["result"], serde_json::json!([4, "2"]));
}

#[tokio::test]
async fn times_and_steps_without_bounds_have_points_or_an_error() {
    let node = TestNode::start().await;
    let asked = async |start: &str, end: &str, step: &str| {
        let path = format!("/api/v1/query_range?query=vector(1)&start={start}&end={end}&step={step}");
        node.get(&path).await
    };
    for (start, end, step) in [
        ("-9e15", "9e15", "9e12"),
        ("-9e15", "9e15", "9e11"),
        ("-9e15", "9e15", "9e9"),
        ("0", "9e15", "9e12"),
        ("-9e15", "9e15", "1"),
    ] {
        let (status, kind, message) = asked(start, end, step).await.error();
        assert_eq!((status, kind.as_str()), (400, "bad_data"), "{start} {end} {step}: {message}");
    }
    for (start, end, step, points) in [
        ("-9e12", "9e12", "9e9", 2001),
        ("8.99e15", "9e15", "9e9", 1112),
        ("-9e15", "-9e15", "9e9", 1),
        ("9e15", "9e15", "1", 1),
    ] {
        let data = asked(start, end, step).await.data();
        assert_eq!(
            data["result"][0]["values"].as_array().map(Vec::len),
            Some(points),
            "{start} {end} {step}"
        );
    }
}

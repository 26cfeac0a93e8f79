//! State is changed only by who means it.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};

use super::TestNode;
use crate::http::routes::Effect;

/// Paths that any page, and any sender, may post to: they ask, or they bring samples.
const OPEN_TO_ALL: [&str; 14] = [
    "/api/v1/cluster/owners",
    "/api/v1/format_query",
    "/api/v1/import/prometheus",
    "/api/v1/labels",
    "/api/v1/parse_query",
    "/api/v1/push",
    "/api/v1/query",
    "/api/v1/query_cost",
    "/api/v1/query_exemplars",
    "/api/v1/query_explain",
    "/api/v1/query_range",
    "/api/v1/receive",
    "/api/v1/series",
    "/api/v1/write",
];

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
/// What each browser adds to a request of a page of another origin: newer ones both, older ones the second.
const OF_A_PAGE: [&[(&str, &str)]; 3] = [
    &[("sec-fetch-site", "cross-site"), ("origin", "http://evil.example"), FORM],
    &[("origin", "null"), FORM],
    // By a name of the attacker's that points here.
    &[("host", "evil.example:9480"), ("origin", "http://evil.example:9480"), FORM],
];

async fn sent(node: &TestNode, method: &Method, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(path);
    let has_host = headers.iter().any(|(name, _)| *name == "host");
    let host = [("host", "127.0.0.1:9480")];
    for (name, value) in headers.iter().chain(host.iter().filter(|_| !has_host)) {
        request = request.header(*name, *value);
    }
    let answer = node.send(request.body(Body::empty()).unwrap()).await;
    (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
}

/// Walks every route with every method that could change something.
#[tokio::test]
async fn no_route_that_changes_state_takes_what_a_page_of_another_origin_can_send() {
    let node = TestNode::start().await;
    let (_, effects) = crate::http::routes().into_parts();
    let (mut changes, mut open) = (0, 0);
    for (path, effect) in &effects {
        let at = path.replace("{block}", "01ARZ3NDEKTSV4RRFFQ69G5FAV").replace("{name}", "job");
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            for prefix in ["", "/prometheus", "//prometheus/"] {
                let at = format!("{prefix}{at}");
                for headers in OF_A_PAGE {
                    let (status, body) = sent(&node, &method, &at, headers).await;
                    let is_refused = status == 403 && body.contains("forbidden");
                    let is_other = status == 405;
                    match effect {
                        Effect::Change | Effect::Upload => {
                            assert!(is_refused, "{method} {at} {headers:?}: {status} {body}");
                        }
                        Effect::Read | Effect::Ingest => {
                            assert_ne!(status, 403, "{method} {at}");
                            assert!(
                                is_other || OPEN_TO_ALL.contains(path),
                                "{method} {at} is open to all pages ({status}): does it change nothing?"
                            );
                        }
                    }
                }
            }
        }
        // Without a browser's marks it is still a form that anybody's page could have sent, but for what brings blocks.
        let (status, body) = sent(&node, &Method::POST, &at, &[FORM]).await;
        assert_eq!(status == 403, *effect == Effect::Change, "{at}: {status} {body}");
        if *effect == Effect::Change {
            assert!(body.contains("X-Carillon-Change"), "it says what is needed: {body}");
            for meant in [("x-carillon-change", "1"), ("content-type", "application/json")] {
                let (status, body) = sent(&node, &Method::POST, &at, &[meant]).await;
                assert_ne!(status, 403, "{at} {meant:?}: {body}");
            }
            changes += 1;
        } else {
            open += 1;
        }
    }
    assert!(changes >= 5 && open >= 30, "the table has the routes: {changes} {open}");
}

#[tokio::test]
async fn a_browser_isnt_told_that_it_may_post_what_changes_state() {
    let node = TestNode::start().await;
    let asked = [
        ("origin", "http://grafana.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-carillon-change"),
    ];
    for (path, may) in [
        ("/api/v1/query", true),
        ("/prometheus/api/v1/series", true),
        ("/api/v1/cluster/drain", false),
        ("/api/v1/cluster/replication_factor", false),
        ("/api/v1/write", false),
        ("/-/reload", false),
    ] {
        let request = asked.iter().fold(Request::options(path), |r, (name, value)| r.header(*name, *value));
        let answer = node.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.headers.contains_key("access-control-allow-origin"), may, "{path}");
        assert_eq!(answer.status == StatusCode::NO_CONTENT, path.contains("/api/v1/"), "{path}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_read_as_the_setting_says() {
    let asked = async |node: &TestNode, path: &str, origin: &str| {
        let request = Request::get(path).header("origin", origin).body(Body::empty()).unwrap();
        let headers = node.send(request).await.headers;
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        (
            text("access-control-allow-origin"),
            text("access-control-allow-methods"),
            text("access-control-expose-headers"),
        )
    };
    let all = TestNode::start().await;
    let (origin, methods, exposed) = asked(&all, "/api/v1/query?query=1", "http://a.example").await;
    assert_eq!(origin.as_deref(), Some("*"));
    assert_eq!((methods.as_deref(), exposed.as_deref()), (Some("GET, POST, OPTIONS"), Some("Date")));
    assert_eq!(asked(&all, "/api/v1/query", "http://a.example").await.0.as_deref(), Some("*"), "errors too");
    assert_eq!(asked(&all, "/-/healthy", "http://a.example").await.0, None);
    assert_eq!(all.get("/api/v1/query?query=1").await.headers.get("access-control-allow-origin"), None);

    let one = TestNode::with("http: {cors_origin: 'http://(a|b)\\.example'}\n").await;
    let (origin, ..) = asked(&one, "/api/v1/query?query=1", "http://b.example").await;
    assert_eq!(origin.as_deref(), Some("http://b.example"));
    assert_eq!(asked(&one, "/api/v1/query?query=1", "http://c.example").await.0, None);
    let none = TestNode::with("http: {cors_origin: ''}\n").await;
    assert_eq!(asked(&none, "/api/v1/query?query=1", "http://b.example").await.0, None);
}

#[tokio::test]
async fn a_dry_run_ends_as_the_change_would_and_changes_nothing() {
    let node = TestNode::start().await;
    let me = node.app.cluster.me().to_string();
    let asked = async |path: &str, parameters: serde_json::Value| {
        let headers = [("content-type", "application/json")];
        let answer = node.post(&format!("/api/v1/cluster/{path}"), &headers, parameters.to_string()).await;
        let text = answer.text().to_owned();
        (answer.status.as_u16(), text)
    };
    let epoch = node.app.cluster.view().epoch();
    let cases = [
        ("replication_factor", serde_json::json!({"value": 0})),
        ("replication_factor", serde_json::json!({"value": 12, "lower": true})),
        ("replication_factor", serde_json::json!({"value": 2})),
        ("replication_factor", serde_json::json!({"value": 3})),
        ("forget", serde_json::json!({"store": me})),
        ("forget", serde_json::json!({"store": "f".repeat(me.len())})),
        ("accept_loss", serde_json::json!({"store": me})),
        ("accept_loss", serde_json::json!({"store": "nonsense"})),
        ("lost", serde_json::json!({"store": me})),
        ("lost", serde_json::json!({"store": "f".repeat(me.len())})),
        ("lost", serde_json::json!({"store": format!("{me},nonsense")})),
        ("revert", serde_json::json!({})),
        ("restore", serde_json::json!({})),
        ("drain", serde_json::json!({"store": me})),
        ("replication_factor", serde_json::json!({"value": 5})),
    ];
    for (path, parameters) in cases {
        let mut dry = parameters.clone();
        dry["dry_run"] = true.into();
        let dry = asked(path, dry).await;
        assert_eq!(node.app.cluster.view().epoch(), epoch, "{path} {parameters}: nothing is changed");
        let real = asked(path, parameters.clone()).await;
        assert_eq!(dry.0, real.0, "{path} {parameters}: {dry:?} {real:?}");
        assert!(dry.0 == 200 || dry.1 == real.1, "{path} {parameters}: {dry:?} {real:?}");
    }
    assert_eq!(node.app.cluster.view().document().replication_factor, 5, "the last of them was for real");
}

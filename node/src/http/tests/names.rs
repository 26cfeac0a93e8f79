//! Names, values, series, tenants.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use super::{NOW_MS, TestNode, series};

async fn filled() -> TestNode {
    let node = TestNode::start().await;
    let all = vec![
        series(&[("__name__", "a"), ("job", "x")], &[(NOW_MS, 1.0)]),
        series(&[("__name__", "a"), ("job", "y")], &[(NOW_MS, 1.0)]),
        series(&[("__name__", "b"), ("zone", "z")], &[(NOW_MS, 1.0)]),
    ];
    assert_eq!(node.write(all).await.status, StatusCode::NO_CONTENT);
    node
}

#[tokio::test]
async fn labels_values_and_series_are_listed() {
    let node = filled().await;
    for (url, wanted) in [
        ("/api/v1/labels", serde_json::json!(["__name__", "job", "zone"])),
        ("/api/v1/labels?match[]=a", serde_json::json!(["__name__", "job"])),
        ("/api/v1/labels?match[]=a&match[]=b", serde_json::json!(["__name__", "job", "zone"])),
        ("/api/v1/label/job/values", serde_json::json!(["x", "y"])),
        ("/api/v1/label/job/values?match[]=b", serde_json::json!([])),
        ("/api/v1/label/nothing/values", serde_json::json!([])),
        ("/prometheus/api/v1/label/__name__/values", serde_json::json!(["a", "b"])),
        ("/api/v1/series?match[]=b", serde_json::json!([{"__name__": "b", "zone": "z"}])),
        (
            "/api/v1/series?match[]=b&match[]=%7Bzone=%22z%22%7D&match[]=a%7Bjob=%22x%22%7D",
            serde_json::json!([{"__name__": "a", "job": "x"}, {"__name__": "b", "zone": "z"}]),
        ),
    ] {
        assert_eq!(node.get(url).await.data(), wanted, "{url}");
    }
    let form = node.form("/api/v1/series", "match[]=b").await;
    assert_eq!(form.data(), serde_json::json!([{"__name__": "b", "zone": "z"}]));
}

#[tokio::test]
async fn lists_are_cut_with_a_warning() {
    let node = filled().await;
    for (url, length, cut) in [
        ("/api/v1/labels?limit=2", 2, true),
        ("/api/v1/labels?limit=3", 3, false),
        ("/api/v1/label/job/values?limit=1", 1, true),
        ("/api/v1/series?match[]=a&limit=1", 1, true),
    ] {
        let answer = node.get(url).await;
        assert_eq!(answer.data().as_array().unwrap().len(), length, "{url}");
        assert_eq!(answer.json().get("warnings").is_some(), cut, "{url}");
    }
}

#[tokio::test]
async fn selectors_are_judged() {
    let node = filled().await;
    for url in [
        "/api/v1/series",
        "/api/v1/series?match[]=sum(a)",
        "/api/v1/series?match[]=a%20offset%205m",
        "/api/v1/series?match[]=%7B%7D",
        "/api/v1/labels?match[]=%7Ba=",
        "/api/v1/labels?start=2&end=1",
    ] {
        assert_eq!(node.get(url).await.error().0, 400, "{url}");
    }
}

#[tokio::test]
async fn no_tenant_sees_another() {
    let node = filled().await;
    let ask = |tenant: &'static str, url: &'static str| {
        Request::get(url).header("X-Scope-OrgID", tenant).body(Body::empty()).unwrap()
    };
    for url in ["/api/v1/labels", "/api/v1/series?match[]=a", "/api/v1/label/job/values"] {
        assert_eq!(node.send(ask("other", url)).await.data().as_array().unwrap().len(), 0);
    }
    assert_eq!(
        node.send(ask("other", "/api/v1/query?query=a")).await.data()["result"].as_array().unwrap().len(),
        0
    );
    assert_eq!(node.send(ask("../default", "/api/v1/query?query=a")).await.error().0, 400);
    assert!(
        node.app.storage.existing(&tsdb::model::TenantId::new("other").unwrap()).is_none(),
        "asking makes none"
    );
}

//! Memory of queries.

use axum::http::StatusCode;

use super::{NOW_MS, TestNode, series};

#[tokio::test]
async fn a_query_over_its_memory_ends_with_a_clear_error() {
    let node = TestNode::with("query: {max_memory: 1kB}\n").await;
    let all =
        (0..200).map(|i| series(&[("__name__", "m"), ("i", &i.to_string())], &[(NOW_MS, 1.0)])).collect();
    assert_eq!(node.write(all).await.status, StatusCode::NO_CONTENT);
    let (status, kind, message) = node.get("/api/v1/query?query=m%20%2B%20m").await.error();
    assert_eq!((status, kind.as_str()), (422, "execution"));
    assert!(message.contains("memory"), "{message}");
}

#[tokio::test]
async fn queries_together_are_bounded_by_tenant_and_by_node() {
    for (yaml, option) in [
        ("query: {max_total_memory: 64kB}\n", "query.max_total_memory"),
        ("limits: {max_query_memory: 64kB}\n", "limits.max_query_memory"),
        ("tenants: {default: {max_query_memory: 64kB}}\n", "limits.max_query_memory"),
    ] {
        let node = TestNode::with(yaml).await;
        assert_eq!(
            node.write(vec![series(&[("__name__", "m")], &[(NOW_MS, 1.0)])]).await.status,
            StatusCode::NO_CONTENT
        );
        let (status, kind, message) = node.get("/api/v1/query?query=m%20%2B%20m").await.error();
        assert_eq!((status, kind.as_str()), (422, "execution"));
        assert!(message.contains(option), "{message}");
        assert!(node.get("/metrics").await.text().contains("carillon_query_memory_bytes 0"));
    }
}

#[tokio::test]
async fn errors_stay_short_however_long_what_they_are_about() {
    let node = TestNode::start().await;
    let long = "x".repeat(8000);
    let all: Vec<_> = (0..60).map(|i| (format!("l{i:02}"), long.clone())).collect();
    let mut labels = vec![("__name__", "m")];
    labels.extend(all.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let answer = node.write(vec![series(&labels, &[(1000, 1.0)])]).await;
    assert_eq!(answer.status.as_u16(), 400);
    assert!(answer.body.len() < 4 * crate::text::TEXT_BYTES_MAX, "{}", answer.body.len());
    let answer = node.form("/api/v1/query", &format!("query={}(", "x".repeat(500_000))).await;
    assert_eq!(answer.status.as_u16(), 400);
    assert!(answer.body.len() < 4 * crate::text::TEXT_BYTES_MAX, "{}", answer.body.len());
}

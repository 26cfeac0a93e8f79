//! Turns and memory of queries.

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
async fn a_queue_of_queries_is_bounded() {
    let turns = crate::http::Turns::new(1, 1);
    let running = turns.take().await.unwrap();
    let mut waiting = std::pin::pin!(turns.take());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(10), &mut waiting).await.is_err());
    assert_eq!(turns.take().await.unwrap_err().kind, crate::http::error::Kind::Unavailable);
    drop(running);
    assert!(waiting.await.is_ok());
    assert!(turns.take().await.is_ok(), "places are given back");
}

//! A disk whose sync fails: the store stops, and so does the node.

use std::time::Duration;

use axum::http::StatusCode;
use tsdb::disk::Fault;

use super::{NOW_MS, TestNode, series};

async fn write(node: &TestNode, at: i64) -> StatusCode {
    node.write(vec![series(&[("__name__", "m")], &[(NOW_MS + at, 1.0)])]).await.status
}

#[tokio::test(start_paused = true)]
async fn a_node_is_unready_at_once_and_says_why_when_a_sync_of_the_log_fails() {
    let node = TestNode::start().await;
    assert_eq!(write(&node, 0).await, StatusCode::NO_CONTENT);
    assert_eq!(node.get("/-/ready").await.status, StatusCode::OK);
    node.disk.inject(Fault::Sync { after: 0 });
    assert_eq!(write(&node, 1).await, StatusCode::SERVICE_UNAVAILABLE);
    let reason = node.app.storage.fail_stop().stopped().await;
    assert!(reason.contains("the WAL can't be written"), "{reason}");
    let ready = node.get("/-/ready").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().contains(reason), "{}", ready.text());
    assert!(!node.app.cluster.is_ready(), "gossip tells that");
    // A sync that succeeds now has done nothing for what failed.
    assert_eq!(write(&node, 2).await, StatusCode::SERVICE_UNAVAILABLE);
}

/// Whichever file it is: nothing is acked without that sync, or the node stops.
#[tokio::test(start_paused = true)]
async fn whatever_sync_of_the_engine_fails_the_node_stops_or_loses_nothing_by_it() {
    let mut stopped = 0;
    for after in 0.. {
        let node = TestNode::start().await;
        write(&node, 0).await;
        node.disk.inject(Fault::Sync { after });
        let mut acked = 0;
        for at in 1..4 {
            acked += i64::from(write(&node, at).await == StatusCode::NO_CONTENT);
            let maintained = node.app.storage.db().flush(NOW_MS + at);
            // The committer looks at each tick.
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(maintained.is_ok() || node.app.storage.fail_stop().reason().is_some(), "{after}");
        }
        let (is_stopped, struck) = (node.app.storage.fail_stop().reason().is_some(), node.disk.struck());
        assert!(is_stopped || acked == 3, "{after}: {acked}");
        assert_eq!(node.app.is_ready(), !is_stopped);
        stopped += u32::from(is_stopped);
        let node = node.crash("").await;
        let query = format!("/api/v1/query?query=count_over_time(m[1h])&time={}", NOW_MS / 1000 + 60);
        let found = node.get(&query).await.data();
        let found: i64 = found["result"][0]["value"][1].as_str().unwrap().parse().unwrap();
        assert!(found > acked, "{after}: {found} of {}", acked + 1);
        if struck == 0 {
            break;
        }
    }
    assert!(stopped > 2, "{stopped}");
}

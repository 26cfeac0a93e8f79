//! Uploading blocks.

use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use tsdb::block::{BlockMeta, BlockWriter};
use tsdb::disk::{Disk, MemoryDisk};
use tsdb::model::{Labels, Sample};
use tsdb::select::Series;
use ulid::Ulid;

use super::{NOW_MS, TestNode};

/// A block's files by path.
fn a_block(ulid: Ulid) -> Vec<(String, Vec<u8>)> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    disk.create_dir(Path::new("b")).unwrap();
    let labels = Labels::from_pairs([("__name__", "m"), ("from", "block")]).unwrap();
    let start = NOW_MS - NOW_MS % 7_200_000 - 7_200_000;
    let samples: Vec<_> = (0..10).map(|i| Sample::float(start + i * 15_000, i as f64)).collect();
    let series = Series::from_samples(labels, &samples);
    let mut writer =
        BlockWriter::create(&disk, Path::new("b"), BlockMeta::new(ulid, start, start + 7_200_000)).unwrap();
    writer.add(&series.labels, &series.chunks).unwrap();
    writer.finish().unwrap().unwrap();
    let dir = Path::new("b").join(ulid.to_string());
    ["meta.json", "index", "chunks/000001"].map(|f| (f.to_owned(), disk.read(&dir.join(f)).unwrap())).to_vec()
}

async fn upload(node: &TestNode, ulid: Ulid, files: &[(String, Vec<u8>)]) -> serde_json::Value {
    let base = format!("/api/v1/upload/block/{ulid}");
    let started = node.post(&format!("{base}/start"), &[], files[0].1.clone()).await;
    assert_eq!(started.status, StatusCode::OK, "{}", started.text());
    for (path, bytes) in &files[1..] {
        let sent = node.post(&format!("{base}/files?path={path}"), &[], bytes.clone()).await;
        assert_eq!(sent.status, StatusCode::OK, "{}", sent.text());
    }
    assert_eq!(node.post(&format!("{base}/finish"), &[], "").await.status, StatusCode::OK);
    loop {
        let state = node.get(&format!("{base}/check")).await.json();
        if state["result"] != "validating" {
            return state;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_uploaded_block_answers_queries_after_a_restart_too() {
    let node = TestNode::start().await;
    let ulid = Ulid::from_parts(1, 2);
    assert_eq!(upload(&node, ulid, &a_block(ulid)).await["result"], "complete");
    let url = format!("/api/v1/query?query=count_over_time(m[3h])&time={}", NOW_MS / 1000);
    assert_eq!(node.get(&url).await.data()["result"][0]["value"][1], "10");
    let node = node.crash("").await;
    assert_eq!(node.get(&url).await.data()["result"][0]["value"][1], "10");
}

#[tokio::test]
async fn a_broken_block_is_refused_with_the_reason() {
    let node = TestNode::start().await;
    let ulid = Ulid::from_parts(1, 3);
    let mut files = a_block(ulid);
    let middle = files[2].1.len() / 2;
    files[2].1[middle] ^= 0xff;
    let state = upload(&node, ulid, &files).await;
    assert_eq!(state["result"], "failed");
    assert!(!state["error"].as_str().unwrap().is_empty());
    files[2].1[middle] ^= 0xff;
    assert_eq!(upload(&node, ulid, &files).await["result"], "complete", "it can be sent again");
}

#[tokio::test]
async fn only_what_belongs_to_a_started_upload_is_taken() {
    let node = TestNode::start().await;
    let ulid = Ulid::from_parts(1, 4);
    let base = format!("/api/v1/upload/block/{ulid}");
    assert_eq!(node.post(&format!("{base}/files?path=index"), &[], "x").await.error().0, 400);
    assert_eq!(node.post(&format!("{base}/finish"), &[], "").await.error().0, 400);
    assert_eq!(node.get(&format!("{base}/check")).await.error().0, 404);
    assert_eq!(node.post(&format!("{base}/start"), &[], "{}").await.error().0, 400);
    let other = a_block(Ulid::from_parts(1, 5))[0].1.clone();
    assert!(node.post(&format!("{base}/start"), &[], other).await.error().2.contains("that of block"));
    let meta = a_block(ulid)[0].1.clone();
    assert_eq!(node.post(&format!("{base}/start"), &[], meta).await.status, StatusCode::OK);
    assert_eq!(node.post(&format!("{base}/files?path=../../x"), &[], "x").await.error().0, 400);
    assert_eq!(node.post("/api/v1/upload/block/../start", &[], "x").await.error().0, 400);
}

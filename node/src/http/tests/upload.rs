//! Uploading blocks.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;
use tower::ServiceExt as _;
use tsdb::block::{BlockMeta, BlockWriter};
use tsdb::disk::{Disk, MemoryDisk};
use tsdb::model::{Labels, Sample};
use tsdb::select::Series;
use ulid::Ulid;

use super::{NOW_MS, TestNode};

pub(crate) const RANGE_MS: i64 = 7_200_000;
/// Start of the last whole range.
pub(crate) const START_MS: i64 = NOW_MS - NOW_MS % RANGE_MS - RANGE_MS;

/// A block's files by path.
pub(crate) fn a_block(ulid: Ulid) -> Vec<(String, Vec<u8>)> {
    block_with(BlockMeta::new(ulid, START_MS, START_MS + RANGE_MS), START_MS, 0.0)
}

/// A block of one series with ten samples, the first of this value.
pub(crate) fn block_with(meta: BlockMeta, first_ms: i64, value: f64) -> Vec<(String, Vec<u8>)> {
    let ulid = meta.ulid;
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    disk.create_dir(Path::new("b")).unwrap();
    let labels = Labels::from_pairs([("__name__", "m"), ("from", "block")]).unwrap();
    let samples: Vec<_> = (0..10).map(|i| Sample::float(first_ms + i * 15_000, value + i as f64)).collect();
    let series = Series::from_samples(labels, &samples);
    let mut writer = BlockWriter::create(&disk, Path::new("b"), meta).unwrap();
    writer.add(&series.labels, &series.chunks).unwrap();
    writer.finish().unwrap().unwrap();
    let dir = Path::new("b").join(ulid.to_string());
    ["meta.json", "index", "chunks/000001"].map(|f| (f.to_owned(), disk.read(&dir.join(f)).unwrap())).to_vec()
}

pub(crate) async fn upload(node: &TestNode, ulid: Ulid, files: &[(String, Vec<u8>)]) -> serde_json::Value {
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

/// A block as a Thanos sidecar uploads it, of a server of this cluster.
fn of_cluster(ulid: Ulid, cluster: &str, value: f64) -> Vec<(String, Vec<u8>)> {
    let mut meta = BlockMeta::new(ulid, START_MS, START_MS + RANGE_MS);
    let labels = json!({"cluster": cluster, "from": "outside"});
    meta.other.insert("thanos".to_owned(), json!({"labels": labels, "downsample": {"resolution": 0}}));
    block_with(meta, START_MS, value)
}

#[tokio::test]
async fn external_labels_become_labels_of_the_series_and_keep_servers_apart() {
    let node = TestNode::start().await;
    let (eu, us) = (Ulid::from_parts(1, 2), Ulid::from_parts(1, 3));
    assert_eq!(upload(&node, eu, &of_cluster(eu, "eu1", 100.0)).await["result"], "complete");
    assert_eq!(upload(&node, us, &of_cluster(us, "us1", 0.0)).await["result"], "complete");
    assert_eq!(
        node.disk.list(Path::new("uploads/default")).unwrap().len(),
        0,
        "nothing of an upload is left"
    );
    let node = node.crash("").await;
    let ask = format!("/api/v1/query?query=max_over_time(m[3h])&time={}", NOW_MS / 1000);
    let found = node.get(&ask).await.data();
    let found: Vec<_> = found["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["metric"].clone(), s["value"][1].clone()))
        .collect();
    assert_eq!(
        found,
        [
            (json!({"cluster": "eu1", "from": "outside"}), json!("109")),
            (json!({"cluster": "us1", "from": "outside"}), json!("9")),
        ],
        "the block's own value of a label that the series has too wins, as in Thanos"
    );
    // What was uploaded is known by what it was then.
    let meta = of_cluster(eu, "eu1", 100.0)[0].1.clone();
    assert_eq!(node.post(&format!("/api/v1/upload/block/{eu}/start"), &[], meta).await.error().0, 409);
}

#[tokio::test]
async fn what_may_not_come_in_is_refused_before_a_file_is_sent_and_moves_nothing() {
    let node = TestNode::with("storage: {retention: 30d}\n").await;
    let day_ms = 86_400_000;
    let with = |name: &str, value: serde_json::Value| {
        let mut meta = BlockMeta::new(Ulid::from_parts(1, 2), START_MS, START_MS + RANGE_MS);
        meta.other.insert("thanos".to_owned(), json!({name: value}));
        meta
    };
    let of = |time: u64, min_ms, max_ms| BlockMeta::new(Ulid::from_parts(time, 2), min_ms, max_ms);
    for (meta, wanted) in [
        (of(1, START_MS, 4_039_000_000_000), "limits.max_future"),
        (of(4_039_000_000_000, START_MS, START_MS + RANGE_MS), "its ULID is of"),
        (of(1, -RANGE_MS, START_MS), "before 1970"),
        (of(1, NOW_MS - 40 * day_ms, NOW_MS - 30 * day_ms), "storage.retention allows (30d)"),
        (of(1, i64::MIN, i64::MAX), "no block has a range"),
        (with("downsample", json!({"resolution": 300_000})), "downsampled"),
        (with("labels", json!({"cluster": 1})), "external labels"),
    ] {
        let (ulid, body) = (meta.ulid, meta.to_json());
        let refused = node.post(&format!("/api/v1/upload/block/{ulid}/start"), &[], body).await;
        let (status, _, message) = refused.error();
        assert!(status == 400 && message.contains(wanted), "{status} {message}");
        let sent = node.post(&format!("/api/v1/upload/block/{ulid}/files?path=index"), &[], "x").await;
        assert_eq!(sent.error().0, 400);
    }
    // A range that ends soon, and a sample in it that is ahead.
    let ulid = Ulid::from_parts(1, 9);
    let ahead = block_with(BlockMeta::new(ulid, START_MS, NOW_MS + RANGE_MS), NOW_MS + RANGE_MS / 2, 0.0);
    let state = upload(&node, ulid, &ahead).await;
    assert!(state["error"].as_str().unwrap().contains("limits.max_future"), "{state}");
    // The tenant takes samples, and its newest is of now.
    let now = super::series(&[("__name__", "live")], &[(NOW_MS, 1.0)]);
    assert_eq!(node.write(vec![now]).await.status, StatusCode::NO_CONTENT);
    let found =
        node.get(&format!("/api/v1/query?query=count({{__name__=~\".%2B\"}})&time={}", NOW_MS / 1000)).await;
    assert_eq!(found.data()["result"][0]["value"][1], "1");
}

#[tokio::test]
async fn a_block_that_lacks_a_file_or_the_end_of_one_is_refused() {
    let node = TestNode::start().await;
    let ulid = Ulid::from_parts(1, 2);
    let whole = a_block(ulid);
    for (file, length) in
        [(1, None), (2, None), (1, Some(0)), (1, Some(50)), (2, Some(0)), (2, Some(7)), (2, Some(20))]
    {
        let mut files = whole.clone();
        match length {
            None => drop(files.remove(file)),
            Some(length) => files[file].1.truncate(length),
        }
        let state = upload(&node, ulid, &files).await;
        assert_eq!(state["result"], "failed", "file {file} of {length:?} bytes: {state}");
    }
    let none = format!("/api/v1/query?query=count_over_time(m[3h])&time={}", NOW_MS / 1000);
    assert_eq!(node.get(&none).await.data()["result"], json!([]));
    assert_eq!(upload(&node, ulid, &whole).await["result"], "complete");
}

#[tokio::test]
async fn half_an_upload_is_gone_after_a_crash_and_can_begin_again() {
    let node = TestNode::start().await;
    let ulid = Ulid::from_parts(1, 2);
    let whole = a_block(ulid);
    let base = format!("/api/v1/upload/block/{ulid}");
    assert_eq!(node.post(&format!("{base}/start"), &[], whole[0].1.clone()).await.status, StatusCode::OK);
    let sent = node.post(&format!("{base}/files?path=index"), &[], whole[1].1.clone()).await;
    assert_eq!(sent.status, StatusCode::OK);
    let node = node.crash("").await;
    assert!(node.disk.list(Path::new("uploads")).is_err_and(|e| e.kind() == ErrorKind::NotFound));
    assert_eq!(node.post(&format!("{base}/finish"), &[], "").await.error().0, 400);
    assert_eq!(upload(&node, ulid, &whole).await["result"], "complete");
}

#[tokio::test]
async fn the_same_block_again_is_a_conflict_and_another_of_its_name_an_error() {
    let node = TestNode::start().await;
    let ulid = Ulid::from_parts(1, 2);
    let start = format!("/api/v1/upload/block/{ulid}/start");
    assert_eq!(upload(&node, ulid, &a_block(ulid)).await["result"], "complete");
    assert_eq!(node.post(&start, &[], a_block(ulid)[0].1.clone()).await.error().0, 409);
    let other = block_with(BlockMeta::new(ulid, START_MS - RANGE_MS, START_MS), START_MS - RANGE_MS, 0.0);
    let (status, _, message) = node.post(&start, &[], other[0].1.clone()).await.error();
    assert!(status == 400 && message.contains("another block"), "{status} {message}");
}

#[tokio::test]
async fn nothing_is_verified_while_a_file_still_comes() {
    let node = TestNode::start().await;
    let ulid = Ulid::from_parts(1, 2);
    let whole = a_block(ulid);
    let base = format!("/api/v1/upload/block/{ulid}");
    assert_eq!(node.post(&format!("{base}/start"), &[], whole[0].1.clone()).await.status, StatusCode::OK);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let request = Request::post(format!("{base}/files?path=index")).body(Body::from_stream(pieces)).unwrap();
    let router = node.router.clone();
    let sending = tokio::spawn(async move { router.oneshot(request).await.unwrap().status() });
    let (first, rest) = whole[1].1.split_at(100);
    sender.send(Ok(first.to_vec())).await.unwrap();
    // The second is taken once the first has been.
    sender.send(Ok(Vec::new())).await.unwrap();
    assert_eq!(node.post(&format!("{base}/finish"), &[], "").await.error().0, 503);
    assert_eq!(node.post(&format!("{base}/start"), &[], whole[0].1.clone()).await.error().0, 503);
    sender.send(Ok(rest.to_vec())).await.unwrap();
    drop(sender);
    assert_eq!(sending.await.unwrap(), StatusCode::OK);
    let sent = node.post(&format!("{base}/files?path=chunks/000001"), &[], whole[2].1.clone()).await;
    assert_eq!(sent.status, StatusCode::OK);
    assert_eq!(node.post(&format!("{base}/finish"), &[], "").await.status, StatusCode::OK);
}

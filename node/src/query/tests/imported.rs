//! Blocks that are imported into a cluster: what `complete` says of an upload holds for every node, whatever becomes of the
//! one that took it.
//!
//! Varied: how many nodes there are and which keep the series, which one takes the block and which is asked, who is away
//! at the import and afterwards, where the bucket fails (each write in turn, for a while or with the answer lost), how often
//! and through whom the same block comes, what owners have of the same series, tenants, external labels, and the ring's
//! state. Held fixed: the block, of ten samples of one series, and the bucket's kind (in memory).

use object_store::ObjectStore;
use object_store::memory::InMemory;
use proptest::prelude::*;
use ring::epoch::Change;
use serde_json::json;
use tsdb::block::BlockMeta;
use ulid::Ulid;

use super::*;
use crate::bucket::tests::{Fault, Faulty};
use crate::http::tests::NOW_MS;
use crate::http::tests::upload::{RANGE_MS, START_MS, a_block, block_with, upload};

/// No catalog is read again but for a reason.
const YAML: &str = "cluster: {bucket_interval: 1h}\n";

async fn sharing(store: &Arc<impl ObjectStore>, document: Document) -> Cluster {
    let store: Arc<dyn ObjectStore> = store.clone();
    Cluster::made(document, |number| TestNode::on_bucket(store.clone(), number.0, YAML)).await
}

fn of(stores: u128, rf: u32) -> Document {
    let first = (1..=stores).map(|i| (StoreId(i), new_member(i))).collect();
    Document::found(ClusterId(9), 1 << 70 | 5, rf, &first).unwrap()
}

fn block(number: u128) -> (Ulid, Vec<(String, Vec<u8>)>) {
    let ulid = Ulid::from_parts(1, number);
    (ulid, a_block(ulid))
}

/// A block of other samples than [`block`]'s, ahead of them.
fn later(number: u128) -> (Ulid, Vec<(String, Vec<u8>)>) {
    let ulid = Ulid::from_parts(1, number);
    let meta = BlockMeta::new(ulid, START_MS, START_MS + RANGE_MS);
    (ulid, block_with(meta, START_MS + 3_600_000, 100.0))
}

impl Member {
    /// How many samples of the imported series it sees, or why it can't tell.
    async fn count(&self) -> Result<u64, String> {
        let url = format!("/api/v1/query?query=count_over_time(m[4h])&time={}", NOW_MS / 1000);
        let answer = self.node.get(&url).await;
        if !answer.status.is_success() {
            return Err(answer.error().2);
        }
        let coverage =
            answer.headers.get("x-carillon-coverage").map(|value| value.to_str().unwrap().to_owned());
        assert!(coverage.is_none_or(|coverage| coverage.starts_with("complete")));
        let found = answer.data();
        let found = found["result"].as_array().unwrap();
        assert!(found.len() <= 1, "{found:?}");
        Ok(found.first().map_or(0, |one| one["value"][1].as_str().unwrap().parse().unwrap()))
    }
}

#[tokio::test]
async fn an_import_is_on_every_node_and_stays_when_the_node_that_took_it_is_gone() {
    let store = Arc::new(InMemory::new());
    let cluster = sharing(&store, of(5, 3)).await;
    let (ulid, files) = block(2);
    assert_eq!(upload(&cluster.members[0].node, ulid, &files).await, json!({"result": "complete"}));
    for member in &cluster.members {
        assert_eq!(member.count().await, Ok(10));
    }
    cluster.kill(1).await;
    for member in &cluster.members[1..] {
        assert_eq!(member.count().await, Ok(10));
    }
    // Nothing of it is left on the node's disk.
    let left = cluster.members[0].node.app.storage.db().local_blocks();
    assert!(left.is_empty());
}

#[tokio::test]
async fn an_asker_whose_catalog_is_older_than_an_import_hears_of_it_from_any_quorum() {
    for away in 1..=3 {
        let store = Arc::new(InMemory::new());
        let cluster = sharing(&store, of(3, 3)).await;
        let (first, files) = block(2);
        assert_eq!(upload(&cluster.members[0].node, first, &files).await["result"], "complete");
        for member in &cluster.members {
            assert_eq!(member.count().await, Ok(10), "all have a catalog");
        }
        // One isn't reached at the import, and goes on with the catalog that it has.
        let silent = cluster.members.len();
        let taking = usize::from(away == 1);
        cluster.pause(silent);
        let (second, files) = later(3);
        assert_eq!(upload(&cluster.members[taking].node, second, &files).await["result"], "complete");
        cluster.resume(silent);
        if away != silent {
            cluster.pause(away);
        }
        for (number, member) in (1..).zip(&cluster.members).filter(|(number, _)| *number != away) {
            assert_eq!(member.count().await, Ok(20), "node {number} with {away} away");
        }
    }
}

#[tokio::test]
async fn an_import_that_too_few_owners_know_of_is_no_ack_and_can_be_done_again() {
    let store = Arc::new(InMemory::new());
    let cluster = sharing(&store, of(3, 3)).await;
    for away in [2, 3] {
        cluster.pause(away);
    }
    let (ulid, files) = block(2);
    let node = &cluster.members[0].node;
    let state = upload(node, ulid, &files).await;
    assert_eq!(state["result"], "failed");
    let why = state["error"].as_str().unwrap();
    for part in ["it is in the bucket, but", "too few owners", "n2", "n3", "import it again"] {
        assert!(why.contains(part), "{part} is missing in: {why}");
    }
    let start = format!("/api/v1/upload/block/{ulid}/start");
    assert_eq!(node.post(&start, &[], files[0].1.clone()).await.error().0, 503, "still too few");
    cluster.resume(2);
    assert_eq!(node.post(&start, &[], files[0].1.clone()).await.error().0, 409, "enough know of it now");
    assert_eq!(cluster.members[1].count().await, Ok(10));
}

#[tokio::test]
async fn without_the_bucket_nothing_is_stored_and_the_error_says_what_to_do() {
    let store = Arc::new(Faulty::new());
    let cluster = sharing(&store, of(3, 3)).await;
    let (ulid, files) = block(2);
    let node = &cluster.members[0].node;
    // Away before it begins.
    store.on_reads(&[Fault::Denied]);
    let (status, _, why) =
        node.post(&format!("/api/v1/upload/block/{ulid}/start"), &[], files[0].1.clone()).await.error();
    assert!(status == 503 && why.contains("blocks are kept in the bucket"), "{status} {why}");
    store.forget();
    // Away in the middle.
    store.on_writes(&[Fault::None, Fault::Denied, Fault::Denied]);
    let state = upload(node, ulid, &files).await;
    let why = state["error"].as_str().unwrap();
    assert!(why.contains("nothing of it is stored") && why.contains("import it again"), "{why}");
    for member in &cluster.members {
        assert_eq!(member.count().await, Ok(0));
    }
    store.forget();
    assert_eq!(upload(node, ulid, &files).await["result"], "complete");
    for member in &cluster.members {
        assert_eq!(member.count().await, Ok(10));
    }
}

#[tokio::test]
async fn an_import_that_is_cut_at_any_write_is_there_once_after_it_was_done_again() {
    for fault in [Fault::Denied, Fault::After] {
        for cut in 0..6 {
            let store = Arc::new(Faulty::new());
            let cluster = sharing(&store, of(3, 3)).await;
            let (ulid, files) = block(2);
            let mut faults = vec![Fault::None; cut];
            // The tries of one call.
            faults.extend([fault; 3]);
            store.on_writes(&faults);
            let first = upload(&cluster.members[0].node, ulid, &files).await;
            store.forget();
            let seen = cluster.members[1].count().await;
            // Through another node: the first may be gone.
            let start = format!("/api/v1/upload/block/{ulid}/start");
            let again = cluster.members[2].node.post(&start, &[], files[0].1.clone()).await;
            if again.status == 200 {
                assert_eq!(first["result"], "failed", "{fault:?} at {cut}");
                assert_eq!(seen, Ok(0), "{fault:?} at {cut}");
                assert_eq!(upload(&cluster.members[2].node, ulid, &files).await["result"], "complete");
            }
            for member in &cluster.members {
                assert_eq!(member.count().await, Ok(10), "{fault:?} at {cut}");
            }
        }
    }
}

#[tokio::test]
async fn the_same_block_is_there_once_however_often_and_through_whomever_it_comes() {
    let store = Arc::new(InMemory::new());
    let cluster = sharing(&store, of(3, 3)).await;
    let (ulid, files) = block(2);
    let uploads = cluster.members.iter().map(|member| upload(&member.node, ulid, &files));
    for state in futures_util::future::join_all(uploads).await {
        assert_eq!(state, json!({"result": "complete"}));
    }
    for member in &cluster.members {
        assert_eq!(member.count().await, Ok(10));
        let start = format!("/api/v1/upload/block/{ulid}/start");
        assert_eq!(member.node.post(&start, &[], files[0].1.clone()).await.error().0, 409);
        let catalog = member.node.app.blocks.catalogs.refresh(&tenant()).await.unwrap();
        assert_eq!(catalog.blocks().count(), 1);
    }
    // Several at once, each another's.
    let other: Vec<_> = (10..16).map(later).collect();
    let uploads = other.iter().zip(cluster.members.iter().cycle());
    let uploads = uploads.map(|((ulid, files), member)| upload(&member.node, *ulid, files));
    for state in futures_util::future::join_all(uploads).await {
        assert_eq!(state["result"], "complete");
    }
    assert_eq!(cluster.members[0].count().await, Ok(20), "they hold the same samples");
}

#[tokio::test]
async fn blocks_of_one_name_never_overwrite_each_other() {
    let store = Arc::new(InMemory::new());
    let cluster = sharing(&store, of(3, 3)).await;
    let node = &cluster.members[0].node;
    let (ulid, files) = block(2);
    assert_eq!(upload(node, ulid, &files).await["result"], "complete");
    // Another server's block that has the same name.
    let mut meta = BlockMeta::new(ulid, START_MS, START_MS + RANGE_MS);
    meta.other.insert("thanos".to_owned(), json!({"labels": {"cluster": "eu"}}));
    let other = block_with(meta, START_MS, 50.0);
    assert_eq!(upload(node, ulid, &other).await["result"], "complete");
    let url = format!("/api/v1/query?query=max_over_time(m[4h])&time={}", NOW_MS / 1000);
    for member in &cluster.members {
        let found = member.node.get(&url).await.data();
        let values: Vec<_> =
            found["result"].as_array().unwrap().iter().map(|one| one["value"][1].clone()).collect();
        assert_eq!(values, [json!("59"), json!("9")]);
    }
    // Another tenant's: the same bytes, and neither's are the other's.
    let of_tenant = |name: &str| {
        crate::bucket::foreign::name_in_bucket(
            &TenantId::new(name).unwrap(),
            &BlockMeta::from_json(&files[0].1).unwrap(),
        )
    };
    assert_ne!(of_tenant("default"), of_tenant("other"));
}

#[tokio::test]
async fn a_block_that_overlaps_what_owners_have_adds_what_they_lack_and_doubles_nothing() {
    let store = Arc::new(InMemory::new());
    let cluster = sharing(&store, of(3, 3)).await;
    let labels = Labels::from_pairs([("__name__", "m"), ("from", "block")]).unwrap();
    // Five of the block's, two of them lacking on one owner, and three between them.
    for i in 0..5 {
        for member in &cluster.members[usize::from(i < 2)..] {
            member.append(&labels, Sample::float(START_MS + i * 15_000, i as f64));
        }
    }
    for i in 0..3 {
        for member in &cluster.members {
            member.append(&labels, Sample::float(START_MS + 80_000 + i * 15_000, 0.5));
        }
    }
    let (ulid, files) = block(2);
    assert_eq!(upload(&cluster.members[1].node, ulid, &files).await["result"], "complete");
    for member in &cluster.members {
        assert_eq!(member.count().await, Ok(13));
        // Owners' own blocks of the same range, not listed.
        assert!(member.node.app.storage.db().flush(NOW_MS).unwrap().problems.is_empty());
    }
    for member in &cluster.members {
        assert_eq!(member.count().await, Ok(13));
    }
}

#[tokio::test]
async fn in_a_joint_transition_and_from_a_node_that_leaves_owners_of_both_placements_know() {
    for change in [Change::join(StoreId(5), new_member(5)), Change::leave(StoreId(1))] {
        let store = Arc::new(InMemory::new());
        let before = of(4, 3);
        let joint = before.change(&change).unwrap();
        let mut cluster = sharing(&store, joint.clone()).await;
        let (ulid, files) = block(2);
        // The first takes it: one that leaves does so too.
        assert_eq!(upload(&cluster.members[0].node, ulid, &files).await["result"], "complete");
        for member in &cluster.members {
            assert_eq!(member.count().await, Ok(10));
        }
        cluster.adopt(joint.finish().unwrap());
        cluster.pause(1);
        for member in &cluster.members[1..] {
            assert_eq!(member.count().await, Ok(10));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Several blocks through any nodes, some of them away at times: whatever was acked is in every complete answer.
    #[test]
    fn what_was_acked_is_in_every_complete_answer(
        steps in proptest::collection::vec((0..3_usize, 1..=3_usize), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Arc::new(InMemory::new());
            let cluster = sharing(&store, of(3, 3)).await;
            for (number, (taking, away)) in (0_u32..).zip(steps) {
                cluster.pause(away);
                let ulid = Ulid::from_parts(1, u128::from(number) + 2);
                let meta = BlockMeta::new(ulid, START_MS, START_MS + RANGE_MS);
                let files = block_with(meta, START_MS + i64::from(number) * 600_000, 0.0);
                let state = upload(&cluster.members[taking].node, ulid, &files).await;
                prop_assert_eq!(&state["result"], "complete", "two of three know: {}", state);
                for round in 0..2 {
                    for (at, member) in (1..).zip(&cluster.members).filter(|(at, _)| round == 1 || *at != away) {
                        let count = member.count().await;
                        prop_assert_eq!(count, Ok(u64::from(number + 1) * 10), "node {}, {} away", at, away);
                    }
                    cluster.resume(away);
                }
            }
            Ok(())
        })?;
    }
}

//! A bucket that has lost the ring document, or the whole of `carillon/`, or was put back to an older state.
//!
//! Varied: what is gone; who starts then (a member, a newcomer with and without seeds, a founder that was interrupted); who
//! is away when it is put back. Held fixed: three members with one history, but where the test makes a second.

use std::collections::BTreeSet;

use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use ring::ClusterId;

use super::*;
use crate::cluster::RestoreError;

/// Long enough for a node to found a cluster, where it may.
const A_WHILE: Duration = Duration::from_secs(2);

async fn lose(bucket: &InMemory, objects: &[&str]) {
    for object in objects {
        bucket.delete(&Path::from(*object)).await.unwrap();
    }
}

/// Whether a node that starts there waits for its cluster.
async fn waits(place: &mut Place, seeds: &[String]) -> bool {
    tokio::time::timeout(A_WHILE, place.try_start(seeds, "")).await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_founded_beside_a_cluster_whose_document_is_lost() {
    let bucket: Arc<InMemory> = Arc::default();
    let (_places, nodes) = three(&bucket).await;
    let epoch = nodes[0].cluster().view().epoch();
    lose(&bucket, &["carillon/ring"]).await;
    // Without seeds a node founds at once where there is nothing.
    assert!(waits(&mut Place::new("x", &bucket), &[]).await);
    assert!(waits(&mut Place::new("y", &bucket), &[address(&nodes[0])]).await);
    assert!(bucket.get(&Path::from("carillon/ring")).await.is_err(), "nobody has written there");

    let restored = nodes[1].cluster().restore_document(&BTreeSet::new(), true).await.unwrap();
    assert_eq!((restored.epoch, restored.instead_of.as_deref()), (epoch, Some("nothing")));
    assert!(bucket.get(&Path::from("carillon/ring")).await.is_err(), "a dry run writes nothing");
    let restored = nodes[1].cluster().restore_document(&BTreeSet::new(), false).await.unwrap();
    assert_eq!((restored.epoch, restored.asked, restored.silent), (epoch, 3, vec![]));
    let again = nodes[1].cluster().restore_document(&BTreeSet::new(), false).await.unwrap();
    assert_eq!(again.instead_of, None);

    let [a, b, c] = nodes;
    let d = Place::new("d", &bucket).start(&[address(&a)]).await;
    settled(&[&a, &b, &c, &d]).await;
    for node in [a, b, c, d] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_start_on_their_ledgers_document_when_their_bucket_was_emptied() {
    let bucket: Arc<InMemory> = Arc::default();
    let (mut places, [a, b, c]) = three(&bucket).await;
    let (cluster, epoch) = (a.cluster().id(), a.cluster().view().epoch());
    lose(&bucket, &["carillon/ring", "carillon/cluster"]).await;
    c.stop().await.unwrap();
    let c = places[2].start(&[address(&a)]).await;
    assert_eq!((c.cluster().id(), c.cluster().view().epoch()), (cluster, epoch));
    eventually("it says so", || complains(&c, "`carillon ring restore`")).await;
    c.cluster().restore_document(&BTreeSet::new(), false).await.unwrap();
    eventually("all is well again", || !complains(&c, "`carillon ring restore`")).await;
    let named = bucket.get(&Path::from("carillon/cluster")).await.unwrap().bytes().await.unwrap();
    assert_eq!(named, format!("{cluster}\n").as_bytes(), "the cluster's name is back too");
    for node in [a, b, c] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_document_is_put_back_and_no_other_one() {
    let bucket: Arc<InMemory> = Arc::default();
    let (_places, [a, b, c]) = three(&bucket).await;
    let key = Path::from("carillon/ring");
    let older = bucket.get(&key).await.unwrap().bytes().await.unwrap();
    a.cluster().set_replication_factor(2, true, false).await.unwrap();
    settled(&[&a, &b, &c]).await;
    let epoch = a.cluster().view().epoch();
    for put_back in [older, "no document".into()] {
        bucket.put(&key, put_back.into()).await.unwrap();
        let restored = b.cluster().restore_document(&BTreeSet::new(), false).await.unwrap();
        assert_eq!(restored.epoch, epoch);
        let found = b.cluster().documents.current().await.unwrap().unwrap().0;
        assert_eq!(&found, a.cluster().view().document());
    }

    // A second history of any epoch is left alone, and told of.
    let founder = a.cluster().view().document().clone();
    let mut other = ring::Document { ancestors: Vec::new(), ..founder };
    for port in 1..4 {
        let me = a.cluster().me();
        other = other.set_addresses(me, "a", &format!("127.0.0.1:{port}"), "127.0.0.1:9").unwrap();
        bucket.put(&key, other.encode().into()).await.unwrap();
        let refused = b.cluster().restore_document(&BTreeSet::new(), false).await.unwrap_err();
        assert!(matches!(refused, RestoreError::OtherHistory { .. }), "{refused}");
    }
    eventually("it is told of", || complains(&a, "two different ring documents have epoch")).await;
    for node in [a, b, c] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_back_while_others_may_know_a_newer_document() {
    let bucket: Arc<InMemory> = Arc::default();
    let (_places, [a, b, c]) = three(&bucket).await;
    lose(&bucket, &["carillon/ring"]).await;
    let gone = [b.cluster().me(), c.cluster().me()].into();
    let refused = a.cluster().restore_document(&gone, true).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Alive(_)), "{refused}");
    c.stop().await.unwrap();
    let enough = a.cluster().restore_document(&BTreeSet::new(), true).await.unwrap();
    assert_eq!(enough.silent, ["c"], "of three owners two have what two have acknowledged");
    b.stop().await.unwrap();
    let refused = a.cluster().restore_document(&BTreeSet::new(), false).await.unwrap_err();
    assert!(matches!(&refused, RestoreError::Silent { silent } if silent.len() == 2), "{refused}");
    eventually("both are seen to be away", || gone.iter().all(|store| !a.cluster().is_alive(*store))).await;
    let restored = a.cluster().restore_document(&gone, false).await.unwrap();
    assert_eq!((restored.asked, restored.silent), (1, vec![]));
    a.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_into_another_clusters_bucket() {
    let bucket: Arc<InMemory> = Arc::default();
    let (_places, nodes) = three(&bucket).await;
    lose(&bucket, &["carillon/ring"]).await;
    let other = format!("{}\n", ClusterId(0xbeef));
    bucket.put(&Path::from("carillon/cluster"), other.into()).await.unwrap();
    for dry_run in [true, false] {
        let refused = nodes[0].cluster().restore_document(&BTreeSet::new(), dry_run).await.unwrap_err();
        assert!(matches!(refused, RestoreError::OtherHistory { .. }), "{refused}");
    }
    assert!(bucket.get(&Path::from("carillon/ring")).await.is_err());
    for node in nodes {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_was_interrupted_goes_on_and_nobody_else_does() {
    let bucket: Arc<InMemory> = Arc::default();
    let cluster = ClusterId(0xc1);
    bucket.put(&Path::from("carillon/cluster"), format!("{cluster}\n").into()).await.unwrap();
    assert!(waits(&mut Place::new("b", &bucket), &[]).await);
    let mut founder = Place::new("a", &bucket);
    let ledger = |place: &Place| DiskLedger::open(Arc::new(place.disk.clone())).unwrap();
    ledger(&founder).put("ring/founding", cluster.to_string().as_bytes()).unwrap();
    let a = founder.start(&[]).await;
    assert_eq!(a.cluster().id(), cluster);
    assert_eq!(ledger(&founder).get("ring/founding").unwrap(), None, "it founds no second one");
    let b = Place::new("b", &bucket).start(&[address(&a)]).await;
    settled(&[&a, &b]).await;
    for node in [a, b] {
        node.stop().await.unwrap();
    }
}

//! A disk that is put back to an earlier state of the same start, as a snapshot of a node that runs for weeks is.
//!
//! Varied: whether anybody answers when it starts. Held fixed: three members, and one of them remembers that the store had
//! come farther (that a running store raises its watermark, processes and the simulator show).

use super::*;
use crate::cluster::rollback::Age;

/// Three nodes, of which `a` has heard that `b` has come farther than a copy of its disk says.
async fn with_a_snapshot() -> ([Place; 3], [Node; 3], MemoryDisk) {
    let (places, [a, b, c]) = three(&Arc::default()).await;
    let store = b.cluster().me();
    let snapshot = places[1].disk.fork();
    let heard = Age { incarnation: 1, watermark: 9 };
    a.cluster().note_age(store, heard).await.unwrap();
    (places, [a, b, c], snapshot)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_put_back_within_one_start_becomes_a_new_store() {
    let (mut places, [a, b, c], snapshot) = with_a_snapshot().await;
    let old = b.cluster().me();
    b.abandon().await;
    places[1].disk = snapshot;
    let b = places[1].start(&[address(&a)]).await;
    assert_ne!(b.cluster().me(), old);
    for node in [a, b, c] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hears_of_it_later_disclaims_what_is_open() {
    let (mut places, [a, b, c], snapshot) = with_a_snapshot().await;
    let (old, placement) = (b.cluster().me(), a.cluster().view().current().id());
    for node in [a, b, c] {
        node.abandon().await;
    }
    places[1].disk = snapshot;
    // Nobody is there who could tell.
    let b = places[1].start(&[]).await;
    assert_eq!(b.cluster().me(), old);
    assert!(!b.cluster().disclaimed(placement));
    let a = places[0].start(&[address(&b)]).await;
    eventually("it disclaims", || b.cluster().disclaimed(placement)).await;
    assert!(complains(&b, "put back to an earlier state"));
    for node in [a, b] {
        node.stop().await.unwrap();
    }
}

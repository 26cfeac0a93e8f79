//! A store that the others give up while it lives. Varied: whether that is final, or taken back while it is joint. Held
//! fixed: three copies, a bucket that is there.

use ring::epoch::Change;

use super::*;

/// Long enough for a store that may to hand over.
const A_WHILE: Duration = Duration::from_secs(4);

async fn begins_anew(node: &Node) -> bool {
    tokio::time::timeout(A_WHILE, node.cluster().begins_anew().cancelled()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_node_that_is_given_up_says_so_hands_over_and_begins_anew() {
    let bucket = Arc::default();
    let ([_, mut place_b, _], [a, b, c]) = three(&bucket).await;
    let d = Place::new("d", &bucket).start(&[address(&a)]).await;
    settled(&[&a, &b, &c, &d]).await;
    let old = b.cluster().me();
    let lose = Change::lose(old);
    let lost = a.cluster().change(|document| document.change(&lose).map(Some)).await.unwrap();
    assert!(lost.is_some());
    eventually("it says so", || complains(&b, "the others gave this node up")).await;
    assert!(!b.cluster().is_ready());
    tokio::time::timeout(PATIENCE, b.cluster().begins_anew().cancelled()).await.expect("it hands over");
    b.stop().await.unwrap();
    let b = place_b.start(&[address(&a)]).await;
    assert_ne!(b.cluster().me(), old, "it has begun anew");
    settled(&[&a, &b, &c, &d]).await;
    for node in [a, b, c, d] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_is_taken_back_costs_a_live_node_nothing() {
    let bucket = Arc::default();
    let (_places, [a, b, c]) = three(&bucket).await;
    let d = Place::new("d", &bucket).start(&[address(&a)]).await;
    settled(&[&a, &b, &c, &d]).await;
    // Two are away, so that the change can't end.
    c.abandon().await;
    d.abandon().await;
    let lose = Change::lose(b.cluster().me());
    a.cluster().change(|document| document.change(&lose).map(Some)).await.unwrap();
    assert!(a.cluster().view().document().is_joint());
    assert!(!begins_anew(&b).await);
    a.cluster().revert(false).await.unwrap();
    eventually("it is a member again", || b.cluster().is_member()).await;
    assert!(!begins_anew(&b).await);
    for node in [a, b] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_whose_join_is_taken_back_stays_the_store_that_it_is() {
    let bucket = Arc::default();
    let (_places, [a, b, c]) = three(&bucket).await;
    b.abandon().await;
    c.abandon().await;
    let d = Place::new("d", &bucket).start(&[address(&a)]).await;
    eventually("its join is under way", || d.cluster().is_member()).await;
    assert!(a.cluster().view().document().is_joint());
    a.cluster().revert(false).await.unwrap();
    eventually("it hears of it", || !d.cluster().is_member()).await;
    assert!(!begins_anew(&d).await);
    for node in [a, d] {
        node.stop().await.unwrap();
    }
}

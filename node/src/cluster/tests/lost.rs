//! Nodes that are gone for good: whoever is left goes on, what is in the way is told, and nothing ends without a word.
//!
//! Varied: how many nodes there are, and how many of them are gone; whether a change of the ring is under way then.
//! Held fixed: the nodes that are gone never answer again, and the bucket is there.

use std::collections::BTreeSet;

use super::*;

/// Nodes that have formed a ring, of which the last `gone` have ended out of order and are seen to be away.
async fn with_dead(
    bucket: &Arc<InMemory>,
    nodes: usize,
    gone: usize,
    more: &str,
) -> (Vec<Node>, BTreeSet<StoreId>) {
    let (mut all, mut seeds): (Vec<Node>, Vec<String>) = (Vec::new(), Vec::new());
    for n in 0..nodes {
        let mut place = Place::new(&format!("n{n}"), bucket);
        let node = place.try_start(&seeds, more).await.unwrap();
        seeds = vec![address(all.first().unwrap_or(&node))];
        all.push(node);
    }
    settled(&all.iter().collect::<Vec<_>>()).await;
    let mut dead = BTreeSet::new();
    for node in all.split_off(nodes - gone) {
        dead.insert(node.cluster().me());
        node.abandon().await;
    }
    let are_missed = || all.iter().all(|node| dead.iter().all(|store| !node.cluster().is_alive(*store)));
    eventually("all see that they are away", are_missed).await;
    (all, dead)
}

async fn stop(nodes: Vec<Node>) {
    for node in nodes {
        node.stop().await.unwrap();
    }
}

async fn whoever_is_left_goes_on(nodes: usize, gone: usize) {
    let (left, dead) = with_dead(&Arc::default(), nodes, gone, "").await;
    let cluster = left[0].cluster();
    if gone > 1 || nodes == 2 {
        assert!(complains(&left[0], "the ring can't change") && complains(&left[0], "`carillon node lost "));
        assert!(cluster.blocked(&cluster.view()).is_some());
    }
    let epoch = cluster.view().epoch();
    assert_eq!(cluster.write_off(&dead, true).await.unwrap(), None);
    assert_eq!(cluster.view().epoch(), epoch, "a dry run changes nothing");
    assert!(matches!(cluster.write_off(&[cluster.me()].into(), false).await, Err(ChangeError::Alive(_))));
    assert_eq!(cluster.write_off(&dead, false).await.unwrap(), None);
    settled(&left.iter().collect::<Vec<_>>()).await;
    let view = cluster.view();
    assert_eq!(view.current().rf() as usize, left.len().min(3));
    assert_eq!(view.document().replication_factor, 3, "copies come again with nodes");
    assert_eq!(cluster.blocked(&view), None);
    assert!(dead.iter().all(|store| view.document().members[store].state == MemberState::LossAccepted));
    stop(left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_that_is_lost_is_written_off() {
    whoever_is_left_goes_on(2, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_that_are_lost_are_written_off() {
    whoever_is_left_goes_on(3, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_five_that_are_lost_are_written_off() {
    whoever_is_left_goes_on(5, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_but_one_that_are_lost_are_written_off() {
    whoever_is_left_goes_on(4, 3).await;
}

/// One loss is given up in the way that fits it, and the other comes to light only then.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_end_says_so_and_ends_by_writing_off() {
    let (left, dead) = with_dead(&Arc::default(), 5, 2, "").await;
    let cluster = left[0].cluster();
    let first = *dead.first().unwrap();
    let blocked = cluster.forget(first, false).await.unwrap().expect("it can't end");
    assert!(blocked.contains("under way can't end") && blocked.contains("it is taken back"), "{blocked}");
    for node in &left {
        eventually("every node tells of it", || complains(node, "under way can't end")).await;
    }
    assert_eq!(cluster.write_off(&dead, false).await.unwrap(), None);
    settled(&left.iter().collect::<Vec<_>>()).await;
    stop(left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_taken_back_is_told_of_until_another_succeeds() {
    let short = "cluster: {gossip_interval: 100ms, transition_timeout: 2s}\n";
    let (left, dead) = with_dead(&Arc::default(), 2, 1, short).await;
    let cluster = left[0].cluster();
    let blocked = cluster.set_replication_factor(1, true, false).await.unwrap();
    assert!(blocked.is_some_and(|blocked| blocked.contains("`carillon node lost n1 --yes`")));
    let words = "(replication factor 3 to 1) was taken back";
    eventually("it is told", || complains(&left[0], words)).await;
    assert_eq!(cluster.view().document().replication_factor, 3);
    assert_eq!(cluster.write_off(&dead, false).await.unwrap(), None);
    eventually("it is told no more", || !complains(&left[0], words)).await;
    stop(left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_takes_a_change_back_unless_a_loss_was_accepted() {
    let (left, dead) = with_dead(&Arc::default(), 5, 2, "").await;
    let cluster = left[0].cluster();
    let none = cluster.revert(true).await.unwrap_err();
    assert!(none.to_string().contains("no change of the ring is under way"), "{none}");
    cluster.forget(*dead.first().unwrap(), false).await.unwrap();
    cluster.revert(false).await.unwrap();
    assert!(!cluster.view().document().is_joint());
    eventually("it is told", || {
        complains(&left[0], "n3 go) was taken back") || complains(&left[0], "n4 go) was taken back")
    })
    .await;
    // With an accepted loss it can only go on.
    let lost = *dead.first().unwrap();
    cluster.forget(lost, false).await.unwrap();
    cluster.accept_loss(lost, false).await.unwrap();
    let refused = cluster.revert(false).await.unwrap_err();
    assert!(refused.to_string().contains("was accepted"), "{refused}");
    stop(left).await;
}

/// The stray gossips, and can't join since nobody reaches it: that is more urgent, can't be done, and holds up nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_keeps_nothing_less_urgent_from_being_done() {
    let bucket = Arc::default();
    let soon = "cluster: {gossip_interval: 100ms, forget_after: 5s}\n";
    let (left, dead) = with_dead(&bucket, 4, 1, soon).await;
    let mut place = Place::new("stray", &bucket);
    let more = format!("advertise_address: '127.0.0.1:1'\n{soon}");
    let stray = place.try_start(&[address(&left[0])], &more).await.unwrap();
    let lost = *dead.first().unwrap();
    let is_settled = || {
        let view = left[0].cluster().view();
        let member = view.document().members.get(&lost).map(|member| member.state);
        member == Some(MemberState::Lost) && view.document().placements.len() == 1
    };
    eventually("the dead node is given up and its placement closed", is_settled).await;
    assert!(!stray.cluster().is_member());
    stop(left).await;
    stray.stop().await.unwrap();
}

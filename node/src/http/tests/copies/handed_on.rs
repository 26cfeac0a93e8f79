//! Hints whose time or store is another by the time that they are sent.
//!
//! Varied: why the store can't be reached, who owns the series by then, how old they are. Fixed: three nodes, 40 series.

use super::*;

/// Sends all hints of a node; fails where some stay.
async fn deliver(member: &Member) {
    let hints = member.node.app.replicator.hints();
    for _ in 0..300 {
        if hints.pending().bytes == 0 {
            return;
        }
        hints.hurry();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("hints stay: {:?}", hints.pending());
}

/// Waits until a node keeps hints for a store: a write is answered before.
async fn are_kept(member: &Member, store: StoreId) {
    let hints = member.node.app.replicator.hints();
    for _ in 0..300 {
        if hints.pending().stores == [store] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not for {store}: {:?}", hints.pending());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_for_a_store_that_left_go_to_every_owner_that_there_is_now() {
    // The fourth isn't there.
    let members = Members::start(3, &view(4, 3, 1)).await;
    let answer = members.write(0, samples(40, 1.0)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    are_kept(&members.0[0], StoreId(4)).await;
    let without = view(3, 3, 2);
    members.0.iter().for_each(|member| member.membership.adopt(without.clone()));
    deliver(&members.0[0]).await;
    // Each owner lacked those of which the fourth had been one.
    members.have(0..3, 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_are_taken_however_old_they_have_become() {
    let mut members = Members::start(3, &view(3, 3, 1)).await;
    // For two nodes the samples are young enough; the third would refuse them.
    for member in &members.0[..2] {
        let app = &member.node.app;
        let mut config = (**app.config.load()).clone();
        config.limits.max_backfill = crate::config::Bound::Unlimited;
        app.config.store(Arc::new(config));
    }
    members.0[2].down().await;
    let old_ms = NOW_MS - 5 * 24 * 3_600_000;
    let one = |i: usize| series(&[("__name__", "m"), ("i", &i.to_string())], &[(old_ms, 1.0)]);
    let answer = members.write(0, (0..40).map(one).collect()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    are_kept(&members.0[0], StoreId(3)).await;
    members.0[2].up(CUT_OFF).await;
    deliver(&members.0[0]).await;
    let counted = format!("/api/v1/query?query=count(m)&time={}", old_ms / 1000);
    for member in &members.0 {
        let found = member.node.get(&counted).await.data()["result"][0]["value"][1].clone();
        assert_eq!(found, "40", "{}", member.address);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_that_a_store_refuses_stay_until_it_takes_them() {
    let mut members = Members::start(3, &view(3, 3, 1)).await;
    members.0[2].down().await;
    let answer = members.write(0, samples(40, 1.0)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    are_kept(&members.0[0], StoreId(3)).await;
    // It comes back with a newer document than the sender's.
    let newer = view(3, 3, 2);
    members.0[2].membership.adopt(newer.clone());
    members.0[2].up(CUT_OFF).await;
    let sender = &members.0[0];
    let hints = sender.node.app.replicator.hints();
    for _ in 0..300 {
        if !sender.membership.offered.lock().is_empty() {
            break;
        }
        hints.hurry();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!sender.membership.offered.lock().is_empty(), "they were never sent");
    assert_eq!(hints.pending().stores, [StoreId(3)]);
    members.0.iter().for_each(|member| member.membership.adopt(newer.clone()));
    deliver(sender).await;
    members.have(0..3, 40).await;
}

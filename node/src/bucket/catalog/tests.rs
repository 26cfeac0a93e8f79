use std::sync::Arc;

use super::super::tests::{Fault, Faulty, env, faulty};
use super::*;

pub(in crate::bucket) use super::document::tests::listed;

fn tenant() -> TenantId {
    TenantId::new("a*b").unwrap()
}

struct World {
    store: Arc<Faulty>,
    bucket: Arc<Bucket>,
    env: Env,
    catalogs: Catalogs,
}

async fn world() -> World {
    let (store, bucket) = faulty();
    let env = env(store.clone());
    let catalogs = Catalogs::open(bucket.clone(), &env).await.unwrap();
    World { store, bucket, env, catalogs }
}

impl World {
    /// Another node on the same bucket, with a ledger of its own.
    async fn other(&self, seed: u128) -> Catalogs {
        Catalogs::open(self.bucket.clone(), &Env { seed, ..env(self.store.clone()) }).await.unwrap()
    }

    async fn restarted(&self) -> Catalogs {
        Catalogs::open(self.bucket.clone(), &self.env).await.unwrap()
    }
}

fn ulids(catalog: &Catalog) -> Vec<u128> {
    catalog.blocks().map(|block| block.ulid.0).collect()
}

#[tokio::test(start_paused = true)]
async fn a_listed_block_is_seen_by_every_node() {
    let world = world().await;
    let other = world.other(2).await;
    assert_eq!(other.current(&tenant()).await.version(), 0);
    assert_eq!(world.catalogs.list_block(&tenant(), &listed(7, 0, 100)).await.unwrap(), 1);
    assert_eq!(world.catalogs.list_block(&tenant(), &listed(8, 100, 200)).await.unwrap(), 2);
    assert_eq!(other.list_block(&tenant(), &listed(7, 0, 100)).await.unwrap(), 1, "listed once");
    let seen = other.at_least(&tenant(), 2).await.unwrap();
    assert_eq!((seen.version(), ulids(&seen)), (2, vec![7, 8]));
    assert!(other.is_listed(&tenant(), Ulid(8)) && !other.is_listed(&tenant(), Ulid(9)));
    assert_eq!(other.tenants().await.unwrap(), [tenant()]);
}

#[tokio::test(start_paused = true)]
async fn no_fault_of_the_store_lists_a_block_twice_or_loses_one() {
    use Fault::{After, Before, Hangs, Truncated};
    for faults in
        [[After, Before, Before], [Before, After, Before], [After, Hangs, Hangs], [Hangs, Hangs, After]]
    {
        let world = world().await;
        let other = world.other(2).await;
        other.list_block(&tenant(), &listed(1, 0, 100)).await.unwrap();
        world.store.on_writes(&faults);
        world.store.on_reads(&[Truncated, Before]);
        assert_eq!(world.catalogs.list_block(&tenant(), &listed(2, 0, 100)).await.unwrap(), 2, "{faults:?}");
        let seen = other.refresh(&tenant()).await.unwrap();
        assert_eq!((seen.version(), ulids(&seen)), (2, vec![1, 2]), "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_landed_unseen_isnt_made_twice() {
    let world = world().await;
    let other = world.other(2).await;
    world.store.on_writes(&[Fault::LandsLate, Fault::Before, Fault::Before]);
    let unknown = world.catalogs.list_block(&tenant(), &listed(1, 0, 100)).await.unwrap_err();
    assert!(unknown.is_transient(), "{unknown}");
    assert_eq!(world.store.land().await, [true]);
    assert_eq!(other.list_block(&tenant(), &listed(2, 0, 100)).await.unwrap(), 2);
    assert_eq!(world.catalogs.list_block(&tenant(), &listed(1, 0, 100)).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_many_writers_none_loses_a_block() {
    let world = world().await;
    let mut tasks = Vec::new();
    for n in 0..5u128 {
        let catalogs = world.other(n + 10).await;
        tasks.push(tokio::spawn(async move {
            for k in 0..5 {
                catalogs.list_block(&tenant(), &listed(n * 100 + k, 0, 1)).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let seen = world.catalogs.refresh(&tenant()).await.unwrap();
    assert_eq!((seen.version(), seen.blocks().count()), (25, 25));
}

#[tokio::test(start_paused = true)]
async fn while_the_bucket_is_away_the_last_catalog_serves_restarts_included() {
    let world = world().await;
    world.catalogs.list_block(&tenant(), &listed(1, 0, 100)).await.unwrap();
    let restarted = world.restarted().await;
    world.store.on_reads(&[Fault::Before; 100]);
    let began = Instant::now();
    assert_eq!(restarted.current(&tenant()).await.version(), 1);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(restarted.refresh(&tenant()).await.unwrap_err().is_transient());
    // One that was never heard of is looked for once, and then taken for empty.
    let unknown = TenantId::new("unknown").unwrap();
    assert_eq!(restarted.current(&unknown).await.version(), 0);
    let began = Instant::now();
    assert_eq!(restarted.current(&unknown).await.version(), 0);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_catalog_that_went_backwards_is_neither_believed_nor_written_to() {
    let world = world().await;
    let key = keys::catalog(&tenant());
    world.catalogs.list_block(&tenant(), &listed(1, 0, 100)).await.unwrap();
    let old = world.bucket.get(&key).await.unwrap().unwrap().0;
    world.catalogs.list_block(&tenant(), &listed(2, 0, 100)).await.unwrap();
    for restored in [Some(old), None] {
        match &restored {
            Some(old) => world.bucket.put(&key, old.clone()).await.unwrap(),
            None => world.bucket.delete(&key).await.unwrap(),
        }
        for catalogs in [&world.catalogs, &world.restarted().await] {
            let refreshed = catalogs.refresh(&tenant()).await;
            assert!(matches!(refreshed, Err(Error::CatalogLost { seen: 2, .. })), "{refreshed:?}");
            let listing = catalogs.list_block(&tenant(), &listed(3, 0, 100)).await;
            assert!(matches!(listing, Err(Error::CatalogLost { .. })), "{listing:?}");
            assert_eq!(ulids(&*catalogs.current(&tenant()).await), [1, 2]);
        }
        assert_eq!(world.bucket.get(&key).await.unwrap().map(|(bytes, _)| bytes), restored);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_an_old_cache_is_read_again() {
    let world = world().await;
    world.catalogs.list_block(&tenant(), &listed(1, 0, 100)).await.unwrap();
    world.store.on_reads(&[Fault::Absent]);
    assert_eq!(world.catalogs.refresh(&tenant()).await.unwrap().version(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_catalog_is_an_error_that_names_it() {
    let world = world().await;
    world.catalogs.list_block(&tenant(), &listed(1, 0, 100)).await.unwrap();
    world.store.on_reads(&[Fault::Flipped]);
    let error = world.other(2).await.refresh(&tenant()).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { key, .. } if key.contains("catalog/a%2Ab")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn catalogs_that_are_asked_for_stay_fresh() {
    let world = world().await;
    let (other, stop) = (Arc::new(world.other(2).await), CancellationToken::new());
    other.current(&tenant()).await;
    let keeper = tokio::spawn({
        let (other, stop) = (other.clone(), stop.clone());
        async move { other.keep_fresh(Duration::from_secs(10), stop).await }
    });
    world.catalogs.list_block(&tenant(), &listed(1, 0, 100)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(other.current(&tenant()).await.version(), 1);
    stop.cancel();
    keeper.await.unwrap();
}

/// Two histories of one catalog. Varied: how far either has gone on from what both know, and which is seen first; held
/// fixed: one block with each change.
#[tokio::test(start_paused = true)]
async fn catalogs_of_two_histories_are_told_apart_whatever_their_versions() {
    let key = keys::catalog(&tenant());
    for (ours, theirs) in [(1, 1), (1, 2), (2, 3), (1, 7)] {
        let world = world().await;
        world.catalogs.list_block(&tenant(), &listed(1, 0, 100)).await.unwrap();
        let backup = world.bucket.get(&key).await.unwrap().unwrap().0;
        let list = async |catalogs: &Catalogs, first: u128, count: u128| {
            for n in first..first + count {
                catalogs.list_block(&tenant(), &listed(n, 0, 100)).await.unwrap();
            }
        };
        list(&world.catalogs, 10, ours).await;
        // The bucket is put back, and somebody who has seen nothing newer goes on from there.
        world.bucket.put(&key, backup).await.unwrap();
        list(&world.other(2).await, 20, theirs).await;
        let other = world.bucket.get(&key).await.unwrap().unwrap().0;
        for catalogs in [&world.catalogs, &world.restarted().await] {
            let refreshed = catalogs.refresh(&tenant()).await;
            assert!(matches!(refreshed, Err(Error::CatalogLost { .. })), "{ours}, {theirs}: {refreshed:?}");
            let listing = catalogs.list_block(&tenant(), &listed(3, 0, 100)).await;
            assert!(matches!(listing, Err(Error::CatalogLost { .. })), "{ours}, {theirs}: {listing:?}");
            assert!(catalogs.is_listed(&tenant(), Ulid(10)), "what is known stays known");
        }
        assert_eq!(world.bucket.get(&key).await.unwrap().unwrap().0, other, "nothing is written to it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_catalog_of_a_later_generation_is_learned_whatever_its_version() {
    let world = world().await;
    for n in 1..4 {
        world.catalogs.list_block(&tenant(), &listed(n, 0, 100)).await.unwrap();
    }
    let next = Catalog { generation: 1, ..Catalog::default() }.changed(99);
    world.bucket.put(&keys::catalog(&tenant()), next.encode().into()).await.unwrap();
    assert_eq!(*world.catalogs.refresh(&tenant()).await.unwrap(), next);
    assert_eq!(*world.restarted().await.current(&tenant()).await, next, "restarts included");
}

/// The answer to a change is lost, another lands on top of it, and only then the change is tried again.
#[tokio::test(start_paused = true)]
async fn a_change_that_landed_below_anothers_isnt_made_twice() {
    let world = world().await;
    let other = world.other(2).await;
    world.store.on_writes(&[Fault::LandsLate]);
    let catalogs = world.catalogs;
    // A change that has another effect each time that it is made.
    let changing = tokio::spawn(async move {
        let change = |_: &Catalog, next: &mut Catalog| {
            let version = next.version;
            let block = Listed { version, ..listed(1_000 + u128::from(version), 0, 100) };
            next.blocks.insert(block.ulid, block);
            true
        };
        catalogs.change(&tenant(), change).await
    });
    while world.store.land().await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(other.list_block(&tenant(), &listed(2, 0, 100)).await.unwrap(), 2);
    let changed = changing.await.unwrap().unwrap();
    assert_eq!((changed.version(), ulids(&changed)), (2, vec![2, 1_001]));
}

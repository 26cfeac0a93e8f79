use std::sync::Arc;

use tsdb::disk::{Disk as _, MemoryDisk};

use super::super::keys;
use super::super::ship::tests::{BASE_MS, Site, tenant};
use super::super::tests::{Fault, env};
use super::*;

const ALL_MS: RangeInclusive<i64> = i64::MIN..=i64::MAX;
const HOUR_MS: i64 = 3_600_000;
const PLENTY_BYTES: u64 = 1 << 30;

/// A site that ships, and another node that reads.
struct World {
    site: Site,
    env: Env,
    catalogs: Arc<Catalogs>,
    remote: RemoteBlocks,
}

async fn world(blocks: i64, cache_bytes: u64) -> World {
    world_of(Site::with_blocks(blocks).await, cache_bytes).await
}

async fn world_of(site: Site, cache_bytes: u64) -> World {
    site.shipper.all(&site.db).await.unwrap();
    let env = env(site.store.clone());
    let catalogs = Arc::new(Catalogs::open(site.bucket.clone(), &env).await.unwrap());
    let remote = RemoteBlocks::open(site.bucket.clone(), catalogs.clone(), &env, cache_bytes).await.unwrap();
    World { site, env, catalogs, remote }
}

fn question(range_ms: RangeInclusive<i64>) -> Select {
    Select { matchers: vec![Matcher::equal("__name__", "m")], range_ms, shard: None }
}

impl World {
    async fn ask(&self, range_ms: RangeInclusive<i64>) -> Result<Vec<(Labels, Vec<tsdb::model::Sample>)>> {
        let catalog = self.catalogs.current(&tenant()).await;
        let mut answers = self.remote.select(&tenant(), &catalog, None, &[question(range_ms)]).await?;
        Ok(samples(answers.pop().unwrap()))
    }

    fn on_disk(&self) -> usize {
        self.env.disk.list(Path::new(files::CACHE_DIR)).unwrap().len()
    }
}

fn samples(series: Vec<Series>) -> Vec<(Labels, Vec<tsdb::model::Sample>)> {
    series.into_iter().map(|series| (series.labels.clone(), series.samples().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn any_node_reads_what_another_shipped() {
    let world = world(3, PLENTY_BYTES).await;
    let owner = world.site.db.existing_tenant(&tenant()).unwrap();
    let expected = samples(owner.select(&question(ALL_MS)).unwrap());
    assert_eq!(expected[0].1.len(), 360);
    assert_eq!(world.ask(ALL_MS).await.unwrap(), expected);
    assert_eq!(world.on_disk(), 3);
    world.site.store.on_reads(&[Fault::Before; 9]);
    assert_eq!(world.ask(ALL_MS).await.unwrap(), expected, "what was fetched stays");
    let catalog = world.catalogs.current(&tenant()).await;
    let (remote, none) = (&world.remote, None);
    let names = remote.label_names(&tenant(), &catalog, none, &[], &ALL_MS).await.unwrap();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["__name__", "i"]);
    let values = remote.label_values(&tenant(), &catalog, none, "i", &[], &ALL_MS).await.unwrap();
    assert_eq!(values.into_iter().collect::<Vec<_>>(), ["0", "1"]);
    let matchers = [Matcher::equal("i", "1")];
    assert_eq!(remote.series(&tenant(), &catalog, none, &matchers, &ALL_MS).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn labels_of_series_that_are_external_labels_of_blocks_too_come_back() {
    let labels: Vec<_> = ["42", "43"]
        .map(|id| {
            Labels::from_pairs([("__name__", "m"), ("carillon_replica", "x"), ("tenant_id", id)]).unwrap()
        })
        .into();
    let world = world_of(Site::with_series(&labels, 2).await, PLENTY_BYTES).await;
    let found = world.ask(ALL_MS).await.unwrap();
    assert_eq!(found.iter().map(|(labels, _)| labels.clone()).collect::<Vec<_>>(), labels);
    assert!(found.iter().all(|(_, samples)| samples.len() == 240));
    let catalog = world.catalogs.current(&tenant()).await;
    let values =
        world.remote.label_values(&tenant(), &catalog, None, "tenant_id", &[], &ALL_MS).await.unwrap();
    assert_eq!(values.into_iter().collect::<Vec<_>>(), ["42", "43"]);
}

#[tokio::test(start_paused = true)]
async fn blocks_that_are_not_at_hand_are_counted_instead_of_weighed() {
    let world = world(3, PLENTY_BYTES).await;
    let catalog = world.catalogs.current(&tenant()).await;
    let selectors = [vec![Matcher::equal("i", "1")]];
    let weigh = || async { world.remote.weigh(&catalog, None, &selectors, &ALL_MS).await.unwrap() };
    let before = weigh().await;
    assert_eq!((before.weight, before.blocks_to_fetch), (Weight::default(), 3));
    let listed = catalog.blocks().map(|block| block.size_bytes).sum::<u64>();
    assert_eq!((before.bytes_to_fetch, world.on_disk()), (listed, 0));
    world.ask(BASE_MS..=BASE_MS + HOUR_MS).await.unwrap();
    assert_eq!(weigh().await.blocks_to_fetch, 2);
    world.ask(ALL_MS).await.unwrap();
    let after = weigh().await;
    assert_eq!((after.blocks_to_fetch, after.bytes_to_fetch), (0, 0));
    assert_eq!((after.weight.series, after.weight.samples), (1, 360));
}

#[tokio::test(start_paused = true)]
async fn only_blocks_of_the_range_are_fetched_and_own_ones_never() {
    let world = world(3, PLENTY_BYTES).await;
    assert_eq!(world.ask(BASE_MS..=BASE_MS + HOUR_MS).await.unwrap()[0].1.len(), 120, "chunks come whole");
    assert_eq!(world.on_disk(), 1);
    let owner = world.site.db.existing_tenant(&tenant()).unwrap();
    let catalog = world.catalogs.current(&tenant()).await;
    let asked = world.remote.select(&tenant(), &catalog, Some(&owner), &[question(ALL_MS)]).await.unwrap();
    assert_eq!(samples(asked.into_iter().next().unwrap())[0].1.len(), 360);
    assert_eq!(world.on_disk(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_who_want_a_block_fetch_it_once() {
    let world = Arc::new(world(1, PLENTY_BYTES).await);
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let world = world.clone();
        tasks.push(tokio::spawn(async move { world.ask(ALL_MS).await.unwrap().len() }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), 2);
    }
    assert_eq!(world.remote.fetched.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn fetched_blocks_stay_within_their_bound() {
    let unbounded = world(4, PLENTY_BYTES).await;
    unbounded.ask(ALL_MS).await.unwrap();
    let one_bytes = unbounded.remote.cache_bytes() / 4;
    let world = world(4, one_bytes * 5 / 2).await;
    for _ in 0..2 {
        assert_eq!(world.ask(ALL_MS).await.unwrap()[0].1.len(), 480);
        assert_eq!(world.on_disk(), 2);
        assert!(world.remote.cache_bytes() <= one_bytes * 5 / 2);
    }
    let tiny =
        RemoteBlocks::open(world.site.bucket.clone(), world.catalogs.clone(), &world.env, 10).await.unwrap();
    assert_eq!(world.on_disk(), 0, "a start empties the folder");
    let catalog = world.catalogs.current(&tenant()).await;
    let refused = tiny.select(&tenant(), &catalog, None, &[question(ALL_MS)]).await.unwrap_err();
    assert!(refused.to_string().contains("storage.bucket_cache"), "{refused}");
    assert_eq!(tiny.cache_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_waits_for_gives_its_room_back() {
    let world = world(1, PLENTY_BYTES).await;
    world.catalogs.current(&tenant()).await;
    world.site.store.on_reads(&[Fault::None, Fault::Hangs]);
    let cut = tokio::time::timeout(Duration::from_secs(1), world.ask(ALL_MS)).await;
    assert!(cut.is_err());
    assert_eq!(world.remote.cache_bytes(), 0);
    assert_eq!(world.ask(ALL_MS).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_listed_and_gone_is_an_error_and_never_skipped() {
    let world = world(2, PLENTY_BYTES).await;
    let listed = world.site.listed().await;
    for name in ["index", "meta.json"] {
        world.site.bucket.delete(&keys::block_file(listed[1].ulid, name)).await.unwrap();
        let error = world.ask(ALL_MS).await.unwrap_err();
        assert!(matches!(error, Error::Gone { block, .. } if block == listed[1].ulid), "{error}");
    }
    assert_eq!(world.ask(listed[0].min_ms..=listed[0].max_ms - 1).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_absence_that_passes_is_looked_at_again() {
    let world = world(1, PLENTY_BYTES).await;
    world.catalogs.current(&tenant()).await;
    world.site.store.on_reads(&[Fault::Absent]);
    assert_eq!(world.ask(ALL_MS).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn damage_on_the_way_is_fetched_again_and_damage_that_stays_is_named() {
    let world = world(1, PLENTY_BYTES).await;
    let ulid = world.site.listed().await[0].ulid;
    world.catalogs.current(&tenant()).await;
    world.site.store.on_reads(&[Fault::None, Fault::Flipped]);
    assert_eq!(world.ask(ALL_MS).await.unwrap().len(), 2);
    let key = keys::block_file(ulid, "chunks/000001");
    let mut bytes = world.site.bucket.get(&key).await.unwrap().unwrap().0.to_vec();
    bytes[50] ^= 1;
    world.site.bucket.put(&key, bytes.into()).await.unwrap();
    let remote =
        RemoteBlocks::open(world.site.bucket.clone(), world.catalogs.clone(), &world.env, PLENTY_BYTES);
    let (remote, catalog) = (remote.await.unwrap(), world.catalogs.current(&tenant()).await);
    let error = remote.select(&tenant(), &catalog, None, &[question(ALL_MS)]).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { key, .. } if key.contains(&ulid.to_string())), "{error}");
    assert_eq!((remote.cache_bytes(), world.on_disk()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_and_leaves_nothing() {
    let site = Site::with_blocks(1).await;
    site.shipper.all(&site.db).await.unwrap();
    let disk = Arc::new(MemoryDisk::new());
    let env = Env { disk: disk.clone(), ..env(site.store.clone()) };
    let catalogs = Arc::new(Catalogs::open(site.bucket.clone(), &env).await.unwrap());
    let remote = RemoteBlocks::open(site.bucket.clone(), catalogs.clone(), &env, PLENTY_BYTES).await.unwrap();
    disk.set_capacity(Some(0));
    let catalog = catalogs.current(&tenant()).await;
    let error = remote.select(&tenant(), &catalog, None, &[question(ALL_MS)]).await.unwrap_err();
    assert!(matches!(error, Error::Storage(tsdb::Error::NoSpace(_))), "{error}");
    assert_eq!(remote.cache_bytes(), 0);
    assert!(disk.list(Path::new(files::CACHE_DIR)).unwrap().is_empty());
}

//! The suite.

use std::sync::Arc;

use node::bucket::{Blocks, Bucket, Error, PART_BYTES, Swapped, keys};
use node::config::{Config, FilePath};
use node::env::Env;
use tsdb::db::{Append, Bounds, Db, DbSettings, SeriesKey};
use tsdb::model::{Labels, Matcher, Sample, TenantId};
use tsdb::select::Select;
use tsdb::workers::Inline;

/// Writers that race for one object.
const RACERS: usize = 8;
const BASE_MS: i64 = 1_700_006_400_000;
/// Samples of a block whose chunks are too long for one part.
const SERIES: usize = 5000;
const SAMPLES: i64 = 240;

/// Everything that a bucket must do.
pub async fn all(bucket: &Arc<Bucket>, env: &Env) {
    bucket.self_test(1).await.unwrap();
    objects(bucket).await;
    of_many_creators_one_wins(bucket).await;
    of_many_swappers_one_wins(bucket).await;
    blocks_go_and_come_back(bucket, env).await;
}

async fn objects(bucket: &Bucket) {
    let key = keys::own(["test", "a*b"]);
    assert_eq!(bucket.get(&key).await.unwrap(), None);
    assert_eq!(bucket.size_bytes(&key).await.unwrap(), None);
    assert_eq!(bucket.get_range(&key, 0..1).await.unwrap(), None);
    bucket.put(&key, "hello".into()).await.unwrap();
    bucket.put(&key, "goodbye".into()).await.unwrap();
    assert_eq!(bucket.get(&key).await.unwrap().unwrap().0, "goodbye");
    assert_eq!(bucket.size_bytes(&key).await.unwrap(), Some(7));
    assert_eq!(bucket.get_range(&key, 4..7).await.unwrap().unwrap(), "bye");
    let past = bucket.get_range(&key, 4..99).await;
    assert!(matches!(past, Err(Error::Unreachable { .. })), "{past:?}");
    for name in ["x", "y"] {
        bucket.put(&keys::own(["test", "below", name]), "1".into()).await.unwrap();
    }
    let listed = bucket.list(&keys::own(["test"])).await.unwrap();
    let names: Vec<_> = listed.iter().map(|entry| entry.key.filename().unwrap()).collect();
    assert_eq!(names, ["a%2Ab", "x", "y"], "by key");
    assert_eq!(listed[0].size_bytes, 7);
    for _ in 0..2 {
        bucket.delete(&key).await.unwrap();
    }
    assert_eq!(bucket.get(&key).await.unwrap(), None);
}

async fn of_many_creators_one_wins(bucket: &Arc<Bucket>) {
    let key = keys::own(["test", "created"]);
    let mut tasks = tokio::task::JoinSet::new();
    for racer in 0..RACERS {
        let (bucket, key) = (bucket.clone(), key.clone());
        tasks.spawn(async move { bucket.put_if_absent(&key, &racer.to_string().into()).await.unwrap() });
    }
    let ended = tasks.join_all().await;
    assert_eq!(ended.iter().filter(|swapped| matches!(swapped, Swapped::Won(_))).count(), 1, "{ended:?}");
}

async fn of_many_swappers_one_wins(bucket: &Arc<Bucket>) {
    let key = keys::own(["test", "swapped"]);
    let Swapped::Won(mut tag) = bucket.put_if_absent(&key, &"begin".into()).await.unwrap() else {
        panic!("nothing was there");
    };
    for round in 0..5 {
        let mut tasks = tokio::task::JoinSet::new();
        for racer in 0..RACERS {
            let (bucket, key, tag) = (bucket.clone(), key.clone(), tag.clone());
            let bytes = format!("{round} {racer}");
            tasks.spawn(async move { bucket.swap(&key, &tag, &bytes.into()).await.unwrap() });
        }
        let ended = tasks.join_all().await;
        let won: Vec<_> = ended.iter().filter(|swapped| matches!(swapped, Swapped::Won(_))).collect();
        assert_eq!(won.len(), 1, "{ended:?}");
        let (_, now) = bucket.get(&key).await.unwrap().unwrap();
        assert_eq!(won[0], &Swapped::Won(now.clone()), "the winner's tag is the object's");
        tag = now;
    }
    bucket.delete(&key).await.unwrap();
    assert_eq!(bucket.swap(&key, &tag, &"late".into()).await.unwrap(), Swapped::Lost, "it is gone");
    assert_eq!(bucket.get(&key).await.unwrap(), None);
}

async fn blocks_go_and_come_back(bucket: &Arc<Bucket>, env: &Env) {
    let tenant = TenantId::new("a*b").unwrap();
    let db = Db::open(env.disk.clone(), DbSettings::default(), BASE_MS, 7, &Inline).unwrap().0;
    write(&db, &tenant);
    let local = db.local_blocks();
    // A folder on another filesystem is copied to; here the files would be shared.
    let config = Config { data_dir: FilePath("/nowhere".into()), ..Config::default() };
    let store = format!("{:032x}", 7).parse().unwrap();
    let blocks = Blocks::open(bucket.clone(), &config, env, store).await.unwrap();
    blocks.shipper.all(&db).await.unwrap();
    let catalog = blocks.catalogs.refresh(&tenant).await.unwrap();
    let listed: Vec<_> = catalog.blocks().map(|block| block.ulid).collect();
    assert_eq!(listed, local.iter().map(|block| block.meta.ulid).collect::<Vec<_>>());
    assert!(catalog.blocks().any(|block| block.size_bytes > PART_BYTES), "one needs several parts");
    assert_eq!(blocks.catalogs.tenants().await.unwrap(), std::slice::from_ref(&tenant));
    let select = Select {
        matchers: vec![Matcher::equal("__name__", "m")],
        range_ms: i64::MIN..=i64::MAX,
        shard: None,
    };
    let fetched = blocks.remote.select(&tenant, &catalog, None, std::slice::from_ref(&select)).await.unwrap();
    let own = db.existing_tenant(&tenant).unwrap().select(&select).unwrap();
    assert_eq!((fetched[0].len(), own.len()), (SERIES, SERIES));
    for (fetched, own) in fetched[0].iter().zip(&own) {
        assert_eq!((&fetched.labels, &fetched.chunks), (&own.labels, &own.chunks));
    }
}

/// Two hours of values that no encoding makes smaller.
fn write(db: &Db, tenant: &TenantId) {
    let to = db.tenant(tenant).unwrap();
    let mut bits = 1u64;
    for number in 0..SERIES {
        let name = number.to_string();
        let labels = Labels::from_pairs([("__name__", "m"), ("i", name.as_str())]).unwrap();
        let series = to.intern(SeriesKey(number as u128), &labels).unwrap();
        let batch: Vec<_> = (0..SAMPLES)
            .map(|n| {
                bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                Append { series, sample: Sample::float(BASE_MS + n * 30_000, f64::from_bits(bits >> 2)) }
            })
            .collect();
        to.append(&batch, &Bounds::ALL, &mut Vec::new()).unwrap();
    }
    db.commit().unwrap();
    db.flush(BASE_MS + 7_200_000).unwrap();
}

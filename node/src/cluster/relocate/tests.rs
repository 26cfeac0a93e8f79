//! Moves that are cut, raced and pointed at the wrong place, between two buckets in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use ring::epoch::{Change, NewMember};

use super::*;
use crate::bucket::tests::{Fault, Faulty, env};
use crate::bucket::{Handed, ObjectStores, Opened};
use crate::config::FilePath;

const ME: StoreId = StoreId(5);
const CLUSTER: ClusterId = ClusterId(7);
/// More than all tries of one call.
const AWAY: usize = 50;

/// A store for each name that a location ends in.
struct ByName(BTreeMap<&'static str, Arc<Faulty>>);

impl ObjectStores for ByName {
    fn open(&self, location: &Location) -> bucket::Result<Opened> {
        let Location::Folder(path) = location else { panic!("{location}") };
        let name = path.file_name().unwrap().to_str().unwrap();
        Handed(self.0[name].clone()).open(location)
    }
}

/// A stopped node whose bucket is `old`.
struct World {
    env: Env,
    config: Config,
    old: Arc<Faulty>,
    new: Arc<Faulty>,
}

fn member(name: &str) -> NewMember {
    let [zone, http_address] = ["z".to_owned(), format!("{name}:2")];
    NewMember { name: name.to_owned(), zone, peer_address: format!("{name}:1"), http_address }
}

fn alone() -> Document {
    Document::found(CLUSTER, 9, 3, &BTreeMap::from([(ME, member("me"))])).unwrap()
}

async fn put(store: &Faulty, key: &str, bytes: impl Into<Bytes>) {
    store.inner.put(&Path::from(key), bytes.into().into()).await.unwrap();
}

async fn read(store: &Faulty, key: &str) -> Bytes {
    store.inner.get(&Path::from(key)).await.unwrap().bytes().await.unwrap()
}

impl World {
    async fn new() -> Self {
        Self::with(Faulty::new()).await
    }

    async fn with(new: Faulty) -> Self {
        let (old, new) = (Arc::new(Faulty::new()), Arc::new(new));
        let stores: BTreeMap<_, _> = [("old", old.clone()), ("new", new.clone())].into();
        let mut env = env(old.clone());
        env.bucket = Arc::new(ByName(stores));
        let config =
            Config { data_dir: FilePath("/data".into()), bucket: "/b/old".to_owned(), ..Config::default() };
        env.ledger.put("store/id", &ME.0.to_be_bytes()).unwrap();
        let world = Self { env, config, old, new };
        world.documents("/b/old").adopt(&alone()).await.unwrap();
        put(&world.old, "carillon/cluster", format!("{CLUSTER}\n")).await;
        put(&world.old, "carillon/ring", alone().encode()).await;
        for name in ["a", "b", "c"] {
            put(&world.old, &format!("carillon/catalog/{name}"), name).await;
            put(&world.old, &format!("01BLOCK/{name}"), name.repeat(1000)).await;
        }
        put(&world.old, "carillon/self-test/1", "left behind").await;
        world
    }

    fn documents(&self, url: &str) -> Documents {
        open(url, &self.env).unwrap()
    }

    async fn plan(&self, to: &str) -> Result<Relocation> {
        Relocation::plan(&self.config, &self.env, to).await
    }

    async fn relocate(&self) -> Result<Copied> {
        self.plan("/b/new").await?.carry_out(&|_| ()).await
    }

    /// Whether a ring can be led from a bucket.
    async fn is_led_from(&self, url: &str) -> bool {
        matches!(self.documents(url).current().await, Ok(Some(_)))
    }

    async fn assert_moved(&self) {
        let left = self.documents("/b/old").current().await.unwrap_err();
        assert!(left.to_string().contains("--bucket /b/new"), "{left}");
        let arrived = self.documents("/b/new");
        assert_eq!(arrived.cluster().await.unwrap(), Some(CLUSTER));
        assert!(arrived.current().await.unwrap().is_some());
        for name in ["a", "b", "c"] {
            assert_eq!(read(&self.new, &format!("01BLOCK/{name}")).await, name.repeat(1000));
            let key = format!("carillon/catalog/{name}");
            assert_eq!(read(&self.new, &key).await, read(&self.old, &key).await);
        }
        assert!(self.new.inner.head(&Path::from("carillon/self-test/1")).await.is_err());
    }

    async fn refusal(&self, to: &str) -> String {
        self.plan(to).await.err().unwrap_or_else(|| panic!("{to} was taken")).to_string()
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_that_is_cut_anywhere_leaves_one_bucket_at_most_and_goes_on() {
    for target in [true, false] {
        for after in 0.. {
            let world = World::new().await;
            let store = if target { &world.new } else { &world.old };
            store.on_writes(&vec![Fault::None; after]);
            store.on_writes(&[Fault::Before; AWAY]);
            let cut = world.relocate().await;
            store.forget();
            let (old, new) = (world.is_led_from("/b/old").await, world.is_led_from("/b/new").await);
            assert!(!(old && new), "both, after {after}");
            if cut.is_ok() {
                world.assert_moved().await;
                assert!(after > 0 && !old && new);
                break;
            }
            world.relocate().await.unwrap_or_else(|e| panic!("after {after}: {e}"));
            world.assert_moved().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_change_nothing() {
    for after in 0..14 {
        let world = World::new().await;
        for store in [&world.new, &world.old] {
            store.on_writes(&vec![Fault::None; after]);
            store.on_writes(&[Fault::After]);
        }
        world.relocate().await.unwrap_or_else(|e| panic!("after {after}: {e}"));
        world.assert_moved().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_it_is_copied_is_not_lost() {
    let world = World::new().await;
    let plan = world.plan("/b/new").await.unwrap();
    let newer = alone().set_zone(ME, "elsewhere").unwrap();
    put(&world.old, "carillon/ring", newer.encode()).await;
    put(&world.old, "carillon/catalog/a", "grown").await;
    put(&world.old, "carillon/catalog/d", "new").await;
    // The old sizes were planned with.
    assert!(plan.carry_out(&|_| ()).await.is_err());
    world.relocate().await.unwrap();
    world.assert_moved().await;
    assert_eq!(read(&world.new, "carillon/catalog/d").await, "new");
    assert_eq!(world.documents("/b/new").current().await.unwrap().unwrap().0, newer);
}

#[tokio::test(start_paused = true)]
async fn a_finished_move_says_so_and_can_be_taken_back() {
    let mut world = World::new().await;
    world.relocate().await.unwrap();
    assert!(world.plan("/b/new").await.unwrap().is_finished());
    assert_eq!(world.relocate().await.unwrap(), Copied::default());
    world.config.bucket = "/b/new".to_owned();
    put(&world.new, "carillon/catalog/a", "later").await;
    world.plan("/b/old").await.unwrap().carry_out(&|_| ()).await.unwrap();
    assert!(world.is_led_from("/b/old").await && !world.is_led_from("/b/new").await);
    assert_eq!(read(&world.old, "carillon/catalog/a").await, "later");
}

#[tokio::test(start_paused = true)]
async fn places_that_cannot_be_taken_are_refused_by_name() {
    let world = World::new().await;
    assert!(world.refusal("/b/old").await.contains("same place"));
    assert!(world.refusal("/b/old/new").await.contains("inside"));
    let other = ClusterId(8);
    put(&world.new, "carillon/cluster", format!("{other}\n")).await;
    let both = world.refusal("/b/new").await;
    assert!(both.contains(&other.to_string()) && both.contains(&CLUSTER.to_string()), "{both}");
    put(&world.new, "carillon/cluster", format!("{CLUSTER}\n")).await;
    put(&world.new, "carillon/ring", alone().encode()).await;
    assert!(world.refusal("/b/new").await.contains("a ring is there"));
    let filling = Mark::Filling { from: "/b/elsewhere".to_owned(), cluster: CLUSTER };
    put(&world.new, "carillon/ring", filling.encode()).await;
    assert!(world.refusal("/b/new").await.contains("being filled from /b/elsewhere"));
    let world = World::new().await;
    put(&world.new, "carillon/catalog/x", "somebody's").await;
    assert!(world.refusal("/b/new").await.contains("carillon/catalog/x"));
    let world = World::with(Faulty::careless()).await;
    let careless = world.relocate().await.unwrap_err();
    assert!(careless.to_string().contains("ignores conditions"), "{careless}");
    assert!(world.is_led_from("/b/old").await);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_not_this_nodes_alone_stays() {
    let world = World::new().await;
    let joint = alone().change(&Change::join(StoreId(6), member("other"))).unwrap();
    for (document, why) in [(joint.clone(), "me, other"), (joint.finish().unwrap(), "me, other")] {
        put(&world.old, "carillon/ring", document.encode()).await;
        assert!(world.refusal("/b/new").await.contains(why));
    }
    world.documents("/b/old").adopt(&joint).await.unwrap();
    put(&world.old, "carillon/ring", alone().encode()).await;
    assert!(world.refusal("/b/new").await.contains("was the bucket restored?"));
    let elsewhere = Mark::Moved { to: "/b/third".to_owned(), document: alone() };
    put(&world.old, "carillon/ring", elsewhere.encode()).await;
    assert!(world.refusal("/b/new").await.contains("moved to /b/third"));
    world.env.ledger.remove("store/id").unwrap();
    assert!(world.refusal("/b/new").await.contains("no node has run with it"));
}

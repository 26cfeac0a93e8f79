//! Several nodes in one process, over the loopback, with a bucket in memory.

mod given_up;
mod lost;
mod put_back;
mod restored;

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use ring::StoreId;
use ring::epoch::MemberState;
use tsdb::disk::MemoryDisk;

use crate::Node;
use crate::bucket::Handed;
use crate::cluster::{ArriveError, ChangeError};
use crate::config::{Config, Sources, load};
use crate::env::{DiskLedger, Env, Inline, Ledger as _, ManualClock, OsProcess, TcpNet};
use crate::node::StartError;

const NOW_MS: i64 = 1_767_225_600_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A place where nodes run one after the other: its disk stays.
struct Place {
    name: String,
    disk: MemoryDisk,
    bucket: Arc<InMemory>,
    starts: u128,
    now_ms: i64,
}

impl Place {
    fn new(name: &str, bucket: &Arc<InMemory>) -> Self {
        Self {
            name: name.to_owned(),
            disk: MemoryDisk::new(),
            bucket: bucket.clone(),
            starts: 0,
            now_ms: NOW_MS,
        }
    }

    async fn try_start(&mut self, seeds: &[String], more: &str) -> Result<Node, StartError> {
        self.starts += 1;
        let disk = Arc::new(self.disk.clone());
        let name = self.name.bytes().fold(0u128, |seed, byte| seed << 8 | u128::from(byte));
        let env = Env {
            clock: Arc::new(ManualClock::new(self.now_ms)),
            disk: disk.clone(),
            lock: None,
            ledger: Arc::new(DiskLedger::open(disk).unwrap()),
            net: Arc::new(TcpNet),
            pool: Arc::new(Inline),
            bucket: Arc::new(Handed(self.bucket.clone())),
            process: Arc::new(OsProcess::new()),
            seed: name << 32 | self.starts,
        };
        let gossip = if more.contains("cluster: ") { "" } else { "cluster: {gossip_interval: 100ms}\n" };
        let yaml = format!(
            "name: {}\nzone: zone-{}\nbucket: 'memory:'\nseed: {seeds:?}\nhttp: {{address: '127.0.0.1:0'}}\n\
             peer: {{address: '127.0.0.1:0'}}\n{gossip}{more}",
            self.name, self.name
        );
        let config: Config = load(&Sources { file: Some(("test", &yaml)), ..Sources::default() }).unwrap();
        Node::start(config, env).await
    }

    async fn start(&mut self, seeds: &[String]) -> Node {
        self.try_start(seeds, "").await.unwrap()
    }
}

fn address(node: &Node) -> String {
    node.peer_address().to_string()
}

/// Waits until all nodes go by one settled document with these members in the current placement.
async fn settled(nodes: &[&Node]) {
    let mut wanted: Vec<StoreId> = nodes.iter().map(|node| node.cluster().me()).collect();
    wanted.sort_unstable();
    let is_so = |node: &&Node| {
        let view = node.cluster().view();
        let document = view.document();
        let active: Vec<StoreId> = document.active().map(|(store, _)| store).collect();
        active == wanted
            && document.placements.len() == 1
            && view.epoch() == nodes[0].cluster().view().epoch()
    };
    eventually("one settled ring", || nodes.iter().all(is_so)).await;
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Three nodes that have formed a ring.
async fn three(bucket: &Arc<InMemory>) -> ([Place; 3], [Node; 3]) {
    let mut places = ["a", "b", "c"].map(|name| Place::new(name, bucket));
    let a = places[0].start(&[]).await;
    let seeds = [address(&a)];
    let b = places[1].start(&seeds).await;
    let c = places[2].start(&seeds).await;
    settled(&[&a, &b, &c]).await;
    (places, [a, b, c])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_is_a_cluster_of_one_and_stays_that_one() {
    let bucket = Arc::default();
    let mut place = Place::new("a", &bucket);
    let node = place.start(&[]).await;
    let (cluster, store) = (node.cluster().id(), node.cluster().me());
    assert!(node.cluster().is_member());
    node.stop().await.unwrap();
    let node = place.start(&[]).await;
    assert_eq!((node.cluster().id(), node.cluster().me()), (cluster, store));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_is_itself_founds_a_cluster() {
    let mut place = Place::new("a", &Arc::default());
    let node =
        place.try_start(&["127.0.0.1:7".to_owned()], "advertise_address: '127.0.0.1:7'\n").await.unwrap();
    assert!(node.cluster().is_member());
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_one_drains_and_a_wiped_one_takes_its_old_place() {
    let bucket = Arc::default();
    let (mut places, [a, b, c]) = three(&bucket).await;
    assert_eq!(a.cluster().view().current().rf(), 3);

    // With fewer nodes than copies, nobody may leave.
    let refused = a.cluster().drain(b.cluster().me(), false).await.unwrap_err();
    assert!(refused.message().contains("replication factor"), "{refused}");

    // An empty disk under the same name takes the old one's place.
    let lost = c.cluster().me();
    drop(c.stop().await);
    places[2].disk = MemoryDisk::new();
    let c = places[2].start(&[address(&a)]).await;
    assert_ne!(c.cluster().me(), lost);
    eventually("the wiped node is back", || c.cluster().is_member()).await;
    // Each node hears of it at its own time.
    let state = || a.cluster().view().document().members.get(&lost).map(|member| member.state);
    eventually("the other one is lost", || state() == Some(MemberState::Lost)).await;

    // With a fourth, one may.
    let mut place = Place::new("d", &bucket);
    let d = place.start(&[address(&a)]).await;
    eventually("the fourth has joined", || d.cluster().is_member()).await;
    settled(&[&a, &b, &c, &d]).await;
    let leaving = b.cluster().me();
    a.cluster().drain(leaving, false).await.unwrap();
    eventually("the drain is done", || b.cluster().leaving().done).await;
    settled(&[&a, &c, &d]).await;
    b.stop().await.unwrap();
    let b = places[1].start(&[address(&a)]).await;
    assert_ne!(b.cluster().me(), leaving, "what was drained comes back as a new store");
    settled(&[&a, &b, &c, &d]).await;
    for node in [a, b, c, d] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_of_one_cluster_and_the_bucket_of_another_are_refused_with_both_named() {
    let mut one = Place::new("a", &Arc::default());
    let mut other = Place::new("b", &Arc::default());
    let (one, other_node) = (one.start(&[]).await, other.start(&[]).await);
    let mut stray = Place::new("c", &other.bucket);
    let error = stray.try_start(&[address(&one)], "").await.err().unwrap();
    assert!(matches!(error, StartError::Cluster(ArriveError::Clusters { .. })), "{error}");
    for id in [one.cluster().id(), other_node.cluster().id()] {
        assert!(error.to_string().contains(&id.to_string()), "{error}");
    }
    // And where the bucket belongs to nobody yet, nothing is founded in it.
    let mut stray = Place::new("d", &Arc::default());
    let error = stray.try_start(&[address(&one)], "").await.err().unwrap();
    assert!(matches!(error, StartError::Cluster(ArriveError::NotInBucket { .. })), "{error}");
    for node in [one, other_node] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_data_folder_is_refused_while_the_original_runs() {
    let bucket = Arc::default();
    let (places, [a, b, c]) = three(&bucket).await;
    let mut twin = Place::new("b", &bucket);
    twin.disk = places[1].disk.fork();
    let error = twin.try_start(&[address(&a)], "").await.err().unwrap();
    assert!(matches!(error, StartError::Cluster(ArriveError::Twin { .. })), "{error}");
    for node in [a, b, c] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_put_back_becomes_a_new_store() {
    let bucket = Arc::default();
    let (mut places, [a, b, c]) = three(&bucket).await;
    let (old, backup) = (b.cluster().me(), places[1].disk.fork());
    b.stop().await.unwrap();
    let again = places[1].start(&[address(&a)]).await;
    assert_eq!(again.cluster().me(), old);
    // Alive it may still seem from before: what counts is that its second start was written down.
    let noted = || a.cluster().ages.lock().get(&old).is_some_and(|age| age.incarnation >= 2);
    eventually("its second start is known", noted).await;
    again.stop().await.unwrap();
    places[1].disk = backup;
    let restored = places[1].start(&[address(&a)]).await;
    assert_ne!(restored.cluster().me(), old);
    for node in [a, restored, c] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_older_than_the_ledgers_is_not_taken_from_a_restored_bucket() {
    let bucket: Arc<InMemory> = Arc::default();
    let mut place = Place::new("a", &bucket);
    let node = place.start(&[]).await;
    node.stop().await.unwrap();
    let before = bucket.fork();
    let node = place.start(&[]).await;
    let mut second = Place::new("b", &bucket);
    let b = second.start(&[address(&node)]).await;
    settled(&[&node, &b]).await;
    let epoch = node.cluster().view().epoch();
    node.stop().await.unwrap();
    b.stop().await.unwrap();
    place.bucket = Arc::new(before);
    let node = place.start(&[]).await;
    assert_eq!(node.cluster().view().epoch(), epoch);
    eventually("it says so", || {
        let ring = node.cluster().describe_ring();
        ring["problems"].to_string().contains("was the bucket restored")
    })
    .await;
    node.stop().await.unwrap();
}

/// Whether a node tells of a problem with these words.
fn complains(node: &Node, words: &str) -> bool {
    node.cluster().describe_ring()["problems"].to_string().contains(words)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_told_of_by_the_node_that_has_it() {
    let bucket = Arc::default();
    let mut places = ["a", "b", "c"].map(|name| Place::new(name, &bucket));
    places[1].now_ms += 3_600_000;
    let a = places[0].start(&[]).await;
    let seeds = [address(&a)];
    let b = places[1].start(&seeds).await;
    let c = places[2].start(&seeds).await;
    settled(&[&a, &b, &c]).await;
    eventually("it says so", || complains(&b, "about 1h ahead of the other nodes'")).await;
    assert!(!complains(&a, "clock") && !complains(&c, "clock"));
    for node in [a, b, c] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_at_which_nobody_is_reached_is_told_of_loudly() {
    let bucket = Arc::default();
    let a = Place::new("a", &bucket).start(&[]).await;
    // Nobody listens on port 1.
    let mut place = Place::new("b", &bucket);
    let b = place.try_start(&[address(&a)], "advertise_address: '127.0.0.1:1'\n").await.unwrap();
    eventually("it says so", || complains(&b, "can't reach this node at 127.0.0.1:1")).await;
    assert!(complains(&b, "correct --advertise-address"));
    // Whoever can't be reached doesn't become part of the ring.
    assert!(!b.cluster().is_member() && !b.cluster().is_ready());
    for node in [a, b] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_copies_than_nodes_are_kept_once_there_are_nodes_for_them() {
    let bucket = Arc::default();
    let mut places = ["a", "b"].map(|name| Place::new(name, &bucket));
    let more = "replication_factor: 5\n";
    let a = places[0].try_start(&[], more).await.unwrap();
    assert_eq!(a.cluster().view().current().rf(), 1);
    let b = places[1].try_start(&[address(&a)], more).await.unwrap();
    settled(&[&a, &b]).await;
    assert_eq!(a.cluster().view().current().rf(), 2);
    let ring = a.cluster().describe_ring();
    assert_eq!(
        (ring["effective_rf"].as_u64(), ring["replication_factor"].as_u64()),
        (Some(2), Some(5)),
        "{ring}"
    );
    for node in [a, b] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_acks_before_it_syncs_disclaims_after_an_end_out_of_order() {
    let bucket = Arc::default();
    let (mut places, [a, b, c]) = three(&bucket).await;
    let seeds = [address(&a)];
    b.stop().await.unwrap();
    let disclaims = |node: &Node| {
        let ring = node.cluster().describe_ring();
        ring["problems"].to_string().contains("may have lost samples that it acked")
    };
    let interval = "wal: {sync: interval}\n";
    // How it ran, whether it ended in order, and whether it then disclaims what is open.
    for (before, in_order, expected) in [("", false, false), (interval, true, false), (interval, false, true)]
    {
        let b = places[1].try_start(&seeds, before).await.unwrap();
        let cut_off = places[1].disk.fork();
        b.stop().await.unwrap();
        if !in_order {
            places[1].disk = cut_off;
        }
        let b = places[1].try_start(&seeds, "").await.unwrap();
        assert_eq!(disclaims(&b), expected, "{before:?}, in order: {in_order}");
        b.stop().await.unwrap();
    }
    for node in [a, c] {
        node.stop().await.unwrap();
    }
}

/// Sends a request of which the end never comes.
async fn hang(node: &Node) -> Box<dyn crate::env::Connection> {
    use crate::env::Net as _;
    use tokio::io::AsyncWriteExt as _;
    let mut open = TcpNet.connect(&node.http_address().to_string(), crate::env::Lane::Data).await.unwrap();
    let head = "POST /api/v1/write HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx";
    open.write_all(head.as_bytes()).await.unwrap();
    open
}

#[tokio::test]
async fn a_node_whose_disk_fails_is_unready_for_the_others_and_ends_whatever_is_open() {
    let bucket = Arc::default();
    let (mut place_a, mut place_b) = (Place::new("a", &bucket), Place::new("b", &bucket));
    let a = place_a.start(&[]).await;
    let b = place_b.start(&[address(&a)]).await;
    settled(&[&a, &b]).await;
    let (a_id, b_id) = (a.cluster().me(), b.cluster().me());
    let seen_ready =
        |by: &Node, store| by.cluster().members().seen.get(&store).is_some_and(|seen| seen.profile.ready);
    eventually("a hears that b is ready", || seen_ready(&a, b_id)).await;
    let _open = hang(&b).await;
    b.app_for_tests().storage.fail_stop().stop("a sync failed");
    assert_eq!(b.failed().await, "a sync failed");
    assert!(!b.cluster().is_ready());
    eventually("a hears that b isn't ready", || !seen_ready(&a, b_id)).await;
    assert!(seen_ready(&b, a_id));
    // It returns although a request is open that never ends.
    b.abandon().await;
    // What it left behind is whole, but for its end.
    drop(place_b.start(&[address(&a)]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_is_done_when_the_last_older_write_is() {
    let node = Place::new("a", &Arc::default()).start(&[]).await;
    let (cluster, me) = (node.cluster().clone(), node.cluster().me());
    let held = cluster.view().epoch();
    let write = cluster.admit(held).unwrap();
    let next = cluster.view().document().set_addresses(me, "other", "127.0.0.1:7", "127.0.0.1:8").unwrap();
    let mut adopting = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.adopt(next).await.unwrap() }
    });
    eventually("it goes by the document", || cluster.view().epoch() == held + 1).await;
    assert!(cluster.admit(held).is_err());
    // Nobody may be told of it while the write is under way.
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut adopting).await.is_err());
    drop(write);
    assert_eq!(adopting.await.unwrap(), held + 1);
    node.stop().await.unwrap();
}

/// Four nodes of which `a` and `c` say that they may lack samples of the placement that takes writes.
async fn four_of_which_two_disclaim() -> ([Place; 4], [Node; 4]) {
    let bucket = Arc::default();
    let ([mut place_a, place_b, mut place_c], [a, b, c]) = three(&bucket).await;
    let seeds = [address(&b)];
    let mut place_d = Place::new("d", &bucket);
    let d = place_d.start(&seeds).await;
    settled(&[&a, &b, &c, &d]).await;
    let placement = b.cluster().view().current().id();
    a.stop().await.unwrap();
    c.stop().await.unwrap();
    for place in [&place_a, &place_c] {
        let ledger = DiskLedger::open(Arc::new(place.disk.clone())).unwrap();
        ledger.put("ring/disclaimed", &placement.to_be_bytes()).unwrap();
    }
    let (a, c) = (place_a.start(&seeds).await, place_c.start(&seeds).await);
    assert!(a.cluster().disclaimed(placement) && c.cluster().disclaimed(placement));
    settled(&[&a, &b, &c, &d]).await;
    ([place_a, place_b, place_c, place_d], [a, b, c, d])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_when_enough_owners_vouch_for_what_was_kept() {
    let (_places, [a, b, c, d]) = four_of_which_two_disclaim().await;
    a.cluster().drain(b.cluster().me(), false).await.unwrap();
    let progress = || b.cluster().leaving();
    eventually("it waits for the others", || {
        progress().done || progress().progress.starts_with("waiting for the other owners")
    })
    .await;
    assert!(!progress().done, "nobody else vouches");
    a.cluster().accept_own_loss().await.unwrap();
    eventually("the drain is done", || progress().done).await;
    for node in [a, b, c, d] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_may_lack_samples_has_no_say_in_giving_up_another() {
    let (_places, [a, b, c, d]) = four_of_which_two_disclaim().await;
    let gone = d.cluster().me();
    let mut config = Config::clone(&b.cluster().settings.load());
    config.forget_after = crate::config::Bound::Max(crate::config::Duration { ms: 500 });
    for node in [&a, &b, &c] {
        node.cluster().configure(&config);
    }
    d.stop().await.unwrap();
    let missed = || [&a, &b, &c].into_iter().all(|node| node.cluster().missed(gone) > Duration::from_secs(4));
    let state = || b.cluster().view().document().members.get(&gone).map(|member| member.state);
    let is_active = || state() == Some(MemberState::Active);
    eventually("all have missed it for long", || missed() || !is_active()).await;
    assert!(is_active(), "of three owners one has a say");
    a.cluster().accept_own_loss().await.unwrap();
    c.cluster().accept_own_loss().await.unwrap();
    eventually("it is given up", || state() == Some(MemberState::Lost)).await;
    for node in [a, b, c] {
        node.stop().await.unwrap();
    }
}

//! Nodes with disks in memory, on the loopback interface.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use object_store::memory::InMemory;
use proptest::prelude::*;
use ring::epoch::{Change, NewMember};
use ring::{ClusterId, Document, StoreId, View};
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceExt as _;
use tsdb::db::{Append, Bounds, WINDOW_MS};
use tsdb::disk::MemoryDisk;
use tsdb::model::{FloatHistogram, IntHistogram, Labels, Sample, TenantId, Value, stale_nan};

use super::*;
use crate::bucket::Handed;
use crate::cluster::Addresses;
use crate::config::{Config, Sources, load};
use crate::env::{DiskLedger, Env, Inline, ManualClock, Net as _, OsProcess, TcpNet};
use crate::grpc::{self, Me, Protocol};
use crate::node::Hooks;

/// Two hours into a window, and a bit: 2026-01-01.
const NOW_MS: i64 = 1_767_225_600_000 + 30 * 60_000;
/// Start of the window before the current one.
const PAST_MS: i64 = 1_767_225_600_000 - WINDOW_MS;

fn store(n: u32) -> StoreId {
    StoreId((u128::from(n) << 100) + u128::from(n) + 1)
}

fn member(n: u32) -> NewMember {
    NewMember {
        name: format!("node{n}"),
        zone: format!("z{n}"),
        peer_address: format!("127.0.0.1:{}", 1_000 + n),
        http_address: format!("127.0.0.1:{}", 2_000 + n),
    }
}

/// A ring of nodes 0 to `members - 1`.
pub(super) fn ring_of(members: u32, rf: u32) -> View {
    let first = (0..members).map(|n| (store(n), member(n))).collect();
    View::new(Document::found(ClusterId(7), 0xd16e57, rf, &first).unwrap()).unwrap()
}

/// Several nodes that know each other.
struct Nodes {
    nodes: BTreeMap<u32, TestNode>,
    view: Arc<View>,
}

struct TestNode {
    app: Arc<App>,
    me: Arc<Me>,
    views: watch::Sender<Arc<View>>,
    address: String,
    memory: Memory,
    http: Router,
    stop: CancellationToken,
}

impl TestNode {
    async fn start(n: u32, view: &Arc<View>, yaml: &str) -> Self {
        let disk = Arc::new(MemoryDisk::new());
        let env = Env {
            clock: Arc::new(ManualClock::new(NOW_MS)),
            disk: disk.clone(),
            lock: None,
            ledger: Arc::new(DiskLedger::open(disk).unwrap()),
            net: Arc::new(TcpNet),
            pool: Arc::new(Inline),
            bucket: Arc::new(Handed(Arc::new(InMemory::new()))),
            process: Arc::new(OsProcess::new()),
            seed: u128::from(n),
        };
        let config: Config = load(&Sources { file: Some(("test", yaml)), ..Sources::default() }).unwrap();
        // The node's own ring is of it alone; the one that is compared by is handed in below.
        let at = Addresses { peer: "127.0.0.1:1".to_owned(), http: "127.0.0.1:2".to_owned() };
        let app = Arc::new(App::open(config, env, Hooks::default(), &at, Arc::default()).await.unwrap());
        let stop = CancellationToken::new();
        let (committing, stopped) = (app.clone(), stop.clone());
        tokio::spawn(async move {
            let (db, pool) = (committing.storage.db().clone(), committing.env.pool.clone());
            committing.committer.run(db, pool, Duration::from_secs(1), stopped).await;
        });
        let me = Me::new(store(n), Protocol::default());
        me.join(ClusterId(7)).unwrap();
        let views = watch::Sender::new(view.clone());
        app.repair.join(Peers::new(app.env.net.clone(), me.clone()), views.subscribe());
        let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        let routes = Routes::default().add_service(Serve::service(app.clone()));
        tokio::spawn(grpc::serve(listener, routes, me.clone(), Duration::from_secs(1), stop.clone()));
        let http = crate::http::router(app.clone());
        Self { app, me, views, address, memory: Memory::default(), http, stop }
    }

    fn append(&self, tenant: &str, samples: &[(usize, Sample)]) {
        let tenant = self.app.intake.tenant(&TenantId::new(tenant).unwrap()).unwrap();
        let batch: Vec<Append> = samples
            .iter()
            .map(|(series, sample)| Append {
                series: tenant.intern_unnamed(&labels(*series)).unwrap(),
                sample: sample.clone(),
            })
            .collect();
        let mut outcomes = Vec::new();
        tenant.append(&batch, &Bounds::ALL, &mut outcomes).unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.is_ack()));
    }

    fn flush(&self) {
        assert!(self.app.storage.db().flush(NOW_MS).unwrap().problems.is_empty());
    }

    /// All samples of a tenant by series and time, as text.
    fn samples(&self, tenant: &str) -> BTreeMap<(String, i64), String> {
        let mut found = BTreeMap::new();
        let Some(tenant) = self.app.storage.existing(&TenantId::new(tenant).unwrap()) else { return found };
        let mut take = |series: tsdb::select::Series| {
            for sample in series.samples()? {
                found.insert((series.labels.to_string(), sample.timestamp_ms), format!("{:?}", sample.value));
            }
            Ok(())
        };
        tenant.each_series(&(i64::MIN..=i64::MAX), &mut |_| true, &mut take).unwrap();
        found
    }

    async fn round(&mut self) -> Progress {
        let before = self.app.repair.progress();
        pass::round(&self.app, &mut self.memory, Look::All).await;
        // Nothing was appended meanwhile: what differs is lacking.
        if self.memory.is_waiting() {
            pass::round(&self.app, &mut self.memory, Look::Again).await;
        }
        assert!(!self.memory.is_waiting());
        let after = self.app.repair.progress();
        assert_eq!((after.rounds, after.failures), (before.rounds + 1, before.failures), "{after:?}");
        Progress {
            compared: after.compared - before.compared,
            samples: after.samples - before.samples,
            series: after.series - before.series,
            ..after
        }
    }

    /// Ranges as `cluster/digests` has them, without owners.
    async fn digests(&self) -> Vec<(String, Json)> {
        let request = Request::get("/api/v1/cluster/digests").body(Body::empty()).unwrap();
        let answer = self.http.clone().oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let answer: Json = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["data"]["store"], self.me.store().to_string(), "{answer}");
        let ranges = answer["data"]["ranges"].as_array().unwrap();
        ranges.iter().map(|r| (r["start"].as_str().unwrap().to_owned(), r["windows"].clone())).collect()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Nodes {
    async fn start(members: u32, view: View) -> Self {
        Self::with(&vec![""; members as usize], view).await
    }

    /// A node for each configuration.
    async fn with(configurations: &[&str], view: View) -> Self {
        let view = Arc::new(view);
        let mut nodes = BTreeMap::new();
        for (n, yaml) in (0..).zip(configurations) {
            nodes.insert(n, TestNode::start(n, &view, yaml).await);
        }
        let this = Self { nodes, view };
        this.introduce();
        this
    }

    /// All know where the others are.
    fn introduce(&self) {
        let addresses: BTreeMap<_, _> =
            self.nodes.iter().map(|(n, node)| (store(*n), node.address.clone())).collect();
        self.nodes.values().for_each(|node| node.me.set_addresses(addresses.clone()));
    }

    fn of(&mut self, n: u32) -> &mut TestNode {
        self.nodes.get_mut(&n).unwrap()
    }

    /// Each node a round; how many samples were lacking.
    async fn round(&mut self) -> u64 {
        let mut samples = 0;
        for node in self.nodes.values_mut() {
            samples += node.round().await.samples;
        }
        samples
    }

    fn show(&mut self, view: View) {
        self.view = Arc::new(view);
        self.nodes.values().for_each(|node| drop(node.views.send(self.view.clone())));
    }
}

fn labels(series: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", series.to_string().as_str())]).unwrap()
}

/// Samples of some series every 15 s from a time on.
fn scrapes(series: std::ops::Range<usize>, from_ms: i64, count: i64) -> Vec<(usize, Sample)> {
    let at = move |i: i64| from_ms + i * 15_000;
    let sample = move |s: usize, i: i64| match s % 10 {
        9 => {
            let count = i.unsigned_abs();
            let histogram = IntHistogram { count, zero_count: count, ..IntHistogram::default() };
            Sample { timestamp_ms: at(i), start_ms: 0, value: Value::Int(Arc::new(histogram)) }
        }
        _ => Sample::float(at(i), (s as i64 * i) as f64),
    };
    (0..count).flat_map(|i| series.clone().map(move |s| (s, sample(s, i)))).collect()
}

#[tokio::test]
async fn what_one_replica_lacks_it_gets_from_another_and_nothing_more() {
    let mut nodes = Nodes::start(3, ring_of(3, 3)).await;
    let all = scrapes(0..40, PAST_MS, 480);
    for n in [0, 1] {
        nodes.of(n).append("a", &all);
    }
    // Node 1 has it in a block, node 2 only the first half, a value that loses, and what others lack.
    nodes.of(1).flush();
    let half: Vec<_> =
        all.iter().filter(|(_, s)| s.timestamp_ms < PAST_MS + WINDOW_MS / 2).cloned().collect();
    nodes.of(2).append("a", &half);
    nodes.of(2).append("a", &[(3, Sample::float(PAST_MS + WINDOW_MS - 15_000, stale_nan()))]);
    nodes.of(2).append("b", &scrapes(5..6, PAST_MS, 3));
    let lacking = (all.len() - half.len()) as u64;
    // All of it from the first peer asked, nothing from the second.
    assert_eq!(nodes.of(2).round().await.samples, lacking);
    assert_eq!(nodes.of(0).round().await.samples, 3);
    assert_eq!(nodes.of(1).round().await.samples, 3);
    assert_eq!(nodes.round().await, 0);
    let expected = [nodes.of(0).samples("a"), nodes.of(0).samples("b")];
    assert_eq!(expected[0].len(), all.len());
    for n in [1, 2] {
        assert!([nodes.of(n).samples("a"), nodes.of(n).samples("b")] == expected);
        assert_eq!(nodes.of(n).digests().await, nodes.of(0).digests().await);
    }
    // What is equal isn't compared again while nothing changes, and a block is no change of samples.
    for n in 0..3 {
        nodes.of(n).round().await;
        assert_eq!(nodes.of(n).round().await.compared, 0);
    }
    nodes.of(2).flush();
    let done = nodes.of(2).round().await;
    assert!(done.compared > 0 && done.samples == 0 && done.lacking == 0, "{done:?}");
}

#[tokio::test]
async fn what_is_on_its_way_is_waited_for_and_not_for_ever() {
    let mut nodes = Nodes::start(2, ring_of(2, 2)).await;
    let backlog = scrapes(0..20, PAST_MS, 40);
    let mut parts = backlog.chunks(80);
    let mut memory = Memory::default();
    nodes.of(0).append("a", parts.next().unwrap());
    let app = nodes.of(1).app.clone();
    // Node 1 is one part behind at each look, until both have all.
    for part in 0..3 {
        let look = if part == 0 { Look::All } else { Look::Again };
        pass::round(&app, &mut memory, look).await;
        assert!(memory.is_waiting());
        nodes.of(1).append("a", &backlog[part * 80..(part + 1) * 80]);
        nodes.of(0).append("a", parts.next().unwrap());
    }
    nodes.of(1).append("a", &backlog[240..320]);
    pass::round(&app, &mut memory, Look::Again).await;
    let progress = app.repair.progress();
    assert_eq!((progress.samples, progress.series, progress.lacking), (0, 0, 0), "{progress:?}");
    assert!(!memory.is_waiting());
    // One that falls behind for good is repaired while writes go on.
    let more = scrapes(0..20, PAST_MS + 40 * 15_000, 20);
    for (look, part) in (1..).zip(more.chunks(20)) {
        nodes.of(0).append("a", part);
        pass::round(&app, &mut memory, if look == 1 { Look::All } else { Look::Again }).await;
        let stored = app.repair.progress().samples;
        assert_eq!(stored, if look < pass::LOOKS_MAX { 0 } else { 20 * u64::from(look) });
        if stored > 0 {
            break;
        }
    }
    nodes.round().await;
    assert!(nodes.of(1).samples("a") == nodes.of(0).samples("a"));
}

#[tokio::test]
async fn a_replica_with_an_empty_disk_gets_everything_up_to_the_edge() {
    let mut nodes = Nodes::start(3, ring_of(3, 3)).await;
    let recent = scrapes(0..20, NOW_MS - 20 * 60_000, 81);
    for n in [0, 1] {
        nodes.of(n).append("a", &scrapes(0..3_000, PAST_MS, 2));
        nodes.of(n).append("a", &recent);
        nodes.of(n).append("c", &scrapes(0..5, PAST_MS - 20 * WINDOW_MS, 100));
        nodes.of(n).flush();
    }
    nodes.of(2).round().await;
    let edge_ms = NOW_MS - EDGE_MS;
    let mut expected = nodes.of(0).samples("a");
    let all = expected.len();
    expected.retain(|(_, timestamp_ms), _| *timestamp_ms < edge_ms);
    assert!(expected.len() < all);
    assert!(nodes.of(2).samples("a") == expected);
    assert!(nodes.of(2).samples("c") == nodes.of(0).samples("c"));
    assert_eq!(nodes.of(2).round().await.samples, 0);
    assert_eq!(nodes.of(2).app.repair.progress().refused, 0);
}

#[tokio::test]
async fn new_owners_get_what_old_owners_have() {
    // Two members, one copy; then each key is on both.
    let alone = ring_of(1, 1);
    let mut nodes = Nodes::start(3, View::new(alone.document().clone()).unwrap()).await;
    let all = scrapes(0..200, PAST_MS, 20);
    nodes.of(0).append("a", &all);
    let document = alone.document();
    let joint = document.change(&Change::join(store(1), member(1))).unwrap();
    let document = joint.finish().unwrap();
    nodes.show(View::new(document.clone()).unwrap());
    nodes.of(1).round().await;
    // Exactly what it owns now, and the old owner keeps what it had.
    let (view, tenant) = (nodes.view.clone(), TenantId::new("a").unwrap());
    let owned = |n: u32| {
        let index = view.index(store(n)).unwrap();
        let view = view.clone();
        let tenant = tenant.clone();
        move |series: usize| {
            view.current().replicas(digests::token_of(&tenant, &labels(series))).contains(&index)
        }
    };
    let mine = owned(1);
    let expected = all.iter().filter(|(series, _)| mine(*series)).count();
    assert!(expected > 0);
    assert_eq!(nodes.of(1).samples("a").len(), expected);
    assert_eq!(nodes.of(0).samples("a").len(), all.len());
    assert_eq!(nodes.round().await, 0);
}

#[tokio::test]
async fn nodes_at_different_documents_wait_for_each_other() {
    let mut nodes = Nodes::start(2, ring_of(2, 2)).await;
    nodes.of(0).append("a", &scrapes(0..5, PAST_MS, 5));
    let newer = nodes.view.document().change(&Change::join(store(7), member(7))).unwrap();
    let _ = nodes.of(0).views.send(Arc::new(View::new(newer).unwrap()));
    pass::round(&nodes.of(1).app.clone(), &mut Memory::default(), Look::All).await;
    let progress = nodes.of(1).app.repair.progress();
    assert_eq!((progress.samples, progress.unasked, progress.failures), (0, 1, 1));
    assert!(progress.failure.unwrap().contains("epoch"));
    // Nobody there is no failure of ours either.
    nodes.nodes.remove(&0);
    pass::round(&nodes.of(1).app.clone(), &mut Memory::default(), Look::All).await;
    assert_eq!(nodes.of(1).app.repair.progress().unasked, 1);
}

#[tokio::test]
async fn a_node_without_a_ring_has_no_digests_and_repairs_nothing() {
    let view = Arc::new(ring_of(1, 1));
    let node = TestNode::start(0, &view, "").await;
    let alone = Repair::default();
    assert!(alone.view().is_none());
    pass::round(&node.app, &mut Memory::default(), Look::All).await;
    assert_eq!(node.app.repair.progress().rounds, 1);
    assert_eq!(node.digests().await.len(), 1, "one range: all keys");
}

/// A sample of one of several kinds.
fn of_kind(kind: u8, timestamp_ms: i64, start_ms: i64, number: u64) -> Sample {
    let value = match kind {
        0 => Value::Float(number as f64),
        1 => Value::Float(stale_nan()),
        2 => Value::Float(f64::from_bits(0x7ff8_0000_0000_0000 | number)),
        3 => Value::Int(Arc::new(IntHistogram { count: number, zero_count: number, ..Default::default() })),
        4 => {
            let count = number as f64 + 0.5;
            Value::Histogram(Arc::new(FloatHistogram { count, zero_count: count, ..Default::default() }))
        }
        _ => Value::Int(Arc::new(IntHistogram { sum: stale_nan(), ..Default::default() })),
    };
    Sample { timestamp_ms, start_ms, value }
}

/// What one replica got, and when its head was last cut.
#[derive(Clone, Debug)]
struct Arrival {
    series: usize,
    slot: i64,
    kind: u8,
    start: Option<i64>,
    /// One bit for each replica that got it.
    replicas: u8,
    cuts: u8,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let start = prop_oneof![Just(None), (1..4_i64).prop_map(Some)];
    (0..4_usize, 0..12_i64, 0..6_u8, start, 1..8_u8, 0..64_u8).prop_map(
        |(series, slot, kind, start, replicas, cuts)| Arrival { series, slot, kind, start, replicas, cuts },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Varied: the encoding (with and without start times), kinds of values, conflicts at one time, in value or in start
    /// time alone, who got what, in heads or in blocks, in a window that is over and in the current one. Held fixed: three
    /// replicas of everything, that all of it is old enough to be compared, and that nothing comes meanwhile.
    #[test]
    fn replicas_become_equal_and_then_pull_nothing_whatever_is_encoded_how(
        arrivals in proptest::collection::vec(arrival(), 1..60),
        encoding in prop_oneof![Just("xor"), Just("xor2")],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let yaml = format!("storage: {{chunk_encoding: {encoding}}}\n");
            let mut nodes = Nodes::with(&[&*yaml; 3], ring_of(3, 3)).await;
            for (number, arrival) in (1..).zip(arrivals) {
                // Half of the slots lie in the window before.
                let at_ms = PAST_MS + WINDOW_MS - 6 * 60_000 + arrival.slot * 60_000;
                let start_ms = arrival.start.map_or(0, |start| at_ms - start * 1_000);
                let sample = of_kind(arrival.kind, at_ms, start_ms, number);
                for n in (0..3).filter(|n| arrival.replicas >> n & 1 == 1) {
                    nodes.of(n).append("a", &[(arrival.series, sample.clone())]);
                    if arrival.cuts >> n & 1 == 1 && arrival.cuts > 56 {
                        nodes.of(n).flush();
                    }
                }
            }
            for _ in 0..2 {
                nodes.round().await;
            }
            let bytes = |nodes: &mut Nodes| (0..3).map(|n| nodes.of(n).app.repair.progress().bytes).collect::<Vec<_>>();
            let before = bytes(&mut nodes);
            prop_assert_eq!(nodes.round().await, 0);
            prop_assert_eq!(bytes(&mut nodes), before, "nothing comes any more");
            let first = nodes.of(0).digests().await;
            for n in 0..3 {
                let progress = nodes.of(n).app.repair.progress();
                prop_assert_eq!((progress.lacking, progress.whole), (0, Some(nodes.view.epoch())));
                prop_assert_eq!(nodes.of(n).digests().await, first.clone(), "replica {}", n);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn replicas_that_keep_start_times_and_those_that_drop_them_store_nothing_for_ever() {
    let configurations = ["storage: {chunk_encoding: xor2}\n", "", "storage: {chunk_encoding: xor2}\n"];
    let mut nodes = Nodes::with(&configurations, ring_of(3, 3)).await;
    let with_starts =
        |(series, sample): (usize, Sample)| (series, Sample { start_ms: PAST_MS - 1, ..sample });
    let all: Vec<_> = scrapes(0..20, PAST_MS, 20).into_iter().map(with_starts).collect();
    nodes.of(0).append("a", &all);
    assert!(nodes.round().await > 0);
    assert_eq!(nodes.round().await, 0);
    let values = nodes.of(0).samples("a");
    assert!(nodes.of(1).samples("a") == values && nodes.of(2).samples("a") == values);
}

//! Three nodes in one process, on the loopback interface: writes through one of them reach all.

mod brittle;
mod handed_on;
mod mixed;

use std::collections::BTreeMap;
use std::time::Duration;

use ring::{StoreId, View};
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tsdb::disk::Disk as _;

use super::*;
use crate::env::Net;
use crate::grpc::{Me, Peers, Protocol, serve};
use crate::receive::replicate::tests::{CLUSTER, Fixed, view};
use crate::receive::replicate::{Receiver, Replicator};

/// Time for calls in work at a stop that stands for a crash.
const CUT_OFF: Duration = Duration::from_millis(1);

/// One of several nodes, its peer port up or down.
struct Member {
    node: TestNode,
    membership: Arc<Fixed>,
    me: Arc<Me>,
    address: String,
    stop: Option<CancellationToken>,
    server: Option<JoinHandle<()>>,
}

/// Nodes with all series on three of them.
struct Members(Vec<Member>);

impl Members {
    async fn start(count: u128, view: &Arc<View>) -> Self {
        Self::start_over(count, view, &(Arc::new(TcpNet) as Arc<dyn Net>)).await
    }

    /// With a network by which they call each other.
    async fn start_over(count: u128, view: &Arc<View>, net: &Arc<dyn Net>) -> Self {
        let mut members = Vec::new();
        for store in 1..=count {
            let membership = Fixed::new(store, view.clone());
            let me = Me::new(StoreId(store), Protocol::default());
            me.join(CLUSTER).unwrap();
            let peers = Peers::new(net.clone(), me.clone());
            let node = TestNode::changed(
                MemoryDisk::new(),
                Arc::default(),
                "write: {timeout: 1500ms}",
                async |app| {
                    let config = app.config.load_full();
                    let opened = Replicator::open(&config, &app.env, membership.clone(), peers).await;
                    app.replicator = opened.unwrap();
                    let intake = Arc::get_mut(&mut app.intake).expect("nobody has it yet");
                    intake.replicator = app.replicator.clone();
                },
            );
            let mut member = Member {
                node: node.await,
                membership: membership.clone(),
                me,
                address: "127.0.0.1:0".into(),
                stop: None,
                server: None,
            };
            member.up(CUT_OFF).await;
            members.push(member);
        }
        let members = Self(members);
        let addresses: BTreeMap<_, _> =
            members.0.iter().map(|member| (member.me.store(), member.address.clone())).collect();
        members.0.iter().for_each(|member| member.me.set_addresses(addresses.clone()));
        members
    }

    async fn write(&self, through: usize, timeseries: Vec<pb::TimeSeries>) -> Answer {
        self.0[through].node.write(timeseries).await
    }

    /// Waits until all of `nodes` have `count` series: the last replica may come after the answer.
    async fn have(&self, nodes: impl IntoIterator<Item = usize>, count: usize) {
        for node in nodes {
            for _ in 0..250 {
                if self.values(node, "m").await.len() == count {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(self.values(node, "m").await.len(), count, "node {node}");
        }
    }

    /// What one node has itself, as `query` answers it.
    async fn values(&self, node: usize, query: &str) -> Vec<String> {
        let data = self.0[node]
            .node
            .get(&format!("/api/v1/query?query={query}&time={}", NOW_MS / 1000))
            .await
            .data();
        let one = |series: &serde_json::Value| format!("{} {}", series["metric"]["i"], series["value"][1]);
        data["result"].as_array().unwrap().iter().map(one).collect()
    }
}

impl Member {
    /// Serves the peer port; at a stop calls in work have `stop_timeout` left.
    async fn up(&mut self, stop_timeout: Duration) {
        let mut listener = TcpNet.listen(&self.address).await;
        while listener.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            listener = TcpNet.listen(&self.address).await;
        }
        let listener = listener.unwrap();
        self.address = listener.local_address().unwrap().to_string();
        let app = &self.node.app;
        let receiver = Receiver::server(app.intake.clone(), self.membership.clone(), app.stopping.clone());
        let routes = Routes::default().add_service(receiver);
        let stop = CancellationToken::new();
        let server = serve(listener, routes, self.me.clone(), stop_timeout, stop.clone());
        self.server = Some(tokio::spawn(server));
        self.stop = Some(stop);
    }

    async fn down(&mut self) {
        self.stop.take().unwrap().cancel();
        // Streams that are open are cut off a moment later.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn samples(count: usize, value: f64) -> Vec<pb::TimeSeries> {
    let one = |i: usize| series(&[("__name__", "m"), ("i", &i.to_string())], &[(NOW_MS, value + i as f64)]);
    (0..count).map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_through_any_node_is_on_all_three() {
    let members = Members::start(3, &view(3, 3, 1)).await;
    for through in 0..3 {
        let answer = members.write(through, samples(50, 1000.0 * through as f64)).await;
        // The later ones lose or win by the fixed order: a success all the same.
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    }
    members.have(0..3, 50).await;
    // The last of them, too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let first = members.values(0, "m").await;
    for node in 1..3 {
        assert_eq!(members.values(node, "m").await, first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_may_be_away_and_two_may_not() {
    let mut members = Members::start(3, &view(3, 3, 1)).await;
    members.0[2].down().await;
    let answer = members.write(0, samples(20, 1.0)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    members.have(0..2, 20).await;
    members.0[1].down().await;
    let answer = members.write(0, samples(20, 2.0)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"));
    let text = answer.text();
    assert!(
        text.contains("20 of 20 samples have no quorum")
            && text.contains("node-2")
            && text.contains("node-3"),
        "{text}"
    );
    // They come back, and it goes on.
    members.0[1].up(CUT_OFF).await;
    members.0[2].up(CUT_OFF).await;
    for _ in 0..100 {
        if members.write(0, samples(20, 3.0)).await.status == StatusCode::NO_CONTENT {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the quorum is back, and writes aren't");
}

/// What is appended while an adoption is under way, its mark may miss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_appended_or_counted_here_that_the_gate_did_not_let_in() {
    let mut members = Members::start(3, &view(3, 3, 1)).await;
    members.0[0].membership.close_below(2);
    let answer = members.write(0, samples(20, 1.0)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "two others have it: {}", answer.text());
    members.have(1..3, 20).await;
    assert!(members.values(0, "m").await.is_empty());
    members.0[2].down().await;
    let answer = members.write(0, samples(20, 2.0)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "one has it: {}", answer.text());
    assert!(members.values(0, "m").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_series_goes_to_its_own_three_of_five_and_a_stranger_passes_all_on() {
    let members = Members::start(5, &view(5, 3, 1)).await;
    let answer = members.write(4, samples(200, 0.0)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut copies = BTreeMap::new();
    for node in 0..5 {
        let values = members.values(node, "m").await;
        assert!((50..200).contains(&values.len()), "{}", values.len());
        values.into_iter().for_each(|value| *copies.entry(value).or_insert(0) += 1);
    }
    assert!(copies.len() == 200 && copies.values().all(|count| *count == 3), "{copies:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_be_stored_is_refused_as_by_one_node() {
    let members = Members::start(3, &view(3, 3, 1)).await;
    let mut batch = samples(3, 1.0);
    batch.push(series(&[("__name__", "m"), ("i", "old")], &[(NOW_MS - 48 * 3_600_000, 1.0)]));
    batch.push(series(&[("__name__", "m"), ("i", "new")], &[(NOW_MS + 3_600_000, 1.0)]));
    batch.push(series(&[("i", "nameless")], &[(NOW_MS, 1.0)]));
    let answer = members.write(0, batch).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text().contains("and 2 more"), "{}", answer.text());
    members.have(0..3, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_ring_document_is_refused_with_the_newer_and_the_write_routed_again() {
    let members = Members::start(3, &view(3, 3, 1)).await;
    let newer = view(3, 3, 2);
    members.0[1].membership.adopt(newer.clone());
    members.0[2].membership.adopt(newer.clone());
    let first = members.0[0].membership.clone();
    let adopting = tokio::spawn(async move {
        while first.offered.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        first.adopt(newer);
    });
    let answer = members.write(0, samples(20, 1.0)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    adopting.await.unwrap();
    members.have(0..3, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_series_travel_as_refs_and_forgotten_ones_are_named_again() {
    let mut members = Members::start(3, &view(3, 3, 1)).await;
    let at = |i: i64| {
        let one = |name: usize| {
            series(&[("__name__", "m"), ("i", &name.to_string())], &[(NOW_MS + i * 1000, i as f64)])
        };
        (0..300).map(one).collect::<Vec<_>>()
    };
    let sent = |members: &Members| members.0[0].me.sent_bytes();
    assert_eq!(members.write(0, at(0)).await.status, StatusCode::NO_CONTENT);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let first = sent(&members);
    assert_eq!(members.write(0, at(1)).await.status, StatusCode::NO_CONTENT);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let second = sent(&members) - first;
    assert!(second < 2 * 300 * 8, "{second} bytes for 300 samples to two peers, {first} with labels");
    // A peer that begins anew knows no ref.
    members.0[1].down().await;
    members.0[2].down().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    members.0[1].up(CUT_OFF).await;
    members.0[2].up(CUT_OFF).await;
    for i in 2..100 {
        if members.write(0, at(i)).await.status == StatusCode::NO_CONTENT {
            return members.have(0..3, 300).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("series aren't named again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_gets_what_it_missed_failed_writes_included() {
    let mut members = Members::start(3, &view(3, 3, 1)).await;
    members.0[1].down().await;
    members.0[2].down().await;
    let failed = members.write(0, samples(10, 1.0)).await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    let old = series(&[("__name__", "m"), ("i", "late")], &[(NOW_MS - 60_000, 5.0)]);
    members.write(0, vec![old]).await;
    let hints = members.0[0].node.app.replicator.hints().clone();
    for _ in 0..100 {
        if hints.pending().stores == [StoreId(2), StoreId(3)] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(hints.pending().bytes > 0);
    members.0[1].up(CUT_OFF).await;
    members.0[2].up(CUT_OFF).await;
    for _ in 0..150 {
        hints.hurry();
        if hints.pending().bytes == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(hints.pending().bytes, 0);
    members.have(0..3, 11).await;
    let metrics = members.0[0].node.get("/metrics").await;
    for name in
        ["carillon_hints_replayed_total", "carillon_peer_sent_bytes_total", "carillon_replicas_missed_total"]
    {
        assert!(metrics.text().contains(name), "{}", metrics.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_talks_nonsense_ends_its_own_stream_alone() {
    use proto::peer::write::Frame;
    use proto::peer::write::write_client::WriteClient;
    let members = Members::start(3, &view(3, 3, 1)).await;
    let stranger = Me::new(StoreId(3), Protocol::default());
    stranger.join(CLUSTER).unwrap();
    stranger.set_addresses(BTreeMap::from([(StoreId(1), members.0[0].address.clone())]));
    let peers = Peers::new(Arc::new(TcpNet), stranger);
    for (body, tenant) in [
        (&[9, 1, 0, 0, 0, 7][..], "t"),
        (&[1, 255, 255, 255, 255], "t"),
        (&[2, 1, 0, 0, 0, 64], "t"),
        (&[], "../x"),
    ] {
        let channel = peers.to_store(StoreId(1), crate::grpc::Lane::Data).unwrap();
        let frame = Frame {
            id: 1,
            epoch: 1,
            tenant: tenant.to_owned(),
            body: body.to_vec().into(),
            ..Frame::default()
        };
        let mut answers =
            WriteClient::new(channel).push(tokio_stream::iter([frame])).await.unwrap().into_inner();
        let refused = answers.message().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    }
    assert_eq!(members.write(1, samples(5, 1.0)).await.status, StatusCode::NO_CONTENT);
    members.have(0..3, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histograms_exemplars_and_metadata_have_copies_too() {
    let members = Members::start(3, &view(3, 3, 1)).await;
    let histogram = pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(3)),
        sum: f64::from_bits(tsdb::model::STALE_NAN_BITS),
        positive_spans: vec![pb::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![1, 1],
        timestamp: NOW_MS,
        ..Default::default()
    };
    let live = pb::Histogram { sum: 4.5, timestamp: NOW_MS - 1000, ..histogram.clone() };
    let exemplar = pb::Exemplar { labels: Vec::new(), value: 1.0, timestamp: NOW_MS };
    let stale = f64::from_bits(tsdb::model::STALE_NAN_BITS);
    let request = pb::WriteRequest {
        timeseries: vec![
            pb::TimeSeries { histograms: vec![live, histogram], ..series(&[("__name__", "h")], &[]) },
            // As Prometheus sends them: an exemplar stands in a series of its own.
            pb::TimeSeries { exemplars: vec![exemplar], ..series(&[("__name__", "h")], &[]) },
            series(&[("__name__", "m"), ("i", "1")], &[(NOW_MS - 1000, 1.0), (NOW_MS, stale)]),
        ],
        metadata: vec![pb::MetricMetadata {
            r#type: 3,
            metric_family_name: "h".to_owned(),
            help: "helps".to_owned(),
            unit: "s".to_owned(),
        }],
    };
    let answer = members.0[0].node.write_request(&request).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    let asked = [
        format!("query?query=h&time={}", (NOW_MS - 1000) / 1000),
        format!("query?query=h&time={}", NOW_MS / 1000),
        format!("query?query=m[1m]&time={}", NOW_MS / 1000),
        "query_exemplars?query=h".to_owned(),
        "metadata?metric=h".to_owned(),
    ];
    tokio::time::sleep(Duration::from_millis(500)).await;
    for path in asked {
        let path = format!("/api/v1/{path}");
        let first = members.0[0].node.get(&path).await.data();
        for node in 1..3 {
            assert_eq!(members.0[node].node.get(&path).await.data(), first, "{path}");
        }
    }
    let kept = members.0[2].node.get("/api/v1/metadata?metric=h").await.data();
    assert_eq!(kept["h"][0]["help"], "helps");
    let exemplars = members.0[1].node.get("/api/v1/query_exemplars?query=h").await.data();
    assert_eq!(exemplars[0]["exemplars"][0]["value"], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_leave_nothing_broken() {
    let members = Members::start(3, &view(3, 3, 1)).await;
    for i in 0..60u64 {
        // Dropped wherever it happens to be.
        let write = members.write((i % 3) as usize, samples(40, i as f64));
        let _ = tokio::time::timeout(Duration::from_micros(150 * i), write).await;
    }
    let answer = members.write(0, samples(40, 1000.0)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    members.have(0..3, 40).await;
    let is_same = async || {
        let first = members.values(0, "m").await;
        first == members.values(1, "m").await && first == members.values(2, "m").await
    };
    for _ in 0..100 {
        if is_same().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("replicas differ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_leaves_hints_of_what_nobody_answered() {
    let mut members = Members::start(3, &view(3, 3, 1)).await;
    members.0[2].down().await;
    assert_eq!(members.write(0, samples(10, 1.0)).await.status, StatusCode::NO_CONTENT);
    members.0[0].node.stop.cancel();
    let disk = members.0[0].node.disk.clone();
    let hints = members.0[0].node.app.replicator.hints().clone();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if hints.pending().stores == [StoreId(3)] && disk.list(&tsdb::files::hints(3)).is_ok() {
            return;
        }
    }
    panic!("there is no hint");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_ends_the_streams_of_others_instead_of_waiting_for_them() {
    let mut members = Members::start(3, &view(3, 3, 1)).await;
    members.0[2].down().await;
    members.0[2].up(Duration::from_secs(600)).await;
    for value in 0..100 {
        assert_eq!(members.write(0, samples(10, f64::from(value))).await.status, StatusCode::NO_CONTENT);
        if members.values(2, "m").await.len() == 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    members.have([2], 10).await;
    members.0[2].node.app.stopping.cancel();
    let (stop, server) = (members.0[2].stop.take().unwrap(), members.0[2].server.take().unwrap());
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(60), server).await.expect("it waits").unwrap();
    // The others go on, and keep for it what it misses.
    assert_eq!(members.write(0, samples(20, 1.0)).await.status, StatusCode::NO_CONTENT);
    members.have(0..2, 20).await;
}

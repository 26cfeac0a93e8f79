//! Aggregations that owners make: the same answers as from series that are fetched, and series fetched where it must be.

use std::pin::Pin;

use proto::peer::read as pb;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use super::incomplete::beset;
use super::*;
use crate::grpc::read::{Opening, Read, SelectPart, seal};
use crate::http::tests::NOW_MS;

const RANGE_S: i64 = 120;

/// `m…`, eight samples each.
async fn filled(stores: u128, rf: u32, series: i32) -> Cluster {
    let cluster = Cluster::of(stores, rf).await;
    for i in 0..series {
        for step in 0..8 {
            let at_ms = NOW_MS - RANGE_S * 1000 + i64::from(step) * 15_000;
            cluster.write(&format!("m{i}"), 0.1 + f64::from(i * step), at_ms, &[]);
        }
    }
    cluster
}

fn path(query: &str, more: &str) -> String {
    let (start, end) = (NOW_MS / 1000 - RANGE_S, NOW_MS / 1000);
    let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("/api/v1/query_range?start={start}&end={end}&step=15&stats=all&query={query}{more}")
}

const QUERIES: [&str; 7] = [
    "sum({job=\"a\"})",
    "avg by (job) (rate({job=\"a\"}[1m]))",
    "stddev(rate({job=\"a\"}[1m])) / count({job=\"a\"} > 10)",
    "topk(3, max by (__name__) ({job=\"a\"}))",
    "count by (__name__) ({job=\"a\"}) or vector(1)",
    "min({job=\"a\"}) - sum(increase({__name__=~\"m.*\"}[90s]))",
    "sum(nothing)",
];

/// A node's answer, without what depends on how it came, and how that was.
async fn answered(cluster: &Cluster, number: usize, query: &str, more: &str) -> (Value, String) {
    let answer = cluster.members[number - 1].node.get(&path(query, more)).await;
    assert!(answer.status.is_success(), "{query}: {:?}", answer.error());
    let mut json = answer.json();
    let stats = json["data"]["stats"].take();
    let push_down = stats["carillon"]["pushDown"].as_str().unwrap().to_owned();
    json["samples"] = stats["samples"]["totalQueryableSamplesPerStep"].clone();
    json["series"] = stats["carillon"]["series"].clone();
    (json, push_down)
}

/// That both ways give the same through each node.
async fn compare(cluster: &Cluster, queries: &[&str]) {
    for query in queries {
        let (first, _) = answered(cluster, 1, query, "&push_down=false").await;
        for number in 1..=cluster.members.len() {
            let (fetched, why) = answered(cluster, number, query, "&push_down=false").await;
            assert_eq!(why, "it isn't wanted");
            assert_eq!(fetched, first, "{query}");
            let (pushed, how) = answered(cluster, number, query, "&push_down=true").await;
            assert_eq!(how, "done", "{query} through {number}");
            assert_eq!(pushed, first, "{query} through {number}");
        }
    }
}

#[tokio::test]
async fn owners_aggregate_to_what_their_series_give() {
    for (stores, rf) in [(3, 3), (3, 2), (5, 3), (4, 1)] {
        let cluster = filled(stores, rf, 30).await;
        compare(&cluster, &QUERIES).await;
        let metrics = cluster.members[0].node.get("/metrics").await;
        assert!(metrics.text().contains(&format!("carillon_query_pushed_down_total {}", QUERIES.len())));
    }
}

#[tokio::test]
async fn unequal_owners_answer_as_one() {
    for (stores, rf) in [(3, 3), (5, 3)] {
        let cluster = filled(stores, rf, 40).await;
        // A series that one alone has, samples that others have not, and two values for one time.
        for (i, name) in ["only", "m3", "m7", "m8"].into_iter().enumerate() {
            for (at, missed_by) in [(1, vec![1, 2]), (2, vec![2, 3]), (3, vec![1, 4, 5])] {
                let at_ms = NOW_MS - 20_000 + at * 1000;
                cluster.write(name, 100.0 * (i as f64 + 1.0), at_ms, &missed_by);
            }
        }
        cluster.write("m9", 1e6, NOW_MS - 10_000, &[1, 2]);
        cluster.write("m9", 2e6, NOW_MS - 10_000, &[3, 4, 5]);
        compare(&cluster, &QUERIES).await;
    }
}

#[tokio::test]
async fn what_somebody_has_who_is_no_owner_counts() {
    let cluster = filled(5, 3, 30).await;
    let labels = Labels::from_sorted([("__name__", "m5"), ("job", "a")]);
    for member in &cluster.members {
        member.append(&labels, Sample::float(NOW_MS - 5_000, 1.0));
    }
    // Owners have it too; and this one only he has.
    let lone = Labels::from_sorted([("__name__", "lone"), ("job", "a")]);
    let view = View::new(cluster.document.clone()).unwrap();
    let token = series_token("default", lone.iter());
    let is_owner = |m: &&Member| view.owns(view.index(m.known.me).unwrap(), token);
    let stranger = cluster.members.iter().find(|m| !is_owner(m)).unwrap();
    stranger.append(&lone, Sample::float(NOW_MS - 5_000, 77.0));
    compare(&cluster, &QUERIES).await;
}

type Answer = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::Sealed, Status>> + Send>>;

/// What a node does otherwise than it should.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    KnowsNoDigests,
    FailsToFold,
    HangsAtLists,
    HangsAtFolds,
}

/// Answers as a node does, but for its fault, and tells which digests it was asked for.
struct Weak {
    reads: Reads,
    fault: Fault,
    asked: Arc<Mutex<Vec<Round>>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Round {
    Buckets,
    Sketches,
    Lists,
}

/// Puts one in the place of node 2; what it is asked for.
async fn weaken(cluster: &Cluster, fault: Fault) -> Arc<Mutex<Vec<Round>>> {
    let asked = Arc::<Mutex<Vec<Round>>>::default();
    let reads = Reads::new(cluster.members[1].node.app.clone());
    beset(cluster, Weak { reads, fault, asked: asked.clone() }).await;
    asked
}

fn hanging() -> Response<Answer> {
    let opening = Some(Opening { epoch: 1, ..Opening::default() });
    let opening = seal(&SelectPart { opening, ..SelectPart::default() }.into_message());
    let first = tokio_stream::iter([Ok(opening)]);
    Response::new(Box::pin(futures_util::StreamExt::chain(first, tokio_stream::pending())))
}

#[tonic::async_trait]
impl Read for Weak {
    type SelectStream = Answer;
    type NamesStream = Answer;
    type DigestsStream = Answer;
    type FoldStream = Answer;

    async fn select(&self, request: Request<pb::SelectRequest>) -> Result<Response<Answer>, Status> {
        self.reads.select(request).await
    }

    async fn names(&self, request: Request<pb::NamesRequest>) -> Result<Response<Answer>, Status> {
        self.reads.names(request).await
    }

    async fn digests(&self, request: Request<pb::DigestsRequest>) -> Result<Response<Answer>, Status> {
        let message = request.get_ref();
        self.asked.lock().push(match (message.listed.is_empty(), message.sketched) {
            (true, _) => Round::Buckets,
            (false, true) => Round::Sketches,
            (false, false) => Round::Lists,
        });
        match self.fault {
            Fault::KnowsNoDigests => Err(Status::unimplemented("an older version")),
            Fault::HangsAtLists if !message.listed.is_empty() => Ok(hanging()),
            _ => self.reads.digests(request).await,
        }
    }

    async fn fold(&self, request: Request<pb::FoldRequest>) -> Result<Response<Answer>, Status> {
        match self.fault {
            Fault::FailsToFold => Err(Status::unavailable("it has just gone")),
            Fault::HangsAtFolds => Ok(hanging()),
            _ => self.reads.fold(request).await,
        }
    }

    async fn learn(&self, request: Request<pb::LearnRequest>) -> Result<Response<pb::LearnResponse>, Status> {
        self.reads.learn(request).await
    }
}

#[tokio::test]
async fn who_fails_on_the_way_is_asked_for_series() {
    for (fault, expected) in [
        (Fault::FailsToFold, "an owner failed on the way"),
        (Fault::HangsAtFolds, "an owner took too long"),
        (Fault::KnowsNoDigests, "an owner is silent"),
    ] {
        let cluster = filled(4, 1, 30).await;
        weaken(&cluster, fault).await;
        for query in QUERIES {
            let (fetched, _) = answered(&cluster, 1, query, "&push_down=false").await;
            let (pushed, why) = answered(&cluster, 1, query, "&push_down=true").await;
            assert_eq!(why, expected, "{query}");
            assert_eq!(pushed, fetched, "{query}");
        }
    }
}

#[tokio::test]
async fn who_hangs_when_series_are_compared_is_asked_for_them() {
    let cluster = filled(3, 3, 30).await;
    cluster.write("m3", 1.0, NOW_MS, &[2]);
    let asked = weaken(&cluster, Fault::HangsAtLists).await;
    let (fetched, _) = answered(&cluster, 1, QUERIES[0], "&push_down=false").await;
    let (pushed, why) = answered(&cluster, 1, QUERIES[0], "&push_down=true").await;
    assert_eq!((why.as_str(), pushed), ("an owner took too long", fetched));
    assert_eq!(*asked.lock(), [Round::Buckets, Round::Lists]);
}

/// So many that sketches are shorter than lists.
const MANY: i32 = 6_000;

async fn many(stores: u128) -> Cluster {
    let cluster = Cluster::of(stores, 3).await;
    let view = View::new(cluster.document.clone()).unwrap();
    for i in 0..MANY {
        let labels = Labels::from_sorted([("__name__", format!("m{i}").as_str()), ("job", "a")]);
        let token = series_token("default", labels.iter());
        for member in &cluster.members {
            if view.owns(view.index(member.known.me).unwrap(), token) {
                member.append(&labels, Sample::float(NOW_MS - 60_000, f64::from(i)));
            }
        }
    }
    cluster
}

const SUMS: [&str; 2] = ["sum({job=\"a\"})", "count(last_over_time({job=\"a\"}[1m]))"];

#[tokio::test]
async fn few_of_many_series_that_differ_are_told_by_sketches() {
    for stores in [3, 5] {
        let cluster = many(stores).await;
        // Missed by one, on its way to two, two values for one time, and what one alone has.
        for (i, missed_by) in [(5, vec![1]), (6, vec![2, 3]), (7, vec![1, 4]), (MANY, vec![2, 3, 4])] {
            cluster.write(&format!("m{i}"), 0.5, NOW_MS - 10_000, &missed_by);
        }
        cluster.write("m9", 1e6, NOW_MS - 10_000, &[1, 2]);
        cluster.write("m9", 2e6, NOW_MS - 10_000, &[3, 4, 5]);
        let asked = weaken(&cluster, Fault::None).await;
        compare(&cluster, &SUMS).await;
        // Its own questions aside.
        let others = (stores as usize - 1) * SUMS.len();
        assert_eq!(*asked.lock(), [Round::Buckets, Round::Sketches].repeat(others));
    }
}

#[tokio::test]
async fn series_are_listed_where_more_differ_than_sketches_hold() {
    let cluster = many(3).await;
    // Of one range of tokens all.
    let differ = |i: &i32| {
        let labels = Labels::from_sorted([("__name__", format!("m{i}").as_str()), ("job", "a")]);
        series_token("default", labels.iter()) >> 58 == 0
    };
    for i in (0..MANY).filter(differ) {
        cluster.write(&format!("m{i}"), 0.5, NOW_MS - 10_000, &[1]);
    }
    let asked = weaken(&cluster, Fault::None).await;
    compare(&cluster, &SUMS).await;
    let rounds = [Round::Buckets, Round::Sketches, Round::Lists];
    assert_eq!(*asked.lock(), rounds.repeat(2 * SUMS.len()));
}

/// Why node 1 doesn't have a sum made by owners.
async fn reason(cluster: &Cluster, query: &str, more: &str) -> String {
    answered(cluster, 1, query, more).await.1
}

#[tokio::test]
async fn series_are_fetched_wherever_something_is_unusual() {
    let sum = QUERIES[0];
    let mut cluster = filled(4, 3, 30).await;
    assert_eq!(reason(&cluster, sum, "").await, "there are few series");
    assert_eq!(reason(&cluster, sum, "&push_down=false").await, "it isn't wanted");
    let replicas = "&push_down=true&replicaLabels[]=instance";
    assert_eq!(reason(&cluster, sum, replicas).await, "replicas of scrapers are merged");
    assert_eq!(reason(&cluster, "{job=\"a\"}", "&push_down=true").await, "its series are needed themselves");
    assert_eq!(
        reason(&cluster, "quantile(0.5, {job=\"a\"})", "&push_down=true").await,
        "its series are needed themselves"
    );
    cluster.members[0].known.dead.lock().insert(StoreId(2));
    assert_eq!(reason(&cluster, sum, "&push_down=true").await, "an owner seems to be away");
    cluster.members[0].known.dead.lock().clear();
    let placement = cluster.document.current().id;
    cluster.members[1].known.disclaimed.lock().insert(placement);
    assert_eq!(reason(&cluster, sum, "&push_down=true").await, "an owner doesn't vouch for what it has");
    cluster.members[1].known.disclaimed.lock().clear();
    assert_eq!(reason(&cluster, sum, "&push_down=true").await, "done");
    let joint = cluster.document.change(&ring::epoch::Change::leave(StoreId(3))).unwrap();
    cluster.adopt(joint);
    assert_eq!(reason(&cluster, sum, "&push_down=true").await, "several placements are open");
    let alone = filled(1, 1, 3).await;
    let answer = alone.members[0].node.get(&path(sum, "&push_down=true")).await;
    assert_eq!(answer.data()["stats"]["carillon"]["pushDown"], "this node keeps everything");
}

#[tokio::test]
async fn many_series_in_few_groups_are_pushed_down_unasked() {
    let cluster = filled(3, 3, 300).await;
    assert_eq!(reason(&cluster, QUERIES[1], "").await, "done");
    assert_eq!(reason(&cluster, QUERIES[4], "").await, "there are many groups");
    // Where most samples differ, digests and states would come on top of the series.
    for i in 0..200 {
        cluster.write(&format!("m{i}"), 1.0, NOW_MS, &[2]);
    }
    assert_eq!(reason(&cluster, QUERIES[1], "").await, "the owners' samples differ too much");
}

#[tokio::test]
async fn explain_tells_who_aggregated_what() {
    let cluster = filled(5, 3, 60).await;
    let path = path(QUERIES[1], "&push_down=true").replace("query_range", "query_explain");
    let data = cluster.members[0].node.get(&path).await.data();
    let step = &data["plan"];
    assert_eq!(step["step"], "aggregate");
    let others = step["pushedDown"].as_array().unwrap();
    let own = step["inputs"][0]["inputs"][0]["series"].as_u64().unwrap();
    let theirs: u64 = others.iter().map(|other| other["series"].as_u64().unwrap()).sum();
    assert_eq!((own + theirs, data["stats"]["carillon"]["series"].as_u64()), (60, Some(60)), "{data:#}");
    assert!(theirs > 0 && others.iter().all(|other| other["bytes"].as_u64().unwrap() > 0), "{others:?}");
    assert_eq!(data["stats"]["carillon"]["pushDown"], json!("done"));
}

#[tokio::test]
async fn what_others_have_folded_is_paid_for() {
    let cluster = filled(3, 1, 30).await;
    let node = &cluster.members[0].node;
    let mut config = (**node.app.config.load()).clone();
    config.query_max_memory = crate::config::Size { bytes: 1500 };
    node.app.config.store(Arc::new(config));
    // Digests of these few series fit, their states by name don't.
    let (status, kind, message) = node.get(&path(QUERIES[4], "&push_down=true")).await.error();
    assert_eq!((status, kind.as_str()), (422, "execution"));
    assert!(message.contains("what other nodes sent") && message.contains("query.max_memory"), "{message}");
    assert!(node.get("/metrics").await.text().contains("carillon_query_memory_bytes 0"));
}

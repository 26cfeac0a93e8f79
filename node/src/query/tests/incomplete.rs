//! Nodes that are away, deaf, or send garbage: an answer is complete, or says that it isn't.

use std::pin::Pin;
use tokio::time::Instant;

use proto::peer::read as pb;
use tonic::{Request, Response, Status};

use super::*;
use crate::grpc::read::{Opening, Read, ReadServer, SelectPart, seal};
use crate::http::tests::NOW_MS;
use crate::query::fanout::STRAGGLER_WAIT;

fn counting() -> String {
    format!("/api/v1/query?time={}&query=count({{job=\"a\"}})", NOW_MS / 1000)
}

async fn filled(stores: u128, rf: u32) -> Cluster {
    let cluster = Cluster::of(stores, rf).await;
    for i in 0..30 {
        cluster.write(&format!("m{i}"), f64::from(i), NOW_MS, &[]);
    }
    cluster
}

/// The count through a node, and what the header says.
async fn counted(cluster: &Cluster, number: usize, more: &str) -> Result<(String, String), (u16, String)> {
    let answer = cluster.members[number - 1].node.get(&(counting() + more)).await;
    if !answer.status.is_success() {
        let (status, kind, message) = answer.error();
        assert_eq!(kind, "unavailable");
        return Err((status, message));
    }
    let coverage = answer.headers["x-carillon-coverage"].to_str().unwrap().to_owned();
    Ok((answer.data()["result"][0]["value"][1].as_str().unwrap_or("0").to_owned(), coverage))
}

#[tokio::test]
async fn one_of_three_away_changes_nothing() {
    let cluster = filled(3, 3).await;
    // And it had seen everything first, where the others have all of it too.
    cluster.kill(1).await;
    for number in [2, 3] {
        let (count, coverage) = counted(&cluster, number, "").await.unwrap();
        assert_eq!(count, "30");
        assert!(coverage.starts_with("complete; nodes=2/3; "), "{coverage}");
    }
}

#[tokio::test]
async fn two_of_three_away_is_an_error_or_flagged() {
    let cluster = filled(3, 3).await;
    cluster.kill(1).await;
    cluster.kill(2).await;
    let (status, message) = counted(&cluster, 3, "").await.unwrap_err();
    assert_eq!(status, 503);
    for part in ["100.0% of the series", "n1", "n2", "partial_response=true"] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
    let (count, coverage) = counted(&cluster, 3, "&partial_response=true").await.unwrap();
    assert_eq!(count, "30");
    assert!(coverage.starts_with("incomplete; nodes=1/3; "), "{coverage}");
    let flagged = cluster.members[2].node.get(&(counting() + "&partial_response=true&stats=all")).await;
    let warning = flagged.json()["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.starts_with("the answer is incomplete"), "{warning}");
    let stats = &flagged.data()["stats"]["carillon"]["coverage"];
    assert_eq!((&stats["complete"], &stats["answered"]), (&false.into(), &1.into()));
    assert_eq!(stats["silent"].as_array().unwrap().len(), 2);
    assert!(
        cluster.members[2].node.get("/metrics").await.text().contains("carillon_query_incomplete_total 3")
    );
    for path in ["/api/v1/labels", "/api/v1/series?match[]=m1", "/api/v1/metadata", "/api/v1/status/tsdb"] {
        assert_eq!(cluster.members[2].node.get(path).await.status, 503, "{path}");
        let more = if path.contains('?') { "&" } else { "?" };
        let flagged = cluster.members[2].node.get(&format!("{path}{more}partial_response=true")).await;
        assert!(flagged.json()["warnings"][0].as_str().unwrap().contains("incomplete"), "{path}");
    }
}

#[tokio::test]
async fn without_copies_every_node_is_needed() {
    let cluster = filled(3, 1).await;
    cluster.kill(3).await;
    let (status, message) = counted(&cluster, 1, "").await.unwrap_err();
    assert_eq!(status, 503);
    assert!(message.contains("n3") && !message.contains("n2"), "{message}");
}

#[tokio::test]
async fn a_deaf_node_asks_those_it_takes_for_dead() {
    let cluster = filled(3, 3).await;
    *cluster.members[0].known.dead.lock() = [StoreId(2), StoreId(3)].into();
    let (count, coverage) = counted(&cluster, 1, "").await.unwrap();
    assert_eq!(count, "30");
    assert!(coverage.starts_with("complete; nodes=3/3; "), "{coverage}");
    // What only others have is no exception.
    cluster.write("hidden", 1.0, NOW_MS, &[1]);
    assert_eq!(counted(&cluster, 1, "").await.unwrap().0, "31");
}

#[tokio::test]
async fn who_seems_dead_is_not_asked_where_the_others_suffice() {
    let cluster = filled(3, 3).await;
    cluster.members[0].known.dead.lock().insert(StoreId(2));
    let (count, coverage) = counted(&cluster, 1, "").await.unwrap();
    assert_eq!(count, "30");
    assert!(coverage.starts_with("complete; nodes=2/3; "), "{coverage}");
}

#[tokio::test]
async fn owners_that_do_not_vouch_are_not_counted() {
    let cluster = filled(3, 3).await;
    let placement = cluster.document.current().id;
    cluster.members[1].known.disclaimed.lock().insert(placement);
    assert!(counted(&cluster, 1, "").await.unwrap().1.starts_with("complete; "));
    cluster.members[2].known.disclaimed.lock().insert(placement);
    let answer = cluster.members[0].node.get(&counting()).await;
    let warning = answer.json()["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.starts_with("samples may be lost"), "{warning}");
    assert!(answer.headers["x-carillon-coverage"].to_str().unwrap().starts_with("lossy; "));
    cluster.kill(2).await;
    assert_eq!(counted(&cluster, 1, "").await.unwrap_err().0, 503);
}

#[derive(Clone, Copy)]
enum Mischief {
    /// Bytes that aren't a frame.
    Garbage,
    /// A frame that was damaged on its way.
    Damaged,
    /// Ends before it is done.
    Short,
    /// Labels that aren't.
    Labels,
    /// Begins, and says nothing more.
    Silence,
}

type Answer = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::Sealed, Status>> + Send>>;

#[tonic::async_trait]
impl Read for Mischief {
    type SelectStream = Answer;
    type NamesStream = Answer;
    type DigestsStream = Answer;
    type FoldStream = Answer;

    async fn select(&self, _: Request<pb::SelectRequest>) -> Result<Response<Answer>, Status> {
        let opening = Some(Opening { epoch: 1, ..Opening::default() });
        let opening = seal(&SelectPart { opening, ..SelectPart::default() }.into_message());
        let bad = match self {
            Self::Garbage => pb::Sealed { crc32c: 7, body: bytes::Bytes::from_static(b"garbage") },
            Self::Damaged => pb::Sealed { crc32c: opening.crc32c ^ 1, body: opening.body.clone() },
            Self::Labels => {
                let series = pb::Series { labels: bytes::Bytes::from_static(b"\x09x"), ..Default::default() };
                seal(&pb::SelectFrame { series: vec![series], is_last: true, ..Default::default() })
            }
            Self::Short => return Ok(Response::new(Box::pin(tokio_stream::iter([Ok(opening)])))),
            Self::Silence => {
                let first = tokio_stream::iter([Ok(opening)]);
                return Ok(Response::new(Box::pin(futures_util::StreamExt::chain(
                    first,
                    tokio_stream::pending(),
                ))));
            }
        };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(opening), Ok(bad)]))))
    }

    async fn names(&self, _: Request<pb::NamesRequest>) -> Result<Response<Answer>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn digests(&self, _: Request<pb::DigestsRequest>) -> Result<Response<Answer>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn fold(&self, _: Request<pb::FoldRequest>) -> Result<Response<Answer>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn learn(&self, _: Request<pb::LearnRequest>) -> Result<Response<pb::LearnResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// Puts another service in the place of node 2.
pub(super) async fn beset(cluster: &Cluster, mischief: impl Read) {
    let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().unwrap().to_string();
    let routes = Routes::default().add_service(ReadServer::new(mischief));
    let member = &cluster.members[1];
    tokio::spawn(grpc::serve(listener, routes, member.me.clone(), Duration::ZERO, member.stop.clone()));
    for other in &cluster.members {
        let mut addresses: BTreeMap<_, _> =
            cluster.members.iter().map(|m| (m.known.me, other.me.address(m.known.me).unwrap())).collect();
        addresses.insert(StoreId(2), address.clone());
        other.me.set_addresses(addresses);
    }
}

#[tokio::test]
async fn a_peer_that_sends_garbage_counts_as_silent() {
    for mischief in [Mischief::Garbage, Mischief::Damaged, Mischief::Short, Mischief::Labels] {
        let cluster = filled(3, 3).await;
        beset(&cluster, mischief).await;
        let (count, coverage) = counted(&cluster, 1, "").await.unwrap();
        assert_eq!(count, "30");
        assert!(coverage.starts_with("complete; nodes=2/3; "), "{coverage}");
        cluster.kill(3).await;
        assert_eq!(counted(&cluster, 1, "").await.unwrap_err().0, 503);
    }
}

#[tokio::test]
async fn a_peer_that_hangs_costs_a_moment() {
    let cluster = filled(3, 3).await;
    beset(&cluster, Mischief::Silence).await;
    let began = Instant::now();
    let (count, coverage) = counted(&cluster, 1, "").await.unwrap();
    assert_eq!(count, "30");
    assert!(coverage.starts_with("complete; nodes=2/3; "), "{coverage}");
    assert!(
        began.elapsed() >= STRAGGLER_WAIT && began.elapsed() < 8 * STRAGGLER_WAIT,
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn what_others_send_is_paid_for() {
    let cluster = filled(3, 1).await;
    let node = &cluster.members[0].node;
    let mut config = (**node.app.config.load()).clone();
    config.query_max_memory = crate::config::Size { bytes: 100 };
    node.app.config.store(Arc::new(config));
    let (status, kind, message) = node.get(&counting()).await.error();
    assert_eq!((status, kind.as_str()), (422, "execution"));
    assert!(message.contains("query.max_memory"), "{message}");
    assert!(node.get("/metrics").await.text().contains("carillon_query_memory_bytes 0"));
}

//! Two nodes on the loopback interface: who is let through, and what happens when nobody answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::peer::write::write_client::WriteClient;
use proto::peer::write::write_server::{Write, WriteServer};
use proto::peer::write::{Answer, Frame};
use ring::{ClusterId, StoreId};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use super::*;
use crate::env::{Net as _, TcpNet};

/// Answers each frame with its id.
struct Echo;

#[tonic::async_trait]
impl Write for Echo {
    type PushStream = tokio_stream::wrappers::ReceiverStream<Result<Answer, Status>>;

    async fn push(&self, frames: Request<Streaming<Frame>>) -> Result<Response<Self::PushStream>, Status> {
        assert!(frames.extensions().get::<Header>().is_some());
        let mut frames = frames.into_inner();
        let (answers, stream) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                let answer = Answer { id: frame.id, ..Answer::default() };
                if answers.send(Ok(answer)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(stream.into()))
    }
}

const CLUSTER: ClusterId = ClusterId(9);

fn node(store: u128, cluster: ClusterId, protocol: Protocol) -> Arc<Me> {
    let me = Me::new(StoreId(store), protocol);
    me.join(cluster).unwrap();
    me
}

async fn serving(me: &Arc<Me>) -> (SocketAddr, CancellationToken) {
    let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_address().unwrap(), CancellationToken::new());
    let routes = Routes::default().add_service(WriteServer::new(Echo));
    tokio::spawn(serve(listener, routes, me.clone(), Duration::from_secs(1), stop.clone()));
    (address, stop)
}

/// A node that takes `address` for that of store `meant`.
fn calling(me: &Arc<Me>, meant: u128, address: SocketAddr) -> Arc<Peers> {
    me.set_addresses(BTreeMap::from([(StoreId(meant), address.to_string())]));
    Peers::new(Arc::new(TcpNet), me.clone())
}

async fn push(peers: &Peers, to: u128, frames: u64) -> Result<Vec<u64>, Status> {
    let channel = peers.to_store(StoreId(to), Lane::Data)?.timeout(Duration::from_secs(5));
    let frames: Vec<_> = (1..=frames).map(|id| Frame { id, ..Frame::default() }).collect();
    let mut answers = WriteClient::new(channel).push(tokio_stream::iter(frames)).await?.into_inner();
    let mut ids = Vec::new();
    while let Some(answer) = answers.message().await? {
        ids.push(answer.id);
    }
    Ok(ids)
}

#[tokio::test]
async fn nodes_of_a_cluster_talk_and_learn_of_newer_epochs() {
    let (a, b) = (node(1, CLUSTER, Protocol::default()), node(2, CLUSTER, Protocol::shifted(1)));
    b.adopt(17);
    a.adopt(3);
    let (address, _stop) = serving(&b).await;
    let peers = calling(&a, 2, address);
    let mut newest = a.newest();
    assert_eq!(push(&peers, 2, 3).await.unwrap(), [1, 2, 3]);
    newest.changed().await.unwrap();
    assert_eq!(*newest.borrow(), Seen { epoch: 17, store: Some(StoreId(2)) });
    assert_eq!(*b.newest().borrow(), Seen { epoch: 3, store: Some(StoreId(1)) });
}

#[tokio::test]
async fn strangers_are_refused_with_both_sides_named() {
    let b = node(2, CLUSTER, Protocol::default());
    let (address, _stop) = serving(&b).await;
    let stale = calling(&node(1, CLUSTER, Protocol::default()), 3, address);
    let foreign = calling(&node(1, ClusterId(8), Protocol::default()), 2, address);
    let newer = calling(&node(1, CLUSTER, Protocol::shifted(2)), 2, address);
    let (two, three) = (StoreId(2).to_string(), StoreId(3).to_string());
    for (peers, to, named) in [
        (stale, 3, [three, two]),
        (foreign, 2, [CLUSTER.to_string(), ClusterId(8).to_string()]),
        (newer, 2, ["0-1".to_owned(), "2-3".to_owned()]),
    ] {
        let refused = push(&peers, to, 1).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        assert!(named.iter().all(|name| refused.message().contains(name)), "{}", refused.message());
        // Whoever answers is there, even if it says no.
        assert!(!peers.is_unreachable(StoreId(to), Lane::Data));
    }
}

#[tokio::test]
async fn what_is_no_peer_port_is_told_from_one() {
    let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().unwrap();
    let settings = crate::server::ServerSettings {
        max_connections: 4,
        header_timeout: Duration::from_secs(1),
        stop_timeout: Duration::from_secs(1),
        http2: crate::server::Http2::Beside1,
    };
    tokio::spawn(crate::server::serve(listener, axum::Router::new(), settings, CancellationToken::new()));
    let peers = calling(&node(1, CLUSTER, Protocol::default()), 2, address);
    let refused = push(&peers, 2, 1).await.unwrap_err();
    assert!(refused.message().contains("is it a peer port?"), "{}", refused.message());
}

#[tokio::test]
async fn a_silent_address_fails_in_time_and_then_at_once_until_somebody_calls_from_there() {
    // Accepts, and never says a word.
    let mut listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(connection) = listener.accept().await {
            kept.push(connection);
        }
    });
    let me = node(1, CLUSTER, Protocol::default());
    let peers = calling(&me, 2, address);
    let call = || async {
        let channel = peers.to_store(StoreId(2), Lane::Data).unwrap().timeout(Duration::from_millis(50));
        WriteClient::new(channel).push(tokio_stream::iter([])).await.unwrap_err()
    };
    for _ in 0..3 {
        assert_eq!(call().await.code(), Code::DeadlineExceeded);
    }
    assert!(peers.is_unreachable(StoreId(2), Lane::Data));
    let refused = call().await;
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains(&StoreId(2).to_string()), "{}", refused.message());
    assert_eq!(peers.to_store(StoreId(5), Lane::Data).err().unwrap().code(), Code::Unavailable);
    peers.is_back(&address.to_string());
    assert!(!peers.is_unreachable(StoreId(2), Lane::Data));
    assert_eq!(call().await.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_node_that_comes_back_is_reached_again() {
    let b = node(2, CLUSTER, Protocol::default());
    let (address, stop) = serving(&b).await;
    let peers = calling(&node(1, CLUSTER, Protocol::default()), 2, address);
    assert!(push(&peers, 2, 1).await.is_ok());
    stop.cancel();
    while push(&peers, 2, 1).await.is_ok() {}
    let mut listener = TcpNet.listen(&address.to_string()).await;
    while listener.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        listener = TcpNet.listen(&address.to_string()).await;
    }
    let routes = Routes::default().add_service(WriteServer::new(Echo));
    let server = serve(listener.unwrap(), routes, b, Duration::from_secs(1), CancellationToken::new());
    tokio::spawn(server);
    while push(&peers, 2, 1).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sent = {
        let mut text = String::new();
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(peers.collector());
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    assert!(sent.contains("carillon_peer_sent_bytes_total"), "{sent}");
}

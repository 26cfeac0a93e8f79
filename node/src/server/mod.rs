//! Accepting connections and serving them until the node stops.
//!
//! Bounded on every side: connections, time for headers, streams a connection. At a stop no connection is accepted
//! any more, those in work end after their current request, and whoever takes too long is cut off.

mod head;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub(crate) use head::{QUERY_HEADER, REFUSED_HEADER};

use crate::env::{Connection, Listener};
use head::{HEAD_BYTES_MAX, Heads, LARGE_HEADS_MAX};

/// How many requests one HTTP/2 connection may have in work.
const HTTP2_STREAMS_MAX: u32 = 256;
/// Bytes that hyper keeps of a head: those that it is given, and what is added to them.
const BUFFER_BYTES_MAX: usize = HEAD_BYTES_MAX + (16 << 10);
/// Pause after a failed accept: the usual cause is a lack of file descriptors, which time mends.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The other end of a request's connection: an extension of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller(pub(crate) SocketAddr);

/// How connections are served.
pub struct ServerSettings {
    /// Connections at once.
    pub max_connections: usize,
    /// Longest wait for a request's headers.
    pub header_timeout: Duration,
    /// Longest wait for requests in work at a stop.
    pub stop_timeout: Duration,
    /// Which versions of HTTP.
    pub http2: Http2,
}

/// How HTTP/2 is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2 {
    /// Beside HTTP/1, whichever the client begins with.
    Beside1,
    /// Alone, with this much on the way on a connection and on one of its streams: between nodes.
    Only {
        /// Bytes of either.
        window_bytes: u32,
    },
}

/// Serves until `stop` is cancelled and the requests in work are done, or too late.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    router: Router,
    settings: ServerSettings,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(settings.max_connections));
    let large_heads = Arc::new(Semaphore::new(LARGE_HEADS_MAX));
    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(BUFFER_BYTES_MAX);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(HTTP2_STREAMS_MAX);
    if let Http2::Only { window_bytes } = settings.http2 {
        server = server.http2_only();
        server.http2().initial_stream_window_size(window_bytes).initial_connection_window_size(window_bytes);
    }

    let cut_off = CancellationToken::new();
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let with_caller = move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Caller(peer));
            request
        };
        let service = TowerToHyperService::new(router.clone().map_request(with_caller));
        let stream: Box<dyn Connection> = match settings.http2 {
            Http2::Beside1 => Box::new(Heads::new(stream, large_heads.clone())),
            Http2::Only { .. } => stream,
        };
        let connection = graceful.watch(server.serve_connection(TokioIo::new(stream), service).into_owned());
        let cut_off = cut_off.clone();
        tokio::spawn(async move {
            tokio::select! {
                // A client that goes away or talks nonsense is its own business.
                _ = connection => {}
                () = cut_off.cancelled() => {}
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(settings.stop_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(waited_ms = settings.stop_timeout.as_millis(), "requests still in work are cut off");
    }
    cut_off.cancel();
}

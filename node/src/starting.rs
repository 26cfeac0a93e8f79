//! What a node answers while it starts: a start after a crash reads back the log, and one without its cluster waits.
//!
//! Until the node can answer for itself, its HTTP port says that the process is well and what it is doing; writes and
//! questions are answered 503, so that clients turn elsewhere at once. Its peer port answers `Unavailable`. Then the
//! same listeners go over to the real servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tsdb::db::Replay;

use crate::env::{Connection, Listener};
use crate::http::{self, ApiError, Kind};
use crate::server::{self, Http2, ServerSettings};

/// How long requests may go on that came before the node was ready: none waits for anything.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections at once to either port: whoever comes now is sent away.
const CONNECTIONS_MAX: usize = 256;

/// How far a start is.
#[derive(Default)]
pub(crate) struct Starting {
    doing: Mutex<&'static str>,
    /// How much of the log has been read.
    pub(crate) replay: Arc<Replay>,
}

impl Starting {
    /// Says what is done from now on.
    pub(crate) fn does(&self, what: &'static str) {
        *self.doing.lock() = what;
    }

    /// What is done, and how far it is.
    fn progress(&self) -> String {
        let doing = *self.doing.lock();
        match self.replay.progress() {
            Some(at) if !at.is_done => {
                format!("{doing}: segment {} of {} to {}", at.current, at.first, at.last)
            }
            _ => doing.to_owned(),
        }
    }

    /// As Prometheus tells it: `status/walreplay`.
    pub(crate) fn walreplay(&self) -> Value {
        let Some(at) = self.replay.progress() else {
            return json!({"min": 0, "max": 0, "current": 0, "state": "waiting"});
        };
        let state = if at.is_done { "done" } else { "in progress" };
        json!({"min": at.first, "max": at.last, "current": at.current, "state": state})
    }
}

/// Answers on a listener until it is dropped; the listener goes on elsewhere then.
pub(crate) struct Meanwhile {
    listener: Arc<tokio::sync::Mutex<Box<dyn Listener>>>,
    address: SocketAddr,
    _ends: DropGuard,
}

impl Meanwhile {
    /// On the HTTP port.
    pub(crate) fn http(listener: Box<dyn Listener>, address: SocketAddr, starting: Arc<Starting>) -> Self {
        Self::serve(listener, address, routes(starting), Http2::Beside1)
    }

    /// On the peer port.
    pub(crate) fn peers(listener: Box<dyn Listener>, address: SocketAddr, starting: Arc<Starting>) -> Self {
        let refuse = async |State(starting): State<Arc<Starting>>| {
            Status::unavailable(format!("the node is starting: {}", starting.progress()))
                .into_http::<axum::body::Body>()
        };
        let router = Router::new().fallback(refuse).with_state(starting);
        Self::serve(listener, address, router, Http2::Only { window_bytes: crate::grpc::WINDOW_BYTES })
    }

    fn serve(listener: Box<dyn Listener>, address: SocketAddr, router: Router, http2: Http2) -> Self {
        let listener = Arc::new(tokio::sync::Mutex::new(listener));
        let stop = CancellationToken::new();
        let settings = ServerSettings {
            max_connections: CONNECTIONS_MAX,
            header_timeout: STOP_TIMEOUT,
            stop_timeout: STOP_TIMEOUT,
            http2,
        };
        let shared = Shared { listener: listener.clone(), address };
        tokio::spawn(server::serve(Box::new(shared), router, settings, stop.clone()));
        Self { listener, address, _ends: stop.drop_guard() }
    }

    /// The listener for who answers from now on.
    pub(crate) fn hand_over(self) -> Box<dyn Listener> {
        Box::new(Shared { listener: self.listener.clone(), address: self.address })
    }
}

/// A listener that goes from one server to the next; the first accepts nothing once it has been told to stop.
struct Shared {
    listener: Arc<tokio::sync::Mutex<Box<dyn Listener>>>,
    address: SocketAddr,
}

impl Listener for Shared {
    fn accept(&mut self) -> BoxFuture<'_, std::io::Result<(Box<dyn Connection>, SocketAddr)>> {
        Box::pin(async { self.listener.lock().await.accept().await })
    }

    fn local_address(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

fn routes(starting: Arc<Starting>) -> Router {
    let routes = Router::new()
        .route("/-/healthy", get(http::healthy))
        .route("/-/ready", get(ready))
        .route("/api/v1/status/walreplay", get(walreplay));
    Router::new().nest(http::PREFIX, routes.clone()).merge(routes).fallback(not_yet).with_state(starting)
}

async fn ready(State(starting): State<Arc<Starting>>) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("Carillon is starting: {}.\n", starting.progress()))
}

async fn walreplay(State(starting): State<Arc<Starting>>) -> Response {
    http::success(starting.walreplay().to_string().as_bytes(), &[])
}

async fn not_yet(State(starting): State<Arc<Starting>>, _: Request) -> Response {
    let why = format!("this node is starting: {}; ask another, or try again", starting.progress());
    ApiError::new(Kind::Unavailable, why).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(router: &Router, path: &str) -> (StatusCode, String, bool) {
        let answer = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let (status, retry) = (answer.status(), answer.headers().contains_key("retry-after"));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap(), retry)
    }

    #[tokio::test]
    async fn a_start_is_well_and_not_ready_and_says_how_far_it_is() {
        let starting = Arc::new(Starting::default());
        let router = routes(starting.clone());
        starting.does("reading the log");
        starting.replay.begin(3, 9);
        starting.replay.at(5);
        assert_eq!(ask(&router, "/-/healthy").await.0, 200);
        let (status, text, _) = ask(&router, "/-/ready").await;
        assert_eq!(status, 503);
        assert!(text.contains("reading the log: segment 5 of 3 to 9"), "{text}");
        for path in ["/api/v1/query?query=up", "/api/v1/write", "/prometheus/api/v1/labels"] {
            let (status, text, retry) = ask(&router, path).await;
            assert!(status == 503 && retry && text.contains("this node is starting"), "{path}: {text}");
        }
        let state = |text: &str| serde_json::from_str::<Value>(text).unwrap()["data"].clone();
        let (_, text, _) = ask(&router, "/prometheus/api/v1/status/walreplay").await;
        assert_eq!(state(&text), json!({"min": 3, "max": 9, "current": 5, "state": "in progress"}));
        starting.replay.end();
        starting.does("joining");
        let (_, text, _) = ask(&router, "/api/v1/status/walreplay").await;
        assert_eq!(state(&text), json!({"min": 3, "max": 9, "current": 9, "state": "done"}));
        assert!(ask(&router, "/-/ready").await.1.contains("joining."));
    }
}

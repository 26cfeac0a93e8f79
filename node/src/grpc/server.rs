//! The peer port: one server for the services of all owners, behind one check.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use std::sync::atomic::Ordering;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;

use super::header::{Demands, Header};
use super::me::Me;
use super::traffic::CountedListener;
use super::{CONNECTIONS_MAX, HEADERS_TIMEOUT, WINDOW_BYTES};
use crate::env::Listener;
use crate::server::{self, Http2, ServerSettings};

/// Serves `routes` until `stop` is cancelled and the calls in work are done, or `stop_timeout` is over.
pub async fn serve(
    listener: Box<dyn Listener>,
    routes: Routes,
    me: Arc<Me>,
    stop_timeout: Duration,
    stop: CancellationToken,
) {
    let listener = Box::new(CountedListener::new(listener, me.traffic.clone()));
    let settings = ServerSettings {
        max_connections: CONNECTIONS_MAX,
        header_timeout: HEADERS_TIMEOUT,
        stop_timeout,
        http2: Http2::Only { window_bytes: WINDOW_BYTES },
    };
    let router = routes.into_axum_router().layer(from_fn_with_state(me, checked));
    server::serve(listener, router, settings, stop).await;
}

/// Lets a call through if its header is right, and puts ours on the answer, whatever that is.
async fn checked(State(me): State<Arc<Me>>, request: Request, next: Next) -> Response {
    let Some(demands) = Demands::of(request.uri().path()) else { return next.run(request).await };
    let read = Header::read(request.headers());
    let from = read.as_ref().ok().map(|header| header.from);
    let (mut response, admitted) =
        match read.and_then(|header| header.check_call(&me, demands).map(|()| header)) {
            Ok(header) => {
                let mut request = request;
                request.extensions_mut().insert(header);
                (next.run(request).await, Some(header))
            }
            Err(refusal) => {
                me.traffic.refused.fetch_add(1, Ordering::Relaxed);
                if let Some(untold) = me.refusals.due(&refusal.to_string()) {
                    tracing::warn!(%refusal, path = request.uri().path(), untold, "refused a call");
                }
                (Status::from(refusal).into_http(), None)
            }
        };
    if let Some(header) = admitted {
        me.saw(header.epoch, header.from);
    }
    Header::of(&me, from).put(response.headers_mut());
    response
}

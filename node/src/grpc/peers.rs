//! Calling other nodes.
//!
//! Connections are made when they are first needed, one for each address and lane, and made again when they break.
//! A call carries our header, is bounded in time from its start to the end of its answer, and its answer's header is
//! checked before the caller sees anything.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use ring::StoreId;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::{Service, ServiceExt as _};

use super::breaker::Breaker;
use super::deadline::{Bounded, expired};
use super::header::{Header, Refusal};
use super::me::Me;
use super::traffic::Counted;
use super::{CALL_TIMEOUT, CONNECT_TIMEOUT, CONNECTIONS_MAX, PING_INTERVAL, PING_TIMEOUT, WINDOW_BYTES};
use crate::env::{Connection, Lane, Net};

/// All other nodes, as this one reaches them.
pub struct Peers {
    net: Arc<dyn Net>,
    me: Arc<Me>,
    links: Mutex<BTreeMap<(Lane, String), Arc<Link>>>,
}

/// The way to one address.
struct Link {
    address: String,
    channel: Channel,
    breaker: Breaker,
}

/// A way to call one node: what generated clients take for a channel. Cheap to clone.
#[derive(Clone)]
pub struct PeerChannel {
    link: Arc<Link>,
    me: Arc<Me>,
    to: Option<StoreId>,
    timeout: Duration,
    is_stream: bool,
}

impl Peers {
    /// No connection yet.
    pub fn new(net: Arc<dyn Net>, me: Arc<Me>) -> Arc<Self> {
        Arc::new(Self { net, me, links: Mutex::default() })
    }

    /// This node, as it shows itself.
    pub fn me(&self) -> &Arc<Me> {
        &self.me
    }

    /// A way to a store, wherever it is now; nothing is sent yet.
    ///
    /// # Errors
    /// `UNAVAILABLE` when nobody has told where it is.
    pub fn to_store(&self, store: StoreId, lane: Lane) -> Result<PeerChannel, Status> {
        let address = self.me.address(store);
        let address = address
            .ok_or_else(|| Status::unavailable(format!("the address of store {store} isn't known")))?;
        self.channel(&address, Some(store), lane)
    }

    /// A way to whoever is at `host:port`: for seeds.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when that can't be an address.
    pub fn to_address(&self, address: &str, lane: Lane) -> Result<PeerChannel, Status> {
        self.channel(address, None, lane)
    }

    /// Whether calls of a store would fail at once, because it hasn't answered of late or its address isn't known.
    pub fn is_unreachable(&self, store: StoreId, lane: Lane) -> bool {
        let Some(address) = self.me.address(store) else { return true };
        self.links.lock().get(&(lane, address)).is_some_and(|link| link.breaker.is_open())
    }

    /// Whoever is at an address has just called: that nobody answered there before counts no longer.
    pub fn is_back(&self, address: &str) {
        let links = self.links.lock();
        for lane in [Lane::Data, Lane::Gossip] {
            if let Some(link) = links.get(&(lane, address.to_owned())) {
                link.breaker.succeeded();
            }
        }
    }

    /// Bytes and calls, for `/metrics`.
    pub fn collector(&self) -> Box<dyn Collector> {
        self.me.traffic.collector()
    }

    fn channel(&self, address: &str, to: Option<StoreId>, lane: Lane) -> Result<PeerChannel, Status> {
        let mut links = self.links.lock();
        let key = (lane, address.to_owned());
        let link = match links.get(&key) {
            Some(link) => link.clone(),
            None => {
                if links.len() >= CONNECTIONS_MAX {
                    // Addresses change when nodes move: what nobody uses now is made again when it is needed.
                    links.retain(|_, link| Arc::strong_count(link) > 1);
                }
                let link = Arc::new(self.link(address, lane)?);
                links.insert(key, link.clone());
                link
            }
        };
        Ok(PeerChannel { link, me: self.me.clone(), to, timeout: CALL_TIMEOUT, is_stream: false })
    }

    fn link(&self, address: &str, lane: Lane) -> Result<Link, Status> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| Status::invalid_argument(format!("{address:?} isn't a peer's address: {e}")))?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let (net, me) = (self.net.clone(), self.me.clone());
        let connector = Connector { net, me, address: address.into(), lane };
        let channel = endpoint.connect_with_connector_lazy(connector);
        Ok(Link { address: address.to_owned(), channel, breaker: Breaker::default() })
    }
}

impl PeerChannel {
    /// Bounds each call, its answer included; [`CALL_TIMEOUT`] otherwise.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Bounds only the time until an answer begins: for streams that stay open. Pings notice a peer that is gone.
    #[must_use]
    pub fn stream(self) -> Self {
        Self { is_stream: true, ..self }
    }

    /// Where it leads.
    pub fn address(&self) -> &str {
        &self.link.address
    }

    async fn call(self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let name = match self.to {
            Some(store) => format!("store {store} at {}", self.link.address),
            None => self.link.address.clone(),
        };
        let traffic = &self.me.traffic;
        traffic.calls.fetch_add(1, Ordering::Relaxed);
        let unreachable = |why: &str| {
            traffic.unreachable.fetch_add(1, Ordering::Relaxed);
            Status::unavailable(format!("{name} can't be reached: {why}"))
        };
        self.link.breaker.admit().map_err(|why| unreachable(&why))?;
        Header::of(&self.me, self.to).put(request.headers_mut());
        let deadline = tokio::time::Instant::now() + self.timeout;
        let answered = tokio::time::timeout_at(deadline, async {
            let mut channel = self.link.channel.clone();
            channel.ready().await?.call(request).await
        });
        let response = match answered.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let why = root_cause(&error);
                self.link.breaker.failed(&why);
                return Err(unreachable(&why));
            }
            Err(_) => {
                let error = expired(&name, self.timeout);
                self.link.breaker.failed(error.message());
                traffic.unreachable.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        };
        // Whoever is starting answers so before it knows who it is.
        if let Some(status) = Status::from_header_map(response.headers())
            && status.code() == Code::Unavailable
            && Header::read(response.headers()).is_err()
        {
            self.link.breaker.failed(status.message());
            return Err(unreachable(status.message()));
        }
        self.link.breaker.succeeded();
        let refuse = |refusal: Refusal| {
            traffic.refused.fetch_add(1, Ordering::Relaxed);
            Status::from(refusal)
        };
        let header = match Header::read(response.headers()) {
            Ok(header) => header,
            Err(refusal) => return Err(refuse(refusal)),
        };
        header.check_answer(&self.me, self.to).map_err(refuse)?;
        self.me.saw(header.epoch, header.from);
        Ok(match self.is_stream {
            true => response,
            false => {
                response.map(|body| Body::new(Bounded::new(body, deadline, expired(&name, self.timeout))))
            }
        })
    }
}

/// What a transport error is at its bottom: the layers above only say that they failed.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

impl Service<Request<Body>> for PeerChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().call(request))
    }
}

/// Makes a link's connections over the network seam.
#[derive(Clone)]
struct Connector {
    net: Arc<dyn Net>,
    me: Arc<Me>,
    address: Arc<str>,
    lane: Lane,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Counted<Box<dyn Connection>>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { net, me, address, lane } = self.clone();
        Box::pin(async move {
            let connecting = tokio::time::timeout(CONNECT_TIMEOUT, net.connect(&address, lane));
            let late =
                |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection in {CONNECT_TIMEOUT:?}"));
            let connection = connecting.await.map_err(late)??;
            Ok(TokioIo::new(Counted::new(connection, me.traffic.clone())))
        })
    }
}

//! TCP between simulated hosts.
//!
//! turmoil delivers, delays and drops; what is added here are three things that it leaves out: a name for each end in
//! the trace, a connect that hangs where packets are dropped (turmoil's is refused at once), and an address to bind
//! that is the host's own.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use node::env::{BoxFuture, Connection, Lane, Listener, Net};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::trace::Trace;

/// How long a connect tries where nothing comes back: Linux's six SYNs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);

/// Which packets are dropped.
#[derive(Clone, Default)]
pub struct Links(Arc<Mutex<Broken>>);

#[derive(Default)]
struct Broken {
    /// Pairs of host names, from and to.
    dropped: BTreeSet<(String, String)>,
    /// Hosts that no gossip reaches.
    deaf: BTreeSet<String>,
}

impl Links {
    /// From now on packets between these two are dropped in this direction, or aren't any more.
    pub fn set(&self, from: &str, to: &str, dropped: bool) {
        let pair = (from.to_owned(), to.to_owned());
        let links = &mut self.0.lock().dropped;
        let _ = if dropped { links.insert(pair) } else { links.remove(&pair) };
    }

    /// From now on no gossip reaches `host`, while everything else does.
    pub fn deafen(&self, host: &str) {
        self.0.lock().deaf.insert(host.to_owned());
    }

    /// Gossip reaches everybody.
    pub fn undeafen_all(&self) {
        self.0.lock().deaf.clear();
    }

    fn is_deaf(&self, host: &str) -> bool {
        self.0.lock().deaf.contains(host)
    }

    /// Whether packets in this direction are dropped.
    pub fn drops(&self, from: &str, to: &str) -> bool {
        self.0.lock().dropped.contains(&(from.to_owned(), to.to_owned()))
    }

    /// All directions in which packets are dropped.
    pub fn dropped(&self) -> Vec<(String, String)> {
        self.0.lock().dropped.iter().cloned().collect()
    }

    /// Whether a handshake between these two can't end.
    fn is_cut(&self, one: &str, other: &str) -> bool {
        self.drops(one, other) || self.drops(other, one)
    }
}

/// The network as one host sees it.
pub struct SimNet {
    /// The host's name.
    pub host: String,
    /// Which packets are dropped.
    pub links: Links,
    /// Where bytes are noted.
    pub trace: Arc<Trace>,
}

impl SimNet {
    fn traced(&self, stream: TcpStream, other: &str, lane: Lane) -> Traced {
        Traced {
            stream,
            lane,
            is_lost: false,
            links: self.links.clone(),
            other: other.to_owned(),
            host: self.host.clone(),
            to: format!("-> {other}"),
            from: format!("<- {other}"),
            trace: self.trace.clone(),
        }
    }
}

impl Net for SimNet {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (_, port) = split(address)?;
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
            let net = Self { host: self.host.clone(), links: self.links.clone(), trace: self.trace.clone() };
            Ok(Box::new(SimListener { listener, net }) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str, lane: Lane) -> BoxFuture<'a, io::Result<Box<dyn Connection>>> {
        Box::pin(async move {
            let (host, port) = split(address)?;
            let is_loopback = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
            let name = if is_loopback { self.host.as_str() } else { host };
            let is_deaf =
                lane == Lane::Gossip && (self.links.is_deaf(name) || self.links.is_deaf(&self.host));
            if name != self.host && (is_deaf || self.links.is_cut(&self.host, name)) {
                tokio::time::sleep(CONNECT_TIMEOUT).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            let stream = TcpStream::connect((name.to_owned(), port)).await?;
            Ok(Box::new(self.traced(stream, name, lane)) as Box<dyn Connection>)
        })
    }

    fn own_address<'a>(&'a self, _toward: &'a str) -> BoxFuture<'a, io::Result<IpAddr>> {
        Box::pin(async move { Ok(turmoil::lookup(self.host.as_str())) })
    }
}

fn split(address: &str) -> io::Result<(&str, u16)> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{address:?} isn't host:port"));
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    Ok((host, port.parse().map_err(|_| wrong())?))
}

struct SimListener {
    listener: TcpListener,
    net: SimNet,
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Connection>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            let name = turmoil::reverse_lookup(peer.ip()).unwrap_or_else(|| peer.ip().to_string());
            // Only who connects knows the lane; a deaf host's losses happen on that side.
            Ok((Box::new(self.net.traced(stream, &name, Lane::Data)) as Box<dyn Connection>, peer))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that notes its bytes.
struct Traced {
    stream: TcpStream,
    lane: Lane,
    /// Whether bytes were lost: what comes behind them never arrives either.
    is_lost: bool,
    links: Links,
    other: String,
    host: String,
    to: String,
    from: String,
    trace: Arc<Trace>,
}

impl Traced {
    /// Whether bytes on their way to this host are lost.
    fn loses(&mut self, to: fn(&Self) -> &String) -> bool {
        self.is_lost |= self.lane == Lane::Gossip && self.links.is_deaf(to(self));
        self.is_lost
    }
}

impl AsyncRead for Traced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.loses(|traced| &traced.host) {
            // Whoever waits for it pings, and gives the connection up.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        match &polled {
            Poll::Ready(Ok(())) => self.trace.network(&self.host, &self.from, &buffer.filled()[before..]),
            Poll::Ready(Err(e)) => self.trace.network(&self.host, &self.from, e.to_string().as_bytes()),
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Traced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.loses(|traced| &traced.other) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        match &polled {
            Poll::Ready(Ok(written)) => self.trace.network(&self.host, &self.to, &bytes[..*written]),
            Poll::Ready(Err(e)) => self.trace.network(&self.host, &self.to, e.to_string().as_bytes()),
            Poll::Pending => {}
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

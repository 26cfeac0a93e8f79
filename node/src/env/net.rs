//! The network: listening and connecting.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A future that a seam returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// A bound socket.
pub trait Listener: Send + 'static {
    /// The next connection and its peer's address.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Connection>, SocketAddr)>>;

    /// Where it listens; the port that was taken if 0 was asked for.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// Which of the connections to another node: what is urgent never waits behind bulk, and a simulator can lose one of
/// them alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Samples, questions, repair.
    #[default]
    Data,
    /// Gossip and membership.
    Gossip,
}

/// Makes listeners and connections.
pub trait Net: Send + Sync + 'static {
    /// Listens on `host:port`; port 0 takes a free one.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;

    /// Connects to `host:port`. A name is looked up at each call, since what it stands for may move. The caller
    /// bounds the time.
    fn connect<'a>(&'a self, address: &'a str, lane: Lane) -> BoxFuture<'a, io::Result<Box<dyn Connection>>>;

    /// This machine's own address as `host:port` would see it; nothing is sent.
    fn own_address<'a>(&'a self, toward: &'a str) -> BoxFuture<'a, io::Result<IpAddr>>;
}

/// The system's TCP.
pub struct TcpNet;

impl Net for TcpNet {
    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(address).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }

    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    fn connect<'a>(
        &'a self,
        address: &'a str,
        _lane: Lane,
    ) -> BoxFuture<'a, io::Result<Box<dyn Connection>>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            // Messages are written whole: waiting for more only delays them.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }

    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    fn own_address<'a>(&'a self, toward: &'a str) -> BoxFuture<'a, io::Result<IpAddr>> {
        Box::pin(async move {
            let mut last = io::ErrorKind::NotFound.into();
            for address in tokio::net::lookup_host(toward).await? {
                let any: IpAddr = match address {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                // Connecting a UDP socket only looks up the route.
                let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
                match socket.connect(address).await.and_then(|()| socket.local_addr()) {
                    Ok(own) => return Ok(own.ip()),
                    Err(e) => last = e,
                }
            }
            Err(last)
        })
    }
}

impl Listener for tokio::net::TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Connection>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = tokio::net::TcpListener::accept(self).await?;
            // Answers are small and written whole: waiting for more only delays them.
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn Connection>, peer))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

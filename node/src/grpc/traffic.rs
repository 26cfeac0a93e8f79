//! Bytes between this node and its peers, counted where they enter and leave the socket.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use prometheus_client::collector::Collector;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::env::{BoxFuture, Connection, Listener};
use crate::metrics::at_scrape;

/// What went over the peer port's connections, both those that were made and those that were accepted.
#[derive(Default)]
pub(super) struct Traffic {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) unreachable: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl Traffic {
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// What a scrape is told.
    pub(super) fn collector(self: &Arc<Self>) -> Box<dyn Collector> {
        let traffic = self.clone();
        at_scrape(move |out| {
            out.count("carillon_peer_sent_bytes", "Bytes sent to other nodes", &traffic.sent_bytes)?;
            out.count(
                "carillon_peer_received_bytes",
                "Bytes received from other nodes",
                &traffic.received_bytes,
            )?;
            out.count("carillon_peer_calls", "Calls of other nodes", &traffic.calls)?;
            out.count(
                "carillon_peer_calls_unreachable",
                "Calls that got no answer in time",
                &traffic.unreachable,
            )?;
            out.count(
                "carillon_peer_calls_refused",
                "Calls, made or taken, that failed for version, cluster or store",
                &traffic.refused,
            )
        })
    }
}

/// A connection whose bytes are counted.
pub(super) struct Counted<C> {
    inner: C,
    traffic: Arc<Traffic>,
}

impl<C> Counted<C> {
    pub(super) fn new(inner: C, traffic: Arc<Traffic>) -> Self {
        Self { inner, traffic }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        self.traffic.received_bytes.fetch_add(read as u64, Ordering::Relaxed);
        polled
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.count(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.count(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl<C> Counted<C> {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.traffic.sent_bytes.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        written
    }
}

/// A listener whose connections' bytes are counted.
pub(super) struct CountedListener {
    inner: Box<dyn Listener>,
    traffic: Arc<Traffic>,
}

impl CountedListener {
    pub(super) fn new(inner: Box<dyn Listener>, traffic: Arc<Traffic>) -> Self {
        Self { inner, traffic }
    }
}

impl Listener for CountedListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Connection>, SocketAddr)>> {
        Box::pin(async move {
            let (connection, from) = self.inner.accept().await?;
            let counted = Counted::new(connection, self.traffic.clone());
            Ok((Box::new(counted) as Box<dyn Connection>, from))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.local_address()
    }
}

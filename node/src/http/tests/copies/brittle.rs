//! Connections that break in the middle of whatever is on its way: what is acked is on all replicas, once.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;
use crate::env::{BoxFuture, Connection, Lane, Listener};

/// Writes, one after the other.
const WRITES: usize = 300;
/// Series in each.
const SERIES: usize = 20;
/// Time between the samples of a series.
const STEP_MS: i64 = 1000;
/// The first of them.
const BEGIN_MS: i64 = NOW_MS - 600_000;

/// A network whose connections each break after a number of bytes that were written to them.
#[derive(Default)]
struct Brittle {
    is_sound: Arc<AtomicBool>,
    made: AtomicUsize,
    broken: Arc<AtomicUsize>,
}

struct Breaking {
    inner: Box<dyn Connection>,
    left: usize,
    is_sound: Arc<AtomicBool>,
    broken: Arc<AtomicUsize>,
}

impl Net for Brittle {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        TcpNet.listen(address)
    }

    fn connect<'a>(&'a self, address: &'a str, lane: Lane) -> BoxFuture<'a, io::Result<Box<dyn Connection>>> {
        // Enough to begin a stream, and then any number.
        let left = 2_000 + self.made.fetch_add(1, Ordering::Relaxed) * 3_571 % 9_000;
        let (is_sound, broken) = (self.is_sound.clone(), self.broken.clone());
        Box::pin(async move {
            let inner = TcpNet.connect(address, lane).await?;
            Ok(Box::new(Breaking { inner, left, is_sound, broken }) as Box<dyn Connection>)
        })
    }

    fn own_address<'a>(&'a self, toward: &'a str) -> BoxFuture<'a, io::Result<IpAddr>> {
        TcpNet.own_address(toward)
    }
}

impl AsyncRead for Breaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Breaking {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_sound.load(Ordering::Relaxed) {
            return Pin::new(&mut self.inner).poll_write(cx, bytes);
        }
        if self.left == 0 {
            self.broken.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let some = bytes.len().min(self.left);
        let written = Pin::new(&mut self.inner).poll_write(cx, &bytes[..some]);
        if let Poll::Ready(Ok(count)) = &written {
            self.left -= count;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// All samples of a node by series, in the order in which they come.
async fn all_of(members: &Members, node: usize) -> BTreeMap<String, Vec<(i64, String)>> {
    let seconds = (NOW_MS - BEGIN_MS) / 1000 + 1;
    let path = format!("/api/v1/query?query=m[{seconds}s]&time={}", NOW_MS / 1000);
    let data = members.0[node].node.get(&path).await.data();
    let samples = |series: &serde_json::Value| {
        let values = series["values"].as_array().unwrap().iter();
        let sample = |pair: &serde_json::Value| {
            ((pair[0].as_f64().unwrap() * 1000.0).round() as i64, pair[1].as_str().unwrap().to_owned())
        };
        (series["metric"]["i"].as_str().unwrap().to_owned(), values.map(sample).collect())
    };
    data["result"].as_array().unwrap().iter().map(samples).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_break_in_the_middle_lose_nothing_and_double_nothing() {
    let net = Arc::new(Brittle::default());
    let (is_sound, broken) = (net.is_sound.clone(), net.broken.clone());
    let members = Members::start_over(3, &view(3, 3, 1), &(net as Arc<dyn Net>)).await;
    for write in 0..WRITES {
        let time_ms = BEGIN_MS + write as i64 * STEP_MS;
        let one = |i: usize| {
            let labels = [("__name__", "m"), ("i", &*i.to_string())];
            series(&labels, &[(time_ms, (write * SERIES + i) as f64)])
        };
        let batch: Vec<_> = (0..SERIES).map(one).collect();
        let mut tries = 0;
        // As any sender: the same again until it is taken.
        while members.write(0, batch.clone()).await.status != StatusCode::NO_CONTENT {
            tries += 1;
            assert!(tries < 200, "write {write} is never taken");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(broken.load(Ordering::Relaxed) > 5, "{broken:?} connections broke");
    is_sound.store(true, Ordering::Relaxed);
    let wanted: BTreeMap<String, Vec<(i64, String)>> = (0..SERIES)
        .map(|i| {
            let sample = |write: usize| (BEGIN_MS + write as i64 * STEP_MS, (write * SERIES + i).to_string());
            (i.to_string(), (0..WRITES).map(sample).collect())
        })
        .collect();
    for node in 0..3 {
        for _ in 0..300 {
            members.0[0].node.app.replicator.hints().hurry();
            if all_of(&members, node).await == wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(all_of(&members, node).await, wanted, "node {node}");
    }
}

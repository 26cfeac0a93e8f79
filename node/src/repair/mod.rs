//! Background repair: replicas compare what they have, and pull what they lack.
//!
//! A replica falls behind when its hints were lost, its disk was replaced, or it became an owner of what others held
//! before. So every node asks, in turn, each node that shares ranges of keys with it:
//!
//! 1. Which windows of two hours are there? Each comes with a stamp. Where neither the peer's stamp nor our own has
//!    changed since the two were last compared, nothing is done: an idle window costs sixteen bytes.
//! 2. What is your digest of this window, range by range of keys? Ours is computed beside it (`digests`). Equal digests
//!    mean equal samples.
//! 3. Where they differ: which series have you that we haven't, or have otherwise? (`pass`)
//!    A window that was appended to since the last look is looked at again a moment later instead: what is on its way
//!    isn't lacking.
//! 4. Of those that come, the samples that we lack are appended, whatever their age (`fill`). They were accepted by
//!    another replica, so no bound is applied, and they don't count as writes.
//!
//! Each node only pulls, so both of two that differ become equal in two steps. The youngest samples are left out, since
//! replicas get them at slightly different moments. Ranges are those of the open placements cut at all their edges
//! (`keys`): an asker takes what it keeps under the current placement from whoever keeps it under any.
//!
//! Work is bounded: one computation at a time on a node, whoever asked for it, as low-priority work; pages of bounded size;
//! pulled bytes and our own computing are slowed down to a share ([`PULL_BYTES_PER_S`], [`REST_FACTOR`]).

mod digests;
mod fill;
mod http;
mod keys;
mod pass;
mod progress;
mod safe;
mod serve;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use ring::View;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::digests::Digests;
pub(crate) use self::http::routes;
use self::keys::Keys;
use self::pass::{Look, Memory};
pub use self::progress::Progress;
pub(crate) use self::safe::{of_cluster, of_node};
pub use self::serve::Serve;
use crate::env::{Work, run_on};
use crate::grpc::Peers;
use crate::node::App;

/// The first round comes after one part in this many of the time between two, and so does the next where the ring has changed
/// or windows are lacking: whoever takes one node after the other waits for a round that finds nothing.
const SOON_PART: u32 = 5;
/// Pause before windows that differed are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Samples younger than this, by the asker's wall clock, aren't compared, in milliseconds.
const EDGE_MS: i64 = 20_000;
/// The end of what is compared moves in steps of this many milliseconds, so that peers who ask soon after one another
/// ask the same.
const EDGE_STEP_MS: i64 = 10_000;
/// Encoded bytes that a node pulls in a second, on average.
const PULL_BYTES_PER_S: u32 = 16 << 20;
/// A node rests this many times as long as it computed for a round of its own.
const REST_FACTOR: u32 = 3;
/// Longest time of one call: computing a window of millions of series takes seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Repair of one node. It stands still until the node has joined a ring.
#[derive(Default)]
pub struct Repair {
    links: OnceLock<Links>,
    keys: Mutex<Option<Arc<Keys>>>,
    digests: Mutex<Digests>,
    progress: Mutex<Progress>,
    turn: Turn,
}

/// What repair needs of the cluster.
struct Links {
    peers: Arc<Peers>,
    views: watch::Receiver<Arc<View>>,
}

/// One computation at a time.
struct Turn(Semaphore);

impl Default for Turn {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Repair {
    /// The node has peers and a ring from now on. A second call changes nothing.
    pub fn join(&self, peers: Arc<Peers>, views: watch::Receiver<Arc<View>>) {
        let _ = self.links.set(Links { peers, views });
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// The ring as it is now; `None` before the node has joined.
    fn view(&self) -> Option<Arc<View>> {
        self.links.get().map(|links| links.views.borrow().clone())
    }

    /// Ranges of keys by a view.
    fn keys(&self, view: &View) -> Arc<Keys> {
        let mut known = self.keys.lock();
        match &*known {
            Some(keys) if keys.epoch() == view.epoch() => keys.clone(),
            _ => known.insert(Arc::new(Keys::new(view))).clone(),
        }
    }
}

/// What is told on `/metrics`.
pub(crate) fn collector(app: &Arc<App>) -> Box<dyn prometheus_client::collector::Collector> {
    progress::collector(Arc::downgrade(app))
}

/// Repairs until `stop`.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    let mut memory = Memory::default();
    // Read each time: it can be set anew while the node runs.
    let interval = || app.config.load().repair_interval.to_std();
    let soon = || interval() / SOON_PART;
    let mut next_round = Instant::now() + soon();
    let mut views = app.cluster.subscribe();
    loop {
        let again = Instant::now() + LOOK_AGAIN;
        let (at, look) = match memory.is_waiting() && again < next_round {
            true => (again, Look::Again),
            false => (next_round, Look::All),
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(at) => {}
            Ok(()) = views.changed() => {
                next_round = next_round.min(Instant::now() + soon());
                continue;
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = pass::round(&app, &mut memory, look) => {}
        }
        let pause = if app.repair.progress().lacking == 0 { interval() } else { soon() };
        next_round = match look {
            Look::All => Instant::now() + pause,
            Look::Again => next_round.min(Instant::now() + pause),
        };
    }
}

/// Computes on the pool, in turn, whatever needs samples decoded.
fn compute<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> T + Send + 'static,
) -> impl Future<Output = T> + Send {
    let app = app.clone();
    async move {
        let turn = app.repair.turn.0.acquire().await.expect("nobody closes it");
        let own = app.clone();
        let done = run_on(&*app.env.pool, Work::LargeQuery, move || work(&own)).await;
        drop(turn);
        done
    }
}

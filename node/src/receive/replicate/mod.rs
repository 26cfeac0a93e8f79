//! Writes to all replicas of each series, on whichever nodes they are.
//!
//! 1. Routes: each series' replicas by the ring document, from a cache ([`route`]).
//! 2. The local part, if any, as one node alone would take it (`local`). What it refuses by age nobody else is asked.
//! 3. The others' parts as frames on a stream to each peer (`outbound`, `frames`).
//! 4. Each replica's word on each sample is counted (`tally`); the sender is answered as soon as each sample has its
//!    quorum in each write set, or can't have it any more, or time is over.
//! 5. If a replica went by a newer ring document, all of it is routed again by that; whoever has it already says so.
//!
//! A node that is alone takes none of these steps.

mod bounds;
mod content;
mod frames;
mod local;
mod outbound;
mod round;
pub mod route;
mod service;
mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use ring::{StoreId, StoreIndex, View};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tsdb::wal::WalPosition;

pub use self::content::Content;
use self::outbound::Outbound;
use self::round::{Place, Round};
use self::route::Routes;
pub use self::service::Receiver;
use self::tally::{Fate, Word};
use super::committer::Committer;
use super::hints::{Bounds, Hints, Replay};
use super::ingest::{Reason, Report};
use crate::config::Config;
use crate::env::{Env, on_disk};
use crate::grpc::Peers;
use crate::grpc::frame::Verdict;
use crate::metrics::at_scrape;

/// How often a write is routed again because the ring changed under it.
const ROUNDS_MAX: u32 = 4;

/// How long a stopping node waits for answers to what it has sent.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A promise that the ring document by which a write goes isn't left behind while it is held: until the write's
/// samples are appended.
pub type Admission = Box<dyn Send>;

/// What writes ask of the cluster.
pub trait Membership: Send + Sync + 'static {
    /// Which store this is.
    fn me(&self) -> StoreId;

    /// The ring document that this node goes by.
    fn view(&self) -> Arc<View>;

    /// Follows it.
    fn subscribe(&self) -> watch::Receiver<Arc<View>>;

    /// Lets a write in that was routed by the document of `epoch`.
    ///
    /// # Errors
    /// The newer document that this store has adopted.
    fn admit(&self, epoch: u64) -> Result<Admission, Bytes>;

    /// A ring document that a peer goes by.
    fn offer(&self, document: Bytes);
}

/// A write without its quorum: which ranges and which peers, for the sender to log and try again.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct NoQuorum {
    why: String,
    /// What became of the samples that have theirs.
    pub report: Box<Report>,
}

/// A slow peer may keep this part of the bytes that requests may hold together: others go on beside it.
const QUEUE_SHARE: usize = 4;

/// What the streams to all peers share.
struct Shared {
    /// For the streams: writes are routed on threads that have no runtime of their own.
    runtime: Handle,
    membership: Arc<dyn Membership>,
    peers: Arc<Peers>,
    hints: Arc<Hints>,
    write_timeout: Duration,
    queue_bytes_max: usize,
    counters: Arc<Counters>,
}

/// What happened since the start.
#[derive(Default)]
struct Counters {
    frames: AtomicU64,
    items: AtomicU64,
    missed: AtomicU64,
}

impl Counters {
    fn frames(&self, items: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.items.fetch_add(items as u64, Ordering::Relaxed);
    }
}

/// Coordinates writes.
pub struct Replicator {
    shared: Arc<Shared>,
    routes: Routes,
    targets: ArcSwapOption<Targets>,
    outbound: Mutex<BTreeMap<StoreId, Arc<Outbound>>>,
}

/// The stores of one ring document, as writes reach them.
struct Targets {
    view: Arc<View>,
    me: Option<StoreIndex>,
    /// By store index; `None` for this node, and for those that no write goes to.
    outbound: Vec<Option<Arc<Outbound>>>,
    is_alone: bool,
}

/// A round with its local part appended.
pub struct Begun {
    round: Arc<Round>,
    local: Option<Local>,
    deadline: Instant,
}

struct Local {
    position: WalPosition,
    places: Vec<Place>,
    verdicts: Vec<Verdict>,
}

impl Replicator {
    /// Finds the hints that were kept; nothing is routed yet.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn open(
        config: &Config,
        env: &Env,
        membership: Arc<dyn Membership>,
        peers: Arc<Peers>,
    ) -> tsdb::Result<Arc<Self>> {
        let bounds = Bounds {
            bytes_max: config.hints_max_bytes.as_usize() as u64,
            age_max: config.hints_max_age.to_std(),
        };
        let (disk, pool) = (env.disk.clone(), env.pool.clone());
        let hints = on_disk(&*env.pool, move || Hints::open(disk, pool, bounds)).await?;
        let shared = Shared {
            runtime: Handle::current(),
            membership,
            peers,
            hints: Arc::new(hints),
            write_timeout: config.write_timeout.to_std(),
            queue_bytes_max: config.http_max_in_flight.as_usize() / QUEUE_SHARE,
            counters: Arc::default(),
        };
        Ok(Arc::new(Self {
            shared: Arc::new(shared),
            routes: Routes::default(),
            targets: ArcSwapOption::default(),
            outbound: Mutex::default(),
        }))
    }

    /// What others have missed.
    pub fn hints(&self) -> &Arc<Hints> {
        &self.shared.hints
    }

    /// Keeps and sends hints until `stop`; then what is under way gets a moment to be answered, or becomes hints.
    pub fn start(self: &Arc<Self>, stop: &CancellationToken) -> [JoinHandle<()>; 2] {
        let shared = &self.shared;
        let (replicator, stopped) = (self.clone(), stop.clone());
        let write = async move {
            let ended = CancellationToken::new();
            let end = async {
                stopped.cancelled().await;
                replicator.end().await;
                ended.cancel();
            };
            tokio::join!(end, replicator.shared.hints.write(ended.clone()));
        };
        let (membership, peers) = (shared.membership.clone(), shared.peers.clone());
        let (replay, stopped) = (Replay { hints: shared.hints.clone(), peers, membership }, stop.clone());
        [tokio::spawn(write), tokio::spawn(async move { replay.run(stopped).await })]
    }

    /// Ends the streams to all peers.
    async fn end(&self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        let all: Vec<_> = self.outbound.lock().values().cloned().collect();
        while Instant::now() < deadline && !all.iter().all(|outbound| outbound.is_idle()) {
            tokio::time::sleep(STOP_TIMEOUT / 100).await;
        }
        all.iter().for_each(|outbound| outbound.end());
    }

    /// What `/metrics` tells of writes to others.
    pub fn collector(&self) -> Box<dyn Collector> {
        let counters = self.shared.counters.clone();
        at_scrape(move |out| {
            out.count("carillon_replicated_frames", "Frames sent to other nodes", &counters.frames)?;
            out.count(
                "carillon_replicated_samples",
                "Samples in them, one for each replica",
                &counters.items,
            )?;
            out.count(
                "carillon_replicas_missed",
                "Samples that a replica didn't take in time",
                &counters.missed,
            )
        })
    }

    /// Lets a write in that this node takes alone; `None` when there are others to write to.
    pub fn admit_alone(&self) -> Option<Admission> {
        let targets = self.targets();
        if !targets.is_alone {
            return None;
        }
        self.shared.membership.admit(targets.view.epoch()).ok()
    }

    /// Routes, appends the local part, and sends the others off. Takes a core's time, and no longer.
    pub fn begin(&self, content: Content) -> Begun {
        let deadline = Instant::now() + self.shared.write_timeout;
        self.begin_round(&Arc::new(content), deadline)
    }

    fn begin_round(&self, content: &Arc<Content>, deadline: Instant) -> Begun {
        for _ in 1..ROUNDS_MAX {
            let targets = self.targets();
            if let Ok(admission) = self.shared.membership.admit(targets.view.epoch()) {
                return self.send_off(&targets, content, deadline, Some(admission));
            }
        }
        // The ring changes faster than this node looks. What it appended now, a mark taken meanwhile might miss: only
        // others take this round, and they say where it is too old for them as well.
        self.send_off(&self.targets(), content, deadline, None)
    }

    fn send_off(
        &self,
        targets: &Targets,
        content: &Arc<Content>,
        deadline: Instant,
        admission: Option<Admission>,
    ) -> Begun {
        let round = Arc::new(Round::new(content.clone(), targets.view.clone(), &self.routes));
        let mut places = round.places();
        let own = targets.me.map(|me| std::mem::take(&mut places[usize::from(me.0)])).unwrap_or_default();
        let local = match &admission {
            _ if own.is_empty() => None,
            Some(_) => self.append(&round, own),
            None => {
                round.outdated();
                round.miss(
                    self.shared.membership.me(),
                    &own,
                    "the ring changes faster than this node follows",
                );
                None
            }
        };
        drop(admission);
        if let Some(local) = &local {
            leave_out_refused(local, &mut places, content.item_count());
        }
        for (outbound, places) in targets.outbound.iter().zip(places) {
            if let Some(outbound) = outbound {
                outbound.submit(&round, places);
            }
        }
        Begun { round, local, deadline }
    }

    fn append(&self, round: &Round, places: Vec<Place>) -> Option<Local> {
        match local::store(round, &places) {
            Ok((position, verdicts)) => {
                for (place, verdict) in places.iter().zip(&verdicts) {
                    if !verdict.is_ack() && !verdict.is_retry() {
                        round.refuse(place.item, *verdict);
                    }
                }
                Some(Local { position, places, verdicts })
            }
            Err(error) => {
                round.miss(self.shared.membership.me(), &places, &error.to_string());
                None
            }
        }
    }

    /// Waits for the replicas, and tells what became of the write.
    ///
    /// # Errors
    /// When a sample has no quorum: it may be stored all the same.
    pub async fn finish(&self, begun: Begun, committer: &Committer) -> Result<Report, NoQuorum> {
        let mut begun = begun;
        for _ in 0..ROUNDS_MAX {
            self.wait(&mut begun, committer).await;
            let round = &begun.round;
            let fates = round.fates();
            if !fates.contains(&Fate::Open) {
                return Ok(report(round, &fates));
            }
            if !round.is_outdated() || !self.is_newer(round.view.epoch(), begun.deadline).await {
                break;
            }
            begun = self.begin_round(&round.content.clone(), begun.deadline);
        }
        let round = &begun.round;
        let report = Box::new(report(round, &round.fates()));
        Err(NoQuorum { why: round.no_quorum(), report })
    }

    /// Until everything is decided, or time is over.
    async fn wait(&self, begun: &mut Begun, committer: &Committer) {
        let round = begun.round.clone();
        let local = begun.local.take();
        let committed = async {
            let Some(Local { position, places, verdicts }) = local else {
                return std::future::pending().await;
            };
            match committer.wait(position).await {
                Ok(()) => {
                    let words = places.into_iter().zip(verdicts);
                    round.hear(words.map(|(place, verdict)| (place, Word::Verdict(verdict))));
                }
                Err(error) => round.miss(self.shared.membership.me(), &places, &error.to_string()),
            }
            std::future::pending::<()>().await;
        };
        let waited = async {
            tokio::select! {
                biased;
                () = committed => {}
                () = round.decided() => {}
            }
        };
        // Late or not, what is known by now is what counts.
        let _ = timeout_at(begun.deadline, waited).await;
    }

    /// Whether this node goes by a newer document than `epoch` before the deadline.
    async fn is_newer(&self, epoch: u64, deadline: Instant) -> bool {
        let mut views = self.shared.membership.subscribe();
        timeout_at(deadline, views.wait_for(|view| view.epoch() > epoch)).await.is_ok_and(|view| view.is_ok())
    }

    fn targets(&self) -> Arc<Targets> {
        let view = self.shared.membership.view();
        if let Some(targets) = self.targets.load_full()
            && Arc::ptr_eq(&targets.view, &view)
        {
            return targets;
        }
        let targets = Arc::new(self.targets_of(view));
        self.targets.store(Some(targets.clone()));
        targets
    }

    fn targets_of(&self, view: Arc<View>) -> Targets {
        let me = view.index(self.shared.membership.me());
        let mut outbound = Vec::new();
        outbound.resize_with(view.document().members.len(), || None);
        let mut known = self.outbound.lock();
        let members = view.write_tables().iter().flat_map(ring::PlacementTable::members);
        let mut is_alone = me.is_some();
        for store in members.filter(|store| Some(**store) != me) {
            is_alone = false;
            let id = view.store(*store);
            let to = known.entry(id).or_insert_with(|| Arc::new(Outbound::new(id, self.shared.clone())));
            outbound[usize::from(store.0)] = Some(to.clone());
        }
        // Who has left the ring gets nothing any more; what is under way ends with its last owner.
        let is_wanted =
            |id: &StoreId| view.index(*id).is_some_and(|at| outbound[usize::from(at.0)].is_some());
        known.retain(|id, _| is_wanted(id));
        drop(known);
        Targets { view, me, outbound, is_alone }
    }
}

/// These items are missed by a store, and kept for it.
fn hinted(shared: &Shared, round: &Round, store: StoreId, places: Vec<Place>, why: &str) {
    shared.counters.missed.fetch_add(places.len() as u64, Ordering::Relaxed);
    round.miss(store, &places, why);
    // Whoever is gone for good comes back as another store, if at all.
    let is_lost = round.view.document().members.get(&store).is_none_or(|member| member.state.is_lost());
    if shared.hints.is_enabled() && !is_lost && !planted::is(planted::Bug::HintsNotKept) {
        shared.hints.add(store, frames::hints(round, places));
    }
}

/// Where what a family says of itself is kept: beside the series, never among them, for no label has an empty name.
pub(super) fn family_token(tenant: &str, family: &str) -> u64 {
    ring::hash::series_token(tenant, std::iter::once(("", family)))
}

/// What this node refuses nobody else is asked: of its series it knows best what is too old.
fn leave_out_refused(local: &Local, places: &mut [Vec<Place>], items: usize) {
    let is_refused = |verdict: &Verdict| !verdict.is_ack() && !verdict.is_retry();
    if !local.verdicts.iter().any(is_refused) {
        return;
    }
    let mut refused = vec![false; items];
    for (place, verdict) in local.places.iter().zip(&local.verdicts) {
        refused[place.item as usize] = is_refused(verdict);
    }
    for list in places {
        list.retain(|place| !refused[place.item as usize]);
    }
}

/// What the sender is told; what is open counts for nothing.
fn report(round: &Round, fates: &[Fate]) -> Report {
    let content = &*round.content;
    let mut report = Report::default();
    super::ingest::refuse_undecoded(&content.request(), &content.batch, &mut report);
    let samples = content.batch.appends.len();
    for (item, fate) in fates.iter().enumerate() {
        match fate {
            Fate::Safe { is_new } if item < samples => {
                report.take(&content.batch.appends[item].sample, *is_new);
            }
            // One that wasn't new was left out, having no series.
            Fate::Safe { is_new } => {
                let is_exemplar = item < samples + content.batch.exemplars.len();
                report.exemplars += u64::from(*is_new && is_exemplar);
            }
            Fate::Refused(verdict) => {
                let reason = reason(*verdict);
                report.refuse(reason, 1, || round.describe(item, reason.why()));
            }
            Fate::Open => {}
        }
    }
    report
}

/// What a refusal counts as.
fn reason(verdict: Verdict) -> Reason {
    match verdict {
        Verdict::TooOld => Reason::TooOld,
        Verdict::OutOfOrder => Reason::OutOfOrder,
        Verdict::TooFarAhead => Reason::TooFarAhead,
        Verdict::Deleted => Reason::Deleted,
        Verdict::SeriesLimit => Reason::SeriesLimit,
        _ => Reason::Invalid,
    }
}

#[cfg(test)]
pub(crate) mod tests;

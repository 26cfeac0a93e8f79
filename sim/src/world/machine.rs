//! A machine, and the process that is started on it again and again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use node::bucket::Handed;
use node::config::{Address, Addresses, Bound, Duration, Limits, OptionalAddress, Size};
use node::env::{DiskLedger, Process, Usage};
use node::{Config, Env, Node};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;
use tsdb::disk::{Disk as _, Fault, MemoryDisk};
use tsdb::files::TENANTS_DIR;
use tsdb::model::TenantId;

use super::{ClockFaults, Glitch, HostClock, Links, SimNet, SimPool, Store, WallTime};
use super::{Moment, Waiting, WatchedDisk, WatchedLedger, leave_strays, missing_strays, rot};
use crate::exercise::{Exercise, Tally};
use crate::trace::Trace;

/// Where every node serves HTTP.
pub const PORT: u16 = 9480;
/// Where every node serves its peers.
const PEER_PORT: u16 = 9481;
/// How long an ordinary disk takes for a job, at most, in milliseconds.
const DISK_WAIT_MS: u64 = 4;

/// Longer than any scenario.
const NEVER: Duration = Duration::from_h(24);
/// A disk with less room is full: no segment of a log fits.
const FULL_BYTES: u64 = 64 << 10;

/// What all machines share.
#[derive(Clone)]
pub struct Around {
    /// Machines that are there from the start, for those that look for a cluster.
    pub seeds: Vec<String>,
    /// Where everything is noted.
    pub trace: Arc<Trace>,
    /// Where faults that strike are counted.
    pub tally: Tally,
    /// Which packets are dropped.
    pub links: Links,
    /// The object store.
    pub bucket: Store,
    /// How wall time goes.
    pub wall: WallTime,
    /// Glitches of clocks that some process has read.
    pub glitches: Arc<AtomicU64>,
    /// Whether nodes keep hints and repair.
    pub heals: bool,
}

/// What outlives a process.
pub struct Machine {
    /// The host's name.
    pub name: String,
    /// The zone that it stands in.
    pub zone: String,
    seeds: Vec<String>,
    trace: Arc<Trace>,
    tally: Tally,
    links: Links,
    wall: WallTime,
    bucket: Store,
    heals: bool,
    disk: Mutex<MemoryDisk>,
    /// The disk as it once was.
    snapshot: Mutex<Option<MemoryDisk>>,
    /// What goes wrong when its moment comes.
    waiting: Waiting,
    /// Faults that are to strike, and operations of the disk that any had struck before.
    coming: Mutex<(Vec<Exercise>, u64)>,
    /// What others have left in the data folder: paths, and whether each is a folder.
    strays: Mutex<Vec<(String, bool)>>,
    disk_wait_ms: Arc<AtomicU64>,
    clock: Arc<ClockFaults>,
    rng: Arc<Mutex<StdRng>>,
    stop: Mutex<CancellationToken>,
    /// Operations of the disk that had failed when the process was started.
    struck_before: AtomicU64,
}

impl Machine {
    /// A new machine with an empty disk; all its randomness comes from `seed`.
    pub fn new(name: String, zone: String, seed: u64, around: &Around) -> Arc<Self> {
        let Around { seeds, trace, tally, links, bucket, wall, glitches, heals } = around.clone();
        Arc::new(Self {
            name,
            zone,
            seeds,
            trace,
            tally,
            links,
            wall,
            bucket,
            heals,
            disk: Mutex::new(MemoryDisk::new()),
            snapshot: Mutex::default(),
            waiting: Waiting::default(),
            coming: Mutex::default(),
            strays: Mutex::default(),
            disk_wait_ms: Arc::new(AtomicU64::new(DISK_WAIT_MS)),
            clock: Arc::new(ClockFaults {
                read: glitches,
                tally: Some(around.tally.clone()),
                ..ClockFaults::default()
            }),
            rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            stop: Mutex::default(),
            struck_before: AtomicU64::new(0),
        })
    }

    /// Runs a node until it is asked to stop. A node that can't start, or fails to stop, is noted, not an error: the
    /// supervisor starts it again.
    pub async fn run(self: Arc<Self>) {
        self.trace.runs_here(&self.name);
        while self.run_once().await {
            self.trace.note(&self.name, "begins anew");
        }
    }

    /// Runs a node until it ends; whether it is to be started again at once, since it was given up and handed over.
    async fn run_once(&self) -> bool {
        let stop = CancellationToken::new();
        *self.stop.lock() = stop.clone();
        self.struck_before.store(self.disk.lock().struck(), Ordering::Relaxed);
        let started = match self.env() {
            Ok(env) => Node::start(self.config(), env).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let node = match started {
            Ok(node) => node,
            Err(error) => {
                self.trace.note(&self.name, &format!("can't start: {error}"));
                return false;
            }
        };
        let begins_anew = tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = node.cluster().begins_anew().cancelled() => true,
            reason = node.failed() => {
                node.abandon().await;
                self.trace.note(&self.name, &format!("ended by itself: {reason}"));
                return false;
            }
        };
        match node.stop().await {
            Ok(()) => self.trace.note(&self.name, "ended in order"),
            Err(error) => self.trace.note(&self.name, &format!("ended, not sealed: {error}")),
        }
        begins_anew
    }

    /// Asks the process to end in order.
    pub fn ask_to_stop(&self) {
        self.stop.lock().cancel();
    }

    /// The process was killed: its system and what that has cached live on.
    pub fn killed(&self) {
        self.forget_coming();
        self.disk.lock().kill();
    }

    /// The power went: an arbitrary part of what wasn't synced is lost.
    pub fn lost_power(&self) {
        self.forget_coming();
        self.disk.lock().crash(&mut *self.rng.lock());
    }

    /// The disk was replaced by an empty one.
    pub fn replace_disk(&self) {
        self.forget_coming();
        *self.disk.lock() = MemoryDisk::new();
        self.strays.lock().clear();
    }

    /// Other programs leave something in each folder of the data folder, safe from power cuts.
    /// Tells how many.
    pub fn leave_strays(&self, tenants: &[TenantId]) -> usize {
        let left = leave_strays(&self.disk.lock(), tenants);
        let count = left.len();
        self.strays.lock().extend(left);
        count
    }

    /// How much others have left, and what of it isn't there any more as it was.
    pub fn strays(&self) -> (usize, Vec<String>) {
        let left = self.strays.lock();
        (left.len(), missing_strays(&self.disk.lock(), &left))
    }

    /// Lets something go wrong on the disk; `exercise` is counted once it has.
    pub fn inject(&self, exercise: Exercise, fault: Fault) {
        self.note_struck();
        self.coming.lock().0.push(exercise);
        self.disk.lock().inject(fault);
    }

    /// Lets something go wrong on the disk at a moment to come.
    pub fn inject_at(&self, moment: Moment, fault: Fault) {
        self.note_struck();
        self.coming.lock().0.push(moment.exercise());
        self.waiting.set(Some((moment, fault)));
    }

    /// Keeps a copy of the disk as it is.
    pub fn copy_disk(&self) {
        *self.snapshot.lock() = Some(self.disk.lock().fork());
    }

    /// The disk is put back to the copy; whether there was one.
    pub fn put_disk_back(&self) -> bool {
        self.forget_coming();
        let Some(copy) = self.snapshot.lock().take() else { return false };
        copy.kill();
        *self.disk.lock() = copy;
        true
    }

    /// One byte of a block rots; in which file, if there is one.
    pub fn rot(&self) -> Option<PathBuf> {
        rot(&self.disk.lock(), Path::new(TENANTS_DIR), &mut self.rng.lock())
    }

    /// Counts the faults that have struck.
    pub fn note_struck(&self) {
        let (struck, mut coming) = (self.disk.lock().struck(), self.coming.lock());
        if struck > coming.1 {
            coming.0.drain(..).for_each(|exercise| self.tally.count(exercise));
        }
        coming.1 = struck;
    }

    /// What hasn't struck by now won't: the disk forgets it.
    fn forget_coming(&self) {
        self.note_struck();
        let mut coming = self.coming.lock();
        coming.0.clear();
        coming.1 = 0;
    }

    /// Sets how many bytes more find room, or lifts the limit.
    pub fn set_room(&self, bytes: Option<u64>) {
        let disk = self.disk.lock();
        if disk.free_bytes().is_ok_and(|free| free < FULL_BYTES) {
            self.tally.count(Exercise::DiskFull);
        }
        disk.set_capacity(bytes.map(|bytes| disk.used_bytes() + bytes));
    }

    /// Sets the longest wait for the disk, or makes it an ordinary disk again.
    pub fn set_disk_wait(&self, wait_ms: Option<u64>) {
        self.disk_wait_ms.store(wait_ms.unwrap_or(DISK_WAIT_MS), Ordering::Relaxed);
    }

    /// Nothing more goes wrong on the disk; it has room and is fast.
    pub fn mend_disk(&self) {
        self.forget_coming();
        self.disk.lock().clear_faults();
        self.waiting.set(None);
        self.set_room(None);
        self.set_disk_wait(None);
    }

    /// Whether the disk has failed the process since its start: its store may have stopped, which only another start
    /// helps.
    pub fn was_struck(&self) -> bool {
        self.disk.lock().struck() > self.struck_before.load(Ordering::Relaxed)
    }

    /// Sets by how much the clock is ahead.
    pub fn set_clock(&self, ahead_ms: i64) {
        self.clock.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    /// Lets one reading of the clock to come be far off, or none any more.
    pub fn set_glitch(&self, glitch: Option<Glitch>) {
        *self.clock.glitch.lock() = glitch;
    }

    fn env(&self) -> tsdb::Result<Env> {
        let (memory, waiting) = (self.disk.lock().clone(), self.waiting.clone());
        let disk = Arc::new(WatchedDisk { disk: memory.clone(), waiting: waiting.clone() });
        let ledger = DiskLedger::open(disk.clone())?;
        let reached = {
            let (memory, waiting) = (memory.clone(), waiting.clone());
            move || waiting.reached(Moment::Ship, &memory)
        };
        Ok(Env {
            clock: Arc::new(HostClock { wall: self.wall, faults: self.clock.clone() }),
            ledger: Arc::new(WatchedLedger { ledger, disk: memory, waiting }),
            disk,
            lock: None,
            net: Arc::new(SimNet {
                host: self.name.clone(),
                links: self.links.clone(),
                trace: self.trace.clone(),
            }),
            bucket: Arc::new(Handed(self.bucket.of(&self.name, reached))),
            pool: Arc::new(SimPool { wait_ms_max: self.disk_wait_ms.clone(), rng: self.rng.clone() }),
            process: Arc::new(NoProcess),
            seed: self.rng.lock().random(),
        })
    }

    fn config(&self) -> Config {
        Config {
            name: self.name.clone(),
            zone: self.zone.clone(),
            seeds: Addresses(self.seeds.iter().map(|seed| Address(format!("{seed}:{PEER_PORT}"))).collect()),
            bucket: "s3://simulated".to_owned(),
            advertise_address: OptionalAddress(Some(Address(format!("{}:{PEER_PORT}", self.name)))),
            peer_address: Address(format!("0.0.0.0:{PEER_PORT}")),
            http_address: Address(format!("0.0.0.0:{PORT}")),
            // Without either, what a write left out stays out: see `Scenario::heals`.
            hints_max_bytes: if self.heals { Config::default().hints_max_bytes } else { Size::mib(0) },
            repair_interval: if self.heals { Config::default().repair_interval } else { NEVER },
            limits: Limits {
                // So that blocks are cut within a scenario's hours.
                out_of_order_window: Bound::Max(Duration::from_min(10)),
                ..Limits::default()
            },
            ..Config::default()
        }
    }
}

/// Many nodes share the simulator's process: what it uses says nothing about one of them.
struct NoProcess;

impl Process for NoProcess {
    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn thread_cpu(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    fn release_memory(&self) {}
}

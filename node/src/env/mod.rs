//! The seams: everything through which a node touches the world.
//!
//! Built in two places, [`Env::production`] and whoever tests or simulates, and handed to
//! [`Node::start`](crate::Node::start). No other code reads a clock, makes a thread, opens a file or a socket, or
//! draws a random number.

mod clock;
mod cpu;
mod ledger;
mod net;
mod pool;
mod process;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tsdb::disk::{Disk, FolderLock, OsDisk};

use crate::bucket::{ByUrl, ObjectStores};

pub use clock::{Clock, ManualClock, SystemClock};
pub use cpu::CpuTime;
pub use ledger::{DiskLedger, Ledger, SledLedger};
pub use net::{BoxFuture, Connection, Lane, Listener, Net, TcpNet};
pub use pool::{Inline, Job, Pool, PoolWorkers, ThreadPool, Work, on_disk, run_on};
pub use process::{OsProcess, Process, Usage};

/// What a node needs from the world. Cloning shares it.
#[derive(Clone)]
pub struct Env {
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// The data folder.
    pub disk: Arc<dyn Disk>,
    /// The claim to the data folder, where others could use it too.
    pub lock: Option<Arc<FolderLock>>,
    /// Small durable facts: who this store is.
    pub ledger: Arc<dyn Ledger>,
    /// The network.
    pub net: Arc<dyn Net>,
    /// Object storage, by location.
    pub bucket: Arc<dyn ObjectStores>,
    /// Blocking and parallel work.
    pub pool: Arc<dyn Pool>,
    /// What the process uses.
    pub process: Arc<dyn Process>,
    /// Where all randomness of the node comes from.
    pub seed: u128,
}

impl Env {
    /// The real world over a data folder, which is made where there is none.
    ///
    /// `query_threads` 0 means one for each core.
    ///
    /// # Errors
    /// When the folder can't be made, opened or locked, or the ledger in it can't be read.
    pub fn production(data_dir: &Path, query_threads: usize) -> tsdb::Result<Self> {
        let io = |e| tsdb::Error::io("open", data_dir, e);
        let disk = OsDisk::open(data_dir).map_err(io)?;
        let lock = claim(&disk)?;
        Ok(Self {
            clock: Arc::new(SystemClock),
            ledger: Arc::new(SledLedger::open(&data_dir.join(SledLedger::FOLDER))?),
            disk: Arc::new(disk),
            lock: Some(Arc::new(lock)),
            net: Arc::new(TcpNet),
            bucket: Arc::new(ByUrl::from_env()),
            pool: Arc::new(ThreadPool::new(query_threads)),
            process: Arc::new(OsProcess::new()),
            seed: rand::random(),
        })
    }
}

/// How long a node waits for its folder's last owner to be gone: a killed process keeps its locks until the system has
/// taken back its memory, and whoever restarts a node shouldn't have to wait for that.
const CLAIM_WAIT: Duration = Duration::from_secs(3);
const CLAIM_EVERY: Duration = Duration::from_millis(20);

#[allow(clippy::disallowed_methods, reason = "this is the seam, and no runtime has been started yet")]
fn claim(disk: &OsDisk) -> tsdb::Result<FolderLock> {
    for _ in 0..CLAIM_WAIT.as_millis() / CLAIM_EVERY.as_millis() {
        match disk.lock() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(CLAIM_EVERY),
            other => return other.map_err(|e| tsdb::Error::io("lock", disk.root(), e)),
        }
    }
    Err(tsdb::Error::Invalid(format!(
        "the data folder {} is in use by another process: one node a folder",
        disk.root().display()
    )))
}

//! Blocking work on the only thread there is, after a pause.
//!
//! A job itself runs whole, at one moment of simulated time. What is simulated is the wait for the disk before it:
//! meanwhile other requests arrive, the process is killed, connections break.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use node::env::{Job, Pool, Work};
use parking_lot::Mutex;
use rand::Rng as _;
use rand::rngs::StdRng;

/// Runs jobs on the host's own thread.
pub struct SimPool {
    /// Longest wait for the disk, in milliseconds.
    pub wait_ms_max: Arc<AtomicU64>,
    /// Where waits are drawn from.
    pub rng: Arc<Mutex<StdRng>>,
}

impl Pool for SimPool {
    fn run(&self, work: Work, job: Job) {
        if !matches!(work, Work::Commit | Work::Disk | Work::Maintenance | Work::Bulk) {
            return job();
        }
        let wait_ms = self.rng.lock().random_range(0..=self.wait_ms_max.load(Ordering::Relaxed));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            job();
        });
    }

    fn parallelism(&self) -> usize {
        1
    }
}

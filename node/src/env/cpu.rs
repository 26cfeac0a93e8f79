//! What a piece of work takes of the cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

use super::Process;

/// Counts the CPU time of one purpose, whichever threads work for it. The waiting of these threads, for a core or for a
/// lock, isn't in it.
pub struct CpuTime {
    process: Arc<dyn Process>,
    nanos: AtomicU64,
    told: Histogram,
}

impl CpuTime {
    /// Nothing so far; `told` hears of the total, in seconds, when the last who holds it has gone.
    pub fn new(process: Arc<dyn Process>, told: Histogram) -> Arc<Self> {
        Arc::new(Self { process, nanos: AtomicU64::new(0), told })
    }

    /// Does some of the work on this thread.
    pub fn spend<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = self.process.thread_cpu();
        let done = work();
        let took = self.process.thread_cpu().saturating_sub(began);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        done
    }

    /// That of all pieces that are done.
    pub fn so_far(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

impl Drop for CpuTime {
    fn drop(&mut self) {
        self.told.observe(self.so_far().as_secs_f64());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use prometheus_client::metrics::histogram::exponential_buckets;

    use super::*;
    use crate::env::Usage;

    /// A millisecond passes with each look at the clock.
    #[derive(Default)]
    struct Ticking(AtomicU64);

    impl Process for Ticking {
        fn usage(&self) -> Usage {
            Usage::default()
        }

        fn thread_cpu(&self) -> Duration {
            Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
        }

        fn release_memory(&self) {}
    }

    /// Whatever is done takes time.
    pub(in super::super) fn ticking() -> Arc<CpuTime> {
        CpuTime::new(Arc::new(Ticking::default()), Histogram::new(exponential_buckets(0.001, 10.0, 3)))
    }

    #[test]
    fn pieces_of_work_add_up() {
        let cpu = ticking();
        assert_eq!(cpu.so_far(), Duration::ZERO);
        assert_eq!(cpu.spend(|| 7), 7);
        cpu.spend(|| ());
        assert_eq!(cpu.so_far(), Duration::from_millis(2));
    }
}

//! Blocking and parallel work.
//!
//! Each kind of [`Work`] has threads of its own, so that none waits for another: a commit of the WAL, for which every
//! write waits, isn't held up by the verification of a block, and a small query not by large ones. One evaluation
//! spreads its parts over threads for large queries that are idle ([`PoolWorkers`]); the thread that asks always works
//! itself, so a busy pool delays an evaluation but can't block it.
//!
//! What waits for a thread is bounded by whoever asks: one commit, one maintenance and the ring's flush, as many
//! verifications as there are uploads, as many queries as have permits.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::CpuTime;

/// Work for a pool.
pub type Job = Box<dyn FnOnce() + Send>;

/// What a job does, and so whom it may hold up: only others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Commits the WAL.
    Commit,
    /// Blocks on the disk for a moment: the ledger, a part of a file.
    Disk,
    /// Cuts blocks, writes checkpoints, removes what is too old; one at a time, by the engine's own lock.
    Maintenance,
    /// Reads whole blocks: verification before a block is shipped or added.
    Bulk,
    /// Decodes and appends a write that is too large for the async threads.
    Write,
    /// Answers a query that takes little.
    SmallQuery,
    /// Answers any other query, and compares what replicas have.
    LargeQuery,
    /// A part of something already begun by a [`Work::LargeQuery`], or beside it: goes before those that wait.
    Part,
}

/// Threads for short disk work.
const DISK_THREADS: usize = 4;
/// Threads that read whole blocks: more of them would leave the disk less for commits.
const BULK_THREADS: usize = 2;

/// Runs work off the async threads.
pub trait Pool: Send + Sync + 'static {
    /// Runs a job among others of its kind.
    fn run(&self, work: Work, job: Job);

    /// How many large queries run at once.
    fn parallelism(&self) -> usize;
}

/// Runs `job` among others of its kind and waits for it without blocking the async thread.
///
/// # Panics
/// When `job` does.
pub async fn run_on<T: Send + 'static>(
    pool: &dyn Pool,
    work: Work,
    job: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (job, answer) = answering(job);
    pool.run(work, job);
    received(answer.await)
}

/// Runs `job` as short disk work and waits for it without blocking the async thread.
///
/// # Panics
/// When `job` does.
pub async fn on_disk<T: Send + 'static>(pool: &dyn Pool, job: impl FnOnce() -> T + Send + 'static) -> T {
    run_on(pool, Work::Disk, job).await
}

type Answer<T> = oneshot::Receiver<std::thread::Result<T>>;

fn answering<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (Job, Answer<T>) {
    let (send, answer) = oneshot::channel();
    let job = Box::new(move || drop(send.send(catch_unwind(AssertUnwindSafe(work)))));
    (job, answer)
}

fn received<T>(answer: Result<std::thread::Result<T>, oneshot::error::RecvError>) -> T {
    match answer.expect("a pool runs every job it takes") {
        Ok(value) => value,
        Err(panic) => resume_unwind(panic),
    }
}

/// Runs everything at once on the caller's thread: for tests and the simulator.
pub struct Inline;

impl Pool for Inline {
    fn run(&self, _work: Work, job: Job) {
        job();
    }

    fn parallelism(&self) -> usize {
        1
    }
}

/// Real threads.
pub struct ThreadPool {
    commit: Queue,
    disk: Queue,
    maintenance: Queue,
    bulk: Queue,
    /// Writes and small queries: as many threads as for large queries, so that the system shares the cores between both.
    small: Queue,
    large: Queue,
    threads: usize,
}

impl ThreadPool {
    /// A pool of `threads` threads for large queries; 0 takes as many as there are cores.
    pub fn new(threads: usize) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if threads == 0 { cores() } else { threads };
        Self {
            commit: Queue::start("commit", 1),
            disk: Queue::start("disk", DISK_THREADS),
            maintenance: Queue::start("maintenance", 1),
            bulk: Queue::start("bulk", BULK_THREADS),
            small: Queue::start("small", threads),
            large: Queue::start("compute", threads),
            threads,
        }
    }
}

impl Pool for ThreadPool {
    fn run(&self, work: Work, job: Job) {
        match work {
            Work::Commit => self.commit.push(job, false),
            Work::Disk => self.disk.push(job, false),
            Work::Maintenance => self.maintenance.push(job, false),
            Work::Bulk => self.bulk.push(job, false),
            Work::Write => self.small.push(job, true),
            Work::SmallQuery => self.small.push(job, false),
            Work::LargeQuery => self.large.push(job, false),
            Work::Part => self.large.push(job, true),
        }
    }

    fn parallelism(&self) -> usize {
        self.threads
    }
}

/// Threads that share a queue; they end when it is dropped.
struct Queue(Arc<QueueState>);

struct QueueState {
    jobs: Mutex<(VecDeque<Job>, bool)>,
    arrived: Condvar,
}

impl Queue {
    fn start(name: &str, threads: usize) -> Self {
        let state = Arc::new(QueueState { jobs: Mutex::default(), arrived: Condvar::new() });
        for number in 0..threads {
            let state = state.clone();
            let thread = std::thread::Builder::new().name(format!("{name}-{number}"));
            thread.spawn(move || state.work()).expect("the system gives a process its first threads");
        }
        Self(state)
    }

    fn push(&self, job: Job, urgent: bool) {
        let mut jobs = self.0.jobs.lock();
        if urgent {
            jobs.0.push_front(job);
        } else {
            jobs.0.push_back(job);
        }
        drop(jobs);
        self.0.arrived.notify_one();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.0.jobs.lock().1 = true;
        self.0.arrived.notify_all();
    }
}

impl QueueState {
    fn work(&self) {
        loop {
            let mut jobs = self.jobs.lock();
            let job = loop {
                match jobs.0.pop_front() {
                    Some(job) => break job,
                    None if jobs.1 => return,
                    None => self.arrived.wait(&mut jobs),
                }
            };
            drop(jobs);
            // A job that panics tells whoever waits for it (`answering`); the thread goes on.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}

/// One evaluation's hold on the pool.
pub struct PoolWorkers<'a> {
    pool: &'a dyn Pool,
    /// Of those who help the thread that asks, which counts its own.
    cpu: Option<&'a Arc<CpuTime>>,
}

impl<'a> PoolWorkers<'a> {
    /// Nobody wants to know what they take.
    pub fn new(pool: &'a dyn Pool) -> Self {
        Self { pool, cpu: None }
    }

    /// Those that help the thread that asks spend `cpu`; that thread does so itself.
    pub fn spending(pool: &'a dyn Pool, cpu: &'a Arc<CpuTime>) -> Self {
        Self { pool, cpu: Some(cpu) }
    }
}

impl tsdb::workers::Workers for PoolWorkers<'_> {
    /// Calls `task` with 0 to `tasks - 1`, on this thread and those that are idle; returns when all have run.
    ///
    /// # Panics
    /// When a task does; the others still run to their end.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let helpers = self.pool.parallelism().min(tasks).saturating_sub(1);
        if helpers == 0 {
            return (0..tasks).for_each(task);
        }
        let shared = Arc::new(Shared {
            task: TaskPointer::new(task),
            tasks,
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            open: Mutex::new(tasks),
            done: Condvar::new(),
        });
        for _ in 0..helpers {
            let (shared, cpu) = (shared.clone(), self.cpu.cloned());
            let help = move || match cpu {
                // It is counted before the last task is reported as done.
                Some(cpu) => shared.finished(cpu.spend(|| shared.work())),
                None => shared.finished(shared.work()),
            };
            self.pool.run(Work::Part, Box::new(help));
        }
        shared.finished(shared.work());
        let mut open = shared.open.lock();
        while *open > 0 {
            shared.done.wait(&mut open);
        }
        drop(open);
        assert!(!shared.panicked.load(Ordering::Relaxed), "a part of the evaluation panicked");
    }
}

struct Shared {
    task: TaskPointer,
    tasks: usize,
    next: AtomicUsize,
    panicked: AtomicBool,
    /// Tasks that haven't finished.
    open: Mutex<usize>,
    done: Condvar,
}

impl Shared {
    /// Takes tasks until none is left to take; gives how many it has done.
    fn work(&self) -> usize {
        let mut finished = 0;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.tasks {
                break;
            }
            if catch_unwind(AssertUnwindSafe(|| self.task.call(number))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            finished += 1;
        }
        finished
    }

    fn finished(&self, finished: usize) {
        if finished > 0 {
            let mut open = self.open.lock();
            *open -= finished;
            if *open == 0 {
                self.done.notify_all();
            }
        }
    }
}

/// A borrowed task without its lifetime. It is called only with a number below `tasks`, and `run` returns only after
/// each of those calls has returned; a helper that comes later finds no number left and never touches it.
struct TaskPointer(*const (dyn Fn(usize) + Sync));

#[allow(unsafe_code, reason = "scoped work on threads that outlive the scope")]
// SAFETY: the pointee is `Sync`, and the type's comment says why it is alive at every call.
unsafe impl Send for TaskPointer {}

#[allow(unsafe_code, reason = "scoped work on threads that outlive the scope")]
// SAFETY: as above.
unsafe impl Sync for TaskPointer {}

impl TaskPointer {
    #[allow(unsafe_code, reason = "scoped work on threads that outlive the scope")]
    fn new(task: &(dyn Fn(usize) + Sync)) -> Self {
        // SAFETY: only the lifetime changes; the type's comment says why no call outlives it.
        Self(unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(task)
        })
    }

    #[allow(unsafe_code, reason = "scoped work on threads that outlive the scope")]
    fn call(&self, number: usize) {
        // SAFETY: the type's comment says why the task is alive.
        (unsafe { &*self.0 })(number);
    }
}

#[cfg(test)]
mod tests {
    use tsdb::workers::Workers as _;

    use super::*;
    use crate::env::cpu;

    fn counts_each_task_once(pool: &dyn Pool) {
        let counts: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
        PoolWorkers::new(pool).run(counts.len(), &|i| {
            counts[i].fetch_add(1, Ordering::Relaxed);
        });
        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn every_task_runs_once() {
        counts_each_task_once(&Inline);
        let pool = ThreadPool::new(3);
        for _ in 0..50 {
            counts_each_task_once(&pool);
        }
    }

    #[test]
    fn evaluations_on_every_thread_at_once_do_not_block_each_other() {
        let pool = Arc::new(ThreadPool::new(2));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let jobs: Vec<_> = (0..8)
                .map(|_| {
                    let own = pool.clone();
                    let (job, answer) = answering(move || counts_each_task_once(&*own));
                    pool.run(Work::LargeQuery, job);
                    answer
                })
                .collect();
            for answer in jobs {
                received(answer.await);
            }
        });
    }

    /// Blocks every thread for some kinds of work until the returned sender is dropped.
    fn occupy(pool: &ThreadPool, kinds: &[Work]) -> std::sync::mpsc::Sender<()> {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for work in kinds {
            for _ in 0..100 {
                let held = held.clone();
                pool.run(*work, Box::new(move || held.lock().recv().unwrap_or_default()));
            }
        }
        release
    }

    #[test]
    fn work_waits_for_no_other_kind_of_work() {
        let large = [Work::LargeQuery, Work::Part];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (busy, goes_on) in [
            (&[Work::Disk][..], Work::Commit),
            (&[Work::Maintenance], Work::Commit),
            (&[Work::Bulk], Work::Commit),
            (&large, Work::Commit),
            (&[Work::Bulk], Work::Maintenance),
            (&[Work::Bulk, Work::Maintenance], Work::Disk),
            (&large, Work::SmallQuery),
            (&large, Work::Write),
        ] {
            let pool = ThreadPool::new(2);
            let release = occupy(&pool, busy);
            // It never returns where it has to wait.
            runtime.block_on(run_on(&pool, goes_on, || ()));
            drop(release);
        }
    }

    #[test]
    fn time_of_threads_that_help_is_counted_when_all_is_done() {
        let pool = ThreadPool::new(2);
        let (cpu, both) = (cpu::tests::ticking(), std::sync::Barrier::new(2));
        PoolWorkers::spending(&pool, &cpu).run(2, &|_| {
            both.wait();
        });
        assert!(cpu.so_far() > std::time::Duration::ZERO);
    }

    #[test]
    fn a_panic_reaches_whoever_waits_and_the_threads_live_on() {
        let pool = ThreadPool::new(2);
        let run = || PoolWorkers::new(&pool).run(10, &|i| assert!(i != 7, "seven"));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        counts_each_task_once(&pool);
    }
}

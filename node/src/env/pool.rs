//! Blocking and parallel work.
//!
//! Two kinds of threads, so that neither waits for the other: *disk* threads block in the system (`fdatasync`, cutting
//! blocks), *compute* threads evaluate queries, as many as there are cores. One evaluation spreads its parts over
//! compute threads that are idle ([`PoolWorkers`]); the thread that asks always works itself, so a busy pool delays an
//! evaluation but can't block it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::CpuTime;

/// Work for a pool.
pub type Job = Box<dyn FnOnce() + Send>;

/// Threads for disk work: commits, maintenance and checkpoints can run beside each other.
const DISK_THREADS: usize = 4;

/// Runs work off the async threads.
pub trait Pool: Send + Sync + 'static {
    /// Runs work that blocks on the disk.
    fn disk(&self, job: Job);

    /// Runs work that needs a core; `urgent` work goes first: writes, and parts of something already begun.
    fn compute(&self, job: Job, urgent: bool);

    /// How many compute jobs run at once.
    fn parallelism(&self) -> usize;
}

/// Runs `work` as disk work and waits for it without blocking the async thread.
///
/// # Panics
/// When `work` does.
pub async fn on_disk<T: Send + 'static>(pool: &dyn Pool, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (job, answer) = answering(work);
    pool.disk(job);
    received(answer.await)
}

/// Runs `work` as compute work and waits for it without blocking the async thread.
///
/// # Panics
/// When `work` does.
pub async fn on_cores<T: Send + 'static>(
    pool: &dyn Pool,
    urgent: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (job, answer) = answering(work);
    pool.compute(job, urgent);
    received(answer.await)
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
    fn disk(&self, job: Job) {
        job();
    }

    fn compute(&self, job: Job, _urgent: bool) {
        job();
    }

    fn parallelism(&self) -> usize {
        1
    }
}

/// Real threads.
pub struct ThreadPool {
    disk: Queue,
    compute: Queue,
    threads: usize,
}

impl ThreadPool {
    /// A pool of `threads` compute threads; 0 takes as many as there are cores.
    pub fn new(threads: usize) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if threads == 0 { cores() } else { threads };
        Self { disk: Queue::start("disk", DISK_THREADS), compute: Queue::start("compute", threads), threads }
    }
}

impl Pool for ThreadPool {
    fn disk(&self, job: Job) {
        self.disk.push(job, false);
    }

    fn compute(&self, job: Job, urgent: bool) {
        self.compute.push(job, urgent);
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
            self.pool.compute(Box::new(help), true);
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
                    pool.compute(job, false);
                    answer
                })
                .collect();
            for answer in jobs {
                received(answer.await);
            }
        });
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

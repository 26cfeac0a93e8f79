//! Who does the work: the seam to the node's pool.

/// Runs tasks, on as many threads as it likes.
pub trait Workers: Sync {
    /// Calls `task` once with each number below `tasks`, in any order and possibly at the same time, and returns
    /// when all calls have returned.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// Runs everything on the caller's thread, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

impl Workers for Inline {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

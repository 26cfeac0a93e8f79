//! Who does the work that falls into independent parts: the seam to the node's pool, since nothing here makes threads.

use parking_lot::Mutex;

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

/// Calls `work` with each item and its place. All are worked on, whatever becomes of the others; of several errors the
/// first by place is returned, so that the order in which threads come doesn't show.
pub(crate) fn each<T: Send, E: Send>(
    workers: &dyn Workers,
    items: &mut [T],
    work: impl Fn(usize, &mut T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let cells: Vec<_> = items.iter_mut().map(|item| Mutex::new((item, Ok(())))).collect();
    workers.run(cells.len(), &|at| {
        let (item, done) = &mut *cells[at].lock();
        *done = work(at, item);
    });
    cells.into_iter().try_for_each(|cell| cell.into_inner().1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_and_the_first_error_is_told() {
        let mut items = [1, 2, 3, 4];
        let done = each(&Inline, &mut items, |at, item| {
            *item *= 10;
            if at % 2 == 1 { Err(at) } else { Ok(()) }
        });
        assert_eq!((done, items), (Err(1), [10, 20, 30, 40]));
    }
}

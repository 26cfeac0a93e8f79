//! Every operation on the disk that a checkpoint or a cut makes, and each way in which it may fail.

use tsdb::Error;
use tsdb::disk::Fault;

use super::store::{MINUTE_MS, Store, settings};

/// Operations at which the disk fails, in CI.
const POINTS: u64 = 1_000;

/// What a store does when the disk fails.
#[derive(Clone, Copy, Debug)]
enum Work {
    Checkpoint,
    Cut,
}

impl Work {
    /// Does it, as a node does: errors but for [`Error::Stopped`] are told and put up with.
    fn run(self, store: &mut Store) -> Result<(), Error> {
        match self {
            Self::Checkpoint => store.db().maintain(store.reading(0)).map(drop),
            Self::Cut => store.flush().map(drop),
        }
    }
}

/// The number of points, and what a long run asks for.
fn points() -> u64 {
    let asked = std::env::var("CARILLON_CRASH_POINTS");
    asked.map_or(POINTS, |n| n.parse().expect("CARILLON_CRASH_POINTS is a number"))
}

/// A store with checkpoints, finished chunks, blocks, late samples and others' files, stopped.
fn aged(seed: u64) -> Store {
    let mut settings = settings();
    settings.checkpoint_bytes = 0;
    let mut store = Store::new(seed, settings);
    for step in 0..40 {
        store.append().unwrap();
        store.commit().unwrap();
        store.now_ms += (step % 7) * MINUTE_MS;
        if step % 9 == 8 {
            store.maintain().unwrap();
        }
        if step == 20 {
            store.litter();
        }
    }
    store.disk.kill();
    store
}

/// The store opened, with samples that are acked and others that nobody was told of.
fn begun(aged: &Store) -> Store {
    let mut store = aged.fork();
    store.open().unwrap();
    for _ in 0..6 {
        store.append().unwrap();
        store.commit().unwrap();
    }
    store.append().unwrap();
    store
}

/// Each operation of the work fails in each way; what failed is tried again at once, and then the power goes.
#[test]
fn no_operation_of_a_checkpoint_or_cut_that_fails_loses_or_doubles_a_sample() {
    let (wanted, mut tried, mut seed) = (points(), 0u64, 0);
    while tried < wanted {
        seed += 1;
        let aged = aged(seed);
        for work in [Work::Checkpoint, Work::Cut] {
            let operations = {
                let mut store = begun(&aged);
                let before = store.disk.operations();
                work.run(&mut store).unwrap();
                store.disk.operations() - before
            };
            assert!(operations > 10, "{work:?}: {operations}");
            for after in 0..operations {
                for fault in [Fault::Power { after }, Fault::Io { after }, Fault::NoSpace { after }] {
                    let mut store = begun(&aged);
                    let struck = store.disk.struck();
                    store.disk.inject(fault);
                    let done = work.run(&mut store);
                    if store.disk.struck() == struck {
                        // Fewer operations take room than there are.
                        continue;
                    }
                    tried += 1;
                    let is_over =
                        matches!(done, Err(Error::Stopped(_))) || matches!(fault, Fault::Power { .. });
                    if !is_over {
                        store.check();
                        store.disk.clear_faults();
                        let again = if after % 2 == 0 { Work::Checkpoint } else { work };
                        let _ = again.run(&mut store);
                        store.check();
                    }
                    store.restart_and_check(true);
                    // What is there stays, in however many blocks it is.
                    if after % 5 == 0 {
                        store.flush().unwrap();
                        store.restart_and_check(true);
                    }
                }
            }
        }
    }
    println!("{tried} points of checkpoints and cuts at which the disk failed, from {seed} seeds");
}

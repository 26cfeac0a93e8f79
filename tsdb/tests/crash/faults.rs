//! Power cuts, errors and full disks while the engine appends, cuts blocks and writes checkpoints.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tsdb::Error;
use tsdb::disk::Fault;

use super::rounds;
use super::store::{Store, settings};

/// Steps of a run: some hours of samples, a few blocks, a dozen checkpoints.
const STEPS: usize = 120;

/// Runs until something fails, if it does.
fn run(store: &mut Store, steps: usize) -> Result<(), Error> {
    (0..steps).try_for_each(|_| store.step())
}

/// A store some steps into its life, stopped, each time the same.
fn aged() -> Store {
    let mut store = Store::new(1, settings());
    run(&mut store, STEPS).unwrap();
    store.commit().unwrap();
    store.disk.kill();
    store
}

#[test]
fn nothing_is_lost_when_nothing_fails() {
    let mut store = aged();
    for power in [false, true, true] {
        store.restart_and_check(power);
        run(&mut store, STEPS).unwrap();
        store.check();
    }
    let mut blocks = 0;
    for _ in 0..3 {
        blocks += store.flush().unwrap().cut.len();
        store.restart_and_check(true);
        run(&mut store, STEPS).unwrap();
    }
    assert!(blocks > 0, "this must have cut blocks");
}

/// Operations on the disk that a run of [`STEPS`] takes.
fn operations_of_a_run(aged: &Store) -> u64 {
    let mut store = aged.fork();
    store.open().unwrap();
    let before = store.disk.operations();
    run(&mut store, STEPS).unwrap();
    store.disk.operations() - before
}

/// Tries `fault` at operations all over a run; then with power or without it.
fn at_any_operation(few: u64, fault: impl Fn(u64) -> Fault, power: bool) {
    let aged = aged();
    let operations = operations_of_a_run(&aged);
    let tries = rounds(few).min(operations);
    for round in 0..tries {
        let after = round * operations / tries;
        let mut store = aged.fork();
        store.open().unwrap();
        store.disk.inject(fault(after));
        // A node goes on after an error, until it is restarted.
        for _ in 0..STEPS {
            if matches!(store.step(), Err(Error::Stopped(_))) {
                break;
            }
        }
        store.restart_and_check(power);
        run(&mut store, 40).unwrap_or_else(|e| panic!("after operation {after}: {e}"));
        store.check();
        store.restart_and_check(true);
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acked() {
    at_any_operation(20, |after| Fault::Power { after }, true);
}

#[test]
fn an_error_at_any_operation_loses_nothing_acked() {
    at_any_operation(12, |after| Fault::Io { after }, false);
}

#[test]
fn an_error_and_then_a_power_cut_lose_nothing_acked() {
    at_any_operation(12, |after| Fault::Io { after }, true);
}

#[test]
fn a_failed_sync_at_any_time_loses_nothing_acked() {
    at_any_operation(10, |after| Fault::Sync { after: after / 8 }, true);
    at_any_operation(5, |after| Fault::Sync { after: after / 8 }, false);
}

#[test]
fn no_room_at_any_write_loses_nothing_acked() {
    at_any_operation(15, |after| Fault::NoSpace { after: after / 2 }, true);
}

#[test]
fn a_power_cut_during_any_operation_of_a_start_loses_nothing() {
    let store = aged();
    let operations = {
        let mut fork = store.fork();
        let before = fork.disk.operations();
        fork.open().unwrap();
        fork.disk.operations() - before
    };
    let tries = rounds(15).min(operations);
    for round in 0..tries {
        let mut fork = store.fork();
        fork.disk.inject(Fault::Power { after: round * operations / tries });
        let _ = fork.open();
        fork.restart_and_check(true);
        run(&mut fork, 20).unwrap();
        fork.restart_and_check(true);
    }
}

#[test]
fn a_full_disk_refuses_writes_answers_questions_and_recovers() {
    for seed in 0..rounds(4) {
        let mut store = Store::new(seed, settings());
        run(&mut store, STEPS).unwrap();
        let mut rng = StdRng::seed_from_u64(seed);
        let used = (1 << 50) - tsdb::disk::Disk::free_bytes(&store.disk).unwrap();
        store.disk.set_capacity(Some(used + rng.random_range(0..64 << 10)));
        let mut refused = 0;
        for _ in 0..3 * STEPS {
            match store.step() {
                Ok(()) => {}
                Err(Error::NoSpace(_)) => refused += 1,
                Err(e) => panic!("round {seed}: {e}"),
            }
        }
        assert!(refused > 0, "round {seed}: the disk never filled up");
        store.check();
        if seed % 2 == 1 {
            // A full disk mustn't keep a node from starting either.
            store.restart_and_check(seed % 4 == 1);
        }
        store.disk.set_capacity(None);
        // Whoever calls again finds that it works: a commit and a maintenance are what a node does by itself.
        let _ = store.commit();
        store.maintain().unwrap();
        store.commit().unwrap();
        run(&mut store, 40).unwrap_or_else(|e| panic!("round {seed}: {e}"));
        store.check();
        store.restart_and_check(true);
    }
}

/// Anything at any time, many restarts in a row.
#[test]
fn nothing_acked_is_lost_whatever_happens() {
    for seed in 0..rounds(6) {
        let mut store = Store::new(1_000 + seed, settings());
        for _ in 0..6 {
            let after = store.rng.random_range(0..400);
            let fault = match store.rng.random_range(0..5) {
                0 => Some(Fault::Io { after }),
                1 => Some(Fault::Power { after }),
                2 => Some(Fault::Sync { after: after / 8 }),
                3 => Some(Fault::NoSpace { after: after / 2 }),
                _ => None,
            };
            fault.into_iter().for_each(|fault| store.disk.inject(fault));
            for _ in 0..60 {
                if matches!(store.step(), Err(Error::Stopped(_))) {
                    break;
                }
            }
            let power = store.rng.random();
            store.restart_and_check(power);
        }
    }
}

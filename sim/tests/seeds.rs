//! The simulator itself: a lone node (seed 22) and a cluster (seed 23) pass, and a seed is one trace (I17).
//!
//! `CARILLON_SIM_SEEDS` says how many are run instead, from 0 (.ci/long: 300).

use std::process::Command;

/// Runs the simulator; whether it ended well, and what it printed.
fn simulator(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_carillon-sim")).args(arguments).output();
    let output = output.expect("cargo has built it");
    let [text, errors] = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    (output.status.success(), text + &errors)
}

#[test]
#[allow(clippy::print_stdout, reason = "a long test says what it did")]
fn seeds_pass_and_two_processes_of_one_seed_leave_the_same_trace() {
    let asked_for = std::env::var("CARILLON_SIM_SEEDS").ok();
    let (from, seeds) = asked_for.as_deref().map_or(("22", "2"), |seeds| ("0", seeds));
    let (good, text) = simulator(&["run", "--from", from, "--seeds", seeds, "--twice"]);
    assert!(good, "{text}");
    assert!(text.contains(&format!("{seeds} seeds passed, 0 failed")), "{text}");
    println!("{}", text.lines().last().unwrap_or_default());
}

#[test]
fn a_replay_prints_operations_and_answers_with_times_and_names() {
    let (good, text) = simulator(&["replay", "--seed", "22"]);
    assert!(good, "{text}");
    for part in [" sim      ", " node-1   ", " writer-1 write to node-1: 204", "mend everything", "passed"] {
        assert!(text.contains(part), "{part:?} isn't in\n{text}");
    }
}

#[test]
#[cfg(not(feature = "planted"))]
fn a_build_without_bugs_says_how_to_make_one_that_has_them() {
    let (good, text) = simulator(&["planted", "--seeds", "1"]);
    assert!(!good && text.contains("--features planted"), "{text}");
    let (good, text) = simulator(&["planted", "--bugs", "NoSuchBug"]);
    assert!(!good && text.contains("OneAck"), "{text}");
}

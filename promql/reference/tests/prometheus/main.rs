//! The engine against a real Prometheus of 3.5 or later: expressions in the language that it knows, and patterns.
//!
//! `FUZZ_SEED` is the first seed (default 1). Skipped, with a message, where `.ci/setup` hasn't put a Prometheus; never in
//! CI, which sets `CARILLON_REQUIRE_PEERS`.

#![allow(dead_code, reason = "what other users of the runner need")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test starts processes and is told by its environment")]

#[path = "../../../examples/promqltest/api.rs"]
mod api;
#[path = "../../../examples/promqltest/expect.rs"]
mod expect;
#[path = "../../../examples/promqltest/histogram.rs"]
mod histogram;
#[path = "../../../examples/promqltest/load.rs"]
mod load;
#[path = "../../../examples/promqltest/nhcb.rs"]
mod nhcb;
#[path = "../../../examples/promqltest/remote_write.rs"]
mod remote_write;
#[path = "../../../examples/promqltest/run.rs"]
mod run;
#[path = "../../../examples/promqltest/scan.rs"]
mod scan;
#[path = "../../../examples/promqltest/script.rs"]
mod script;
#[path = "../../../examples/promqltest/values.rs"]
mod values;

mod expressions;
mod patterns;
mod peer;

/// A number that the environment may give.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// What there were too many of, and the first of them.
fn assert_none(differences: &[String]) {
    assert!(
        differences.is_empty(),
        "{} differences (engine and Prometheus):\n{}",
        differences.len(),
        differences[..differences.len().min(30)].join("\n")
    );
}

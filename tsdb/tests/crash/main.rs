//! Crashes of the whole engine, on the disk's twin in memory.
//!
//! A [`store::Store`] appends to a database like a node's clients do, and keeps a ledger of what it was told is safe.
//! Whatever happens to the disk (power cuts at any operation, errors, no room, failed syncs, rot), after the next
//! start every acked sample is there, once and with its value, and nothing is there that nobody wrote; only what a
//! damaged record held may be missing, and then the start reports it with tenant and time range.
//!
//! `CARILLON_CRASH_ROUNDS` sets how often each case is tried with other random numbers, `CARILLON_CRASH_POINTS` at how
//! many operations of checkpoints and cuts the disk fails.

#![allow(clippy::unwrap_used, reason = "all of this is a test")]

mod faults;
mod operations;
mod rot;
mod store;
mod threads;
mod wal_damage;

/// How often to try: a few times, or as often as `CARILLON_CRASH_ROUNDS` says.
fn rounds(few: u64) -> u64 {
    std::env::var("CARILLON_CRASH_ROUNDS")
        .map_or(few, |n| n.parse().expect("CARILLON_CRASH_ROUNDS is a number"))
}

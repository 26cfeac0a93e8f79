//! Tests of the workspace as a whole: real processes, real peers, the house's own rules.

#![allow(clippy::disallowed_methods, reason = "these tests are the outside world: real files, ports, time")]
#![allow(clippy::unwrap_used, reason = "a test panics at what it doesn't expect")]

mod dependencies;
mod house;
mod start;

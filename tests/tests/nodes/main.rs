//! Tests of the workspace as a whole: real processes, real peers, the house's own rules.

#![allow(clippy::disallowed_methods, reason = "these tests are the outside world: real files, ports, time")]
#![allow(clippy::unwrap_used, reason = "a test panics at what it doesn't expect")]
#![allow(clippy::print_stdout, reason = "a long test says what it did")]

mod bad_input;
mod bucket;
mod budget;
mod cluster;
mod crash;
mod dependencies;
mod deploy;
mod disk_full;
mod docs;
mod fail_stop;
mod house;
mod import;
mod interop;
mod start;
mod tiny_elements;

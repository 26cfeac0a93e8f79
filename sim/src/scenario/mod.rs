//! A scenario: machines, load, and a list of operations with times, all of it from one seed, all of it printable.

mod operation;
mod plan;

pub use operation::{Failure, Operation};
pub use plan::{Calm, REPLICATION_FACTOR, Scenario};

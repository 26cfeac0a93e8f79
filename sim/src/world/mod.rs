//! The world that a simulated node lives in: every seam of `node::env`, on simulated time, network and disk.
//!
//! A [`Machine`] is what outlives the process that runs on it: the disk, the clock, the supervisor's wish that the
//! process stops. Each start of the process gets a fresh `Env` over them.

mod bucket;
mod clock;
mod disk;
mod machine;
mod moment;
mod net;
mod pool;

pub use bucket::{Mood, Store};
pub use clock::{ClockFaults, Glitch, HostClock, WallTime};
pub use disk::{WatchedDisk, leave_strays, missing_strays, rot};
pub use machine::{Around, Machine, PORT};
pub use moment::{Moment, Waiting, WatchedLedger};
pub use net::{Links, SimNet};
pub use pool::SimPool;

//! Wall clocks, wrong by as much as the scenario says.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use node::env::Clock;

/// How wall time goes in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime {
    /// Milliseconds since the Unix epoch at the start.
    pub begin_ms: i64,
    /// Wall milliseconds that pass in one elapsed millisecond. Above 1 the hours that lie between a sample and its
    /// block pass in the minutes of a scenario, while time-outs stay what they are.
    pub rate: i64,
}

impl WallTime {
    /// The right time, in milliseconds since the Unix epoch.
    pub fn at(&self, elapsed: Duration) -> i64 {
        self.begin_ms + i64::try_from(elapsed.as_millis()).expect("a simulation ends before") * self.rate
    }

    /// The right time on the host that runs now; outside of hosts no time has passed yet.
    pub fn now_ms(&self) -> i64 {
        self.at(turmoil::sim_elapsed().unwrap_or_default())
    }
}

/// The clock of one host.
pub struct HostClock {
    /// The right time.
    pub wall: WallTime,
    /// By how much this clock is ahead, in milliseconds.
    pub ahead_ms: Arc<AtomicI64>,
}

impl Clock for HostClock {
    fn now_ms(&self) -> i64 {
        self.wall.now_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }
}

//! Wall clocks, wrong by as much as the scenario says.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use node::env::Clock;
use parking_lot::Mutex;

use crate::exercise::{Exercise, Tally};

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

/// One reading to come that is far off, as of a clock that was set by hand and set right again.
#[derive(Clone, Copy, Debug)]
pub struct Glitch {
    /// Readings before it.
    pub after: u64,
    /// By how much it is ahead, in milliseconds.
    pub ahead_ms: i64,
}

/// What is wrong with the clock of one host.
#[derive(Default)]
pub struct ClockFaults {
    /// By how much it is ahead, in milliseconds.
    pub ahead_ms: AtomicI64,
    /// The glitch to come.
    pub glitch: Mutex<Option<Glitch>>,
    /// Glitches of all hosts that some process has read.
    pub read: Arc<AtomicU64>,
    /// Where they are counted.
    pub tally: Option<Tally>,
}

impl ClockFaults {
    /// By how much this reading is ahead, in milliseconds.
    fn ahead_ms(&self) -> i64 {
        let mut glitch = self.glitch.lock();
        match &mut *glitch {
            Some(Glitch { after: 0, ahead_ms }) => {
                let ahead_ms = *ahead_ms;
                *glitch = None;
                self.read.fetch_add(1, Ordering::Relaxed);
                self.tally.iter().for_each(|tally| tally.count(Exercise::Glitch));
                return ahead_ms;
            }
            Some(glitch) => glitch.after -= 1,
            None => {}
        }
        self.ahead_ms.load(Ordering::Relaxed)
    }
}

/// The clock of one host.
pub struct HostClock {
    /// The right time.
    pub wall: WallTime,
    /// What is wrong with it.
    pub faults: Arc<ClockFaults>,
}

impl Clock for HostClock {
    fn now_ms(&self) -> i64 {
        self.wall.now_ms() + self.faults.ahead_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glitch_is_one_reading() {
        let faults = Arc::new(ClockFaults::default());
        faults.ahead_ms.store(5, Ordering::Relaxed);
        *faults.glitch.lock() = Some(Glitch { after: 1, ahead_ms: 1_000_000 });
        let clock = HostClock { wall: WallTime { begin_ms: 100, rate: 1 }, faults: faults.clone() };
        assert_eq!([(); 4].map(|()| clock.now_ms()), [105, 1_000_100, 105, 105]);
        assert_eq!(faults.read.load(Ordering::Relaxed), 1);
    }
}

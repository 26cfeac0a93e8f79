//! When a wall clock may be believed.
//!
//! A wall clock jumps: by a month after a bad answer of a time server, by hours after a machine slept. What is deleted
//! by age is gone for good, so one reading decides nothing. A [`ClockCheck`] compares each reading with one before it:
//!
//! 1. Between two readings the wall clock must have gone on by as much as monotonic time, within [`TOLERANCE_MS`].
//! 2. The two must lie at least [`INTERVAL_MS`] of monotonic time apart.
//! 3. A reading that disagrees makes the check forget what it knew, and is the first of the next pair.
//!
//! A clock that is wrong and stays wrong passes: whoever deletes samples bounds their age by data time as well.

/// Monotonic time between two readings before they count, in milliseconds.
pub const INTERVAL_MS: u64 = 60_000;

/// Most that wall clock and monotonic time may differ by between two readings, in milliseconds. Both are read one after
/// the other, and a busy machine may stop the process in between.
pub const TOLERANCE_MS: u64 = 5_000;

/// What both clocks showed at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// Wall clock, in milliseconds since the Unix epoch; may jump either way.
    pub wall_ms: i64,
    /// Monotonic time, in milliseconds since a moment that is fixed for the life of the process.
    pub elapsed_ms: u64,
}

/// Confirms readings of the wall clock. One for each process and purpose: monotonic times of two processes can't be
/// compared.
#[derive(Clone, Debug, Default)]
pub struct ClockCheck {
    /// What the next reading is compared with.
    earlier: Option<ClockReading>,
    /// Whether `earlier` agreed with a reading an interval before it.
    is_confirmed: bool,
}

impl ClockCheck {
    /// Takes a reading; returns its wall-clock time if it is confirmed. To be called at least every few minutes, with
    /// readings in the order in which they were taken.
    pub fn confirm(&mut self, reading: ClockReading) -> Option<i64> {
        match self.earlier {
            Some(earlier) if earlier.agrees_with(reading) => {
                if reading.elapsed_ms.saturating_sub(earlier.elapsed_ms) >= INTERVAL_MS {
                    // The pair moves on, so that small steps of the clock don't add up over days.
                    *self = Self { earlier: Some(reading), is_confirmed: true };
                }
            }
            _ => *self = Self { earlier: Some(reading), is_confirmed: false },
        }
        (self.is_confirmed || planted::is(planted::Bug::OneClockReading)).then_some(reading.wall_ms)
    }
}

impl ClockReading {
    /// Whether both clocks went on by about as much from this reading to a later one.
    fn agrees_with(self, later: Self) -> bool {
        let wall_ms = i128::from(later.wall_ms) - i128::from(self.wall_ms);
        let elapsed_ms = i128::from(later.elapsed_ms) - i128::from(self.elapsed_ms);
        (wall_ms - elapsed_ms).unsigned_abs() <= u128::from(TOLERANCE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH_MS: i64 = 30 * 24 * 3_600_000;

    /// What a check says to readings a second apart, of a wall clock that is off by so much in each second.
    fn confirmed(offsets_ms: impl IntoIterator<Item = i64>) -> Vec<bool> {
        let mut check = ClockCheck::default();
        let mut readings = 0;
        let offsets_ms = offsets_ms.into_iter();
        offsets_ms
            .map(|offset_ms| {
                readings += 1;
                let wall_ms = 1_700_000_000_000 + readings * 1_000 + offset_ms;
                let confirmed = check.confirm(ClockReading { wall_ms, elapsed_ms: readings as u64 * 1_000 });
                assert!(confirmed.is_none_or(|ms| ms == wall_ms));
                confirmed.is_some()
            })
            .collect()
    }

    #[test]
    fn a_steady_clock_is_believed_from_an_interval_on() {
        let seconds = INTERVAL_MS as usize / 1_000;
        let confirmed = confirmed(vec![0; 5 * seconds]);
        assert_eq!(confirmed.iter().position(|is| *is), Some(seconds));
        assert!(confirmed[seconds..].iter().all(|is| *is));
    }

    #[test]
    fn no_single_reading_is_believed_wherever_it_comes() {
        for offset_ms in [MONTH_MS, -MONTH_MS, 6_000, i64::MAX / 2] {
            for at in [0, 1, 59, 60, 61, 200] {
                let offsets_ms = (0..400).map(|i| if i == at { offset_ms } else { 0 });
                let confirmed = confirmed(offsets_ms);
                assert!(!confirmed[at], "{offset_ms} at {at}");
                // The first right one after it is as little believed as the very first.
                assert_eq!(confirmed[at + 1..].iter().position(|is| *is), Some(60), "{offset_ms} at {at}");
            }
        }
    }

    #[test]
    fn a_clock_that_jumps_time_and_again_is_never_believed() {
        assert!(confirmed((0..600).map(|i| i / 30 * 10_000)).iter().all(|is| !is));
        // Nor one that runs twice as fast.
        assert!(confirmed((0..600).map(|i| i * 1_000)).iter().all(|is| !is));
    }

    #[test]
    fn steps_of_a_time_server_are_put_up_with() {
        let confirmed = confirmed((0..6_000).map(|i| i / 60 * 200));
        assert!(confirmed[60..].iter().all(|is| *is));
    }

    #[test]
    fn extreme_readings_overflow_nothing() {
        let mut check = ClockCheck::default();
        let mut confirm = |wall_ms, elapsed_ms| check.confirm(ClockReading { wall_ms, elapsed_ms });
        assert_eq!(confirm(i64::MIN, 0), None);
        assert_eq!(confirm(i64::MAX, u64::MAX), Some(i64::MAX), "both went on by 2^64 - 1");
        assert_eq!(confirm(i64::MIN, u64::MAX), None);
        assert_eq!(confirm(i64::MIN, 0), None);
    }
}

//! The three bytes in front of a histogram chunk's layout.
//!
//! ```text
//! without start times   count u16 BE | reset 2 bits, 6 zero bits
//! with start times      reset 2 bits | count 14 bits BE | starts u8, see `starts`
//!
//! reset   what is known of a counter reset before the chunk: 00 nothing, 10 there was one, 01 none, 11 it's a gauge
//! ```

use crate::chunk::starts::Starts;
use crate::model::CounterReset;

/// Length of either header.
pub(super) const HEADER_BYTES: usize = 3;

const COUNT_BITS_WITH_STARTS: u32 = 14;
const RESET_SHIFT: u32 = 6;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of samples.
    pub(super) count: u16,
    /// What is known of a reset before them.
    pub(super) reset: CounterReset,
    /// Of encodings that keep start times.
    pub(super) starts: Option<Starts>,
}

impl Header {
    pub(super) fn new(reset: CounterReset, with_starts: bool) -> Self {
        Self { count: 0, reset, starts: with_starts.then(Starts::default) }
    }

    pub(super) fn read([first, second, third]: [u8; HEADER_BYTES], with_starts: bool) -> Self {
        let count = u16::from_be_bytes([first, second]);
        if with_starts {
            let count = count & ((1 << COUNT_BITS_WITH_STARTS) - 1);
            Self { count, reset: reset_of(first), starts: Some(Starts::from_header(third)) }
        } else {
            Self { count, reset: reset_of(third), starts: None }
        }
    }

    pub(super) fn bytes(self) -> [u8; HEADER_BYTES] {
        let [mut first, second] = self.count.to_be_bytes();
        let mut third = bits_of(self.reset);
        if let Some(starts) = self.starts {
            first |= third;
            third = starts.header();
        }
        [first, second, third]
    }

    /// Counts one more sample; a chunk is ended long before it holds as many as fit.
    pub(super) fn count_one(&mut self) {
        let max = if self.starts.is_some() { (1 << COUNT_BITS_WITH_STARTS) - 1 } else { u16::MAX };
        assert!(self.count < max, "a chunk is ended long before {max} samples");
        self.count += 1;
    }
}

fn bits_of(reset: CounterReset) -> u8 {
    let bits = match reset {
        CounterReset::Unknown => 0b00,
        CounterReset::Reset => 0b10,
        CounterReset::NotReset => 0b01,
        CounterReset::Gauge => 0b11,
    };
    bits << RESET_SHIFT
}

fn reset_of(byte: u8) -> CounterReset {
    match byte >> RESET_SHIFT {
        0b10 => CounterReset::Reset,
        0b01 => CounterReset::NotReset,
        0b11 => CounterReset::Gauge,
        _ => CounterReset::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        use CounterReset::{Gauge, NotReset, Reset, Unknown};
        for reset in [Unknown, Reset, NotReset, Gauge] {
            for (with_starts, count) in [(false, 0), (false, 65_535), (true, 0), (true, 16_383)] {
                let header = Header { count, ..Header::new(reset, with_starts) };
                assert_eq!(Header::read(header.bytes(), with_starts), header);
            }
        }
        assert_eq!(Header { count: 258, ..Header::new(Reset, true) }.bytes(), [0x81, 2, 0]);
        assert_eq!(Header { count: 258, ..Header::new(Reset, false) }.bytes(), [1, 2, 0x80]);
    }
}

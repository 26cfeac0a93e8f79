//! Floats with their times, of which results have millions: copied by constant numbers of bytes, and what most times begin
//! with is known.

use super::number::{digits, push_float, push_timestamp, short_text};

/// Longest point: a bracket, 16 digits of seconds and a fraction, a comma and quotes around 24 bytes, a bracket; and room
/// for copying a value as [`VALUE_BYTES`].
const POINT_BYTES: usize = 64;
/// Room for a value.
const VALUE_BYTES: usize = 32;
/// Seconds whose digits are written for each point; those before them change every few hours.
const LOW_SECONDS: i64 = 10_000;

/// Writes points: `[1435781451.781,"1.5"]`.
pub struct FloatPoints {
    /// What points begin with: a bracket, and the digits of `high`.
    begin: [u8; POINT_BYTES],
    begin_bytes: usize,
    /// Time in [`LOW_SECONDS`].
    high: i64,
}

impl Default for FloatPoints {
    fn default() -> Self {
        Self { begin: [b'['; POINT_BYTES], begin_bytes: 1, high: 0 }
    }
}

impl FloatPoints {
    /// Appends a point.
    #[inline]
    pub fn push(&mut self, out: &mut Vec<u8>, timestamp_ms: i64, value: f64) {
        let (mut integer, mut float) = (itoa::Buffer::new(), zmij::Buffer::new());
        let high = timestamp_ms / (1000 * LOW_SECONDS);
        let Some(value) = short_text(value, &mut integer, &mut float).filter(|_| high > 0) else {
            return push_any(out, timestamp_ms, value);
        };
        if self.high != high {
            self.begin_with(high);
        }
        let low_ms = (timestamp_ms % (1000 * LOW_SECONDS)) as u32;
        let start = out.len();
        // Put together where it stays: reading at once what was just written in pieces would wait for them.
        out.extend_from_slice(&self.begin);
        let mut point = Unfinished { room: &mut out[start..], length: self.begin_bytes };
        point.put(digits(low_ms / 1000));
        if !low_ms.is_multiple_of(1000) {
            let [_, fraction @ ..] = digits(low_ms % 1000);
            point.put([b'.']);
            point.put(fraction);
        }
        point.put(*b",\"");
        point.put_value(value.as_bytes());
        point.put(*b"\"]");
        let length = point.length;
        out.truncate(start + length);
    }

    #[cold]
    fn begin_with(&mut self, high: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(high).as_bytes();
        self.high = high;
        self.begin_bytes = 1 + digits.len();
        self.begin[1..self.begin_bytes].copy_from_slice(digits);
    }
}

/// A point that isn't complete.
struct Unfinished<'o> {
    /// [`POINT_BYTES`].
    room: &'o mut [u8],
    length: usize,
}

impl Unfinished<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.room[self.length..self.length + N].copy_from_slice(&bytes);
        self.length += N;
    }

    /// Two copies of constant length, which may overlap, are a few instructions; one as long as the text would be a call.
    #[inline]
    fn put_value(&mut self, text: &[u8]) {
        let length = text.len();
        let room = &mut self.room[self.length..self.length + VALUE_BYTES];
        if let (Some(first), Some(last)) = (text.first_chunk::<16>(), text.last_chunk::<16>()) {
            room[..16].copy_from_slice(first);
            room[length - 16..length].copy_from_slice(last);
        } else if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
            room[..8].copy_from_slice(first);
            room[length - 8..length].copy_from_slice(last);
        } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
            room[..4].copy_from_slice(first);
            room[length - 4..length].copy_from_slice(last);
        } else {
            room[..length].copy_from_slice(text);
        }
        self.length += length;
    }
}

/// Any value at any time.
fn push_any(out: &mut Vec<u8>, timestamp_ms: i64, value: f64) {
    out.push(b'[');
    push_timestamp(out, timestamp_ms);
    out.extend_from_slice(b",\"");
    push_float(out, value);
    out.extend_from_slice(b"\"]");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Times of today and of long ago, with and without fractions, and any; values of any length, and any.
    fn points() -> impl Strategy<Value = Vec<(i64, f64)>> {
        let time = prop_oneof![
            4 => (1_763_900_000..1_764_100_000i64).prop_map(|s| s * 1000),
            2 => 1_763_900_000_000..1_764_100_000_000i64,
            1 => -20_000_000..20_000_000i64,
            1 => any::<i64>(),
        ];
        let value = prop_oneof![
            2 => (0..10u32, any::<u32>()).prop_map(|(scale, n)| f64::from(n) / 10f64.powi(scale.cast_signed())),
            1 => (0..53u32, any::<i64>()).prop_map(|(shift, n)| (n >> (shift + 11)) as f64),
            1 => any::<f64>(),
            1 => any::<u64>().prop_map(f64::from_bits),
        ];
        prop::collection::vec((time, value), 1..50)
    }

    proptest! {
        #[test]
        fn points_are_the_same_whatever_stood_there_before(points in points()) {
            let (mut writer, mut written, mut expected) = (FloatPoints::default(), Vec::new(), Vec::new());
            for (timestamp_ms, value) in points {
                writer.push(&mut written, timestamp_ms, value);
                push_any(&mut expected, timestamp_ms, value);
            }
            prop_assert_eq!(String::from_utf8(written), String::from_utf8(expected));
        }
    }

    #[test]
    fn the_longest_point_fits() {
        let (mut out, seconds) = (Vec::new(), i64::MAX / 1000 - 1);
        let (time_ms, value) = (seconds * 1000 + 999, -123_456.789_012_345_67e-10);
        FloatPoints::default().push(&mut out, time_ms, value);
        assert_eq!(String::from_utf8(out).unwrap(), format!("[{seconds}.999,\"{value}\"]"));
    }
}

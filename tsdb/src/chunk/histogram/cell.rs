//! One number of a histogram through the samples of a chunk, for integer and for float counts.

use crate::Result;
use crate::chunk::Encoding;
use crate::chunk::bits::{BitReader, BitWriter};
use crate::chunk::varbit::{push_varbit_int, push_varbit_uint, read_varbit_int, read_varbit_uint};
use crate::chunk::xor::{Window, push_xor, read_xor};
use crate::model::Count;

/// A count that histogram chunks can hold.
pub trait ChunkCount: Count + PartialOrd {
    /// The encoding of its chunks.
    const ENCODING: Encoding;
    /// The encoding of its chunks with start times.
    const ENCODING_WITH_STARTS: Encoding;
    /// How one of its numbers changes from sample to sample.
    #[allow(private_bounds, reason = "the codec's own")]
    type Cell: Cell<Self>;
}

impl ChunkCount for u64 {
    const ENCODING: Encoding = Encoding::Histogram;
    const ENCODING_WITH_STARTS: Encoding = Encoding::HistogramWithStarts;
    type Cell = IntCell;
}

impl ChunkCount for f64 {
    const ENCODING: Encoding = Encoding::FloatHistogram;
    const ENCODING_WITH_STARTS: Encoding = Encoding::FloatHistogramWithStarts;
    type Cell = FloatCell;
}

/// One number's state. Buckets are written relative to their left neighbour, counts relative to 0.
pub(crate) trait Cell<C>: Copy + std::fmt::Debug + Send + Sync {
    /// A cell before the first sample.
    const ZERO: Self;
    /// The first sample's number; `is_signed` for buckets.
    fn write_first(writer: &mut BitWriter, value: C, left: C, is_signed: bool) -> Self;
    /// A further sample's number.
    fn write(&mut self, writer: &mut BitWriter, value: C, left: C);
    /// The first sample's number.
    fn read_first(reader: &mut BitReader<'_>, is_signed: bool) -> Self;
    /// A further sample's number.
    fn read(&mut self, reader: &mut BitReader<'_>) -> Result<()>;
    /// The number as it now is.
    fn value(&self, left: C) -> C;
    /// The number that costs the fewest bits to write next.
    fn cheapest(&self) -> C;
}

/// An integer, written by the change of its change.
#[derive(Clone, Copy, Debug)]
pub struct IntCell {
    /// Difference to the left neighbour, two's complement.
    value: u64,
    delta: u64,
}

impl Cell<u64> for IntCell {
    const ZERO: Self = Self { value: 0, delta: 0 };

    fn write_first(writer: &mut BitWriter, value: u64, left: u64, is_signed: bool) -> Self {
        let value = value.wrapping_sub(left);
        if is_signed {
            push_varbit_int(writer, value.cast_signed());
        } else {
            push_varbit_uint(writer, value);
        }
        Self { value, delta: 0 }
    }

    #[inline]
    fn write(&mut self, writer: &mut BitWriter, value: u64, left: u64) {
        let value = value.wrapping_sub(left);
        let delta = value.wrapping_sub(self.value);
        push_varbit_int(writer, delta.wrapping_sub(self.delta).cast_signed());
        *self = Self { value, delta };
    }

    fn read_first(reader: &mut BitReader<'_>, is_signed: bool) -> Self {
        let value =
            if is_signed { read_varbit_int(reader).cast_unsigned() } else { read_varbit_uint(reader) };
        Self { value, delta: 0 }
    }

    #[inline]
    fn read(&mut self, reader: &mut BitReader<'_>) -> Result<()> {
        self.delta = self.delta.wrapping_add(read_varbit_int(reader).cast_unsigned());
        self.value = self.value.wrapping_add(self.delta);
        Ok(())
    }

    #[inline]
    fn value(&self, left: u64) -> u64 {
        left.wrapping_add(self.value)
    }

    fn cheapest(&self) -> u64 {
        self.value.wrapping_add(self.delta)
    }
}

/// A float, written by XOR; its neighbour plays no part. A histogram's sum is one, whatever its counts are.
#[derive(Clone, Copy, Debug)]
pub struct FloatCell {
    bits: u64,
    window: Window,
}

impl Cell<f64> for FloatCell {
    const ZERO: Self = Self { bits: 0, window: Window::NONE };

    fn write_first(writer: &mut BitWriter, value: f64, _: f64, _: bool) -> Self {
        writer.push(value.to_bits(), 64);
        Self { bits: value.to_bits(), window: Window::NONE }
    }

    #[inline]
    fn write(&mut self, writer: &mut BitWriter, value: f64, _: f64) {
        push_xor(writer, (0, 0), self.bits ^ value.to_bits(), &mut self.window);
        self.bits = value.to_bits();
    }

    fn read_first(reader: &mut BitReader<'_>, _: bool) -> Self {
        Self { bits: reader.read(64), window: Window::NONE }
    }

    #[inline]
    fn read(&mut self, reader: &mut BitReader<'_>) -> Result<()> {
        self.bits ^= read_xor(reader, &mut self.window)?;
        Ok(())
    }

    #[inline]
    fn value(&self, _: f64) -> f64 {
        f64::from_bits(self.bits)
    }

    fn cheapest(&self) -> f64 {
        f64::from_bits(self.bits)
    }
}

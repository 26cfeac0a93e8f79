//! A series' name inside one node.

use std::fmt;

/// Names a series of the head, for one node and one incarnation of it: never used for another series again.
///
/// ```text
/// 63          32 31           s s-1    0     s = log2(shards)
/// +-------------+--------------+--------+
/// | generation  | slot         | shard  |
/// +-------------+--------------+--------+
///               \______ local id _______/    what postings hold
/// ```
/// A slot is used again after its series was collected, then with a higher generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesRef(u64);

impl SeriesRef {
    /// No series: what a look-up gives for a key it doesn't know.
    pub const NONE: Self = Self(u64::MAX);

    /// From [`SeriesRef::to_u64`].
    pub fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// As a number, for logs of this node.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// Whether this names no series.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    pub(crate) fn new(generation: u32, local_id: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(local_id))
    }

    /// Slot and shard: what postings hold.
    pub(crate) fn local_id(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Debug for SeriesRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none");
        }
        write!(f, "{}.{}", self.local_id(), self.generation())
    }
}

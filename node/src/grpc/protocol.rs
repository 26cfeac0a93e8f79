//! Versions of what nodes say to each other.
//!
//! A node speaks its own version and the one before, so that a cluster is upgraded node by node, one version at a
//! time: neighbouring versions always have one in common, and the newest in common is spoken.

use std::fmt;

/// The version that this program speaks best. Raised by whatever an older node would misunderstand.
const CURRENT: u32 = 1;

/// The versions that a node speaks, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    min: u32,
    max: u32,
}

impl Default for Protocol {
    fn default() -> Self {
        Self::of(CURRENT)
    }
}

impl Protocol {
    /// What a program of version `current` speaks.
    pub fn of(current: u32) -> Self {
        Self { min: current.saturating_sub(1), max: current }
    }

    /// What a program `by` versions newer (or older) than this one speaks: for tests of mixed versions.
    pub fn shifted(by: i32) -> Self {
        Self::of(CURRENT.saturating_add_signed(by))
    }

    /// The newest version that both speak.
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }

    /// Reads what [`Protocol`]'s `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (min, max) = text.split_once('-')?;
        let (min, max) = (min.parse().ok()?, max.parse().ok()?);
        (min <= max).then_some(Self { min, max })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_a_version_in_common_and_others_have_none() {
        for (a, b, common) in [(4, 4, Some(4)), (4, 5, Some(4)), (4, 3, Some(3)), (4, 6, None), (4, 2, None)]
        {
            assert_eq!(Protocol::of(a).common(Protocol::of(b)), common, "{a} {b}");
            assert_eq!(Protocol::of(b).common(Protocol::of(a)), common, "{b} {a}");
        }
        assert_eq!(Protocol::shifted(1).common(Protocol::default()), Some(CURRENT));
    }

    #[test]
    fn versions_read_back() {
        for version in [0, 1, 7] {
            let protocol = Protocol::of(version);
            assert_eq!(Protocol::parse(&protocol.to_string()), Some(protocol));
        }
        for text in ["", "1", "1-", "-1", "2-1", "a-b", "1-2-3"] {
            assert_eq!(Protocol::parse(text), None, "{text:?}");
        }
    }
}

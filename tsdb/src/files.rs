//! Every file name in the data folder, in one place.
//!
//! ```text
//! LOCK                  held by the process that owns the folder
//! wal/                  the write-ahead log of all tenants (`wal`)
//!   00000007            a segment: number in decimal, eight digits or more
//!   spare-00000003      a segment that was truncated away, kept to be written again
//! ```

use std::path::{Path, PathBuf};

/// Held by the process that owns the folder.
pub const LOCK: &str = "LOCK";

/// The folder of the write-ahead log.
pub const WAL_DIR: &str = "wal";

/// What a WAL segment's name begins with while it waits to be written again.
const WAL_SPARE_PREFIX: &str = "spare-";

/// A file in the WAL's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalFile {
    /// The segment of this number.
    Segment(u32),
    /// A file to be reused, which once was the segment of this number.
    Spare(u32),
}

impl WalFile {
    /// Its path in the WAL's folder `dir`.
    pub fn path(self, dir: &Path) -> PathBuf {
        match self {
            Self::Segment(number) => dir.join(format!("{number:08}")),
            Self::Spare(number) => dir.join(format!("{WAL_SPARE_PREFIX}{number:08}")),
        }
    }

    /// From a name in the WAL's folder; `None` when it isn't one of ours.
    pub fn parse(name: &Path) -> Option<Self> {
        let name = name.to_str()?;
        let spare = name.strip_prefix(WAL_SPARE_PREFIX);
        let digits = spare.unwrap_or(name);
        if digits.len() < 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let number = digits.parse().ok()?;
        let file = if spare.is_some() { Self::Spare(number) } else { Self::Segment(number) };
        // Only the one spelling that `path` gives: two files must never stand for one segment.
        (file.path(Path::new("")) == Path::new(name)).then_some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_wal_files_round_trip() {
        for number in [0, 1, 99_999_999, 100_000_000, u32::MAX] {
            for file in [WalFile::Segment(number), WalFile::Spare(number)] {
                assert_eq!(WalFile::parse(&file.path(Path::new(""))), Some(file));
            }
        }
    }

    #[test]
    fn foreign_names_are_no_wal_files() {
        for name in ["", "1", "0000000a", "000000001", "spare-", "spare-1", "4294967296", "00000001.tmp"] {
            assert_eq!(WalFile::parse(Path::new(name)), None, "{name}");
        }
    }
}

//! What a receiver says of each sample, in runs.
//!
//! ```text
//! verdicts:  | verdict u8 | count: unsigned varint | …        runs, in the order of the samples
//! ```

use tsdb::db::Outcome;
use tsdb::{Error, Result, varint};

/// What became of one sample, or of one family, at one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// It is stored, and safe.
    Stored = 0,
    /// It was there, and is safe.
    Duplicate = 1,
    /// Another value of its time stays, by the fixed order.
    Superseded = 2,
    /// Older than anybody takes.
    TooOld = 3,
    /// Out of order, and older than the window.
    OutOfOrder = 4,
    /// Further ahead than anybody takes.
    TooFarAhead = 5,
    /// A deletion covers it.
    Deleted = 6,
    /// Its tenant may have no further series.
    SeriesLimit = 7,
    /// Its labels, or the sample itself, can't be stored.
    Invalid = 8,
    /// By the receiver's ring document the series isn't its own.
    NotOwner = 9,
    /// The receiver doesn't know the ref any more: its labels are wanted again.
    NeedLabels = 10,
}

impl Verdict {
    /// All of them, by their code.
    pub const ALL: [Self; 11] = [
        Self::Stored,
        Self::Duplicate,
        Self::Superseded,
        Self::TooOld,
        Self::OutOfOrder,
        Self::TooFarAhead,
        Self::Deleted,
        Self::SeriesLimit,
        Self::Invalid,
        Self::NotOwner,
        Self::NeedLabels,
    ];

    /// Whether the store has it, or a better one.
    pub fn is_ack(self) -> bool {
        matches!(self, Self::Stored | Self::Duplicate | Self::Superseded)
    }

    /// Whether the same store may take it another time.
    pub fn is_retry(self) -> bool {
        matches!(self, Self::NotOwner | Self::NeedLabels)
    }
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Stored => Self::Stored,
            Outcome::Duplicate => Self::Duplicate,
            Outcome::Superseded => Self::Superseded,
            Outcome::TooOld => Self::TooOld,
            Outcome::OutOfOrder => Self::OutOfOrder,
            Outcome::TooFarAhead => Self::TooFarAhead,
            Outcome::Deleted => Self::Deleted,
            Outcome::TooLarge => Self::Invalid,
            Outcome::UnknownSeries => Self::NeedLabels,
        }
    }
}

/// Verdicts as runs.
pub fn write_verdicts(verdicts: &[Verdict]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for run in verdicts.chunk_by(|a, b| a == b) {
        bytes.push(run[0] as u8);
        varint::put(&mut bytes, run.len() as u64);
    }
    bytes
}

/// Reads what [`write_verdicts`] wrote.
///
/// # Errors
/// When there aren't exactly `count`.
pub fn read_verdicts(bytes: &[u8], count: usize) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::with_capacity(count);
    for run in runs(bytes) {
        let (verdict, length) = run?;
        if length > count - verdicts.len() {
            return Err(wrong("there are more than samples"));
        }
        verdicts.resize(verdicts.len() + length, verdict);
    }
    if verdicts.len() < count { Err(wrong("there are fewer than samples")) } else { Ok(verdicts) }
}

/// Whether any of these is said of some sample.
///
/// # Errors
/// When they can't be read.
pub fn says_any(bytes: &[u8], wanted: &[Verdict]) -> Result<bool> {
    runs(bytes).try_fold(false, |said, run| Ok(said | wanted.contains(&run?.0)))
}

fn wrong(why: &str) -> Error {
    Error::corrupt("verdicts", 0, why)
}

fn runs(bytes: &[u8]) -> impl Iterator<Item = Result<(Verdict, usize)>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&code, behind) = rest.split_first()?;
        rest = behind;
        let mut length = || {
            let length = varint::take(&mut rest).ok_or_else(|| wrong("a run is cut short"))?;
            usize::try_from(length).map_err(|_| wrong("a run is too long"))
        };
        let verdict = Verdict::ALL.get(usize::from(code)).ok_or_else(|| wrong("an unknown verdict"));
        Some(verdict.and_then(|verdict| Ok((*verdict, length()?))))
    })
}

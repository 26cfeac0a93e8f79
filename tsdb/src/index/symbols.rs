//! The symbol table: every string of an index, sorted, each once; labels refer to them.
//!
//! ```text
//! len <4> | count <4> | { length <uvarint> | string }* | CRC32C <4>
//! ```
//!
//! Version 2 refers to a symbol by its number in the table, version 1 by its offset in the file. The table stays where
//! it is, in the memory map; every [`SAMPLE`]th entry's offset is kept, and a look-up walks on from there.

use bytes::Bytes;

use super::coding::Reader;
use crate::{Error, Result};

/// Entries between two offsets kept: 4 bytes for each 16 symbols, eight steps a look-up on average.
const SAMPLE: usize = 16;

/// A symbol table, read in place.
#[derive(Clone, Debug)]
pub(crate) struct Symbols {
    file: Bytes,
    /// Where entries begin and end in the file.
    start: usize,
    end: usize,
    count: u32,
    references: References,
}

#[derive(Clone, Debug)]
enum References {
    /// Offsets from `start` of every [`SAMPLE`]th entry.
    Numbers(Vec<u32>),
    FileOffsets,
}

impl Symbols {
    /// Verifies the table at `offset` of an index file and prepares look-ups.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(crate) fn open(file: Bytes, offset: u64, version: u8) -> Result<Self> {
        let mut reader = Reader::section("symbol table", &file, offset)?;
        let count = reader.u32()?;
        let start = reader.offset();
        let end = start + reader.rest().len();
        let mut samples = Vec::with_capacity((count as usize).min(end - start) / SAMPLE + 1);
        for i in 0..count as usize {
            if i.is_multiple_of(SAMPLE) {
                let at = u32::try_from(reader.offset() - start).expect("a section is shorter than 4 GiB");
                samples.push(at);
            }
            reader.length_and_bytes()?;
        }
        if !reader.rest().is_empty() {
            return Err(reader.corrupt(format!("bytes follow its {count} entries")));
        }
        let references = if version == 1 { References::FileOffsets } else { References::Numbers(samples) };
        Ok(Self { file, start, end, count, references })
    }

    /// Number of symbols.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The symbol that a label refers to.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where there is none, or it isn't UTF-8.
    pub(crate) fn get(&self, reference: u32) -> Result<&str> {
        let wrong = || Error::corrupt("symbol table", self.start, format!("there is no symbol {reference}"));
        match &self.references {
            References::FileOffsets => {
                let at = reference as usize;
                if !(self.start..self.end).contains(&at) {
                    return Err(wrong());
                }
                self.reader(at).str()
            }
            References::Numbers(samples) => {
                if reference >= self.count {
                    return Err(wrong());
                }
                let number = reference as usize;
                let sample = *samples.get(number / SAMPLE).ok_or_else(wrong)?;
                let mut reader = self.reader(self.start + sample as usize);
                for _ in 0..number % SAMPLE {
                    reader.length_and_bytes()?;
                }
                reader.str()
            }
        }
    }

    /// All symbols with what labels call them, in the table's order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<(u32, &str)>> {
        let mut reader = self.reader(self.start);
        (0..self.count).map(move |number| {
            let reference = match self.references {
                References::Numbers(_) => number,
                References::FileOffsets => u32::try_from(reader.offset())
                    .map_err(|_| reader.corrupt("a symbol lies beyond 4 GiB"))?,
            };
            Ok((reference, reader.str()?))
        })
    }

    fn reader(&self, at: usize) -> Reader<'_> {
        Reader::new("symbol table", &self.file[at..self.end], at)
    }
}

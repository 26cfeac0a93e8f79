//! What metric families say of themselves.
//!
//! ```text
//! family: | name | kind | help | unit |     each: | length: unsigned varint | bytes |
//! ```

use super::bytes::{Rest, put_bytes};
use super::entries::{Decode, Entries};
use crate::Result;
use crate::db::Metadata;

/// Writes metadata.
#[derive(Default)]
pub struct MetadataWriter {
    bytes: Vec<u8>,
}

impl MetadataWriter {
    /// Adds a family.
    pub fn push(&mut self, metadata: &Metadata) {
        for text in [&metadata.family, &metadata.kind, &metadata.help, &metadata.unit] {
            put_bytes(&mut self.bytes, text.as_bytes());
        }
    }

    /// The record so far.
    pub fn payload(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there is no family.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets all families, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// Reads metadata.
pub type MetadataRecords<'a> = Entries<'a, Independent>;

/// Families don't refer back to others.
#[derive(Default)]
pub struct Independent;

impl<'a> Decode<'a> for Independent {
    type Entry = Metadata;
    const WHAT: &'static str = "WAL record of metadata";

    fn decode(&mut self, rest: &mut Rest<'a>) -> Result<Metadata> {
        let mut text = || rest.string().map(str::to_owned);
        Ok(Metadata { family: text()?, kind: text()?, help: text()?, unit: text()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn metadata_round_trips(all in prop::collection::vec(("\\PC{0,9}", "[a-z]{0,9}", "\\PC{0,200}", "[a-z]{0,9}"), 0..9)) {
            let family = |(family, kind, help, unit)| Metadata { family, kind, help, unit };
            let all: Vec<_> = all.into_iter().map(family).collect();
            let mut writer = MetadataWriter::default();
            all.iter().for_each(|m| writer.push(m));
            let read: Vec<_> = MetadataRecords::new(writer.payload()).map(Result::unwrap).collect();
            prop_assert_eq!(read, all);
            writer.clear();
            prop_assert!(writer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(MetadataRecords::new(&bytes).count() <= bytes.len());
        }
    }
}

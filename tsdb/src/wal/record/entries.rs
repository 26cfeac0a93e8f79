//! Reading any record: entry after entry, up to the end or the first error.

use super::bytes::Rest;
use crate::Result;

/// How the entries of one kind of record are read: its state is what an entry may refer back to.
pub trait Decode<'a>: Default {
    /// What an entry is.
    type Entry;
    /// The record's name in errors.
    const WHAT: &'static str;

    /// Reads the next entry; there is at least a byte left.
    fn decode(&mut self, rest: &mut Rest<'a>) -> Result<Self::Entry>;
}

/// The entries of a record's payload. After an error there is none.
pub struct Entries<'a, D> {
    rest: Rest<'a>,
    state: D,
}

impl<'a, D: Decode<'a>> Entries<'a, D> {
    /// Of a payload that this kind of record's writer made.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { rest: Rest::new(D::WHAT, payload), state: D::default() }
    }
}

impl<'a, D: Decode<'a>> Iterator for Entries<'a, D> {
    type Item = Result<D::Entry>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let decoded = self.state.decode(&mut self.rest);
        if decoded.is_err() {
            self.rest.stop();
        }
        Some(decoded)
    }
}

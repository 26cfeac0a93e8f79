//! Tokens: points on a line of 2^32, held by members, that say who keeps which keys.
//!
//! A key stands at the upper half of its 64-bit hash. Every copy of it is kept in a *column* of its own: a placement
//! with three copies has three columns. In each column the tokens cut the line into ranges; a token's range begins
//! behind the token before it in that column and ends with it, and the last token stands at the last point. Tokens
//! are laid out ([`plan()`]) so that the columns name distinct members for every key, at most [`zone_limit`] of a zone.
//!
//! With columns a member that comes can take exactly what it should have from exactly whom it should, at the cost of
//! one token; with one circle for all copies each token would change the neighbours' copies too.
//!
//! ```text
//! column 0  |        a        |    d    |     four members, three copies
//! column 1  |   b    | d |        b     |
//! column 2  |       c        |  d  | c  |
//! ```

mod grid;
mod plan;
mod zone;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::StoreId;

pub use plan::{Layout, plan};
pub use zone::zone_limit;

/// Most tokens of a member in one column.
pub const MAX_TOKENS: usize = 4096;

/// A member's tokens by column, in ascending order. Columns at the end may be left out where it holds none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tokens(pub Vec<Vec<u32>>);

impl Tokens {
    /// How many there are in all columns.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.count())
    }
}

/// A list of texts, one a column: eight hex digits a token, nothing between them.
impl Serialize for Tokens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|column| {
            let mut text = String::with_capacity(column.len() * HEX_DIGITS);
            for token in column {
                let _ = write!(text, "{token:08x}");
            }
            text
        }))
    }
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts: Vec<String> = Vec::deserialize(deserializer)?;
        let columns = texts.iter().map(|text| read_column(text)).collect::<Option<_>>();
        columns.map(Self).ok_or_else(|| serde::de::Error::custom("tokens are ascending runs of 8 hex digits"))
    }
}

const HEX_DIGITS: usize = 8;

fn read_column(text: &str) -> Option<Vec<u32>> {
    let digits = text.as_bytes();
    let whole = digits.len().is_multiple_of(HEX_DIGITS) && digits.iter().all(u8::is_ascii_hexdigit);
    if !whole || digits.len() > MAX_TOKENS * HEX_DIGITS {
        return None;
    }
    let token = |run: &[u8]| u32::from_str_radix(std::str::from_utf8(run).ok()?, 16).ok();
    let tokens: Vec<u32> = digits.chunks(HEX_DIGITS).map(token).collect::<Option<_>>()?;
    tokens.is_sorted_by(|a, b| a < b).then_some(tokens)
}

/// The point of a key on the line.
#[must_use]
pub fn point(token: u64) -> u32 {
    (token >> 32) as u32
}

/// Points that are kept by the same members, up to and with `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) end: u32,
    /// By column: places in the order of store ids.
    pub(crate) holders: Vec<u16>,
}

/// All columns laid side by side; `Err` says what is wrong with them.
pub(crate) fn rows(members: &BTreeMap<StoreId, Tokens>, rf: u32) -> Result<Vec<Row>, &'static str> {
    let mut columns: Vec<Vec<(u32, u16)>> = vec![Vec::new(); rf as usize];
    for (holder, tokens) in members.values().enumerate() {
        if tokens.0.len() > columns.len() {
            return Err("a member holds tokens in more columns than there are");
        }
        for (column, tokens) in columns.iter_mut().zip(&tokens.0) {
            column.extend(tokens.iter().map(|token| (*token, holder as u16)));
        }
    }
    for column in &mut columns {
        column.sort_unstable();
        if column.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err("two members hold one token");
        }
        if column.last().is_none_or(|(last, _)| *last != u32::MAX) {
            return Err("a column doesn't cover all keys");
        }
    }
    let mut rows = Vec::new();
    let mut at = vec![0; columns.len()];
    loop {
        let next = columns.iter().zip(&at).map(|(column, at)| column[*at]);
        let end = next.clone().map(|(end, _)| end).min().ok_or("there are no columns")?;
        rows.push(Row { end, holders: next.map(|(_, holder)| holder).collect() });
        if end == u32::MAX {
            return Ok(rows);
        }
        for (column, at) in columns.iter().zip(&mut at) {
            *at += usize::from(column[*at].0 == end);
        }
    }
}

//! Strings numbered in the order in which they come, for a writer that learns them only with its series.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Distinct strings: their bytes one after the other, and a table of numbers beside them.
#[derive(Default)]
pub(crate) struct SymbolSet {
    bytes: String,
    ends: Vec<usize>,
    table: HashTable<u32>,
}

impl SymbolSet {
    /// The string's number: how many distinct ones came before it.
    pub(crate) fn number(&mut self, text: &str) -> u32 {
        let hash = xxh3_64(text.as_bytes());
        let Self { bytes, ends, table } = self;
        if let Some(number) = table.find(hash, |number| get(bytes, ends, *number) == text) {
            return *number;
        }
        let number = ends.len() as u32;
        bytes.push_str(text);
        ends.push(bytes.len());
        table.insert_unique(hash, number, |number| xxh3_64(get(bytes, ends, *number).as_bytes()));
        number
    }

    /// Numbers in the order of their strings.
    pub(crate) fn sorted(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..self.ends.len() as u32).collect();
        numbers.sort_unstable_by_key(|number| self.get(*number));
        numbers
    }

    /// The string of a number.
    pub(crate) fn get(&self, number: u32) -> &str {
        get(&self.bytes, &self.ends, number)
    }
}

fn get<'a>(bytes: &'a str, ends: &[usize], number: u32) -> &'a str {
    let number = number as usize;
    let start = if number == 0 { 0 } else { ends[number - 1] };
    &bytes[start..ends[number]]
}

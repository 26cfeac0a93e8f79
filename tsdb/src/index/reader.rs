//! Reads an index file where it lies: versions 2 and 1 (the formats stand in `writer`; what version 1 does otherwise
//! stands below).
//!
//! Steps at open: verify the table of contents, walk the symbol table and the postings offset table once (both under
//! their checksums), keep a sampled offset of each [`SAMPLE`]th value of a name. Later reads verify the checksum of
//! the series or the list that they touch.
//!
//! Version 1: a series' id is its offset in the file, symbols are called by their offset, the postings offset table
//! isn't sorted (so its entries are sorted here), and series aren't aligned.

use bytes::Bytes;
use roaring::RoaringBitmap;

use super::coding::{Reader, crc32c};
use super::postings::{IdList, PostingsSource};
use super::symbols::Symbols;
use super::{INDEX_BYTES_MAX, MAGIC, SERIES_ALIGN, Toc};
use crate::block::ChunkMeta;
use crate::model::{Labels, Matcher};
use crate::{Error, Result};

/// Values between two offsets kept of the postings offset table.
const SAMPLE: usize = 16;

/// Slots of the memory of symbols that a reading of many series has: power of two.
const CACHE_SLOTS: usize = 4096;

/// An index file.
#[derive(Clone, Debug)]
pub(crate) struct IndexReader {
    file: Bytes,
    version: u8,
    toc: Toc,
    symbols: Symbols,
    /// Sorted by name.
    names: Vec<Name>,
    /// Offset of the list of all series; `None` in an empty index.
    all: Option<u64>,
}

/// The entries of a label name in the postings offset table.
#[derive(Clone, Debug)]
struct Name {
    name: Box<str>,
    count: usize,
    /// Where in the file each [`SAMPLE`]th entry begins, the first one first; in version 1 every entry, sorted.
    entries: Vec<u64>,
    /// Entries from one offset kept to the next.
    sample: usize,
}

/// A series' entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeriesEntry {
    /// Symbols of names and values.
    pub(crate) labels: Vec<(u32, u32)>,
    /// Its chunks, as they come.
    pub(crate) chunks: Vec<ChunkMeta>,
}

impl IndexReader {
    /// Opens an index from its bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; the file's path is for the caller to add.
    pub(crate) fn open(file: Bytes) -> Result<Self> {
        let wrong = |reason: String| Error::corrupt("index", 0, reason);
        let Some((magic, rest)) = file.split_first_chunk() else {
            return Err(wrong("the file is empty".to_owned()));
        };
        if u32::from_be_bytes(*magic) != MAGIC {
            return Err(wrong("the file doesn't begin with its magic number".to_owned()));
        }
        let version = rest.first().copied().unwrap_or(0);
        if !(1..=2).contains(&version) {
            return Err(wrong(format!("version {version} isn't known")));
        }
        if file.len() as u64 > INDEX_BYTES_MAX {
            return Err(wrong(format!("{} bytes are more than the format's {INDEX_BYTES_MAX}", file.len())));
        }
        let toc = Toc::read(&file)?;
        let symbols = Symbols::open(file.clone(), toc.symbols, version)?;
        let mut reader = Self { file, version, toc, symbols, names: Vec::new(), all: None };
        reader.read_postings_table()?;
        Ok(reader)
    }

    fn read_postings_table(&mut self) -> Result<()> {
        if self.toc.postings_table == 0 {
            return Ok(());
        }
        let file = self.file.clone();
        let mut table = Reader::section("postings offset table", &file, self.toc.postings_table)?;
        let count = table.u32()?;
        let sample = if self.version == 1 { 1 } else { SAMPLE };
        let mut previous: Option<(&str, &str)> = None;
        for _ in 0..count {
            let at = table.offset() as u64;
            let (name, value, offset) = read_table_entry(&mut table)?;
            if name.is_empty() {
                self.all = Some(offset);
                continue;
            }
            if self.version == 1 {
                self.entry_of(name).entries.push(at);
                continue;
            }
            if previous.is_some_and(|previous| previous >= (name, value)) {
                return Err(table.corrupt("entries aren't sorted"));
            }
            if previous.is_none_or(|(previous, _)| previous != name) {
                self.names.push(Name { name: name.into(), count: 0, entries: Vec::new(), sample });
            }
            previous = Some((name, value));
            let last = self.names.last_mut().expect("pushed above or before");
            if last.count.is_multiple_of(SAMPLE) {
                last.entries.push(at);
            }
            last.count += 1;
        }
        if !table.rest().is_empty() {
            return Err(table.corrupt(format!("bytes follow its {count} entries")));
        }
        if self.version == 1 {
            for name in &mut self.names {
                let value = |at: &u64| {
                    read_table_entry(&mut table_reader(&file, *at))
                        .map(|(_, value, _)| value)
                        .unwrap_or_default()
                };
                name.entries.sort_by_key(value);
                name.count = name.entries.len();
            }
        }
        Ok(())
    }

    /// The entry of a name, made where there is none (version 1, whose table isn't sorted).
    fn entry_of(&mut self, name: &str) -> &mut Name {
        let at = match self.names.binary_search_by(|n| (*n.name).cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                self.names.insert(at, Name { name: name.into(), count: 0, entries: Vec::new(), sample: 1 });
                at
            }
        };
        &mut self.names[at]
    }

    /// The symbol table.
    pub(crate) fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// All label names, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &*name.name)
    }

    /// All label pairs with the ids of their series: visits values in order.
    pub(crate) fn for_each_value<'a>(
        &'a self,
        name: &str,
        prefix: &str,
        mut visit: impl FnMut(&'a str, u64) -> Result<()>,
    ) -> Result<()> {
        let Some(name) = self.name(name) else { return Ok(()) };
        let start = self.first_block_for(name, prefix)?;
        let mut left = name.count - (start * name.sample).min(name.count);
        for entries in &name.entries[start..] {
            let mut reader = table_reader(&self.file, *entries);
            for _ in 0..left.min(name.sample) {
                let (_, value, offset) = read_table_entry(&mut reader)?;
                if value.starts_with(prefix) {
                    visit(value, offset)?;
                } else if value > prefix {
                    return Ok(());
                }
            }
            left -= left.min(name.sample);
        }
        Ok(())
    }

    fn name(&self, name: &str) -> Option<&Name> {
        self.names.binary_search_by(|n| (*n.name).cmp(name)).ok().map(|at| &self.names[at])
    }

    /// The kept offset from which to walk to find `value`.
    fn first_block_for(&self, name: &Name, value: &str) -> Result<usize> {
        let mut failed = None;
        let after =
            name.entries.partition_point(|at| match read_table_entry(&mut table_reader(&self.file, *at)) {
                Ok((_, first, _)) => first <= value,
                Err(e) => {
                    failed = Some(e);
                    false
                }
            });
        failed.map_or(Ok(after.saturating_sub(1)), Err)
    }

    /// The ids of all series; `None` in an empty index.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(crate) fn all_ids(&self) -> Result<Option<StoredIds<'_>>> {
        self.all.map(|offset| self.list_at(offset)).transpose()
    }

    /// The list at an offset of the postings offset table.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(crate) fn list_at(&self, offset: u64) -> Result<StoredIds<'_>> {
        let mut section = Reader::section("postings", &self.file, offset)?;
        let count = section.u32()? as usize;
        let ids = section.rest();
        if ids.len() != count * 4 {
            return Err(section.corrupt(format!("{} bytes hold {count} ids", ids.len())));
        }
        Ok(StoredIds { ids: ids.as_chunks().0 })
    }

    /// Reads a series' entry.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where there is none, or it is damaged.
    pub(crate) fn series(&self, id: u32, entry: &mut SeriesEntry) -> Result<()> {
        let align = if self.version == 1 { 1 } else { SERIES_ALIGN };
        let offset = u64::from(id) * align;
        let outside =
            || Error::corrupt("series", offset as usize, format!("series {id} would lie outside the file"));
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let tail = self.file.get(start..).filter(|_| offset >= self.toc.series).ok_or_else(outside)?;
        let mut reader = Reader::new("series", tail, start);
        let length = usize::try_from(reader.uvarint()?).map_err(|_| outside())?;
        let base = reader.offset();
        let content = reader.take(length)?;
        if reader.u32()? != crc32c(content) {
            return Err(Error::corrupt("series", start, "checksum mismatch"));
        }
        read_series(Reader::new("series", content, base), entry)
    }

    /// The labels of an entry.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a symbol is damaged or a name occurs twice.
    pub(crate) fn labels<'a>(&'a self, entry: &SeriesEntry, cache: &mut SymbolCache<'a>) -> Result<Labels> {
        let mut sorted = true;
        cache.pairs.clear();
        for &(name, value) in &entry.labels {
            let pair = (cache.get(&self.symbols, name)?, cache.get(&self.symbols, value)?);
            sorted &= !pair.1.is_empty() && cache.pairs.last().is_none_or(|(previous, _)| *previous < pair.0);
            cache.pairs.push(pair);
        }
        if sorted {
            return Ok(Labels::from_sorted(cache.pairs.iter().copied()));
        }
        // Old versions of Prometheus and Thanos have written labels out of order.
        Labels::from_pairs(cache.pairs.iter().copied())
            .map_err(|e| Error::corrupt("series", 0, e.to_string()))
    }
}

/// Symbols looked up before, by what labels call them: neighbours share most.
pub(crate) struct SymbolCache<'a> {
    slots: Vec<Option<(u32, &'a str)>>,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> SymbolCache<'a> {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { slots: vec![None; CACHE_SLOTS], pairs: Vec::new() }
    }

    /// The symbol that a label refers to.
    ///
    /// # Errors
    /// As [`Symbols::get`].
    pub(crate) fn get(&mut self, symbols: &'a Symbols, reference: u32) -> Result<&'a str> {
        let slot = &mut self.slots[reference as usize % CACHE_SLOTS];
        if let Some((known, text)) = slot
            && *known == reference
        {
            return Ok(text);
        }
        let text = symbols.get(reference)?;
        *slot = Some((reference, text));
        Ok(text)
    }
}

/// A list of ids as the file holds it: big-endian, ascending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredIds<'a> {
    ids: &'a [[u8; 4]],
}

impl<'a> StoredIds<'a> {
    /// The ids, ascending where the file isn't damaged.
    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.ids.iter().map(|id| u32::from_be_bytes(*id))
    }

    /// The id at a place; `None` beyond the end.
    pub(crate) fn get(self, at: usize) -> Option<u32> {
        self.ids.get(at).map(|id| u32::from_be_bytes(*id))
    }

    /// Whether some id is in `set`.
    pub(crate) fn meets(self, set: &RoaringBitmap) -> bool {
        self.iter().any(|id| set.contains(id))
    }

    fn to_set(self) -> RoaringBitmap {
        // Ids out of order would come from a broken writer: sorted in, one by one.
        RoaringBitmap::from_sorted_iter(self.iter()).unwrap_or_else(|_| self.iter().collect())
    }
}

impl IdList for StoredIds<'_> {
    fn len(&self) -> u64 {
        self.ids.len() as u64
    }

    fn add_to(&self, set: &mut RoaringBitmap) {
        *set |= self.to_set();
    }

    fn retain_in(&self, set: &mut RoaringBitmap) {
        // A short set is looked up in the list, which then isn't read as a whole.
        if set.len().saturating_mul(32) < self.len() {
            *set = set.iter().filter(|id| self.ids.binary_search(&id.to_be_bytes()).is_ok()).collect();
        } else {
            *set &= self.to_set();
        }
    }

    fn remove_from(&self, set: &mut RoaringBitmap) {
        *set -= self.to_set();
    }
}

impl PostingsSource for IndexReader {
    type List<'a> = StoredIds<'a>;

    fn all(&self) -> Result<RoaringBitmap> {
        Ok(self.all_ids()?.map(StoredIds::to_set).unwrap_or_default())
    }

    fn list(&self, name: &str, value: &str) -> Result<Option<StoredIds<'_>>> {
        let Some(name) = self.name(name) else { return Ok(None) };
        let start = self.first_block_for(name, value)?;
        let Some(at) = name.entries.get(start) else { return Ok(None) };
        let mut reader = table_reader(&self.file, *at);
        for _ in 0..(name.count - start * name.sample).min(name.sample) {
            let (_, found, offset) = read_table_entry(&mut reader)?;
            if found == value {
                return self.list_at(offset).map(Some);
            }
            if found > value {
                break;
            }
        }
        Ok(None)
    }

    fn value_count(&self, name: &str) -> u64 {
        self.name(name).map_or(0, |name| name.count as u64)
    }

    fn scan<'a>(
        &'a self,
        name: &str,
        prefix: &str,
        wanted: &mut dyn FnMut(&str) -> bool,
        visit: &mut dyn FnMut(StoredIds<'a>),
    ) -> Result<()> {
        self.for_each_value(name, prefix, |value, offset| {
            if wanted(value) {
                visit(self.list_at(offset)?);
            }
            Ok(())
        })
    }

    fn filter(&self, ids: &mut RoaringBitmap, matchers: &[&Matcher]) -> Result<bool> {
        let mut cache = SymbolCache::new();
        let mut entry = SeriesEntry::default();
        let mut kept = RoaringBitmap::new();
        for id in ids.iter() {
            self.series(id, &mut entry)?;
            let mut passes = true;
            for matcher in matchers {
                let mut value = "";
                for &(label, symbol) in &entry.labels {
                    if cache.get(&self.symbols, label)? == matcher.name() {
                        value = cache.get(&self.symbols, symbol)?;
                    }
                }
                passes = passes && matcher.matches(value);
            }
            if passes {
                kept.insert(id);
            }
        }
        *ids = kept;
        Ok(true)
    }
}

fn table_reader(file: &Bytes, at: u64) -> Reader<'_> {
    // Offsets were found within the table when it was opened, and the map doesn't change.
    let at = at as usize;
    Reader::new("postings offset table", &file[at..], at)
}

/// Name, value and offset of an entry of the postings offset table.
fn read_table_entry<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, &'a str, u64)> {
    let keys = reader.u8()?;
    if keys != 2 {
        return Err(reader.corrupt(format!("an entry has {keys} keys, not 2")));
    }
    Ok((reader.str()?, reader.str()?, reader.uvarint()?))
}

fn read_series(mut reader: Reader<'_>, entry: &mut SeriesEntry) -> Result<()> {
    entry.labels.clear();
    for _ in 0..reader.uvarint()? {
        entry.labels.push((reader.uvarint32()?, reader.uvarint32()?));
    }
    entry.chunks.clear();
    for i in 0..reader.uvarint()? {
        let chunk = match entry.chunks.last() {
            None => {
                let min_ms = reader.varint()?;
                let max_ms = min_ms.wrapping_add(reader.uvarint()? as i64);
                ChunkMeta { min_ms, max_ms, reference: reader.uvarint()? }
            }
            Some(previous) => {
                let min_ms = previous.max_ms.wrapping_add(reader.uvarint()? as i64);
                let max_ms = min_ms.wrapping_add(reader.uvarint()? as i64);
                ChunkMeta {
                    min_ms,
                    max_ms,
                    reference: previous.reference.wrapping_add(reader.varint()? as u64),
                }
            }
        };
        if chunk.min_ms > chunk.max_ms {
            return Err(reader.corrupt(format!("chunk {i} ends before it begins")));
        }
        entry.chunks.push(chunk);
    }
    Ok(())
}

//! Writes an index file of version 2, byte for byte as Prometheus lays it out, in bounded memory.
//!
//! ```text
//! magic 0xBAAAD700 <4> | version 2 <1>
//! symbols              section: count <4>, { length <uvarint>, string }*
//! series               each at a multiple of 16: length <uvarint>, entry, CRC32C <4>; its id is its offset / 16
//! label indices        section a name: 1 <4>, count <4>, { symbol <4> }*     (nobody reads them any more)
//! postings             section a pair, first that of all series: count <4>, { series id <4> }*
//! label offset table   section: count <4>, { 1 <1>, name, offset of its index <uvarint> }*
//! postings table       section: count <4>, { 2 <1>, name, value, offset of its postings <uvarint> }*
//! TOC                  offsets of these six <8 each>, CRC32C <4>
//! ```
//!
//! Steps: symbols come first, sorted ([`SymbolStage`]); then series in label order, which refer to them
//! ([`SeriesStage`]). Beside each series its id and the numbers of its label pairs go to a spool; at the end the pairs
//! are put in order, and the spool is read once for as many pairs as fit [`POSTINGS_IDS_MAX`] ids, mostly once in all.
//! Memory: 16 bytes a label pair and 4 a symbol, the spool's and the ids' budgets; nothing grows with series.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::coding::{crc32c, push_str};
use super::symbols::Symbols;
use super::{INDEX_BYTES_MAX, MAGIC, SERIES_ALIGN, Toc};
use crate::block::ChunkMeta;
use crate::block::file_writer::{FileWriter, SectionWriter, write_section};
use crate::block::spool::Spool;
use crate::disk::Disk;
use crate::varint;
use crate::{Error, Result};

/// Version written.
const VERSION: u8 = 2;

/// Series ids gathered in memory in one reading of the spool: 256 MiB of them.
const POSTINGS_IDS_MAX: usize = 64 << 20;

/// Words of the postings' spool held in memory: 64 MiB of them.
const SPOOL_WORDS_MAX: usize = 16 << 20;

/// Ids written at a time.
const IDS_A_WRITE: usize = 16 << 10;

/// The first stage: symbols.
pub(crate) struct SymbolStage {
    disk: Arc<dyn Disk>,
    out: FileWriter,
    section: SectionWriter,
    offset: u64,
    expected: u32,
    count: u32,
    scratch: Vec<u8>,
}

/// The second stage: series.
pub(crate) struct SeriesStage {
    disk: Arc<dyn Disk>,
    out: FileWriter,
    symbols: Symbols,
    toc: Toc,
    pairs: Pairs,
    spool: Spool,
    series: u32,
    scratch: Vec<u8>,
    words: Vec<u32>,
    ids_max: usize,
}

impl SymbolStage {
    /// Begins the file `path` for an index of `count` symbols; `spool` is a path for a file that is gone at the end.
    ///
    /// # Errors
    /// Those of the disk; all other methods likewise.
    pub(crate) fn create(disk: &Arc<dyn Disk>, path: &Path, count: u32) -> Result<Self> {
        let mut out = FileWriter::create(&**disk, path)?;
        out.write(&MAGIC.to_be_bytes())?;
        out.write(&[VERSION])?;
        let offset = out.position();
        let mut section = SectionWriter::begin(&mut out)?;
        section.write(&mut out, &count.to_be_bytes())?;
        let disk = Arc::clone(disk);
        Ok(Self { disk, out, section, offset, expected: count, count: 0, scratch: Vec::new() })
    }

    /// Adds the next symbol, which sorts after all before. Its number is how many came before it.
    pub(crate) fn symbol(&mut self, text: &str) -> Result<()> {
        self.count += 1;
        self.scratch.clear();
        push_str(&mut self.scratch, text);
        self.section.write(&mut self.out, &self.scratch)
    }

    /// Ends the symbols. `spool` is a path for a file that is gone at the end.
    ///
    /// # Errors
    /// [`Error::Limit`] when symbols take 4 GiB or more.
    pub(crate) fn finish(mut self, spool: &Path) -> Result<SeriesStage> {
        assert_eq!(self.count, self.expected, "as many symbols come as were announced");
        self.section.finish("symbols", &mut self.out)?;
        self.out.flush()?;
        let path = self.out.path();
        let file = self.disk.map(path, 0..self.out.position()).map_err(|e| Error::io("map", path, e))?;
        let symbols = Symbols::open(file, self.offset, VERSION)?;
        let toc = Toc { symbols: self.offset, series: self.out.position(), ..Toc::default() };
        Ok(SeriesStage {
            pairs: Pairs::new(self.count),
            spool: Spool::new(&self.disk, spool, SPOOL_WORDS_MAX),
            disk: self.disk,
            out: self.out,
            symbols,
            toc,
            series: 0,
            scratch: self.scratch,
            words: Vec::new(),
            ids_max: POSTINGS_IDS_MAX,
        })
    }
}

impl SeriesStage {
    /// Adds the next series, which sorts after all before: symbols of names and values, sorted by name; chunks by
    /// their `min_ms`.
    ///
    /// # Errors
    /// [`Error::Limit`] when the index reaches [`INDEX_BYTES_MAX`].
    pub(crate) fn series(&mut self, labels: &[(u32, u32)], chunks: &[ChunkMeta]) -> Result<()> {
        self.out.pad(SERIES_ALIGN)?;
        let position = self.out.position();
        let id = u32::try_from(position / SERIES_ALIGN).map_err(|_| too_large(position))?;
        self.words.clear();
        self.words.extend([labels.len() as u32, id]);
        let entry = &mut self.scratch;
        entry.clear();
        varint::put(entry, labels.len() as u64);
        for &(name, value) in labels {
            varint::put(entry, u64::from(name));
            varint::put(entry, u64::from(value));
            self.words.push(self.pairs.count(name, value));
        }
        push_chunks(entry, chunks);
        let crc = crc32c(entry);
        self.out.write_with(|out| {
            varint::put(out, entry.len() as u64);
            out.extend_from_slice(entry);
            out.extend_from_slice(&crc.to_be_bytes());
        })?;
        self.series += 1;
        self.spool.push(&self.words)
    }

    /// Ends the file and makes it safe; returns its length in bytes.
    ///
    /// # Errors
    /// [`Error::Limit`] when the index reaches [`INDEX_BYTES_MAX`].
    pub(crate) fn finish(mut self) -> Result<u64> {
        let order = self.pairs.order();
        let label_indices = self.write_label_indices(&order)?;
        let (all, offsets) = self.write_postings(&order)?;
        self.write_label_table(&label_indices)?;
        self.write_postings_table(&order, all, &offsets)?;
        let toc = self.toc.encode();
        self.out.write(&toc)?;
        let length = self.out.position();
        if length > INDEX_BYTES_MAX {
            return Err(too_large(length));
        }
        self.spool.remove()?;
        drop(self.disk);
        self.out.finish()
    }

    /// Returns for each name its symbol and its index's offset.
    fn write_label_indices(&mut self, order: &[u32]) -> Result<Vec<(u32, u64)>> {
        self.out.pad(4)?;
        self.toc.label_indices = self.out.position();
        let mut written = Vec::new();
        for of_name in
            order.chunk_by(|a, b| self.pairs.list[*a as usize].name == self.pairs.list[*b as usize].name)
        {
            self.out.pad(4)?;
            written.push((self.pairs.list[of_name[0] as usize].name, self.out.position()));
            self.scratch.clear();
            self.scratch.extend_from_slice(&1u32.to_be_bytes());
            self.scratch.extend_from_slice(&(of_name.len() as u32).to_be_bytes());
            for pair in of_name {
                self.scratch.extend_from_slice(&self.pairs.list[*pair as usize].value.to_be_bytes());
            }
            write_section(&mut self.out, &self.scratch)?;
        }
        Ok(written)
    }

    /// Returns the offset of the list of all series, and those of the pairs' in `order`.
    fn write_postings(&mut self, order: &[u32]) -> Result<(u64, Vec<u64>)> {
        self.out.pad(4)?;
        self.toc.postings = self.out.position();
        self.stream_list(self.series, None)?;
        let mut offsets = Vec::with_capacity(order.len());
        // Where the next id of a pair goes; pairs of other rounds have none.
        let mut next = vec![u32::MAX; self.pairs.list.len()];
        let mut ids = Vec::new();
        let mut rest = order;
        while !rest.is_empty() {
            let mut total = 0;
            let fits = |pair: &&u32| {
                total += self.pairs.list[**pair as usize].count as usize;
                total <= self.ids_max
            };
            let round = rest.iter().take_while(fits).count();
            if round == 0 {
                self.out.pad(4)?;
                offsets.push(self.out.position());
                self.stream_list(self.pairs.list[rest[0] as usize].count, Some(rest[0]))?;
                rest = &rest[1..];
                continue;
            }
            let (now, later) = rest.split_at(round);
            let mut at = 0;
            for pair in now {
                next[*pair as usize] = at;
                at += self.pairs.list[*pair as usize].count;
            }
            ids.clear();
            ids.resize(at as usize, 0u32);
            self.spool.read(record_words, |record| {
                for pair in &record[2..] {
                    let next = &mut next[*pair as usize];
                    if *next != u32::MAX {
                        ids[*next as usize] = record[1];
                        *next += 1;
                    }
                }
                Ok(())
            })?;
            let mut lists = ids.as_slice();
            for pair in now {
                next[*pair as usize] = u32::MAX;
                let (list, others) = lists.split_at(self.pairs.list[*pair as usize].count as usize);
                self.out.pad(4)?;
                offsets.push(self.out.position());
                self.write_list(list)?;
                lists = others;
            }
            rest = later;
        }
        Ok((self.toc.postings, offsets))
    }

    fn write_list(&mut self, ids: &[u32]) -> Result<()> {
        let push = |bytes: &mut Vec<u8>, ids: &[u32]| {
            bytes.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
        };
        self.scratch.clear();
        self.scratch.extend_from_slice(&(ids.len() as u32).to_be_bytes());
        if ids.len() <= IDS_A_WRITE {
            push(&mut self.scratch, ids);
            return write_section(&mut self.out, &self.scratch);
        }
        let mut section = SectionWriter::begin(&mut self.out)?;
        section.write(&mut self.out, &self.scratch)?;
        for ids in ids.chunks(IDS_A_WRITE) {
            self.scratch.clear();
            push(&mut self.scratch, ids);
            section.write(&mut self.out, &self.scratch)?;
        }
        section.finish("postings", &mut self.out)
    }

    /// Writes the list of a pair, or of all series, straight from the spool.
    fn stream_list(&mut self, count: u32, pair: Option<u32>) -> Result<()> {
        let Self { out, spool, .. } = self;
        let mut section = SectionWriter::begin(out)?;
        section.write(out, &count.to_be_bytes())?;
        spool.read(record_words, |record| {
            if pair.is_none_or(|pair| record[2..].contains(&pair)) {
                section.write(out, &record[1].to_be_bytes())?;
            }
            Ok(())
        })?;
        section.finish("postings", out)
    }

    fn write_label_table(&mut self, label_indices: &[(u32, u64)]) -> Result<()> {
        self.toc.label_table = self.out.position();
        let mut section = SectionWriter::begin(&mut self.out)?;
        section.write(&mut self.out, &(label_indices.len() as u32).to_be_bytes())?;
        for &(name, offset) in label_indices {
            self.scratch.clear();
            self.scratch.push(1);
            push_str(&mut self.scratch, self.symbols.get(name)?);
            varint::put(&mut self.scratch, offset);
            section.write(&mut self.out, &self.scratch)?;
        }
        section.finish("label offset table", &mut self.out)
    }

    fn write_postings_table(&mut self, order: &[u32], all: u64, offsets: &[u64]) -> Result<()> {
        self.toc.postings_table = self.out.position();
        let mut section = SectionWriter::begin(&mut self.out)?;
        section.write(&mut self.out, &(order.len() as u32 + 1).to_be_bytes())?;
        self.scratch.clear();
        push_table_entry(&mut self.scratch, "", "", all);
        section.write(&mut self.out, &self.scratch)?;
        for (pair, offset) in order.iter().zip(offsets) {
            let Pair { name, value, .. } = self.pairs.list[*pair as usize];
            self.scratch.clear();
            push_table_entry(&mut self.scratch, self.symbols.get(name)?, self.symbols.get(value)?, *offset);
            section.write(&mut self.out, &self.scratch)?;
        }
        section.finish("postings offset table", &mut self.out)
    }
}

/// Words of a spooled series: its number of labels, its id, its pairs.
fn record_words(labels: u32) -> usize {
    labels as usize + 2
}

fn push_table_entry(bytes: &mut Vec<u8>, name: &str, value: &str, offset: u64) {
    bytes.push(2);
    push_str(bytes, name);
    push_str(bytes, value);
    varint::put(bytes, offset);
}

/// Times and references as differences. A chunk that overlaps the one before has a negative one, which wraps.
fn push_chunks(entry: &mut Vec<u8>, chunks: &[ChunkMeta]) {
    varint::put(entry, chunks.len() as u64);
    let mut previous: Option<&ChunkMeta> = None;
    for chunk in chunks {
        match previous {
            None => varint::put_signed(entry, chunk.min_ms),
            Some(previous) => varint::put(entry, chunk.min_ms.wrapping_sub(previous.max_ms) as u64),
        }
        varint::put(entry, chunk.max_ms.wrapping_sub(chunk.min_ms) as u64);
        match previous {
            None => varint::put(entry, chunk.reference),
            Some(previous) => {
                varint::put_signed(entry, chunk.reference.wrapping_sub(previous.reference) as i64);
            }
        }
        previous = Some(chunk);
    }
}

fn too_large(length: u64) -> Error {
    Error::Limit(format!("an index of {length} bytes or more: the format's limit is {INDEX_BYTES_MAX}"))
}

#[derive(Clone, Copy)]
struct Pair {
    name: u32,
    value: u32,
    count: u32,
}

/// Label pairs numbered as they come. Most values occur under one name only: those are found by their symbol alone.
struct Pairs {
    list: Vec<Pair>,
    /// By value symbol: its first pair's number, `u32::MAX` where there is none yet.
    first: Vec<u32>,
    others: BTreeMap<(u32, u32), u32>,
}

impl Pairs {
    fn new(symbols: u32) -> Self {
        Self { list: Vec::new(), first: vec![u32::MAX; symbols as usize], others: BTreeMap::new() }
    }

    /// The pair's number; counts one more series that has it.
    fn count(&mut self, name: u32, value: u32) -> u32 {
        let new = self.list.len() as u32;
        let first = &mut self.first[value as usize];
        let number = if *first == u32::MAX {
            *first = new;
            new
        } else if self.list[*first as usize].name == name {
            *first
        } else {
            *self.others.entry((value, name)).or_insert(new)
        };
        if number == new {
            self.list.push(Pair { name, value, count: 0 });
        }
        self.list[number as usize].count += 1;
        number
    }

    /// Numbers in order of name, then value: symbols are numbered in the order of their strings.
    fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.list.len() as u32).collect();
        order.sort_unstable_by_key(|pair| {
            let pair = &self.list[*pair as usize];
            (pair.name, pair.value)
        });
        order
    }
}

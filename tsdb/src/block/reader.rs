//! Reads a block: its files stay mapped, and answers refer into them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;

use super::chunk_files::ChunkFiles;
use super::{BlockMeta, ChunkMeta, Tombstones};
use crate::disk::Disk;
use crate::files;
use crate::index::postings::{PostingsSource, find};
use crate::index::reader::{IndexReader, SeriesEntry, SymbolCache};
use crate::model::{Labels, Matcher};
use crate::select::{Chunk, Select, Series};
use crate::weight::{Outline, Scale};
use crate::{Error, Result};

/// A block, open for reading. Cloning copies pointers; what an answer refers to stays mapped as long as the answer.
#[derive(Clone, Debug)]
pub struct Block(Arc<Parts>);

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) dir: PathBuf,
    pub(crate) meta: BlockMeta,
    pub(crate) index: IndexReader,
    pub(crate) chunks: ChunkFiles,
    pub(crate) tombstones: Tombstones,
}

impl Block {
    /// Opens the block in the folder `dir`. Verifies what is small: meta, tombstones, the index's table of contents,
    /// symbols and table of postings; the rest when it is read.
    ///
    /// # Errors
    /// [`Error::Corrupt`] names the damaged file: leave the block out and report it; [`Error::Io`] where a file is
    /// missing.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let meta = BlockMeta::read(disk, dir)?;
        let path = dir.join(files::BLOCK_INDEX);
        let index = IndexReader::open(map(disk, &path)?).map_err(|e| e.in_file(path))?;
        let chunks = ChunkFiles::open(disk, &dir.join(files::BLOCK_CHUNKS_DIR))?;
        let tombstones = Tombstones::read(disk, dir)?;
        Ok(Self(Arc::new(Parts { dir: dir.to_owned(), meta, index, chunks, tombstones })))
    }

    /// What the block says of itself.
    pub fn meta(&self) -> &BlockMeta {
        &self.0.meta
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Its deletions.
    pub fn tombstones(&self) -> &Tombstones {
        &self.0.tombstones
    }

    /// The series that match and have chunks in the range, sorted by labels, with these chunks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when something that is read for that is damaged; [`Error::Invalid`] when a chunk's encoding
    /// isn't known.
    pub fn select(&self, select: &Select) -> Result<Vec<Series>> {
        self.select_wanted(select, &mut |_| true)
    }

    /// As [`Block::select`], of the series of which `wanted` accepts the labels. Without matchers, of all.
    ///
    /// # Errors
    /// Those of [`Block::select`].
    pub(crate) fn select_wanted(
        &self,
        select: &Select,
        wanted: &mut dyn FnMut(&Labels) -> bool,
    ) -> Result<Vec<Series>> {
        let mut found = Vec::new();
        self.for_each(&select.matchers, Some(&select.range_ms), |parts, id, labels, entry| {
            let is_here = select.shard.is_none_or(|shard| labels.hash64() % shard.count == shard.index);
            if !is_here || !wanted(&labels) {
                return Ok(());
            }
            let mut chunks = Vec::with_capacity(entry.chunks.len());
            for meta in &entry.chunks {
                if overlaps(meta.min_ms, meta.max_ms, &select.range_ms) {
                    let stored = parts.chunks.get(meta.reference)?;
                    chunks.push(Chunk {
                        min_ms: meta.min_ms,
                        max_ms: meta.max_ms,
                        encoding: stored.encoding,
                        data: stored.data,
                    });
                }
            }
            chunks.sort_by_key(|chunk| chunk.min_ms);
            found.push(Series {
                labels,
                chunks,
                deleted_ms: parts.tombstones.of(u64::from(id)).to_vec(),
                newest: None,
            });
            Ok(())
        })?;
        // Ids are in label order but in blocks of old versions, whose labels were sorted on reading.
        if !found.is_sorted_by(|a, b| a.labels < b.labels) {
            found.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        Ok(found)
    }

    /// Adds what the series weigh that match and of which `counts` accepts the labels. No chunk is looked at: samples and
    /// bytes are the block's means.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn weigh(
        &self,
        matchers: &[Matcher],
        counts: &dyn Fn(&Labels) -> bool,
        scale: &mut Scale,
    ) -> Result<()> {
        let stats = &self.0.meta.stats;
        let of_chunk = |all: u64| all as f64 / stats.num_chunks.max(1) as f64;
        let (samples, bytes) = (of_chunk(stats.num_samples), of_chunk(self.0.chunks.size_bytes()));
        let range_ms = scale.range_ms().clone();
        self.for_each(matchers, Some(&range_ms), |_, _, labels, entry| {
            if counts(&labels) {
                scale.add_series(&labels);
                for &ChunkMeta { min_ms, max_ms, .. } in &entry.chunks {
                    scale.add_chunk(Outline { min_ms, max_ms, samples, bytes });
                }
            }
            Ok(())
        })
    }

    /// How many series match, whatever times they have.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(crate) fn count_series(&self, matchers: &[Matcher]) -> Result<u64> {
        Ok(self.find(matchers)?.len())
    }

    /// Labels of the series that match and have chunks in the range (milliseconds, both ends included), sorted.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn series(&self, matchers: &[Matcher], range_ms: &RangeInclusive<i64>) -> Result<Vec<Labels>> {
        let mut found = Vec::new();
        self.for_each(matchers, Some(range_ms), |_, _, labels, _| {
            found.push(labels);
            Ok(())
        })?;
        found.sort();
        Ok(found)
    }

    /// Names of the labels of matching series, sorted; all without matchers.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>> {
        let index = &self.0.index;
        if matchers.is_empty() {
            return Ok(index.names().map(str::to_owned).collect());
        }
        let mut symbols = BTreeSet::new();
        let mut entry = SeriesEntry::default();
        for id in &self.find(matchers)? {
            self.read(index.series(id, &mut entry))?;
            symbols.extend(entry.labels.iter().map(|(name, _)| *name));
        }
        let names: Result<BTreeSet<String>> =
            symbols.into_iter().map(|symbol| index.symbols().get(symbol).map(str::to_owned)).collect();
        Ok(self.read(names)?.into_iter().collect())
    }

    /// Values that a label has on matching series, sorted; all without matchers.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>> {
        let index = &self.0.index;
        let mut values = Vec::new();
        if matchers.is_empty() {
            self.read(index.for_each_value(name, "", |value, _| {
                values.push(value.to_owned());
                Ok(())
            }))?;
            return Ok(values);
        }
        let ids = self.find(matchers)?;
        if ids.len() < index.value_count(name) {
            return self.values_of_series(name, &ids);
        }
        self.read(index.for_each_value(name, "", |value, offset| {
            if index.list_at(offset)?.meets(&ids) {
                values.push(value.to_owned());
            }
            Ok(())
        }))?;
        Ok(values)
    }

    fn values_of_series(&self, name: &str, ids: &RoaringBitmap) -> Result<Vec<String>> {
        let index = &self.0.index;
        let mut cache = SymbolCache::new();
        let mut entry = SeriesEntry::default();
        let mut values = BTreeSet::new();
        for id in ids {
            self.read(index.series(id, &mut entry))?;
            for &(label, value) in &entry.labels {
                if self.read(cache.get(index.symbols(), label))? == name {
                    values.insert(self.read(cache.get(index.symbols(), value))?);
                }
            }
        }
        Ok(values.into_iter().map(str::to_owned).collect())
    }

    /// Visits matching series in order of id; with a range, only those with chunks in it.
    fn for_each(
        &self,
        matchers: &[Matcher],
        range_ms: Option<&RangeInclusive<i64>>,
        mut visit: impl FnMut(&Parts, u32, Labels, &SeriesEntry) -> Result<()>,
    ) -> Result<()> {
        let parts = &*self.0;
        let mut cache = SymbolCache::new();
        let mut entry = SeriesEntry::default();
        for id in &self.find(matchers)? {
            self.read(parts.index.series(id, &mut entry))?;
            let inside = |range| entry.chunks.iter().any(|chunk| overlaps(chunk.min_ms, chunk.max_ms, range));
            if range_ms.is_none_or(inside) {
                let labels = self.read(parts.index.labels(&entry, &mut cache))?;
                visit(parts, id, labels, &entry)?;
            }
        }
        Ok(())
    }

    fn find(&self, matchers: &[Matcher]) -> Result<RoaringBitmap> {
        self.read(find(&self.0.index, matchers))
    }

    /// Names the index file in errors.
    fn read<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| e.in_file(self.0.dir.join(files::BLOCK_INDEX)))
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0
    }
}

fn overlaps(min_ms: i64, max_ms: i64, range_ms: &RangeInclusive<i64>) -> bool {
    min_ms <= *range_ms.end() && max_ms >= *range_ms.start()
}

fn map(disk: &dyn Disk, path: &Path) -> Result<Bytes> {
    let size = disk.size_bytes(path).map_err(|e| Error::io("open", path, e))?;
    let Some(size) = size else {
        return Err(Error::io("open", path, std::io::ErrorKind::NotFound.into()));
    };
    disk.map(path, 0..size).map_err(|e| Error::io("map", path, e))
}

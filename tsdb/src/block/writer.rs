//! Writes a block: series come with their chunks in label order, and the block appears whole or not at all.
//!
//! Steps: chunks go to their files at once; a series' labels and chunk references are set aside ([`BlockWriter`]),
//! because an index begins with all its symbols. At the end symbols are sorted and the index is written. Files are
//! synced in a temporary folder, which is then renamed: a crash leaves a folder that [`files::is_leftover_block`]
//! recognises, and nothing that could be taken for a block.
//!
//! Memory: each distinct string once, 13 bytes beside it, and the budgets of the index writer. A merge of blocks knows
//! its symbols beforehand and holds none of them ([`FilesWriter`] is what both share).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chunk_files::ChunkFilesWriter;
use super::file_writer::FileWriter;
use super::spool::Spool;
use super::symbol_set::SymbolSet;
use super::{BlockMeta, ChunkMeta, Tombstones};
use crate::chunk::Encoding;
use crate::disk::Disk;
use crate::files;
use crate::index::writer::SymbolStage;
use crate::model::Labels;
use crate::select::Chunk;
use crate::{Error, Result};

/// Words (`u32`) of set-aside series held in memory: 64 MiB of them, about a million series.
const SPOOL_WORDS_MAX: usize = 16 << 20;

/// Words of a set-aside chunk: twice a time, one reference, 64 bits each.
const CHUNK_WORDS: usize = 6;

/// Writes a block from series whose strings aren't known beforehand.
pub struct BlockWriter {
    files: FilesWriter,
    symbols: SymbolSet,
    spool: Spool,
    previous: Labels,
    /// Symbols of `previous`: neighbours in label order share most of their pairs.
    previous_symbols: Vec<(u32, u32)>,
    current_symbols: Vec<(u32, u32)>,
    words: Vec<u32>,
}

impl BlockWriter {
    /// Begins a block in the folder `parent`, which exists. `meta` gives name, range, level and sources; its stats
    /// are counted here.
    ///
    /// # Errors
    /// Those of the disk; all other methods likewise.
    pub fn create(disk: &Arc<dyn Disk>, parent: &Path, meta: BlockMeta) -> Result<Self> {
        let files = FilesWriter::create(disk, parent, meta)?;
        let spool = Spool::new(disk, &files.temporary("series"), SPOOL_WORDS_MAX);
        Ok(Self {
            files,
            symbols: SymbolSet::default(),
            spool,
            previous: Labels::default(),
            previous_symbols: Vec::new(),
            current_symbols: Vec::new(),
            words: Vec::new(),
        })
    }

    /// Adds a series, which sorts after all before, with its chunks by `min_ms`. One without chunks is left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] when series or chunks are out of order, or a chunk lies outside the block's range.
    pub fn add(&mut self, labels: &Labels, chunks: &[Chunk]) -> Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        let files = &mut self.files;
        if files.meta.stats.num_series > 0 && *labels <= self.previous {
            return Err(Error::Invalid(format!("series {labels} comes after {} in a block", self.previous)));
        }
        self.words.clear();
        self.words.extend([0, chunks.len() as u32]);
        self.current_symbols.clear();
        let mut before = self.previous.iter().zip(&self.previous_symbols);
        for pair in labels {
            let pair = match before.next() {
                Some((same, symbols)) if same == pair => *symbols,
                _ => (self.symbols.number(pair.0), self.symbols.number(pair.1)),
            };
            self.current_symbols.push(pair);
            self.words.extend([pair.0, pair.1]);
        }
        std::mem::swap(&mut self.previous_symbols, &mut self.current_symbols);
        self.previous = labels.clone();
        files.begin_series();
        for chunk in chunks {
            let meta = files.write_chunk(chunk)?;
            for number in [meta.min_ms as u64, meta.max_ms as u64, meta.reference] {
                self.words.extend([number as u32, (number >> 32) as u32]);
            }
        }
        self.words[0] = self.words.len() as u32;
        self.spool.push(&self.words)
    }

    /// Completes the block and makes it safe under its name. `None`, and no block, when no series was added.
    ///
    /// # Errors
    /// [`Error::Limit`] when the index outgrows its format.
    pub fn finish(mut self) -> Result<Option<BlockMeta>> {
        if self.files.meta.stats.num_series == 0 {
            return Ok(None);
        }
        let sorted = self.symbols.sorted();
        let count = sorted.len() as u32;
        let mut symbols = SymbolStage::create(&self.files.disk, &self.files.path(files::BLOCK_INDEX), count)?;
        let mut ranks = vec![0; sorted.len()];
        for (number, rank) in sorted.into_iter().zip(0..) {
            symbols.symbol(self.symbols.get(number))?;
            ranks[number as usize] = rank;
        }
        drop(self.symbols);
        let mut index = symbols.finish(&self.files.temporary("postings"))?;
        let (mut labels, mut chunks) = (Vec::new(), Vec::new());
        self.spool.read(
            |words| words as usize,
            |record| {
                let chunk_words = record[1] as usize * CHUNK_WORDS;
                let (pairs, metas) = record[2..].split_at(record.len() - 2 - chunk_words);
                labels.clear();
                labels.extend(pairs.chunks_exact(2).map(|p| (ranks[p[0] as usize], ranks[p[1] as usize])));
                let number = |words: &[u32]| u64::from(words[1]) << 32 | u64::from(words[0]);
                chunks.clear();
                chunks.extend(metas.chunks_exact(CHUNK_WORDS).map(|words| ChunkMeta {
                    min_ms: number(&words[..2]) as i64,
                    max_ms: number(&words[2..4]) as i64,
                    reference: number(&words[4..]),
                }));
                index.series(&labels, &chunks)
            },
        )?;
        self.spool.remove()?;
        index.finish()?;
        self.files.finish().map(Some)
    }
}

/// The folder of a block being written, and its chunk files. Dropped unfinished, it removes the folder.
pub(crate) struct FilesWriter {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) meta: BlockMeta,
    parent: PathBuf,
    dir: PathBuf,
    chunks: Option<ChunkFilesWriter>,
    previous_min_ms: i64,
    finished: bool,
}

impl FilesWriter {
    /// Makes the temporary folder of the block `meta` in `parent`.
    pub(crate) fn create(disk: &Arc<dyn Disk>, parent: &Path, meta: BlockMeta) -> Result<Self> {
        let dir = parent.join(files::temporary_block(meta.ulid));
        let chunks_dir = dir.join(files::BLOCK_CHUNKS_DIR);
        disk.create_dir(&chunks_dir).map_err(|e| Error::io("create", &chunks_dir, e))?;
        Ok(Self {
            disk: Arc::clone(disk),
            meta: BlockMeta { stats: super::BlockStats::default(), ..meta },
            parent: parent.to_owned(),
            chunks: Some(ChunkFilesWriter::new(disk, &chunks_dir)),
            dir,
            previous_min_ms: i64::MIN,
            finished: false,
        })
    }

    /// A file of the block.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file that is gone before the block is complete.
    pub(crate) fn temporary(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.spool"))
    }

    /// The chunks that follow belong to the next series.
    pub(crate) fn begin_series(&mut self) {
        self.meta.stats.num_series += 1;
        self.previous_min_ms = i64::MIN;
    }

    /// Writes a chunk.
    pub(crate) fn write_chunk(&mut self, chunk: &Chunk) -> Result<ChunkMeta> {
        self.count_chunk(chunk.min_ms, chunk.max_ms, chunk.encoding, &chunk.data)?;
        self.chunk_files().write(chunk)
    }

    /// Writes a chunk as another block's file holds it.
    pub(crate) fn write_raw(
        &mut self,
        min_ms: i64,
        max_ms: i64,
        raw: &super::chunk_files::RawChunk<'_>,
    ) -> Result<ChunkMeta> {
        self.count_chunk(min_ms, max_ms, raw.encoding, raw.data)?;
        self.chunk_files().write_raw(min_ms, max_ms, raw.whole)
    }

    fn chunk_files(&mut self) -> &mut ChunkFilesWriter {
        self.chunks.as_mut().expect("taken by `finish` alone")
    }

    fn count_chunk(&mut self, min_ms: i64, max_ms: i64, encoding: Encoding, data: &[u8]) -> Result<()> {
        let BlockMeta { min_ms: from, max_ms: to, .. } = self.meta;
        if min_ms < from || max_ms >= to || min_ms > max_ms {
            return Err(Error::Invalid(format!(
                "a chunk from {min_ms} to {max_ms} lies outside its block's range from {from} to below {to}"
            )));
        }
        if min_ms < self.previous_min_ms {
            return Err(Error::Invalid(format!(
                "a chunk from {min_ms} comes after one from {}",
                self.previous_min_ms
            )));
        }
        self.previous_min_ms = min_ms;
        // All encodings begin with the number of samples.
        let Some(count) = data.first_chunk() else {
            return Err(Error::Invalid(format!("a chunk of {} bytes", data.len())));
        };
        let count = u64::from(u16::from_be_bytes(*count));
        let stats = &mut self.meta.stats;
        stats.num_chunks += 1;
        stats.num_samples += count;
        *stats.counter(encoding) += count;
        Ok(())
    }

    /// Completes the block, whose index has been written: makes everything safe, then gives the folder its name.
    pub(crate) fn finish(mut self) -> Result<BlockMeta> {
        self.chunks.take().expect("taken here alone").finish()?;
        self.write_file(files::BLOCK_TOMBSTONES, &Tombstones::default().encode())?;
        self.write_file(files::BLOCK_META, &self.meta.to_json())?;
        let sync = |dir: &Path| self.disk.sync_dir(dir).map_err(|e| Error::io("sync", dir, e));
        if !planted::is(planted::Bug::BlockFolderUnsynced) {
            sync(&self.dir)?;
        }
        let name = self.parent.join(self.meta.ulid.to_string());
        self.disk.rename(&self.dir, &name).map_err(|e| Error::io("rename", &self.dir, e))?;
        self.finished = true;
        sync(&self.parent)?;
        Ok(self.meta.clone())
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = FileWriter::create(&*self.disk, &self.path(name))?;
        file.write(bytes)?;
        file.finish().map(drop)
    }
}

impl Drop for FilesWriter {
    fn drop(&mut self) {
        if !self.finished {
            // The next start removes what can't be removed now.
            let _ = self.disk.remove_dir(&self.dir);
        }
    }
}

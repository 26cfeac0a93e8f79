//! Head-chunk files: a shard's finished chunks, out of the heap but at hand.
//!
//! A chunk is appended to a tail in memory; a full tail is written to the current file behind what is there, and the
//! written part of the file is mapped again. Nothing here is synced but for a checkpoint, since the WAL has it all:
//! after a crash a file counts up to where the checkpoint says, and replay writes the rest once more.
//!
//! ```text
//! file, FILE_BYTES allocated at once:     record | record | ... | zeros
//! record, on a multiple of 16 bytes (all big endian):
//!   0  crc32c of everything behind it   u32
//!   4  length of data, bytes            u32
//!   8  series ref                       u64
//!  16  timestamp of the first sample    i64
//!  24  timestamp of the last            i64
//!  32  encoding                         u8
//!  33  data, then zeros
//! ```
//! A position is 32 bits: file number modulo 2^14, then offset in units of 16 bytes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::open::Finished;
use super::reference::SeriesRef;
use crate::chunk::Encoding;
use crate::disk::{Disk, DiskFile};
use crate::select::Chunk;
use crate::weight::Outline;
use crate::{Error, Result, files, prefetch};

/// Size of a file.
const FILE_BYTES: u64 = 4 << 20;
/// Size of the tail in memory at which it is written.
const TAIL_BYTES: usize = 64 << 10;
/// Bytes that wait in memory for the disk at which nothing more should be taken.
const BACKLOG_BYTES_MAX: usize = 8 << 20;
/// Bytes that a shard holds in memory, though they are written, at which nothing more should be taken: the system gives
/// no further memory maps.
const UNMAPPED_BYTES_MAX: usize = 64 << 20;
/// Records begin on multiples of this many bytes.
const ALIGN_BYTES: usize = 16;
const HEADER_BYTES: usize = 33;
/// Bits of a position that hold the offset.
const OFFSET_BITS: u32 = (FILE_BYTES / ALIGN_BYTES as u64).trailing_zeros();
/// Most files of a shard: what a position can tell apart. 64 GiB.
const FILES_MAX: u32 = 1 << (32 - OFFSET_BITS);

/// Where a chunk stands in the files of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Position(pub(crate) u32);

/// Where the files end: everything before is written and synced once [`HeadChunks::flush`] and a sync succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilesEnd {
    /// Number of the file written last; 0 = there is none.
    pub(crate) file: u32,
    /// Bytes written to it.
    pub(crate) length: u32,
}

/// The head-chunk files of one shard.
pub(crate) struct HeadChunks {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// By number; the last is the one written to.
    files: BTreeMap<u32, ChunkFile>,
    next_file: u32,
}

struct ChunkFile {
    /// `None` while the file couldn't be created.
    file: Option<Arc<dyn DiskFile>>,
    /// What is written, mapped.
    written: Bytes,
    /// What isn't mapped, behind it.
    tail: Vec<u8>,
    /// Bytes of the tail that are written: mapping them failed.
    unmapped: usize,
    /// Writes to the file so far, and how many of them a sync has made safe.
    writes: u64,
    synced: u64,
}

/// A file some of whose writes aren't synced.
pub(crate) struct UnsyncedFile {
    number: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Writes to it when it was asked for.
    writes: u64,
}

impl HeadChunks {
    /// No files yet in `dir`, which exists.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir, files: BTreeMap::new(), next_file: 1 }
    }

    /// Appends a chunk; only a tail that stays in memory grows where the disk has no room ([`HeadChunks::flush`]
    /// then tells).
    pub(crate) fn append(&mut self, series: SeriesRef, chunk: Finished<'_>) -> Position {
        let size = (HEADER_BYTES + chunk.bytes.len()).next_multiple_of(ALIGN_BYTES);
        let full = |f: &ChunkFile| f.length() + size > FILE_BYTES as usize && f.length() > 0;
        if self.files.last_entry().is_none_or(|entry| full(entry.get())) {
            // Errors keep the tail and come up again in `flush`, which is asked before the next append.
            let _ = self.flush();
            let number = self.next_file;
            self.next_file += 1;
            self.files.insert(number, ChunkFile::default());
        }
        let mut entry = self.files.last_entry().expect("a file was just made");
        let number = *entry.key();
        let file = entry.get_mut();
        let offset = file.length();
        file.tail.reserve(size);
        let start = file.tail.len();
        file.tail.extend_from_slice(&[0; 4]);
        file.tail.extend_from_slice(&(chunk.bytes.len() as u32).to_be_bytes());
        file.tail.extend_from_slice(&series.to_u64().to_be_bytes());
        file.tail.extend_from_slice(&chunk.min_ms.to_be_bytes());
        file.tail.extend_from_slice(&chunk.max_ms.to_be_bytes());
        file.tail.push(chunk.encoding as u8);
        file.tail.extend_from_slice(chunk.bytes);
        let checksum = crc32c(&file.tail[start + 4..]);
        file.tail[start..start + 4].copy_from_slice(&checksum.to_be_bytes());
        file.tail.resize(start + size, 0);
        if file.tail.len() >= TAIL_BYTES {
            let _ = self.flush();
        }
        Position((number % FILES_MAX) << OFFSET_BITS | (offset / ALIGN_BYTES) as u32)
    }

    /// The chunk at a position.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it isn't there or isn't what was written.
    pub(crate) fn read(&self, at: Position) -> Result<Chunk> {
        let (number, offset) = self.locate(at);
        let file = number.and_then(|n| Some((n, self.files.get(&n)?)));
        let Some((number, file)) = file else {
            return Err(Error::corrupt("head chunk", offset, "its file is gone").in_file(&self.dir));
        };
        let wrong = |reason: &str| {
            Error::corrupt("head chunk", offset, reason).in_file(files::head_chunks(&self.dir, number))
        };
        let in_tail = offset >= file.written.len();
        let record = file.record(offset).ok_or_else(|| wrong("it is behind the end"))?;
        let end = HEADER_BYTES + u32::from_be_bytes(*field(record, 4)) as usize;
        let body = record.get(4..end).ok_or_else(|| wrong("it ends behind the end"))?;
        if crc32c(body) != u32::from_be_bytes(*field(record, 0)) {
            return Err(wrong("its checksum is wrong"));
        }
        let encoding = Encoding::from_byte(record[32]).ok_or_else(|| wrong("its encoding is unknown"))?;
        let data = if in_tail {
            Bytes::copy_from_slice(&record[HEADER_BYTES..end])
        } else {
            file.written.slice(offset + HEADER_BYTES..offset + end)
        };
        Ok(Chunk {
            min_ms: i64::from_be_bytes(*field(record, 16)),
            max_ms: i64::from_be_bytes(*field(record, 24)),
            encoding,
            data,
        })
    }

    /// Fetches the chunk at a position.
    pub(crate) fn prefetch(&self, at: Position) {
        let (number, offset) = self.locate(at);
        let record = number.and_then(|number| self.files.get(&number)?.record(offset));
        record.into_iter().for_each(prefetch::bytes);
    }

    /// What a chunk's header says of it, which isn't verified; `None` where there is none.
    pub(crate) fn outline(&self, at: Position) -> Option<Outline> {
        let (number, offset) = self.locate(at);
        let record = self.files.get(&number?)?.record(offset)?;
        // Every encoding begins with how many samples there are.
        let samples = record.get(HEADER_BYTES..)?.first_chunk().copied().map(u16::from_be_bytes)?;
        Some(Outline {
            min_ms: i64::from_be_bytes(*field(record, 16)),
            max_ms: i64::from_be_bytes(*field(record, 24)),
            samples: samples.into(),
            bytes: u32::from_be_bytes(*field(record, 4)).into(),
        })
    }

    /// Writes what is in memory only, and maps it. Nothing is synced.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`]: the chunks stay in memory, and the next flush tries again.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.write_tails()?;
        let Self { disk, dir, files, .. } = self;
        for (number, file) in files.iter_mut().filter(|(_, file)| !file.tail.is_empty()) {
            let path = files::head_chunks(dir, *number);
            let end = file.length() as u64;
            file.written = disk.map(&path, 0..end).map_err(|e| Error::io("map", &path, e))?;
            (file.tail, file.unmapped) = (keep_room(std::mem::take(&mut file.tail), end), 0);
        }
        Ok(())
    }

    /// Writes what is in memory only, which stays there. Nothing is synced.
    ///
    /// # Errors
    /// Those of [`HeadChunks::flush`], but for a map that fails.
    pub(crate) fn write_tails(&mut self) -> Result<()> {
        for (number, file) in &mut self.files {
            if file.tail.len() == file.unmapped {
                continue;
            }
            let path = files::head_chunks(&self.dir, *number);
            let handle = match &file.file {
                Some(handle) => handle,
                None => file.file.insert(create(&*self.disk, &path)?),
            };
            // Before the write: one that fails may have written a part.
            file.writes += 1;
            let offset = (file.written.len() + file.unmapped) as u64;
            handle.write_at(offset, &file.tail[file.unmapped..]).map_err(|e| Error::io("write", &path, e))?;
            file.unmapped = file.tail.len();
        }
        Ok(())
    }

    /// Whether so much waits in memory that nothing more should be taken until a flush succeeds.
    pub(crate) fn is_overdue(&self) -> bool {
        let unmapped: usize = self.files.values().map(|file| file.unmapped).sum();
        let unwritten: usize = self.files.values().map(|file| file.tail.len() - file.unmapped).sum();
        unwritten >= BACKLOG_BYTES_MAX || unmapped >= UNMAPPED_BYTES_MAX
    }

    /// Whether something is held in memory only because mapping it failed.
    pub(crate) fn is_unmapped(&self) -> bool {
        self.files.values().any(|file| file.unmapped > 0)
    }

    /// Files with writes that aren't synced. They stay so until [`HeadChunks::note_synced`], whatever else fails on the
    /// way: a checkpoint that forgot them would let go of the only safe copy of their chunks.
    pub(crate) fn unsynced(&self) -> Vec<UnsyncedFile> {
        let unsynced = self.files.iter().filter(|(_, file)| file.synced < file.writes);
        unsynced
            .filter_map(|(number, file)| {
                Some(UnsyncedFile { number: *number, file: file.file.clone()?, writes: file.writes })
            })
            .collect()
    }

    /// These files were synced after [`HeadChunks::unsynced`] gave them; what was written to them meanwhile isn't safe.
    pub(crate) fn note_synced(&mut self, synced: &[UnsyncedFile]) {
        for UnsyncedFile { number, writes, .. } in synced {
            if let Some(file) = self.files.get_mut(number) {
                file.synced = file.synced.max(*writes);
            }
        }
    }

    /// Where the files end now, tails included.
    pub(crate) fn end(&self) -> FilesEnd {
        self.files
            .last_key_value()
            .map_or(FilesEnd { file: self.next_file - 1, length: FILE_BYTES as u32 }, |(number, file)| {
                FilesEnd { file: *number, length: file.length() as u32 }
            })
    }

    /// Forgets files, but for the one written to, none of whose chunks `keep` wants; the caller removes those
    /// numbers from the disk once no checkpoint names them.
    pub(crate) fn forget(&mut self, mut keep: impl FnMut(u32) -> bool) -> Vec<u32> {
        let last = self.files.last_key_value().map(|(number, _)| *number);
        let gone: Vec<u32> = self.files.keys().copied().filter(|n| Some(*n) != last && !keep(*n)).collect();
        gone.iter().for_each(|n| drop(self.files.remove(n)));
        gone
    }

    /// Number of the file that holds a position, if there is one.
    pub(crate) fn file_of(&self, at: Position) -> Option<u32> {
        self.locate(at).0
    }

    /// As [`HeadChunks::open`], in the same folder.
    pub(crate) fn reopen(&self, end: FilesEnd) -> Result<Self> {
        Self::open(Arc::clone(&self.disk), self.dir.clone(), end)
    }

    /// Opens the files that a checkpoint knew: those up to `end`, of which the last is written on from there. Later
    /// ones are removed: replay makes them anew.
    ///
    /// # Errors
    /// [`Error::Io`]. A file that is missing or too short isn't an error: reading its chunks is.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: PathBuf, end: FilesEnd) -> Result<Self> {
        let mut this = Self::new(disk, dir);
        this.next_file = end.file + 1;
        for entry in this.disk.list(&this.dir).map_err(|e| Error::io("list", &this.dir, e))? {
            let known = files::parse_head_chunks(&entry.name).filter(|_| !entry.is_dir);
            let Some(number) = known else { continue };
            let path = files::head_chunks(&this.dir, number);
            if number > end.file || (number == end.file && end.length == 0) {
                this.disk.remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
                continue;
            }
            let handle = this.disk.open(&path).map_err(|e| Error::io("open", &path, e))?;
            let size = handle.length().map_err(|e| Error::io("measure", &path, e))?;
            let length = if number == end.file { size.min(u64::from(end.length)) } else { size };
            let written = this.disk.map(&path, 0..length).map_err(|e| Error::io("map", &path, e))?;
            let file = ChunkFile { file: Some(handle), written, ..ChunkFile::default() };
            this.files.insert(number, file);
        }
        Ok(this)
    }

    fn locate(&self, at: Position) -> (Option<u32>, usize) {
        let offset = (at.0 & ((1 << OFFSET_BITS) - 1)) as usize * ALIGN_BYTES;
        let low = at.0 >> OFFSET_BITS;
        // The newest number that ends in these bits: older ones are gone long since.
        let newest = self.next_file - 1;
        let back = newest.wrapping_sub(low) % FILES_MAX;
        (newest.checked_sub(back), offset)
    }

    /// Number of files, and bytes in memory.
    pub(crate) fn usage(&self) -> (usize, usize) {
        (self.files.len(), self.files.values().map(|f| f.tail.capacity()).sum())
    }
}

impl Default for ChunkFile {
    fn default() -> Self {
        Self { file: None, written: Bytes::new(), tail: Vec::new(), unmapped: 0, writes: 0, synced: 0 }
    }
}

impl ChunkFile {
    fn length(&self) -> usize {
        self.written.len() + self.tail.len()
    }

    /// The bytes from an offset on, where there are enough for a record's header.
    fn record(&self, offset: usize) -> Option<&[u8]> {
        let record = match offset.checked_sub(self.written.len()) {
            Some(in_tail) => self.tail.get(in_tail..),
            None => self.written.get(offset..),
        };
        record.filter(|record| record.len() >= HEADER_BYTES)
    }
}

/// An empty tail for a file of `length` bytes: without room where little more will come.
fn keep_room(mut tail: Vec<u8>, length: u64) -> Vec<u8> {
    if length >= FILE_BYTES - TAIL_BYTES as u64 || tail.capacity() > 2 * TAIL_BYTES {
        return Vec::new();
    }
    tail.clear();
    tail
}

fn create(disk: &dyn Disk, path: &std::path::Path) -> Result<Arc<dyn DiskFile>> {
    let made = disk.create(path).and_then(|file| file.allocate(FILE_BYTES).map(|()| file));
    made.map_err(|error| {
        // An empty file in the way would make every later attempt fail.
        let _ = disk.remove_file(path);
        Error::io("create", path, error)
    })
}

fn field<const N: usize>(record: &[u8], at: usize) -> &[u8; N] {
    record[at..].first_chunk().expect("a record's header is whole")
}

pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    fn empty() -> (Arc<MemoryDisk>, HeadChunks) {
        let disk = Arc::new(MemoryDisk::new());
        let dir = PathBuf::from("head/00");
        disk.create_dir(&dir).unwrap();
        (disk.clone(), HeadChunks::new(disk, dir))
    }

    fn chunk(i: i64, bytes: &[u8]) -> Finished<'_> {
        Finished { encoding: Encoding::Xor, min_ms: i, max_ms: i + 1, bytes }
    }

    #[test]
    fn chunks_come_back_from_tail_and_file_and_after_opening() {
        let (disk, mut head) = empty();
        let data: Vec<Vec<u8>> = (0..60_000usize).map(|i| vec![i as u8; 100 + i % 57]).collect();
        let at: Vec<_> = data
            .iter()
            .enumerate()
            .map(|(i, d)| head.append(SeriesRef::new(0, i as u32), chunk(i as i64, d)))
            .collect();
        let check = |head: &HeadChunks| {
            for (i, at) in at.iter().enumerate() {
                let read = head.read(*at).unwrap();
                assert_eq!((read.min_ms, &read.data[..]), (i as i64, &data[i][..]));
            }
        };
        check(&head);
        assert!(head.usage().0 >= 2);
        head.flush().unwrap();
        let end = head.end();
        drop(head);
        check(&HeadChunks::open(disk, "head/00".into(), end).unwrap());
    }

    #[test]
    fn files_behind_a_checkpoint_go_and_their_room_is_written_again() {
        let (disk, mut head) = empty();
        let first = head.append(SeriesRef::new(0, 1), chunk(1, b"kept"));
        head.flush().unwrap();
        let end = head.end();
        for i in 0..50_000 {
            head.append(SeriesRef::new(0, 1), chunk(i, &[7; 100]));
        }
        head.flush().unwrap();
        drop(head);
        let mut head = HeadChunks::open(disk, "head/00".into(), end).unwrap();
        let second = head.append(SeriesRef::new(0, 2), chunk(2, b"new"));
        head.flush().unwrap();
        assert_eq!(&head.read(first).unwrap().data[..], b"kept");
        assert_eq!(&head.read(second).unwrap().data[..], b"new");
        assert_eq!(head.usage().0, 1);
    }

    #[test]
    fn a_flipped_byte_is_noticed() {
        let (disk, mut head) = empty();
        let at = head.append(SeriesRef::new(0, 1), chunk(1, b"some bytes"));
        let other = head.append(SeriesRef::new(0, 1), chunk(2, b"others"));
        head.flush().unwrap();
        let end = head.end();
        drop(head);
        disk.flip(&files::head_chunks("head/00".as_ref(), 1), 35, 1).unwrap();
        let head = HeadChunks::open(disk, "head/00".into(), end).unwrap();
        assert!(matches!(head.read(at), Err(Error::Corrupt { .. })));
        assert!(head.read(other).is_ok());
    }

    #[test]
    fn a_file_stays_unsynced_until_its_own_writes_were_synced() {
        let (_, mut head) = empty();
        head.append(SeriesRef::new(0, 1), chunk(1, b"first"));
        assert_eq!(head.unsynced().len(), 0, "nothing is written");
        head.flush().unwrap();
        let asked = head.unsynced();
        assert_eq!((asked.len(), head.unsynced().len()), (1, 1), "asking changes nothing");
        head.append(SeriesRef::new(0, 1), chunk(2, b"second"));
        head.flush().unwrap();
        head.note_synced(&asked);
        let asked = head.unsynced();
        assert_eq!(asked.len(), 1, "the second write came after the sync began");
        head.note_synced(&asked);
        assert_eq!(head.unsynced().len(), 0);
    }

    #[test]
    fn a_full_disk_keeps_chunks_in_memory_until_there_is_room() {
        let (disk, mut head) = empty();
        disk.set_capacity(Some(0));
        let at = head.append(SeriesRef::new(0, 1), chunk(1, b"some bytes"));
        assert!(matches!(head.flush(), Err(Error::NoSpace(_))));
        assert!(head.read(at).is_ok());
        disk.set_capacity(None);
        head.flush().unwrap();
        assert_eq!(&head.read(at).unwrap().data[..], b"some bytes");
    }
}

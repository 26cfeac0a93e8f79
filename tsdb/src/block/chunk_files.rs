//! The files in a block's `chunks` folder.
//!
//! ```text
//! file       magic 0x85BD40DD <4> | version 1 <1> | zeros <3> | chunks
//! chunk      length of data <uvarint> | encoding <1> | data | CRC32C of encoding and data <4>
//! reference  number of the file, from 0 <32 bits> | offset in it <32 bits>
//! ```

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::ChunkMeta;
use super::file_writer::FileWriter;
use crate::chunk::Encoding;
use crate::disk::Disk;
use crate::files;
use crate::index::coding::{Reader, crc32c};
use crate::select::Chunk;
use crate::varint;
use crate::{Error, Result};

const MAGIC: u32 = 0x85BD_40DD;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;

/// Longest chunk file, in bytes; a chunk longer than all of it gets a file of its own.
pub const CHUNK_FILE_BYTES_MAX: u64 = 512 << 20;

/// Longest chunk, in bytes: far above what 65,535 samples of a large histogram need, and below what offsets can say.
const CHUNK_BYTES_MAX: usize = 256 << 20;

/// What surrounds a chunk's data at most: length, encoding, checksum.
const AROUND_BYTES_MAX: u64 = 5 + 1 + 4;

/// Writes chunk files.
pub(crate) struct ChunkFilesWriter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Option<FileWriter>,
    /// Files begun so far.
    files: u32,
    bytes_max: u64,
}

impl ChunkFilesWriter {
    /// Writes into the folder `dir`, which exists and is empty.
    pub(crate) fn new(disk: &Arc<dyn Disk>, dir: &Path) -> Self {
        Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            file: None,
            files: 0,
            bytes_max: CHUNK_FILE_BYTES_MAX,
        }
    }

    /// Appends a chunk; returns how the index refers to it.
    pub(crate) fn write(&mut self, chunk: &Chunk) -> Result<ChunkMeta> {
        let length = chunk.data.len();
        if length > CHUNK_BYTES_MAX {
            return Err(Error::Limit(format!("a chunk of {length} bytes: the limit is {CHUNK_BYTES_MAX}")));
        }
        let file = self.file_with_room(length as u64 + AROUND_BYTES_MAX)?;
        let offset = file.position();
        file.write_with(|bytes| {
            varint::put(bytes, length as u64);
            let start = bytes.len();
            bytes.push(chunk.encoding as u8);
            bytes.extend_from_slice(&chunk.data);
            let crc = crc32c(&bytes[start..]);
            bytes.extend_from_slice(&crc.to_be_bytes());
        })?;
        Ok(self.meta(chunk.min_ms, chunk.max_ms, offset))
    }

    /// Appends a chunk as another block's file holds it: length, encoding, data and checksum, which hold.
    pub(crate) fn write_raw(&mut self, min_ms: i64, max_ms: i64, raw: &[u8]) -> Result<ChunkMeta> {
        let file = self.file_with_room(raw.len() as u64)?;
        let offset = file.position();
        file.write(raw)?;
        Ok(self.meta(min_ms, max_ms, offset))
    }

    /// Makes all files safe; returns their sizes in bytes, in order.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.close()?;
        self.disk.sync_dir(&self.dir).map_err(|e| Error::io("sync", &self.dir, e))
    }

    fn meta(&self, min_ms: i64, max_ms: i64, offset: u64) -> ChunkMeta {
        let file = u64::from(self.files - 1);
        ChunkMeta { min_ms, max_ms, reference: file << 32 | offset }
    }

    fn file_with_room(&mut self, bytes: u64) -> Result<&mut FileWriter> {
        let full = self.file.as_ref().is_some_and(|file| {
            file.position() > HEADER_BYTES as u64 && file.position() + bytes > self.bytes_max
        });
        if full {
            self.close()?;
        }
        if self.file.is_none() {
            self.files += 1;
            let mut file = FileWriter::create(&*self.disk, &self.dir.join(files::chunk_file(self.files)))?;
            file.write(&MAGIC.to_be_bytes())?;
            file.write(&[VERSION, 0, 0, 0])?;
            self.file = Some(file);
        }
        Ok(self.file.as_mut().expect("opened above"))
    }

    fn close(&mut self) -> Result<()> {
        self.file.take().map_or(Ok(()), |file| file.finish().map(drop))
    }
}

/// Reads chunk files where they lie.
#[derive(Clone, Debug)]
pub(crate) struct ChunkFiles {
    dir: PathBuf,
    files: Vec<Bytes>,
}

/// A chunk in its file, checksum verified.
pub(crate) struct StoredChunk {
    pub(crate) encoding: Encoding,
    /// The samples.
    pub(crate) data: Bytes,
}

impl ChunkFiles {
    /// Opens all files of the folder `dir`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a file is missing in the row, or isn't a chunk file.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let entries = disk.list(dir).map_err(|e| Error::io("list", dir, e))?;
        let mut numbers: Vec<u32> =
            entries.iter().filter(|e| !e.is_dir).filter_map(|e| files::chunk_file_number(&e.name)).collect();
        numbers.sort_unstable();
        let mut mapped = Vec::with_capacity(numbers.len());
        for (number, expected) in numbers.into_iter().zip(1..) {
            let path = dir.join(files::chunk_file(number));
            let wrong = |reason: &str| Error::corrupt("chunk file", 0, reason).in_file(&path);
            if number != expected {
                return Err(wrong(&format!("{} is missing", files::chunk_file(expected).display())));
            }
            let size = disk.size_bytes(&path).map_err(|e| Error::io("open", &path, e))?.unwrap_or(0);
            let bytes = disk.map(&path, 0..size).map_err(|e| Error::io("map", &path, e))?;
            let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
                return Err(wrong("it is shorter than its header"));
            };
            if header[..4] != MAGIC.to_be_bytes() {
                return Err(wrong("it doesn't begin with a chunk file's magic number"));
            }
            if header[4] != VERSION {
                return Err(wrong(&format!("version {} isn't known", header[4])));
            }
            mapped.push(bytes);
        }
        Ok(Self { dir: dir.to_owned(), files: mapped })
    }

    /// Bytes of all files.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len() as u64).sum()
    }

    /// The samples of a chunk that an index refers to.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Invalid`] when its encoding isn't known.
    pub(crate) fn get(&self, reference: u64) -> Result<StoredChunk> {
        let Found { file, encoding, data, .. } = self.find(reference)?;
        Ok(StoredChunk { encoding, data: file.slice(data) })
    }

    /// The same chunk as its file holds it.
    ///
    /// # Errors
    /// As [`ChunkFiles::get`].
    pub(crate) fn raw(&self, reference: u64) -> Result<RawChunk<'_>> {
        let Found { file, encoding, data, whole } = self.find(reference)?;
        Ok(RawChunk { encoding, data: &file[data], whole: &file[whole] })
    }

    fn find(&self, reference: u64) -> Result<Found<'_>> {
        let offset = (reference & u64::from(u32::MAX)) as usize;
        let wrong = |reason: &str| Error::corrupt("chunk", offset, reason).in_file(self.path(reference));
        let number = (reference >> 32) as usize;
        let file = self.files.get(number).ok_or_else(|| wrong("there is no such file"))?;
        let tail = file.get(offset..).filter(|_| offset >= HEADER_BYTES);
        let tail = tail.ok_or_else(|| wrong("it would lie outside the file"))?;
        let mut reader = Reader::new("chunk", tail, offset);
        let length = reader.uvarint().map_err(|e| e.in_file(self.path(reference)))?;
        let length = usize::try_from(length).ok().and_then(|length| length.checked_add(1));
        let start = reader.offset();
        let cut = || wrong("it reaches beyond the file");
        let content = reader.take(length.ok_or_else(cut)?).map_err(|_| cut())?;
        let sum = reader.u32().map_err(|_| cut())?;
        if crc32c(content) != sum {
            return Err(wrong("checksum mismatch"));
        }
        let encoding = Encoding::from_byte(content[0]).ok_or_else(|| {
            let path = self.path(reference);
            Error::Invalid(format!("chunks of encoding {} can't be read ({})", content[0], path.display()))
        })?;
        let data = start + 1..start + content.len();
        Ok(Found { file, encoding, data, whole: offset..reader.offset() })
    }

    fn path(&self, reference: u64) -> PathBuf {
        let number = u32::try_from(reference >> 32).expect("the upper half of 64 bits fits 32");
        self.dir.join(files::chunk_file(number.saturating_add(1)))
    }
}

/// A chunk as its file holds it, checksum verified.
pub(crate) struct RawChunk<'a> {
    pub(crate) encoding: Encoding,
    /// The samples.
    pub(crate) data: &'a [u8],
    /// Length, encoding, samples and checksum.
    pub(crate) whole: &'a [u8],
}

struct Found<'a> {
    file: &'a Bytes,
    encoding: Encoding,
    data: Range<usize>,
    whole: Range<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    fn chunk(text: &str) -> Chunk {
        Chunk { min_ms: 1, max_ms: 2, encoding: Encoding::Xor, data: Bytes::from(text.to_owned()) }
    }

    #[test]
    fn chunks_are_found_in_whichever_file_they_went_to() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let dir = Path::new("chunks");
        disk.create_dir(dir).unwrap();
        let mut writer = ChunkFilesWriter::new(&disk, dir);
        writer.bytes_max = 40;
        let texts = ["first", "second", "third and rather long, longer than a file should be", "", "fifth"];
        let metas: Vec<_> = texts.iter().map(|text| writer.write(&chunk(text)).unwrap()).collect();
        writer.finish().unwrap();
        assert_eq!(metas.iter().map(|m| m.reference >> 32).collect::<Vec<_>>(), [0, 0, 1, 2, 2]);
        let files = ChunkFiles::open(&*disk, dir).unwrap();
        for (meta, text) in metas.iter().zip(texts) {
            assert_eq!(files.get(meta.reference).unwrap().data, text);
            let raw = files.raw(meta.reference).unwrap();
            assert_eq!((raw.data, raw.whole.len()), (text.as_bytes(), text.len() + 6));
        }
        disk.remove_file(&dir.join("000002")).unwrap();
        assert!(ChunkFiles::open(&*disk, dir).is_err());
    }

    #[test]
    fn a_reference_to_nowhere_is_an_error() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let dir = Path::new("chunks");
        disk.create_dir(dir).unwrap();
        let mut writer = ChunkFilesWriter::new(&disk, dir);
        let reference = writer.write(&chunk("samples")).unwrap().reference;
        writer.finish().unwrap();
        let files = ChunkFiles::open(&*disk, dir).unwrap();
        for wrong in [0, 7, reference + 1, reference + 100, 1 << 32 | reference, u64::MAX] {
            assert!(matches!(files.get(wrong), Err(Error::Corrupt { .. })), "{wrong}");
        }
    }
}

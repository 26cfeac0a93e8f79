//! A file written from front to back, in large writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::index::coding::crc32c;
use crate::{Error, Result};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// A file being written.
pub(crate) struct FileWriter {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// What isn't written yet; begins at `written`.
    buffer: Vec<u8>,
    written: u64,
}

impl FileWriter {
    /// Creates the file.
    pub(crate) fn create(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.create(path).map_err(|e| Error::io("create", path, e))?;
        Ok(Self { file, path: path.to_owned(), buffer: Vec::with_capacity(BUFFER_BYTES + 4096), written: 0 })
    }

    /// Offset of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// The file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.flush_when_full()
    }

    /// Appends what `push` pushes, a few kilobytes at most.
    pub(crate) fn write_with(&mut self, push: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        push(&mut self.buffer);
        self.flush_when_full()
    }

    /// Appends zeros up to a multiple of `align` bytes.
    pub(crate) fn pad(&mut self, align: u64) -> Result<()> {
        let padding = (align - self.position() % align) % align;
        self.buffer.resize(self.buffer.len() + padding as usize, 0);
        self.flush_when_full()
    }

    /// Overwrites bytes written before.
    pub(crate) fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        self.file.write_at(offset, bytes).map_err(|e| Error::io("write", &self.path, e))
    }

    /// Writes what is gathered, so that it can be read or mapped.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.file.write_at(self.written, &self.buffer).map_err(|e| Error::io("write", &self.path, e))?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Writes what is gathered and makes the file safe; returns its length in bytes.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.flush()?;
        self.file.sync().map_err(|e| Error::io("sync", &self.path, e))?;
        Ok(self.written)
    }

    fn flush_when_full(&mut self) -> Result<()> {
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }
}

/// A section whose content is streamed: its length is patched in at the end, its checksum grows along.
pub(crate) struct SectionWriter {
    start: u64,
    crc: crc_fast::Digest,
}

impl SectionWriter {
    /// Begins a section at the writer's position.
    pub(crate) fn begin(out: &mut FileWriter) -> Result<Self> {
        let start = out.position();
        out.write(&[0; 4])?;
        Ok(Self { start, crc: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi) })
    }

    /// Appends content.
    pub(crate) fn write(&mut self, out: &mut FileWriter, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        out.write(bytes)
    }

    /// Length of the content so far, in bytes.
    pub(crate) fn length(&self, out: &FileWriter) -> u64 {
        out.position() - self.start - 4
    }

    /// Ends the section.
    ///
    /// # Errors
    /// [`Error::Limit`] when the content has 4 GiB or more.
    pub(crate) fn finish(self, what: &str, out: &mut FileWriter) -> Result<()> {
        let length = self.length(out);
        let length = u32::try_from(length)
            .map_err(|_| Error::Limit(format!("{what} of {length} bytes: an index holds less than 4 GiB")))?;
        out.patch(self.start, &length.to_be_bytes())?;
        let crc = self.crc.finalize() as u32;
        out.write(&crc.to_be_bytes())
    }
}

/// A whole section from content at hand.
pub(crate) fn write_section(out: &mut FileWriter, content: &[u8]) -> Result<()> {
    let length = u32::try_from(content.len()).expect("callers keep such sections below 4 GiB");
    out.write(&length.to_be_bytes())?;
    out.write(content)?;
    out.write(&crc32c(content).to_be_bytes())
}

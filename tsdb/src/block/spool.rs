//! Records set aside to be read again from front to back: in memory, and in a file once they outgrow it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file_writer::FileWriter;
use crate::disk::Disk;
use crate::{Error, Result};

/// Bytes read back at a time.
const READ_BYTES: u64 = 1 << 20;

/// Words (`u32`) set aside. The first `memory_words_max` stay in memory.
pub(crate) struct Spool {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    memory: Vec<u32>,
    memory_words_max: usize,
    file: Option<FileWriter>,
}

impl Spool {
    /// An empty spool, which makes the file `path` when it outgrows `memory_words_max`.
    pub(crate) fn new(disk: &Arc<dyn Disk>, path: &Path, memory_words_max: usize) -> Self {
        Self {
            disk: Arc::clone(disk),
            path: path.to_owned(),
            memory: Vec::new(),
            memory_words_max,
            file: None,
        }
    }

    /// Sets words aside.
    pub(crate) fn push(&mut self, words: &[u32]) -> Result<()> {
        if self.file.is_none() {
            if self.memory.len() + words.len() <= self.memory_words_max {
                self.memory.extend_from_slice(words);
                return Ok(());
            }
            self.file = Some(FileWriter::create(&*self.disk, &self.path)?);
        }
        let file = self.file.as_mut().expect("created above");
        file.write_with(|buffer| words.iter().for_each(|word| buffer.extend_from_slice(&word.to_le_bytes())))
    }

    /// Reads all records from the front. `length` tells how many words the record beginning with a word has (at
    /// least 1).
    pub(crate) fn read(
        &mut self,
        length: impl Fn(u32) -> usize,
        mut record: impl FnMut(&[u32]) -> Result<()>,
    ) -> Result<()> {
        let mut words = self.memory.as_slice();
        while let Some(&first) = words.first() {
            let (one, rest) = words.split_at(length(first));
            record(one)?;
            words = rest;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.flush()?;
        let end = file.position();
        let source = self.disk.open(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
        let mut held: Vec<u32> = Vec::new();
        let mut at = 0;
        let mut buffer = Vec::new();
        while at < end {
            buffer.resize((end - at).min(READ_BYTES) as usize, 0);
            source.read_at(at, &mut buffer).map_err(|e| Error::io("read", &self.path, e))?;
            at += buffer.len() as u64;
            held.extend(
                buffer
                    .chunks_exact(4)
                    .map(|w| u32::from_le_bytes(w.try_into().expect("chunks of four bytes"))),
            );
            let mut words = held.as_slice();
            while let Some(&first) = words.first() {
                let Some((one, rest)) = words.split_at_checked(length(first)) else { break };
                record(one)?;
                words = rest;
            }
            let left = words.len();
            held.drain(..held.len() - left);
        }
        Ok(())
    }

    /// Removes the file, if there is one.
    pub(crate) fn remove(self) -> Result<()> {
        match self.file {
            Some(_) => self.disk.remove_file(&self.path).map_err(|e| Error::io("remove", &self.path, e)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn records_come_back_in_order_from_memory_and_file() {
        for limit in [0, 10, 1000, usize::MAX] {
            let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
            let mut spool = Spool::new(&disk, Path::new("spool"), limit);
            let mut expected = Vec::new();
            for i in 0..200_000u32 {
                let record: Vec<u32> = (0..=i % 5).map(|j| if j == 0 { i % 5 } else { i + j }).collect();
                spool.push(&record).unwrap();
                expected.push(record);
            }
            for _ in 0..2 {
                let mut back = Vec::new();
                let collect = |record: &[u32]| {
                    back.push(record.to_vec());
                    Ok(())
                };
                spool.read(|first| first as usize + 1, collect).unwrap();
                assert!(back == expected, "limit {limit}");
            }
            spool.remove().unwrap();
            assert_eq!(disk.size_bytes(Path::new("spool")).unwrap(), None);
        }
    }
}

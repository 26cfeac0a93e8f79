//! A file that is read twice, in pieces of whole lines.

use std::io::{BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::Failure;

/// Bytes of the file decoded at once; a line may be as long.
const PIECE_BYTES: usize = 4 << 20;
/// What compressed files begin with, and what reads them.
const COMPRESSED: [(&[u8], &str); 2] = [(&[0x1f, 0x8b], "zcat"), (&[0x28, 0xb5, 0x2f, 0xfd], "zstdcat")];

/// Where text comes from, as often as it is wanted.
#[derive(Debug)]
pub(super) struct Source {
    /// What the user called it.
    shown: PathBuf,
    /// What is opened: `shown`, or a copy of what can be read only once.
    path: PathBuf,
    /// Its length in bytes.
    pub(super) length: u64,
}

impl Source {
    /// The file, `-` for stdin. What isn't a plain file is copied into `work_dir`.
    ///
    /// # Errors
    /// When it can't be read, or can't be text since it is compressed.
    #[allow(
        clippy::disallowed_methods,
        reason = "the file that a user names lies outside of any data folder"
    )]
    pub(super) fn open(file: &Path, work_dir: &Path) -> Result<Self, Failure> {
        let mut source = Self { shown: file.to_owned(), path: file.to_owned(), length: 0 };
        let unreadable = |e: std::io::Error| source.unreadable(&e);
        let is_stdin = file == Path::new("-");
        let is_plain = !is_stdin && std::fs::metadata(file).map_err(unreadable)?.is_file();
        if !is_plain {
            let copy = work_dir.join("input");
            let mut input: Box<dyn Read> = match is_stdin {
                true => Box::new(std::io::stdin().lock()),
                false => Box::new(std::fs::File::open(file).map_err(unreadable)?),
            };
            let mut output = std::fs::File::create(&copy).map_err(unreadable)?;
            std::io::copy(&mut input, &mut output).and_then(|_| output.flush()).map_err(unreadable)?;
            source.path = copy;
        }
        let mut head = Vec::new();
        source.read()?.take(4).read_to_end(&mut head).map_err(|e| source.unreadable(&e))?;
        if let Some((_, verb)) = COMPRESSED.iter().find(|(magic, _)| head.starts_with(magic)) {
            let shown = file.display();
            return Err(Failure::failed(format!(
                "{shown} is compressed: {verb} {shown} | carillon import openmetrics -"
            )));
        }
        source.length = std::fs::metadata(&source.path).map_err(|e| source.unreadable(&e))?.len();
        Ok(source)
    }

    /// Reads it from its start.
    ///
    /// # Errors
    /// When it can't be opened.
    #[allow(clippy::disallowed_methods, reason = "as above")]
    pub(super) fn read(&self) -> Result<BufReader<std::fs::File>, Failure> {
        std::fs::File::open(&self.path).map(BufReader::new).map_err(|e| self.unreadable(&e))
    }

    /// Says why it can't be read.
    pub(super) fn unreadable(&self, error: &std::io::Error) -> Failure {
        Failure::failed(format!("can't read {}: {error}", self.shown.display()))
    }
}

/// Cuts a stream into pieces of whole lines.
#[derive(Default)]
pub(super) struct Pieces {
    buffer: Vec<u8>,
    /// Bytes at the start of the buffer that were handed out.
    used: usize,
}

impl Pieces {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the stream can't be read, or a line is longer than [`PIECE_BYTES`].
    pub(super) fn next(&mut self, input: &mut dyn Read) -> std::io::Result<Option<&[u8]>> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let room = PIECE_BYTES.saturating_sub(self.buffer.len());
        let read = Read::take(&mut *input, room as u64).read_to_end(&mut self.buffer)?;
        self.used = match self.buffer.iter().rposition(|byte| *byte == b'\n') {
            Some(newline) => newline + 1,
            // The last line may lack its end.
            None if read < room => self.buffer.len(),
            None => return Err(std::io::Error::other(format!("a line has more than {PIECE_BYTES} bytes"))),
        };
        Ok((self.used > 0).then(|| &self.buffer[..self.used]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_lines() {
        let mut pieces = Pieces::default();
        let text = format!("{}\n{}\nend", "x".repeat(PIECE_BYTES / 2), "y".repeat(PIECE_BYTES / 4 * 3));
        let mut input = text.as_bytes();
        let mut lengths = Vec::new();
        while let Some(piece) = pieces.next(&mut input).unwrap() {
            lengths.push(piece.len());
        }
        assert_eq!(lengths, [PIECE_BYTES / 2 + 1, PIECE_BYTES / 4 * 3 + 1, 3]);
        assert!(Pieces::default().next(&mut "z".repeat(PIECE_BYTES + 1).as_bytes()).is_err());
    }

    #[test]
    fn a_compressed_file_is_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.om");
        for (magic, verb) in COMPRESSED {
            std::fs::write(&file, [magic, b"whatever"].concat()).unwrap();
            let refused = Source::open(&file, dir.path()).unwrap_err().to_string();
            assert!(refused.contains("is compressed") && refused.contains(verb), "{refused}");
        }
        std::fs::write(&file, "m 1 1\n").unwrap();
        assert_eq!(Source::open(&file, dir.path()).unwrap().length, 6);
    }
}

//! What can go wrong in the engine, sorted by what the caller should do about it.

use std::path::PathBuf;

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine. Bugs assert; these are the environment's and the input's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Stored bytes aren't what was written. The file is left as it is; the caller reports or quarantines it.
    #[error("corrupt {what} in {}: {reason} (offset {offset})", path.display())]
    Corrupt {
        /// What was being read: "chunk", "postings", "WAL record".
        what: &'static str,
        /// The file, relative to the data folder; empty where bytes didn't come from a file.
        path: PathBuf,
        /// Byte offset in the file, or in the bytes.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The input can never be accepted as it is.
    #[error("{0}")]
    Invalid(String),
    /// A named limit was reached.
    #[error("{0}")]
    Limit(String),
    /// Not now, for a reason within this store that passes by itself: try again in a moment.
    #[error("not now: {0}")]
    Busy(String),
    /// No room on the disk: writes are refused until there is.
    #[error("no space left on the disk: {0}")]
    NoSpace(String),
    /// The store stopped after an error that leaves the disk's state unknown (a failed fsync): restart it.
    #[error("the store has stopped: {0}")]
    Stopped(String),
    /// The operating system's answer.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was being done: "open", "write".
        what: &'static str,
        /// The file, relative to the data folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl Error {
    /// A [`Error::Corrupt`] over bytes whose file the caller names later by [`Error::in_file`].
    pub fn corrupt(what: &'static str, offset: usize, reason: impl Into<String>) -> Self {
        Self::Corrupt { what, path: PathBuf::new(), offset: offset as u64, reason: reason.into() }
    }

    /// The same error, naming its file if it didn't yet.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        if let Self::Corrupt { path, .. } = &mut self
            && path.as_os_str().is_empty()
        {
            *path = file.into();
        }
        self
    }

    /// Wraps an I/O error; "no space" becomes [`Error::NoSpace`].
    pub fn io(what: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::NoSpace(format!("{what} {}", path.display()))
            }
            _ => Self::Io { what, path, source },
        }
    }
}

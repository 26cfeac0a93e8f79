//! What ends a verb early, and the exit code that says so.

/// Exit code when something didn't go well.
const NOT_WELL: u8 = 1;
/// Exit code for wrong usage, as clap has it.
pub(super) const WRONG_USAGE: u8 = 2;

/// A verb's failure: a message that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It was asked for in a way that can't work.
    #[error("{0}")]
    Usage(String),
    /// It was tried and didn't go well.
    #[error("{0}")]
    Failed(String),
    /// A node ended, and its log says why.
    #[error("{0}")]
    Logged(String),
}

impl Failure {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => WRONG_USAGE,
            Self::Failed(_) | Self::Logged(_) => NOT_WELL,
        }
    }
}

impl From<crate::bench::Error> for Failure {
    fn from(error: crate::bench::Error) -> Self {
        Self::Failed(error.0)
    }
}

impl From<tsdb::Error> for Failure {
    fn from(error: tsdb::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

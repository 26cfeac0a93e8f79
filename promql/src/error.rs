//! What can end a query, sorted by what the caller should do about it.

/// A query's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The query can't be evaluated as it is, whatever the data: change it.
    #[error("{0}")]
    Invalid(String),
    /// The query can't be evaluated on this data (ambiguous matches, equal labels): the words are Prometheus's.
    #[error("{0}")]
    Execution(String),
    /// A limit of the query was reached: ask for less, or raise it.
    #[error("{0}")]
    Limit(String),
    /// The caller cancelled the query, or its time was up.
    #[error("query was canceled")]
    Cancelled,
    /// Stored data couldn't be read.
    #[error(transparent)]
    Storage(#[from] tsdb::Error),
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! Why a question isn't answered.

use std::time::Duration;

/// What keeps a question from being answered, sorted by what whoever asked should do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too many wait already: ask again later.
    #[error("too many queries wait already (query.max_waiting)")]
    Busy,
    /// It took longer than this: ask for less.
    #[error("the query took longer than {} s (query.timeout)", .0.as_secs_f64())]
    Late(Duration),
    /// The query's own fault, or a limit of its own.
    #[error(transparent)]
    Query(#[from] promql::Error),
    /// Stored data can't be read.
    #[error(transparent)]
    Storage(#[from] tsdb::Error),
}

//! Why a question isn't answered.

use std::time::Duration;

use ring::epoch::Epoch;

use crate::bucket;

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
    /// Too few owners of some range have answered: ask again, or ask for what there is (`partial_response=true`).
    #[error(
        "the answer would be incomplete, too few owners have answered: {0}; partial_response=true takes what there is"
    )]
    Incomplete(String),
    /// Another node goes by a newer ring document, which doesn't arrive here: look at this node's connections.
    #[error(
        "the ring has changed (document {newest}), and this node knows document {known} only: it can't say who keeps \
         what; try again"
    )]
    Behind {
        /// What is adopted here.
        known: Epoch,
        /// What another node goes by.
        newest: Epoch,
    },
    /// The ring changed whenever everybody had been asked.
    #[error("the ring changes too often for a question to be answered; try again")]
    Restless,
    /// A block that the catalog lists can't be read: look at the bucket, or ask for what there is.
    #[error("blocks in the bucket can't be read: {0}")]
    Bucket(#[from] bucket::Error),
    /// Stored data can't be read.
    #[error(transparent)]
    Storage(#[from] tsdb::Error),
}

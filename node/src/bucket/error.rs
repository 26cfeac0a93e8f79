//! What can go wrong with a bucket, sorted by what somebody should do about it.

use object_store::path::Path;

use crate::error_text::causes;

/// The bucket's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the bucket, or of what is kept in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL can't be a bucket's.
    #[error("{0}")]
    Invalid(String),
    /// The bucket itself isn't there.
    #[error("the bucket {bucket} doesn't exist: create it, or correct its name ({detail})")]
    Missing {
        /// As configured.
        bucket: String,
        /// The store's answer.
        detail: String,
    },
    /// The credentials aren't there, have expired or don't allow what was tried.
    #[error("the bucket {bucket} refuses to {what}: {advice} ({detail})")]
    Denied {
        /// As configured.
        bucket: String,
        /// What was tried.
        what: String,
        /// Which credentials to look at.
        advice: &'static str,
        /// The store's answer.
        detail: String,
    },
    /// No answer, or failures only, in the time there was. For a write: it may have happened all the same.
    #[error(
        "the bucket {bucket} can't {what} now: {detail}; tried {attempts} times; check that its endpoint can be \
         reached from here"
    )]
    Unreachable {
        /// As configured.
        bucket: String,
        /// What was tried.
        what: String,
        /// How often.
        attempts: u32,
        /// The last failure.
        detail: String,
    },
    /// The store takes conditional writes for plain ones, so that two nodes could both believe they won.
    #[error(
        "the bucket {bucket} ignores conditions: {seen}; a cluster needs conditional writes (If-Match and \
         If-None-Match), which AWS S3, Google Cloud Storage, Azure, MinIO, Ceph and SeaweedFS have"
    )]
    NoConditions {
        /// As configured.
        bucket: String,
        /// What the self-test saw.
        seen: &'static str,
    },
    /// All that was here is elsewhere now.
    #[error("the bucket {bucket} was moved to {to}: start this node with --bucket {to}")]
    Moved {
        /// As configured.
        bucket: String,
        /// Where to.
        to: String,
    },
    /// A move to here isn't finished.
    #[error(
        "the bucket {bucket} is being filled from {from} by `carillon bucket move`: wait until that is done, or run it \
         again where it was interrupted"
    )]
    Filling {
        /// As configured.
        bucket: String,
        /// Where from.
        from: String,
    },
    /// Bytes in the bucket aren't what was written.
    #[error("corrupt {key} in the bucket: {reason}")]
    Corrupt {
        /// The object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A catalog went backwards: it was lost, cut short or restored from an older copy.
    #[error(
        "the catalog of tenant {tenant} was at version {seen} and is {found} now: was the bucket restored or \
         replaced? Nothing is written to it until that is mended"
    )]
    CatalogLost {
        /// Whose.
        tenant: String,
        /// The highest version that this store has seen.
        seen: u64,
        /// What was found instead.
        found: String,
    },
    /// A block isn't where the catalog has it.
    #[error("block {block} is listed in the catalog and isn't in the bucket: {detail}")]
    Gone {
        /// Its ULID.
        block: ulid::Ulid,
        /// What is missing.
        detail: String,
    },
    /// A block that a question was planned with has left the catalog since: plan again with what it holds now.
    #[error("block {block} has left the catalog: ask again")]
    Replan {
        /// Its ULID.
        block: ulid::Ulid,
    },
    /// A named limit was reached.
    #[error("{0}")]
    Limit(String),
    /// The local disk, ledger or a block's bytes.
    #[error(transparent)]
    Storage(#[from] tsdb::Error),
}

impl Error {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Replan { .. }
                | Self::Storage(tsdb::Error::Busy(_) | tsdb::Error::NoSpace(_))
        )
    }
}

/// How a failed call ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store's answer, or the network's.
    Store(object_store::Error),
    /// No answer before the deadline.
    TimedOut,
}

impl Failure {
    /// Whether trying again can help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::Store(error) => {
                matches!(error, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. })
            }
        }
    }

    /// Whether the bucket answered, if with a no.
    pub(super) fn is_answer(&self) -> bool {
        use object_store::Error::{AlreadyExists, NotFound, NotModified, Precondition};
        matches!(
            self,
            Self::Store(AlreadyExists { .. } | NotFound { .. } | NotModified { .. } | Precondition { .. })
        )
    }

    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(object_store::Error::NotFound { .. })) && !self.names_missing_bucket()
    }

    /// A missing bucket answers 404 as a missing object does; only the text tells them apart.
    fn names_missing_bucket(&self) -> bool {
        const SAYINGS: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"];
        let text = self.detail();
        SAYINGS.iter().any(|saying| text.contains(saying))
    }

    fn detail(&self) -> String {
        match self {
            Self::Store(error) => causes(error),
            Self::TimedOut => "no answer in time".to_owned(),
        }
    }

    /// The error that a user reads.
    pub(super) fn explain(
        self,
        bucket: &str,
        advice: &'static str,
        what: &str,
        key: &Path,
        attempts: u32,
    ) -> Error {
        let (bucket, what, detail) = (bucket.to_owned(), format!("{what} {key}"), self.detail());
        match self {
            Self::Store(
                object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. },
            ) => Error::Denied { bucket, what, advice, detail },
            Self::Store(object_store::Error::NotFound { .. }) if self.names_missing_bucket() => {
                Error::Missing { bucket, detail }
            }
            Self::Store(object_store::Error::NotSupported { source }) => {
                Error::Limit(format!("{key} in the bucket {bucket}: {source}"))
            }
            _ => Error::Unreachable { bucket, what, attempts, detail },
        }
    }
}

//! Questions between nodes, as messages and as the model has them.
//!
//! ```text
//! Marks.series   for each series:  hash of its labels u64 LE | fingerprint u128 LE
//! Wanted.series  for each series:  hash of its labels u64 LE | digest that the asker has u128 LE, 0 = it has none
//! ```
//!
//! Everything that comes in is checked: whatever is malformed makes its sender's whole answer void.

mod fold;
mod names;
mod seal;
mod select;

use std::collections::{BTreeMap, BTreeSet};

use promql::folded::FoldedGroup;
use promql::{Folded, QueryRange};
use proto::peer::read as pb;
use ring::{Epoch, StoreId};
use tsdb::digest::Digest;
use tsdb::model::{MatchOp, Matcher, TenantId};
use tsdb::select::{Select, Series};

use crate::query::Sketch;
use crate::query::names::{Found, Question};

pub use fold::group_bytes;
pub use proto::peer::read::read_client::ReadClient;
pub use proto::peer::read::read_server::{Read, ReadServer};
pub use seal::{open, seal};

/// Most selections in a request: more than any query has selectors.
const SELECTIONS_MAX: usize = 10_000;
/// Most matchers of a selection.
const MATCHERS_MAX: usize = 10_000;

/// Why a message isn't one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub String);

impl Malformed {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// A question for series.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectAsk {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub selects: Vec<Select>,
    /// All that are asked.
    pub asked: Vec<StoreId>,
    /// Blocks listed at or before it are left out.
    pub catalog_version: Option<u64>,
    /// For the second round: by selection, the series wanted, by the hash of their labels, with the digest that the
    /// asker has already.
    pub wanted: Option<Vec<BTreeMap<u64, Option<Digest>>>>,
}

/// A question for digests.
#[derive(Clone, Debug, PartialEq)]
pub struct DigestsAsk {
    /// Of which series.
    pub select: SelectAsk,
    /// By selection, the buckets of which a digest of each series is wanted; without it, one of each bucket is.
    pub listed: Option<Vec<BTreeSet<u32>>>,
    /// Whether sketches of those are wanted from owners, instead of marks.
    pub is_sketched: bool,
}

/// A question for what a query's foldable aggregations come to ([`promql::Plan::fold`]).
#[derive(Clone, Debug, PartialEq)]
pub struct FoldAsk {
    /// Whose series.
    pub tenant: TenantId,
    /// All that are asked for digests.
    pub asked: Vec<StoreId>,
    /// Blocks listed at or before it are left out.
    pub catalog_version: Option<u64>,
    /// The whole query.
    pub query: String,
    /// For which times.
    pub range: QueryRange,
    /// Whether its syntax is the experimental one.
    pub experimental: bool,
    /// Whether names of metrics that are taken away go at the very end.
    pub delayed_name_removal: bool,
    /// By selection, hashes of labels of series that the asker folds itself.
    pub except: Vec<BTreeSet<u64>>,
}

/// A question for anything else.
#[derive(Clone, Debug, PartialEq)]
pub struct NamesAsk {
    /// Whose.
    pub tenant: TenantId,
    /// What.
    pub question: Question,
    /// All that are asked.
    pub asked: Vec<StoreId>,
    /// Blocks listed at or before it are left out.
    pub catalog_version: Option<u64>,
}

/// How an answer begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// The ring document that the sender goes by.
    pub epoch: Epoch,
    /// Placements for which the sender doesn't vouch.
    pub disclaimed: Vec<Epoch>,
    /// The catalog version that is needed at least; nothing follows.
    pub stale_catalog: Option<u64>,
}

/// That a series is there, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Of its labels.
    pub hash: u64,
    /// Of labels and chunks: equal where those are equal.
    pub fingerprint: u128,
}

/// A part of an answer for series; the number is the selection's.
#[derive(Clone, Debug, Default)]
pub struct SelectPart {
    /// In the first part.
    pub opening: Option<Opening>,
    /// By selection and labels.
    pub series: Vec<(usize, Series)>,
    /// In any order.
    pub marks: Vec<(usize, Vec<Mark>)>,
    /// Of marks, with the number of their set of owners.
    pub sketches: Vec<(usize, u32, Sketch)>,
    /// Nothing follows.
    pub is_last: bool,
}

/// A part of what aggregations come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoldPart {
    /// In the first part.
    pub opening: Option<Opening>,
    /// With the number of their aggregation.
    pub groups: Vec<(usize, FoldedGroup)>,
    /// In the last part, unless the opening says that nothing follows: everything but the groups.
    pub rest: Option<Folded>,
}

/// A part of any other answer.
#[derive(Clone, Debug)]
pub struct NamesPart {
    /// In the first part.
    pub opening: Option<Opening>,
    /// Of the kind that was asked for.
    pub found: Found,
    /// Nothing follows.
    pub is_last: bool,
}

fn matchers_to(matchers: &[Matcher]) -> Vec<pb::Matcher> {
    let one = |matcher: &Matcher| pb::Matcher {
        name: matcher.name().to_owned(),
        value: matcher.value().to_owned(),
        op: match matcher.op() {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        },
    };
    matchers.iter().map(one).collect()
}

fn matchers_from(matchers: Vec<pb::Matcher>) -> Result<Vec<Matcher>, Malformed> {
    if matchers.len() > MATCHERS_MAX {
        return Err(Malformed::new("too many matchers"));
    }
    let one = |matcher: pb::Matcher| {
        let op = match matcher.op {
            0 => MatchOp::Equal,
            1 => MatchOp::NotEqual,
            2 => MatchOp::Regex,
            3 => MatchOp::NotRegex,
            op => return Err(Malformed::new(format!("there is no matcher {op}"))),
        };
        Matcher::new(op, matcher.name, matcher.value).map_err(|e| Malformed::new(e.to_string()))
    };
    matchers.into_iter().map(one).collect()
}

fn tenant_from(tenant: &str) -> Result<TenantId, Malformed> {
    TenantId::new(tenant).map_err(|e| Malformed::new(e.to_string()))
}

fn stores_to(stores: &[StoreId]) -> Vec<bytes::Bytes> {
    stores.iter().map(|store| bytes::Bytes::copy_from_slice(&store.0.to_le_bytes())).collect()
}

fn stores_from(stores: &[bytes::Bytes]) -> Result<Vec<StoreId>, Malformed> {
    if stores.len() > ring::MAX_MEMBERS + ring::epoch::MAX_DEPARTED {
        return Err(Malformed::new("more stores are asked than a ring has"));
    }
    let one = |bytes: &bytes::Bytes| {
        let bytes: [u8; 16] = bytes[..].try_into().map_err(|_| Malformed::new("a store id has 16 bytes"))?;
        Ok(StoreId(u128::from_le_bytes(bytes)))
    };
    stores.iter().map(one).collect()
}

impl Opening {
    fn to_message(&self) -> pb::Opening {
        pb::Opening {
            epoch: self.epoch,
            disclaimed: self.disclaimed.clone(),
            stale_catalog: self.stale_catalog,
        }
    }

    fn from_message(opening: pb::Opening) -> Self {
        Self { epoch: opening.epoch, disclaimed: opening.disclaimed, stale_catalog: opening.stale_catalog }
    }
}

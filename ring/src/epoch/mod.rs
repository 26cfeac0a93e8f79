//! The ring document: who the members are, and who keeps what. One JSON object in the bucket, changed by
//! compare-and-swap only, kept by every node; each change has an epoch of its own, one more than the last.
//!
//! ```json
//! { "format": 1, "cluster": "…32 hex digits…", "epoch": 7, "replication_factor": 3,
//!   "members": { "<store>": { "name": "a", "zone": "z1", "peer_address": "a:9201", "http_address": "a:9200",
//!                             "state": "active", "since": 3 } },
//!   "placements": [ { "id": 3, "rf": 3, "zone_limit": 1, "members": { "<store>": ["<8 hex digits a token>", …] } } ],
//!   "transition": { "joins": ["<store>"], "leaves": [], "replication_factor_before": 3 },
//!   "catalog_floors": { "<tenant>": 41 }, "digest_key": "…32 hex digits…",
//!   "ancestors": ["<digest of epoch 6>", "<of epoch 5>", …] }
//! ```
//!
//! A *placement* says which stores keep which keys; it is named by the epoch that opened it. The last is the current
//! one. Earlier ones stay open, and are asked by every read, until what was acknowledged under them is in blocks.
//! While a *transition* is under way (the document is *joint*), writes need a quorum in the last two placements.
//!
//! A document names the digests of those before it. So two that come from different histories, of a bucket that was put
//! back or of a cluster that was founded twice, are told apart whatever their epochs say, as long as one is within
//! [`MAX_ANCESTORS`] of the other.
//!
//! Documents are values: [`Document::change`] and its like make the next from one, and nothing changes in place.

mod refusal;
mod transition;

/// Raises versions of catalogs, by tenant, to those of `others` where they are higher.
pub fn raise<'a>(
    versions: &mut BTreeMap<String, u64>,
    others: impl IntoIterator<Item = (&'a String, &'a u64)>,
) {
    for (tenant, version) in others {
        let highest = versions.entry(tenant.clone()).or_default();
        *highest = (*highest).max(*version);
    }
}

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::token::{Layout, Row, Tokens, rows};
use crate::{ClusterId, MAX_MEMBERS, MAX_REPLICATION_FACTOR, StoreId};

pub use refusal::{Conflict, Invalid, Refusal};
pub use transition::{Change, NewMember};

/// Counts documents of a cluster, from 1.
pub type Epoch = u64;

/// The format that this code reads and writes.
pub const FORMAT: u32 = 1;

/// Most placements that may be open at once: every read asks them all. The last of them is kept for a loss
/// ([`Document::write_off`]).
pub const MAX_OPEN_PLACEMENTS: usize = 8;

/// How many documents before it a document names.
pub const MAX_ANCESTORS: usize = 32;

/// How many stores that are gone for good the document remembers; a store forgotten even here knows it from its own
/// ledger, which holds a document that it stood in.
pub const MAX_DEPARTED: usize = 256;

/// Longest document in bytes: 1,000 members in eight open placements take about 10 MB.
pub const MAX_DOCUMENT_BYTES: usize = 16 << 20;

/// Longest name, zone or address of a member, in bytes.
pub const MAX_TEXT_BYTES: usize = 255;

/// Who the members are and who keeps what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Version of the format.
    pub format: u32,
    /// Which cluster this is.
    pub cluster: ClusterId,
    /// Grows by one with every change.
    pub epoch: Epoch,
    /// Copies wanted of each sample; there are fewer where there are fewer members ([`Placement::rf`]).
    pub replication_factor: u32,
    /// Those who keep something, and the last that did.
    pub members: BTreeMap<StoreId, MemberInfo>,
    /// The open placements, oldest first; the last is the current one.
    pub placements: Vec<Placement>,
    /// What is under way, where the document is joint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition: Option<Transition>,
    /// By tenant, the version that a catalog must have reached for answers to be complete without the placements that
    /// were closed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub catalog_floors: BTreeMap<String, u64>,
    /// Key of the digests that replicas compare.
    #[serde(with = "crate::id::hex128")]
    pub digest_key: u128,
    /// [Digests](Document::digest) of the documents that this one came from, that of the epoch before first: at most
    /// [`MAX_ANCESTORS`]; those before are forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "crate::id::hex64s")]
    pub ancestors: Vec<u64>,
}

/// What the document says of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// For people; needn't be unique.
    pub name: String,
    /// Where it stands; fixed while it is a member.
    pub zone: String,
    /// `host:port` for peers, as it announced it last.
    pub peer_address: String,
    /// `host:port` for clients, as it announced it last.
    pub http_address: String,
    /// What it is to the ring.
    pub state: MemberState,
    /// The epoch in which it came into that state.
    pub since: Epoch,
}

/// What a member is to the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Stands in the current placement.
    Active,
    /// Drains: stands in earlier open placements at most, and answers for them.
    Leaving,
    /// Drained: nobody asks it any more.
    Left,
    /// Forgotten with what it held; never counts again.
    Lost,
    /// Lost, and an operator has said that the ring should go on as if it had held nothing else.
    LossAccepted,
}

impl MemberState {
    /// Whether the store is gone for good with what it held.
    #[must_use]
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Lost | Self::LossAccepted)
    }
}

/// Who keeps which keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The epoch that opened it.
    pub id: Epoch,
    /// Owners of each key: the factor wanted, or the number of members where that was smaller.
    pub rf: u32,
    /// Most owners of a key in one zone.
    pub zone_limit: u32,
    /// Who holds which tokens.
    pub members: BTreeMap<StoreId, Tokens>,
}

impl Placement {
    /// W: how many owners must have a sample on disk before it is acknowledged.
    #[must_use]
    pub fn write_quorum(&self) -> u32 {
        self.rf / 2 + 1
    }

    /// R: how many owners must answer for a range; one of them at least has what W have.
    #[must_use]
    pub fn read_quorum(&self) -> u32 {
        self.rf - self.write_quorum() + 1
    }

    fn layout(&self) -> Layout {
        Layout { tokens: self.members.clone(), rf: self.rf, zone_limit: self.zone_limit }
    }
}

/// What a joint document is on the way to, and what it takes to swap it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Stores that come.
    pub joins: BTreeSet<StoreId>,
    /// Stores that go, drained or lost.
    pub leaves: BTreeSet<StoreId>,
    /// The factor wanted before.
    pub replication_factor_before: u32,
}

/// How a document stands to one that a node has adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Its epoch is higher: to be adopted.
    Newer,
    /// It is the same.
    Same,
    /// Its epoch is lower: whoever sent it should adopt ours.
    Older,
}

impl Document {
    /// Reads a document, from the bucket, a peer or the ledger.
    ///
    /// # Errors
    /// Where the bytes aren't a document of this format, or one that contradicts itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(Invalid::TooLong { bytes: bytes.len() });
        }
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|e| Invalid::Json(e.to_string()))?;
        if head.format != FORMAT {
            return Err(Invalid::Format { found: head.format });
        }
        let document: Self = serde_json::from_slice(bytes).map_err(|e| Invalid::Json(e.to_string()))?;
        document.check()?;
        Ok(document)
    }

    /// The document as [`decode`](Self::decode) reads it; equal documents give equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers always fit into JSON")
    }

    /// A short name of exactly this document: nodes that show the same agree on the ring.
    #[must_use]
    pub fn digest(&self) -> u64 {
        crate::hash::key_token(&self.encode())
    }

    /// Whether writes need a quorum in the last two placements.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.transition.is_some()
    }

    /// The placement that new samples go to.
    #[must_use]
    pub fn current(&self) -> &Placement {
        self.placements.last().expect("a document has a placement")
    }

    /// The open placements before the current one, oldest first.
    #[must_use]
    pub fn earlier(&self) -> &[Placement] {
        self.placements.split_last().map_or(&[], |(_, earlier)| earlier)
    }

    /// The members of the current placement.
    pub fn active(&self) -> impl Iterator<Item = (StoreId, &MemberInfo)> {
        self.current().members.keys().map(|store| (*store, &self.members[store]))
    }

    /// Whether a store stands in an open placement: then it is asked, and may not be wiped.
    #[must_use]
    pub fn is_owner(&self, store: StoreId) -> bool {
        self.placements.iter().any(|placement| placement.members.contains_key(&store))
    }

    /// How another document of the ring stands to this one.
    ///
    /// # Errors
    /// Where the two can't be of one history: another cluster, or two documents of one epoch, be it of an epoch before,
    /// as the later one's [`ancestors`](Self::ancestors) tell.
    pub fn compare(&self, offered: &Self) -> Result<Offer, Conflict> {
        if self.cluster != offered.cluster {
            return Err(Conflict::OtherCluster { ours: self.cluster, theirs: offered.cluster });
        }
        match offered.epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Greater => self.is_ancestor(offered).map(|()| Offer::Newer),
            std::cmp::Ordering::Less if planted::is(planted::Bug::OlderDocumentWins) => Ok(Offer::Newer),
            std::cmp::Ordering::Less => offered.is_ancestor(self).map(|()| Offer::Older),
            std::cmp::Ordering::Equal if self == offered => Ok(Offer::Same),
            std::cmp::Ordering::Equal => Err(Conflict::TwoHistories { epoch: self.epoch }),
        }
    }

    /// Whether this document is one of those that a later one came from, as far as that one names them.
    fn is_ancestor(&self, later: &Self) -> Result<(), Conflict> {
        let distance = usize::try_from(later.epoch - self.epoch).unwrap_or(usize::MAX);
        match later.ancestors.get(distance - 1) {
            Some(digest) if *digest != self.digest() && !planted::is(planted::Bug::HistoryUnasked) => {
                Err(Conflict::TwoHistories { epoch: self.epoch })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let wrong = |what: &str| Err(Invalid::Contradiction(what.to_owned()));
        let ids = || self.placements.iter().map(|placement| placement.id);
        if self.members.len() > MAX_MEMBERS + MAX_DEPARTED {
            return wrong("there are too many members");
        }
        if !(1..=MAX_REPLICATION_FACTOR).contains(&self.replication_factor) {
            return wrong("the replication factor is out of bounds");
        }
        if self.placements.is_empty() || self.placements.len() > MAX_OPEN_PLACEMENTS {
            return wrong("there are no placements, or too many");
        }
        if !ids().is_sorted_by(|a, b| a < b) || ids().any(|id| id == 0 || id > self.epoch) {
            return wrong("placements aren't in the order of their epochs");
        }
        if self.ancestors.len() > MAX_ANCESTORS || self.ancestors.len() as u64 >= self.epoch {
            return wrong("it names more documents before it than there were");
        }
        if self.is_joint() && self.placements.len() < 2 {
            return wrong("a transition has nothing to go from");
        }
        for (store, member) in &self.members {
            let texts = [&member.name, &member.zone, &member.peer_address, &member.http_address];
            if texts.iter().any(|text| text.len() > MAX_TEXT_BYTES) {
                return wrong("a name, zone or address is too long");
            }
            if (member.state == MemberState::Active) != self.current().members.contains_key(store) {
                return wrong("a member is active and not in the current placement, or the other way round");
            }
        }
        self.placements.iter().try_for_each(|placement| self.check_placement(placement))
    }

    fn check_placement(&self, placement: &Placement) -> Result<(), Invalid> {
        let wrong =
            |what: &str| Err(Invalid::Contradiction(format!("in placement {}, {what}", placement.id)));
        if !placement.members.keys().all(|store| self.members.contains_key(store)) {
            return wrong("a store holds tokens and isn't a member");
        }
        if placement.members.len() > MAX_MEMBERS {
            return wrong("there are too many members");
        }
        let rf_max = MAX_REPLICATION_FACTOR.min(placement.members.len() as u32);
        if !(1..=rf_max).contains(&placement.rf) || !(1..=placement.rf).contains(&placement.zone_limit) {
            return wrong("the number of replicas is out of bounds");
        }
        if placement.members.values().any(|tokens| tokens.count() == 0) {
            return wrong("a member holds no token");
        }
        let rows = match rows(&placement.members, placement.rf) {
            Ok(rows) => rows,
            Err(what) => return wrong(what),
        };
        let zones: Vec<&str> =
            placement.members.keys().map(|store| self.members[store].zone.as_str()).collect();
        for Row { holders, .. } in rows {
            for (at, holder) in holders.iter().enumerate() {
                let before = &holders[..at];
                let zone = zones[usize::from(*holder)];
                let neighbours = before.iter().filter(|other| zones[usize::from(**other)] == zone).count();
                if before.contains(holder) {
                    return wrong("a store keeps two copies of one key");
                }
                if neighbours as u32 >= placement.zone_limit {
                    return wrong("too many copies of a key stand in one zone");
                }
            }
        }
        Ok(())
    }
}

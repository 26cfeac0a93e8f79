//! The metadata of every call, both ways, and the one place where it is checked.
//!
//! | key | value |
//! |---|---|
//! | `carillon-protocol` | oldest and newest version spoken: `0-1` |
//! | `carillon-cluster` | cluster id; absent until a node knows it |
//! | `carillon-from` | who speaks, a store id |
//! | `carillon-to` | who is meant, a store id; absent where an address is asked and whoever is there |
//! | `carillon-epoch` | the ring document that the speaker goes by |
//!
//! A call that fails the check never reaches its service, and an answer that fails it never reaches the caller: a
//! store that took over another's address, a node of another cluster and one of a far version do no harm. A refusal
//! names both sides and says what to do.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ring::{ClusterId, StoreId};
use tonic::{Code, Status};

use super::me::Me;
use super::protocol::Protocol;

const PROTOCOL: HeaderName = HeaderName::from_static("carillon-protocol");
const CLUSTER: HeaderName = HeaderName::from_static("carillon-cluster");
const FROM: HeaderName = HeaderName::from_static("carillon-from");
const TO: HeaderName = HeaderName::from_static("carillon-to");
const EPOCH: HeaderName = HeaderName::from_static("carillon-epoch");

/// All services of ours; others on the port (Thanos's) know nothing of these headers.
const OURS: &str = "/carillon.peer.";
/// Services that may be asked of an address without knowing whose it is.
const OF_MEMBERSHIP: &str = "/carillon.peer.membership.";
/// Methods by which a node that knows no cluster yet finds one: who is there, and what the ring is.
const OF_NEWCOMERS: [&str; 2] = ["/Hello", "/Document"];

/// What a caller must have said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demands {
    cluster: bool,
    to: bool,
}

impl Demands {
    /// Of the method at a path; `None` for services that aren't ours.
    pub(super) fn of(path: &str) -> Option<Self> {
        let is_of_membership = path.starts_with(OF_MEMBERSHIP);
        let is_of_newcomers = is_of_membership && OF_NEWCOMERS.iter().any(|method| path.ends_with(method));
        path.starts_with(OURS).then_some(Self { cluster: !is_of_newcomers, to: !is_of_membership })
    }
}

/// What one side says of itself and of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The versions it speaks.
    pub protocol: Protocol,
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// Who it is.
    pub from: StoreId,
    /// Who it means.
    pub to: Option<StoreId>,
    /// The ring document it goes by.
    pub epoch: u64,
}

/// Why two nodes don't talk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Their versions are too far apart.
    #[error(
        "store {asked} speaks versions {asked_speaks} of the peer protocol and store {asker} {asker_speaks}: none in \
         common; upgrade nodes one version at a time, all of them before the next"
    )]
    Protocol {
        /// Who was called.
        asked: StoreId,
        /// What it speaks.
        asked_speaks: Protocol,
        /// Who called.
        asker: StoreId,
        /// What that one speaks.
        asker_speaks: Protocol,
    },
    /// They belong to different clusters.
    #[error(
        "store {asked} belongs to cluster {asked_in} and store {asker} to cluster {asker_in}: look at `seed` and \
         `bucket` of both nodes"
    )]
    Cluster {
        /// Who was called.
        asked: StoreId,
        /// Its cluster.
        asked_in: ClusterId,
        /// Who called.
        asker: StoreId,
        /// That one's cluster.
        asker_in: ClusterId,
    },
    /// The one who was called isn't the one who was meant.
    #[error(
        "store {meant} was meant, and store {there} is at its address: an address was used again; gossip will tell \
         the new ones, and a store that is gone for good can be forgotten"
    )]
    Store {
        /// Who was meant.
        meant: StoreId,
        /// Who is there.
        there: StoreId,
    },
    /// The one who was called belongs to no cluster yet.
    #[error("store {0} hasn't joined a cluster yet; try again")]
    Joining(StoreId),
    /// What was said isn't what nodes of this kind say.
    #[error("not a node of a cluster like this one: metadata {0} is missing or broken; is it a peer port?")]
    Header(&'static str),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Joining(_) => Code::Unavailable,
            Refusal::Header(_) => Code::InvalidArgument,
            _ => Code::FailedPrecondition,
        };
        Self::new(code, refusal.to_string())
    }
}

impl Header {
    /// What `me` says to `to`.
    pub fn of(me: &Me, to: Option<StoreId>) -> Self {
        Self { protocol: me.protocol(), cluster: me.cluster(), from: me.store(), to, epoch: me.epoch() }
    }

    /// Writes it among a message's headers.
    pub fn put(&self, headers: &mut HeaderMap) {
        let mut set = |name: HeaderName, value: &dyn ToString| {
            let value = HeaderValue::from_str(&value.to_string()).expect("digits and a dash");
            headers.insert(name, value);
        };
        set(PROTOCOL, &self.protocol);
        set(FROM, &self.from);
        set(EPOCH, &self.epoch);
        if let Some(cluster) = &self.cluster {
            set(CLUSTER, cluster);
        }
        if let Some(to) = &self.to {
            set(TO, to);
        }
    }

    /// Reads it from a message's headers.
    ///
    /// # Errors
    /// [`Refusal::Header`] names what is missing or can't be read.
    pub fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let text = |name: &HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or_default());
        let id = |name: &HeaderName, what| match text(name) {
            Some(text) => text.parse::<StoreId>().map(Some).map_err(|_| Refusal::Header(what)),
            None => Ok(None),
        };
        let protocol = text(&PROTOCOL).and_then(Protocol::parse);
        let epoch = text(&EPOCH).and_then(|text| text.parse().ok());
        Ok(Self {
            protocol: protocol.ok_or(Refusal::Header("carillon-protocol"))?,
            cluster: id(&CLUSTER, "carillon-cluster")?.map(|id| ClusterId(id.0)),
            from: id(&FROM, "carillon-from")?.ok_or(Refusal::Header("carillon-from"))?,
            to: id(&TO, "carillon-to")?,
            epoch: epoch.ok_or(Refusal::Header("carillon-epoch"))?,
        })
    }

    /// Checks a caller's header on behalf of the one who was called.
    pub(super) fn check_call(&self, me: &Me, demands: Demands) -> Result<(), Refusal> {
        if self.protocol.common(me.protocol()).is_none() {
            return Err(Refusal::Protocol {
                asked: me.store(),
                asked_speaks: me.protocol(),
                asker: self.from,
                asker_speaks: self.protocol,
            });
        }
        match (self.cluster, me.cluster()) {
            (Some(asker_in), Some(asked_in)) if asker_in != asked_in => {
                return Err(Refusal::Cluster { asked: me.store(), asked_in, asker: self.from, asker_in });
            }
            (None, _) if demands.cluster => return Err(Refusal::Header("carillon-cluster")),
            (_, None) if demands.cluster => return Err(Refusal::Joining(me.store())),
            _ => {}
        }
        match self.to {
            Some(meant) if meant != me.store() => Err(Refusal::Store { meant, there: me.store() }),
            None if demands.to => Err(Refusal::Header("carillon-to")),
            _ => Ok(()),
        }
    }

    /// Checks an answer's header on behalf of the one who called, and meant `meant`.
    pub(super) fn check_answer(&self, me: &Me, meant: Option<StoreId>) -> Result<(), Refusal> {
        if self.protocol.common(me.protocol()).is_none() {
            return Err(Refusal::Protocol {
                asked: self.from,
                asked_speaks: self.protocol,
                asker: me.store(),
                asker_speaks: me.protocol(),
            });
        }
        if let (Some(asked_in), Some(asker_in)) = (self.cluster, me.cluster())
            && asked_in != asker_in
        {
            return Err(Refusal::Cluster { asked: self.from, asked_in, asker: me.store(), asker_in });
        }
        match meant {
            Some(meant) if meant != self.from => Err(Refusal::Store { meant, there: self.from }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: &str = "/carillon.peer.write.v1.Write/Push";
    const HELLO: &str = "/carillon.peer.membership.v1.Membership/Hello";
    const DOCUMENT: &str = "/carillon.peer.membership.v1.Membership/Document";
    const GOSSIP: &str = "/carillon.peer.membership.v1.Membership/Gossip";

    fn node(store: u128, cluster: Option<u128>, shift: i32) -> std::sync::Arc<Me> {
        let me = Me::new(StoreId(store), Protocol::shifted(shift));
        if let Some(cluster) = cluster {
            me.join(ClusterId(cluster)).unwrap();
        }
        me
    }

    fn call(asker: &Me, to: Option<u128>, asked: &Me, path: &str) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        Header::of(asker, to.map(StoreId)).put(&mut headers);
        let header = Header::read(&headers).unwrap();
        header.check_call(asked, Demands::of(path).unwrap()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_header_reads_back() {
        let me = node(7, Some(9), 0);
        me.adopt(12);
        for to in [None, Some(StoreId(u128::MAX))] {
            let mut headers = HeaderMap::new();
            Header::of(&me, to).put(&mut headers);
            assert_eq!(Header::read(&headers).unwrap(), Header::of(&me, to));
        }
        let mut headers = HeaderMap::new();
        Header::of(&me, None).put(&mut headers);
        headers.insert(FROM, HeaderValue::from_static("nobody"));
        assert_eq!(Header::read(&headers), Err(Refusal::Header("carillon-from")));
    }

    #[test]
    fn only_the_store_that_was_meant_is_reached() {
        let (a, b) = (node(1, Some(9), 0), node(2, Some(9), 0));
        assert_eq!(call(&a, Some(2), &b, PUSH), Ok(()));
        let refused = call(&a, Some(3), &b, PUSH).unwrap_err();
        assert!(
            refused.contains(&StoreId(3).to_string()) && refused.contains(&StoreId(2).to_string()),
            "{refused}"
        );
        assert!(call(&a, None, &b, PUSH).unwrap_err().contains("carillon-to"));
        assert_eq!(call(&a, None, &b, GOSSIP), Ok(()));
    }

    #[test]
    fn clusters_stay_apart_and_joiners_may_only_ask_what_there_is() {
        let (a, b, joiner) = (node(1, Some(9), 0), node(2, Some(8), 0), node(3, None, 0));
        let refused = call(&a, Some(2), &b, HELLO).unwrap_err();
        assert!(refused.contains(&ClusterId(9).to_string()) && refused.contains(&ClusterId(8).to_string()));
        assert_eq!(call(&joiner, None, &a, HELLO), Ok(()));
        assert_eq!(call(&joiner, None, &a, DOCUMENT), Ok(()));
        assert!(call(&a, None, &b, DOCUMENT).is_err(), "what is asked of another cluster's node");
        assert!(call(&joiner, Some(1), &a, PUSH).unwrap_err().contains("carillon-cluster"));
        assert!(call(&a, Some(3), &joiner, PUSH).unwrap_err().contains("hasn't joined"));
        assert_eq!(call(&a, None, &joiner, HELLO), Ok(()));
    }

    #[test]
    fn far_versions_are_refused_by_both_sides_and_named() {
        let old = node(1, Some(9), 0);
        assert_eq!(call(&node(2, Some(9), 1), Some(1), &old, PUSH), Ok(()));
        let new = node(2, Some(9), 2);
        let refused = call(&new, Some(1), &old, PUSH).unwrap_err();
        assert!(refused.contains("0-1") && refused.contains("2-3"), "{refused}");
        let answer = Header::of(&old, Some(new.store()));
        assert!(matches!(answer.check_answer(&new, None), Err(Refusal::Protocol { .. })));
    }

    #[test]
    fn other_services_have_no_such_header() {
        assert_eq!(Demands::of("/thanos.Store/Series"), None);
    }
}

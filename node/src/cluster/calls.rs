//! What a node asks of others about membership.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::peer::membership as pb;
use proto::peer::membership::membership_client::MembershipClient;
use ring::{ClusterId, Document, Epoch, StoreId};
use tonic::{Code, Status};

use super::rollback::Age;
use crate::grpc::{Lane, MESSAGE_BYTES_MAX, PeerChannel, Peers};

/// For calls that need nothing but memory over there.
const SHORT: Duration = Duration::from_secs(2);
/// For a call that is passed on, as a short one.
const PASSED_ON: Duration = Duration::from_secs(5);
/// For calls that wait for a ledger over there, and for writes that are under way.
const LONG: Duration = Duration::from_secs(10);

/// Asks other nodes.
#[derive(Clone)]
pub(super) struct Calls(pub(super) Arc<Peers>);

/// Who is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) store: StoreId,
    pub(super) incarnation: u64,
    pub(super) cluster: Option<ClusterId>,
    pub(super) epoch: Epoch,
    /// How far it remembers that the asking store had come.
    pub(super) remembered: Age,
    /// Its wall clock, if it tells.
    pub(super) now_ms: Option<i64>,
}

/// What a store vouches for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Vouched {
    pub(super) placements: BTreeSet<Epoch>,
    /// By tenant.
    pub(super) catalogs: BTreeMap<String, u64>,
}

type Client = MembershipClient<PeerChannel>;

impl Calls {
    fn client(channel: PeerChannel, timeout: Duration) -> Client {
        MembershipClient::new(channel.timeout(timeout)).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn store(&self, store: StoreId, timeout: Duration) -> Result<Client, Status> {
        Ok(Self::client(self.0.to_store(store, Lane::Gossip)?, timeout))
    }

    /// Asks who is at an address.
    /// `before` is how far this store had come before its start, as its disk says.
    pub(super) async fn hello(&self, address: &str, me: StoreId, before: Age) -> Result<Hello, Status> {
        let mut client = Self::client(self.0.to_address(address, Lane::Gossip)?, SHORT);
        let Age { incarnation: previous_incarnation, watermark } = before;
        let request = pb::HelloRequest { store: me.to_string(), previous_incarnation, watermark };
        let answer = client.hello(request).await?.into_inner();
        let cluster = match answer.cluster.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|_| nonsense("cluster"))?),
        };
        Ok(Hello {
            store: id(&answer.store)?,
            incarnation: answer.incarnation,
            cluster,
            epoch: answer.epoch,
            remembered: Age { incarnation: answer.highest_incarnation, watermark: answer.highest_watermark },
            now_ms: Some(answer.now_ms).filter(|now_ms| *now_ms != 0),
        })
    }

    /// Sends a message of gossip.
    pub(super) async fn gossip(&self, to: &str, frame: Bytes) -> Result<(), Status> {
        let mut client = Self::client(self.0.to_address(to, Lane::Gossip)?, SHORT);
        client.gossip(pb::GossipRequest { frame }).await.map(drop)
    }

    /// The document that a store has adopted.
    pub(super) async fn document(&self, store: StoreId) -> Result<Document, Status> {
        document(self.store(store, LONG)?).await
    }

    /// The document that whoever is at an address has adopted.
    pub(super) async fn document_at(&self, address: &str) -> Result<Document, Status> {
        document(Self::client(self.0.to_address(address, Lane::Gossip)?, LONG)).await
    }

    /// Hands a document to a store; the epoch that holds there then.
    pub(super) async fn adopt(&self, store: StoreId, document: Bytes) -> Result<Epoch, Status> {
        Ok(self.store(store, LONG)?.adopt(pb::AdoptRequest { document }).await?.into_inner().epoch)
    }

    /// The placements that a store vouches for, and the versions of catalogs that list what it had for them.
    pub(super) async fn vouch(&self, store: StoreId, epoch: Epoch) -> Result<Vouched, Status> {
        let answer = self.store(store, SHORT)?.vouch(pb::VouchRequest { epoch }).await?.into_inner();
        let catalogs = answer.catalogs.into_iter().map(|catalog| (catalog.tenant, catalog.version)).collect();
        Ok(Vouched { placements: answer.placements.into_iter().collect(), catalogs })
    }

    /// How long `store` has missed `other`, and whether it is sound itself.
    pub(super) async fn missed(&self, store: StoreId, other: StoreId) -> Result<(Duration, bool), Status> {
        let request = pb::ObserveRequest { store: other.to_string() };
        let answer = self.store(store, SHORT)?.observe(request).await?.into_inner();
        Ok((Duration::from_millis(answer.missed_ms), answer.sound))
    }

    /// Asks a store whether it can reach this one at an address; the problem if it can't.
    pub(super) async fn reach(
        &self,
        store: StoreId,
        address: String,
        me: StoreId,
    ) -> Result<Option<String>, Status> {
        let request = pb::ReachRequest { address, store: me.to_string() };
        let problem = self.store(store, PASSED_ON)?.reach(request).await?.into_inner().problem;
        Ok((!problem.is_empty()).then_some(problem))
    }

    /// Asks a store how far its leaving is, after having it begin where `begin` is set.
    pub(super) async fn leave(
        &self,
        store: StoreId,
        begin: bool,
        stop: bool,
    ) -> Result<(String, bool), Status> {
        let answer = self.store(store, LONG)?.leave(pb::LeaveRequest { begin, stop }).await?.into_inner();
        Ok((answer.progress, answer.done))
    }

    /// Tells a store that what it lost is accepted.
    pub(super) async fn accept_loss(&self, store: StoreId) -> Result<(), Status> {
        self.store(store, LONG)?.accept_loss(pb::AcceptLossRequest {}).await.map(drop)
    }
}

async fn document(mut client: Client) -> Result<Document, Status> {
    let answer = client.document(pb::DocumentRequest {}).await?.into_inner();
    Document::decode(&answer.document).map_err(|e| Status::new(Code::DataLoss, e.to_string()))
}

/// Asks several at once, stores or addresses; the answers of those that answer.
pub(super) async fn ask_all<K, T, F>(
    whom: impl IntoIterator<Item = K>,
    ask: impl Fn(K) -> F,
) -> BTreeMap<K, T>
where
    K: Ord + Clone + Display,
    T: Send + 'static,
    F: Future<Output = Result<T, Status>> + Send + 'static,
{
    let asked: Vec<_> = whom.into_iter().map(|one| (one.clone(), tokio::spawn(ask(one)))).collect();
    let mut answers = BTreeMap::new();
    for (one, answer) in asked {
        match answer.await {
            Ok(Ok(answer)) => drop(answers.insert(one, answer)),
            Ok(Err(status)) => tracing::debug!(asked = %one, reason = status.message(), "no answer"),
            Err(error) => tracing::error!(asked = %one, %error, "asking failed"),
        }
    }
    answers
}

/// Reads a store's id.
pub(super) fn id(text: &str) -> Result<StoreId, Status> {
    text.parse().map_err(|_| nonsense("store"))
}

fn nonsense(what: &str) -> Status {
    Status::invalid_argument(format!("{what} isn't an id"))
}

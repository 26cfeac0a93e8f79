//! This node's part in its cluster: which ring document holds, who is alive, and how both change.
//!
//! | module | what it holds |
//! |---|---|
//! | `arrive` | finding the cluster at a start, or founding one |
//! | `documents` | the ring document in the bucket and in the ledger |
//! | `gate` | letting writes in by epoch |
//! | `calls`, `service` | what nodes ask each other about membership |
//!
//! A node alone is a cluster of one, on the same code.
//!
//! **Adopting** a document, wherever it came from: it is written to the ledger; from then on, restarts included, writes
//! that were routed by an older one are refused; others see its epoch on every call and fetch it; and when the last
//! older write that had been let in is in the log, the adoption is done, and may be told to whoever counts adoptions.

#[allow(dead_code, reason = "what changes the ring comes next")]
mod arrive;
#[allow(dead_code, reason = "what changes the ring comes next")]
mod calls;
#[allow(dead_code, reason = "what changes the ring comes next")]
mod documents;
mod gate;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use ring::epoch::{Conflict, Invalid, MemberInfo, MemberState, NewMember, Offer};
use ring::{ClusterId, Document, Epoch, StoreId, View};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_128_with_seed;

pub use arrive::ArriveError;
pub use gate::Admission;
pub use service::Membership;

use crate::bucket::Bucket;
use crate::config::Config;
use crate::env::{Env, on_disk};
use crate::grpc::{Me, Peers, Protocol};
use crate::identity::Identity;
use crate::receive::replicate;
use arrive::Newcomer;
use calls::Calls;
use documents::Documents;
use gate::Gate;

/// Pause before news are fetched again after a failure.
const FETCH_RETRY: std::time::Duration = std::time::Duration::from_millis(500);

/// Where this node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// `host:port` of its peer port.
    pub peer: String,
    /// `host:port` of its HTTP port.
    pub http: String,
}

/// This node's part in its cluster. One for the process; shared by whoever needs it.
pub struct Cluster {
    identity: Identity,
    /// What the ring should say of this node.
    #[allow(dead_code, reason = "what changes the ring comes next")]
    info: NewMember,
    documents: Documents,
    bucket: Arc<Bucket>,
    peers: Arc<Peers>,
    calls: Calls,
    gate: Gate,
    /// Held by the one adoption at a time.
    adopting: tokio::sync::Mutex<()>,
    view: watch::Sender<Arc<View>>,
    /// The highest incarnation seen of each store, as in the ledger.
    incarnations: Mutex<BTreeMap<StoreId, u64>>,
}

/// A write was routed by a document that is too old; here is the one that holds.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the ring has changed: it is at epoch {epoch} here")]
pub struct Newer {
    /// The epoch that holds here.
    pub epoch: Epoch,
    /// Its document, for [`Cluster::offer`].
    pub document: Bytes,
}

/// Why a document isn't adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It isn't one.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It isn't of this ring.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The ledger can't keep it.
    #[error(transparent)]
    Storage(#[from] tsdb::Error),
}

/// Whether a member is part of the ring still.
fn belongs(member: &MemberInfo) -> bool {
    matches!(member.state, MemberState::Active | MemberState::Leaving)
}

impl Cluster {
    /// Finds this node's cluster, or founds one; waits as long as that takes, and for the bucket too where nothing is
    /// known without it.
    ///
    /// # Errors
    /// Whatever waiting doesn't mend: two clusters that meet, a bucket that can't be used, a failing ledger.
    pub async fn arrive(
        config: &Config,
        env: &Env,
        at: &Addresses,
        protocol: Protocol,
    ) -> Result<Arc<Self>, ArriveError> {
        let bucket = Bucket::open(&config.bucket_url(), env)?;
        let documents =
            Documents { bucket: bucket.clone(), ledger: env.ledger.clone(), pool: env.pool.clone() };
        let (ledger, disk, fresh) = (env.ledger.clone(), env.disk.clone(), fresh(env, "store"));
        let mut identity = on_disk(&*env.pool, move || Identity::begin(&*ledger, &*disk, fresh)).await?;
        let info = NewMember {
            name: if config.name.is_empty() { at.peer.clone() } else { config.name.clone() },
            zone: config.zone.clone(),
            peer_address: at.peer.clone(),
            http_address: at.http.clone(),
        };
        tracing::info!(store = %identity.store, incarnation = identity.incarnation, name = info.name, "starting");

        let factor = config.replication_factor.0;
        let digest_key = self::fresh(env, "digests");
        let (store, founder) = (identity.store, info.clone());
        let found = move |cluster| {
            let first = BTreeMap::from([(store, founder.clone())]);
            Document::found(cluster, digest_key, factor, &first).map_err(|refusal| refusal.to_string())
        };
        let hellos = Calls(Peers::new(env.net.clone(), Me::new(identity.store, protocol)));
        let newcomer = Newcomer {
            documents: &documents,
            calls: &hellos,
            identity,
            peer_address: &at.peer,
            seeds: config.seeds.0.iter().map(|seed| seed.0.clone()).collect(),
            bucket_is_named: !config.bucket.is_empty(),
            bucket_url: config.bucket_url(),
            found: &found,
            fresh_cluster: ClusterId(self::fresh(env, "cluster")),
        };
        let arrival = newcomer.arrive().await?;
        if arrival.rolled_back {
            let (ledger, fresh) = (env.ledger.clone(), self::fresh(env, "renewed"));
            identity = on_disk(&*env.pool, move || Identity::renew(&*ledger, fresh)).await?;
        }
        if let Some(member) = arrival.document.members.get(&identity.store)
            && belongs(member)
            && member.zone != info.zone
        {
            let (old, new) = (member.zone.clone(), info.zone);
            return Err(ArriveError::Zone { store: identity.store, old, new });
        }
        if factor != arrival.document.replication_factor {
            tracing::warn!(
                configured = factor,
                ring = arrival.document.replication_factor,
                "the ring's replication factor holds; `carillon ring replication-factor` changes it"
            );
        }
        Self::enter(env, identity, protocol, info, documents, bucket, arrival.document).await
    }

    async fn enter(
        env: &Env,
        identity: Identity,
        protocol: Protocol,
        info: NewMember,
        documents: Documents,
        bucket: Arc<Bucket>,
        document: Document,
    ) -> Result<Arc<Self>, ArriveError> {
        let invalid = |e: Invalid| ArriveError::Ring(e.to_string());
        let me = Me::new(identity.store, protocol);
        let peers = Peers::new(env.net.clone(), me);
        let incarnations = documents.seen().await?.into_iter().collect();
        documents.adopt(&document).await?;
        let view = Arc::new(View::new(document).map_err(invalid)?);
        let cluster = Arc::new(Self {
            identity,
            info,
            documents,
            bucket,
            calls: Calls(peers.clone()),
            peers,
            gate: Gate::default(),
            adopting: tokio::sync::Mutex::default(),
            view: watch::Sender::new(view.clone()),
            incarnations: Mutex::new(incarnations),
        });
        cluster.gate.close_below(view.epoch());
        cluster.publish(view);
        Ok(cluster)
    }

    /// Which store this node is.
    pub fn me(&self) -> StoreId {
        self.identity.store
    }

    /// Which cluster it is part of.
    pub fn id(&self) -> ClusterId {
        self.view.borrow().document().cluster
    }

    /// The ring document that holds here.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Tells of every document that comes to hold here.
    pub fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// The way to other nodes.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// The bucket that all nodes of the cluster share.
    pub fn bucket(&self) -> &Arc<Bucket> {
        &self.bucket
    }

    /// Where a store's peer port is, as far as anybody has told.
    pub fn address(&self, store: StoreId) -> Option<String> {
        self.peers.me().address(store)
    }

    /// What people call a store: its name, or its id where nobody knows it.
    pub fn name(&self, store: StoreId) -> String {
        let view = self.view();
        view.document().members.get(&store).map_or_else(|| store.to_string(), |member| member.name.clone())
    }

    /// Whether a store is there, as far as this node can see; for choosing whom to ask first, and never for deciding
    /// whether an answer is complete.
    pub fn is_alive(&self, store: StoreId) -> bool {
        store == self.me()
    }

    /// Whether this node has its place in the ring.
    pub fn is_member(&self) -> bool {
        self.view.borrow().document().members.get(&self.me()).is_some_and(belongs)
    }

    /// Lets in a write that was routed by the document of `epoch`. The admission is to be held until the samples are
    /// appended: a document is adopted only when all writes of older ones have ended.
    ///
    /// # Errors
    /// Where that document is older than the one adopted here: route by this one, and try again.
    pub fn admit(&self, epoch: Epoch) -> Result<Admission, Newer> {
        self.gate.admit(epoch).ok_or_else(|| {
            let view = self.view();
            Newer { epoch: view.epoch(), document: view.document().encode().into() }
        })
    }

    /// Takes a document that somebody sent: adopts it in the background where it is newer. What isn't one is logged.
    pub fn offer(self: &Arc<Self>, document: &[u8]) {
        let cluster = self.clone();
        match Document::decode(document) {
            Ok(document) if document.epoch > self.view().epoch() => {
                tokio::spawn(async move {
                    if let Err(error) = cluster.adopt(document).await {
                        tracing::error!(%error, "a ring document that was offered isn't adopted");
                    }
                });
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "somebody offers what isn't a ring document"),
        }
    }

    /// Adopts a document; returns the epoch that holds here then, when all writes of older ones have ended.
    ///
    /// # Errors
    /// Where it isn't of this ring, or the ledger can't keep it: then the old one goes on holding.
    async fn adopt(self: &Arc<Self>, document: Document) -> Result<Epoch, AdoptError> {
        let cluster = self.clone();
        // Whoever asked may go away in the middle; what was begun is done all the same.
        let adoption = tokio::spawn(async move {
            let _one = cluster.adopting.lock().await;
            let held = cluster.view();
            if held.document().compare(&document)? != Offer::Newer {
                return Ok(held.epoch());
            }
            let view = Arc::new(View::new(document)?);
            cluster.documents.adopt(view.document()).await?;
            cluster.gate.close_below(view.epoch());
            cluster.publish(view.clone());
            cluster.gate.ended_below(view.epoch()).await;
            tracing::info!(
                epoch = view.epoch(),
                joint = view.document().is_joint(),
                "adopted a ring document"
            );
            Ok(view.epoch())
        });
        adoption.await.expect("an adoption neither panics nor is aborted")
    }

    /// Shows a document to everybody in this process, and its epoch to peers.
    fn publish(&self, view: Arc<View>) {
        let me = self.peers.me();
        let document = view.document();
        // A second cluster can't come: documents are compared before they are adopted.
        let _ = me.join(document.cluster);
        me.set_addresses(document.members.iter().map(|(id, m)| (*id, m.peer_address.clone())).collect());
        me.adopt(document.epoch);
        self.view.send_replace(view);
    }

    /// Does what goes on in the background until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut news = self.peers.me().newest();
        loop {
            let seen = *news.borrow_and_update();
            let fetched = match seen.store {
                Some(store) if seen.epoch > self.view().epoch() => self.fetch(store).await,
                _ => true,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = news.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(FETCH_RETRY), if !fetched => {}
            }
        }
    }

    /// Fetches and adopts the document that a store has; whether that worked.
    async fn fetch(self: &Arc<Self>, store: StoreId) -> bool {
        let fetched = self.calls.document(store).await;
        let adopted = match fetched {
            Ok(document) => self.adopt(document).await.map_err(|e| e.to_string()),
            Err(status) => Err(status.message().to_owned()),
        };
        adopted
            .inspect_err(|error| tracing::debug!(%store, error, "a newer ring document wasn't fetched"))
            .is_ok()
    }

    /// The highest incarnation of a store that this one has seen, after taking note of one more; 0 for none.
    async fn note_incarnation(&self, store: StoreId, incarnation: u64) -> tsdb::Result<u64> {
        let highest = self.incarnations.lock().get(&store).copied().unwrap_or(0);
        if incarnation > highest {
            self.documents.saw(store, incarnation).await?;
            let mut incarnations = self.incarnations.lock();
            let entry = incarnations.entry(store).or_default();
            *entry = incarnation.max(*entry);
        }
        Ok(highest)
    }
}

impl replicate::Membership for Arc<Cluster> {
    fn me(&self) -> StoreId {
        Cluster::me(self)
    }

    fn view(&self) -> Arc<View> {
        Cluster::view(self)
    }

    fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        Cluster::subscribe(self)
    }

    fn admit(&self, epoch: Epoch) -> Result<replicate::Admission, Bytes> {
        match Cluster::admit(self, epoch) {
            Ok(admission) => Ok(Box::new(admission)),
            Err(newer) => Err(newer.document),
        }
    }

    fn offer(&self, document: Bytes) {
        Cluster::offer(self, &document);
    }
}

/// 128 bits from the node's source of randomness, for one purpose.
fn fresh(env: &Env, purpose: &str) -> u128 {
    let [low, high] = [env.seed as u64, (env.seed >> 64) as u64];
    xxh3_128_with_seed(&[purpose.as_bytes(), &high.to_le_bytes()].concat(), low)
}

//! This node's part in its cluster: which ring document holds, who is alive, and how both change.
//!
//! | module | what it holds |
//! |---|---|
//! | `arrive`, `enter` | finding the cluster at a start, or founding one, and taking up this node's part in it |
//! | `documents` | the ring document in the bucket and in the ledger |
//! | `gate` | letting writes in by epoch |
//! | `calls`, `service` | what nodes ask each other about membership |
//! | `gossip` | gossip on the peer port |
//! | `follow` | what others tell: newer documents, addresses, who is away |
//! | `drive`, `change` | from one ring document to the next |
//! | `keeper` | what this store can vouch for |
//! | `upkeep` | what it does for others and for itself again and again |
//! | `rollback` | whether this store's disk was put back to an earlier state |
//! | `clocks` | whether this node's wall clock agrees with the others' |
//! | `given_up` | handing over what this store has, where the others gave it up |
//! | `leave`, `operate` | draining, and what else operators ask for |
//! | `restore` | putting the ring document back into its bucket |
//! | `relocate`, `mark` | moving the bucket of a node that is stopped |
//! | `describe` | what it all looks like, as JSON |
//! | `health` | what isn't as it should be, and metrics |
//!
//! A node alone is a cluster of one, on the same code.
//!
//! **Adopting** a document, wherever it came from: it is written to the ledger; from then on, restarts included, writes
//! that were routed by an older one are refused; others see its epoch on every call and fetch it; and when the last
//! older write that had been let in is in the log, the adoption is done, and may be told to whoever counts adoptions.

mod arrive;
mod calls;
mod change;
mod clocks;
mod describe;
mod documents;
mod drive;
mod enter;
mod follow;
mod gate;
mod given_up;
mod gossip;
mod health;
mod keeper;
mod leave;
mod mark;
mod operate;
mod relocate;
mod restore;
mod rollback;
mod service;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use ring::epoch::{Conflict, Invalid, MemberInfo, MemberState, NewMember, Offer};
use ring::gossip::Gossip;
use ring::member::Members;
use ring::{ClusterId, Document, Epoch, StoreId, View};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tsdb::db::Db;

pub use arrive::ArriveError;
pub use change::ChangeError;
pub use documents::{LEDGER_DOCUMENT, document_key};
pub use gate::Admission;
pub use leave::{LEFT, Leaving};
pub use relocate::{RelocateError, Relocation};
pub use restore::{RestoreError, Restored};
pub use service::Membership;

use crate::bucket::{Blocks, Bucket};
use crate::config::Config;
use crate::env::{Clock, Env};
use crate::fail_stop::FailStop;
use crate::grpc::Peers;
use crate::identity::Identity;
use crate::receive::hints::Hints;
use crate::receive::replicate;
use calls::{Calls, Vouched};
use documents::Documents;
use drive::Driver;
use gate::Gate;
use keeper::Keeper;
use rollback::Age;

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
    info: NewMember,
    documents: Documents,
    bucket: Arc<Bucket>,
    peers: Arc<Peers>,
    calls: Calls,
    clock: Arc<dyn Clock>,
    gate: Gate,
    /// Held by the one adoption at a time.
    adopting: tokio::sync::Mutex<()>,
    view: watch::Sender<Arc<View>>,
    /// How far each store had come that was seen, as in the ledger.
    ages: Mutex<BTreeMap<StoreId, Age>>,
    /// How far this one has come, as in the ledger.
    watermark: AtomicU64,
    /// How far others remember that it had come, as far as what is lacking is disclaimed.
    disclaimed_up_to: Mutex<Age>,
    /// The configuration, for what can change while running.
    settings: ArcSwap<Config>,
    /// Tells this process from another that has the same ledger.
    instance: u64,
    /// There once the storage is open.
    keeper: OnceLock<Keeper>,
    /// There once writes can be replicated.
    hints: OnceLock<Arc<Hints>>,
    /// There once others can answer.
    gossip: OnceLock<Gossip>,
    /// Members that aren't there, and since when this node has missed them without a break.
    missing: Mutex<BTreeMap<StoreId, Instant>>,
    /// Whether each member was there when this node last looked: what the log has told.
    watched: Mutex<BTreeMap<StoreId, bool>>,
    /// How far this node's clock is ahead of most of the others', if any has told.
    clock_ahead_ms: Mutex<Option<i64>>,
    /// By subject, what is wrong just now.
    noted: Mutex<BTreeMap<&'static str, String>>,
    /// Whether all members that answer have heard that this node is there.
    is_announced: AtomicBool,
    leaving: Mutex<Leaving>,
    ended: CancellationToken,
    /// There once the storage is open.
    fail_stop: OnceLock<Arc<FailStop>>,
    stopped: CancellationToken,
    /// Whether it was a member, and is none any more.
    forgotten: bool,
    /// Whether it has been a member since the start.
    was_member: AtomicBool,
    begins_anew: CancellationToken,
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

/// Whether a store is a member, and not just about to join: that may be taken back.
fn has_entered(document: &Document, store: StoreId) -> bool {
    let joins = document.transition.as_ref().is_some_and(|transition| transition.joins.contains(&store));
    document.members.get(&store).is_some_and(belongs) && !joins
}

impl Cluster {
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

    /// What people call this node.
    pub(crate) fn own_name(&self) -> &str {
        &self.info.name
    }

    /// Where this node serves HTTP, as it tells others.
    pub(crate) fn http_address(&self) -> &str {
        &self.info.http_address
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
        store == self.me() || drive::is_alive(&self.members(), store)
    }

    /// Everybody whom gossip knows.
    pub fn members(&self) -> Arc<Members> {
        self.gossip.get().map(|gossip| gossip.members().borrow().clone()).unwrap_or_default()
    }

    /// Whether this node has its place in the ring, or drains.
    pub fn is_member(&self) -> bool {
        self.view.borrow().document().members.get(&self.me()).is_some_and(belongs)
    }

    /// Whether others count on this node: it has its place in the ring, and they have heard that it is back. Whoever
    /// restarts one node after the other waits for this.
    pub fn is_ready(&self) -> bool {
        let has_failed = self.fail_stop.get().is_some_and(|fail_stop| fail_stop.reason().is_some());
        self.is_announced.load(Ordering::Relaxed) && self.is_member() && !has_failed
    }

    /// From now on this node is unready once its store has stopped.
    pub(crate) fn stops_with(&self, fail_stop: Arc<FailStop>) {
        let is_first = self.fail_stop.set(fail_stop).is_ok();
        debug_assert!(is_first, "the storage is opened once");
    }

    /// What this node is to the ring; `None` before it has joined.
    fn state(&self) -> Option<MemberState> {
        self.view.borrow().document().members.get(&self.me()).map(|member| member.state)
    }

    /// Whether this store was a member and was given up: it may only hand over what it has, and begin anew.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten
    }

    /// Whether this store may lack samples that it acked for an open placement: its answers don't count for it.
    pub fn disclaimed(&self, placement: Epoch) -> bool {
        self.keeper.get().is_some_and(|keeper| keeper.disclaims(placement))
    }

    /// Takes a changed configuration.
    pub(crate) fn configure(&self, config: &Config) {
        self.settings.store(Arc::new(config.clone()));
    }

    /// The storage is open: from now on this store can vouch for what it has. `is_loss` tells whether samples may be
    /// missing that it acked.
    ///
    /// # Errors
    /// When the ledger fails.
    pub(crate) async fn keep(
        &self,
        db: &Arc<Db>,
        blocks: &Arc<Blocks>,
        env: &Env,
        is_loss: bool,
    ) -> tsdb::Result<()> {
        let view = self.view();
        let mut disclaimed: BTreeSet<Epoch> = self.documents.disclaimed().await?.into_iter().collect();
        if is_loss && !planted::is(planted::Bug::LossNotDisclaimed) {
            disclaimed.extend(self.shared_placements(&view));
            tracing::error!(placements = ?disclaimed, "this store may have lost samples that it acked: it doesn't count for what was open");
            self.documents.disclaim(&disclaimed.iter().copied().collect::<Vec<_>>()).await?;
        }
        blocks.shipper.belongs_to(view.document().cluster);
        let keeper = Keeper::new(db.clone(), blocks.clone(), env.clock.clone(), env.pool.clone(), disclaimed);
        keeper.adopted(&view, self.me());
        let is_first = self.keeper.set(keeper).is_ok();
        debug_assert!(is_first, "the storage is opened once");
        Ok(())
    }

    /// What this node keeps for others, to be sent before it leaves.
    pub(crate) fn keep_hints(&self, hints: Arc<Hints>) {
        let is_first = self.hints.set(hints).is_ok();
        debug_assert!(is_first, "hints are opened once");
    }

    /// Brings everything that this store has into listed blocks.
    ///
    /// # Errors
    /// What is in the way, in words; to be tried again.
    pub(crate) async fn empty(&self) -> Result<(), String> {
        match self.keeper.get() {
            Some(keeper) => keeper.empty().await.map_err(|e| e.to_string()),
            None => Err("the storage isn't open yet".to_owned()),
        }
    }

    /// Disclaims all that is open and that this store keeps with others: it may lack samples that it acked.
    ///
    /// # Errors
    /// When the ledger fails.
    pub(super) async fn disclaim_all(&self) -> tsdb::Result<()> {
        let Some(keeper) = self.keeper.get() else { return Ok(()) };
        let view = self.view();
        keeper.disclaim(&self.documents, self.shared_placements(&view)).await
    }

    /// Open placements that this store keeps with others: where nobody else could have it, not counting would only hide
    /// what is left.
    fn shared_placements(&self, view: &View) -> BTreeSet<Epoch> {
        let open = view.document().placements.iter();
        open.filter(|p| p.rf > 1 && p.members.contains_key(&self.me())).map(|p| p.id).collect()
    }

    fn vouches(&self) -> Vouched {
        self.keeper.get().map(Keeper::vouches).unwrap_or_default()
    }

    /// Whether this store has all that it acked for the placements that are open.
    pub(crate) fn is_sound(&self) -> bool {
        planted::is(planted::Bug::UnsoundMayForget) || self.keeper.get().is_some_and(Keeper::is_sound)
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
            if !planted::is(planted::Bug::AdoptionForgotten) {
                cluster.documents.adopt(view.document()).await?;
            }
            cluster.gate.close_below(view.epoch());
            cluster.publish(view.clone());
            cluster.note_reversal(held.document(), view.document());
            if !planted::is(planted::Bug::AdoptionUnawaited) {
                cluster.gate.ended_below(view.epoch()).await;
            }
            if let Some(keeper) = cluster.keeper.get() {
                keeper.adopted(&view, cluster.me());
            }
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
        me.adopt(document.epoch);
        if has_entered(document, self.me()) {
            self.was_member.store(true, Ordering::Relaxed);
        }
        self.view.send_replace(view);
        self.tell_addresses(&self.members());
    }

    /// Does what goes on in the background until `stop`: gossip, news, changes of the ring, blocks that others wait
    /// for.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let gossip = self.gossip.get_or_init(|| self.start_gossip());
        self.resume_leaving().await;
        let driver = tokio::spawn(Driver::new(self.clone()).run(stop.clone()));
        let keeping = tokio::spawn(self.clone().keep_on(stop.clone()));
        let reaching = tokio::spawn(self.clone().ask_whether_reached(stop.clone()));
        let comparing = tokio::spawn(self.clone().compare_clocks(stop.clone()));
        let raising = tokio::spawn(self.clone().raise_watermark(stop.clone()));
        self.clone().follow(gossip, stop).await;
        self.stopped.cancel();
        gossip.stop();
        for task in [driver, keeping, reaching, comparing, raising] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the cluster failed");
            }
        }
    }

    fn note_problem(&self, subject: &'static str, problem: Option<String>) {
        let mut noted = self.noted.lock();
        match problem {
            Some(text) => {
                if noted.get(subject) != Some(&text) {
                    tracing::warn!(subject, problem = text, "a problem of the cluster");
                }
                noted.insert(subject, text);
            }
            None => drop(noted.remove(subject)),
        }
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

#[cfg(test)]
mod tests;

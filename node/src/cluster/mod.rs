//! This node's part in its cluster: which ring document holds, who is alive, and how both change.
//!
//! | module | what it holds |
//! |---|---|
//! | `arrive` | finding the cluster at a start, or founding one |
//! | `documents` | the ring document in the bucket and in the ledger |
//! | `gate` | letting writes in by epoch |
//! | `calls`, `service` | what nodes ask each other about membership |
//! | `gossip` | gossip on the peer port |
//! | `drive` | from one ring document to the next |
//! | `keeper` | what this store can vouch for |
//! | `leave`, `operate` | draining, and what else operators ask for |
//! | `describe` | what it all looks like, as JSON |
//!
//! A node alone is a cluster of one, on the same code.
//!
//! **Adopting** a document, wherever it came from: it is written to the ledger; from then on, restarts included, writes
//! that were routed by an older one are refused; others see its epoch on every call and fetch it; and when the last
//! older write that had been let in is in the log, the adoption is done, and may be told to whoever counts adoptions.

mod arrive;
mod calls;
mod describe;
mod documents;
mod drive;
mod gate;
mod gossip;
mod keeper;
mod leave;
mod operate;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use ring::epoch::{Conflict, Invalid, MemberInfo, MemberState, NewMember, Offer};
use ring::gossip::Gossip;
use ring::member::{Members, Profile};
use ring::{ClusterId, Document, Epoch, StoreId, View};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tsdb::db::Db;
use xxhash_rust::xxh3::xxh3_128_with_seed;

pub use arrive::ArriveError;
pub use drive::ChangeError;
pub use gate::Admission;
pub use leave::{LEFT, Leaving};
pub use service::Membership;

use crate::bucket::{Blocks, Bucket};
use crate::config::Config;
use crate::env::{Env, on_disk};
use crate::grpc::{Me, Peers, Protocol};
use crate::identity::Identity;
use crate::receive::hints::Hints;
use crate::receive::replicate;
use arrive::Newcomer;
use calls::{Calls, Vouched};
use documents::Documents;
use drive::Driver;
use gate::Gate;
use gossip::OverCalls;
use keeper::{Keeper, NotYet};

/// Pause before news are fetched again after a failure.
const FETCH_RETRY: Duration = Duration::from_millis(500);
/// Time between tries to bring into the bucket what others wait for.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Longest time between looks at who is away; after a longer one this node was paused, and what it saw counts no more.
const WATCH_EVERY: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// Time between tries to learn whether others reach this node.
const REACH_EVERY: Duration = Duration::from_secs(10);

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
    gate: Gate,
    /// Held by the one adoption at a time.
    adopting: tokio::sync::Mutex<()>,
    view: watch::Sender<Arc<View>>,
    /// The highest incarnation seen of each store, as in the ledger.
    incarnations: Mutex<BTreeMap<StoreId, u64>>,
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
    /// By subject, what is wrong just now.
    noted: Mutex<BTreeMap<&'static str, String>>,
    leaving: Mutex<Leaving>,
    ended: CancellationToken,
    stopped: CancellationToken,
    /// Whether it was a member, and is none any more.
    forgotten: bool,
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
        let forgotten = arrival.forgotten && !arrival.rolled_back;
        Self::enter(config, env, identity, protocol, info, documents, bucket, arrival.document, forgotten)
            .await
    }

    #[allow(clippy::too_many_arguments, reason = "all that is known by then, once")]
    async fn enter(
        config: &Config,
        env: &Env,
        identity: Identity,
        protocol: Protocol,
        info: NewMember,
        documents: Documents,
        bucket: Arc<Bucket>,
        document: Document,
        forgotten: bool,
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
            settings: ArcSwap::from_pointee(config.clone()),
            instance: fresh(env, "instance") as u64,
            keeper: OnceLock::new(),
            hints: OnceLock::new(),
            gossip: OnceLock::new(),
            missing: Mutex::default(),
            noted: Mutex::default(),
            leaving: Mutex::default(),
            ended: CancellationToken::new(),
            stopped: CancellationToken::new(),
            forgotten,
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
        if is_loss {
            let open = view.document().placements.iter();
            // Where nobody else could have it, not counting would only hide what is left.
            let mine = open.filter(|p| p.rf > 1 && p.members.contains_key(&self.me())).map(|p| p.id);
            disclaimed.extend(mine);
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

    fn vouches(&self) -> Vouched {
        self.keeper.get().map(Keeper::vouches).unwrap_or_default()
    }

    fn is_sound(&self) -> bool {
        self.keeper.get().is_some_and(Keeper::is_sound)
    }

    fn disclaims_any(&self) -> bool {
        self.keeper.get().is_some_and(|keeper| !keeper.is_sound())
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
        self.clone().follow(gossip, stop).await;
        self.stopped.cancel();
        gossip.stop();
        for task in [driver, keeping, reaching] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the cluster failed");
            }
        }
    }

    fn start_gossip(&self) -> Gossip {
        let view = self.view();
        let me = ring::gossip::Me {
            cluster: view.document().cluster,
            store: self.me(),
            incarnation: self.identity.incarnation,
            instance: self.instance,
        };
        let settings = self.settings.load();
        let seeds = settings.seeds.0.iter().map(|seed| seed.0.clone());
        let members = view.document().members.values().filter(|m| belongs(m)).map(|m| m.peer_address.clone());
        let all: BTreeSet<String> = seeds.chain(members).filter(|a| *a != self.info.peer_address).collect();
        let transport = Arc::new(OverCalls::new(self.calls.clone()));
        let interval = settings.gossip_interval.to_std();
        Gossip::start(me, self.profile(), all.into_iter().collect(), transport, interval)
    }

    fn profile(&self) -> Profile {
        Profile {
            name: self.info.name.clone(),
            zone: self.info.zone.clone(),
            peer_address: self.info.peer_address.clone(),
            http_address: self.info.http_address.clone(),
            ring_epoch: self.view().epoch(),
            ready: self.is_member(),
            headroom_percent: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Follows what others tell, by gossip and on every call: newer documents, new addresses, who is away.
    async fn follow(self: Arc<Self>, gossip: &Gossip, stop: CancellationToken) {
        let (mut news, mut views, mut members) =
            (self.peers.me().newest(), self.subscribe(), gossip.members());
        let mut watched = Instant::now();
        loop {
            gossip.say(self.profile());
            let known = members.borrow_and_update().clone();
            let now = Instant::now();
            self.watch(&known, now - watched >= PAUSE_MIN);
            watched = now;
            self.tell_addresses(&known);
            self.note_starts(&known).await;
            let (heard, held) = (*news.borrow_and_update(), views.borrow_and_update().epoch());
            let gossiped = known
                .seen
                .iter()
                .filter(|(_, seen)| seen.alive)
                .max_by_key(|(_, seen)| seen.profile.ring_epoch);
            let newest = match gossiped {
                Some((store, seen)) if seen.profile.ring_epoch > heard.epoch => {
                    Some((seen.profile.ring_epoch, *store))
                }
                _ => heard.store.map(|store| (heard.epoch, store)),
            };
            let fetched = match newest {
                Some((epoch, store)) if epoch > held => self.fetch(store).await,
                _ => true,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = news.changed(), if fetched => {}
                _ = members.changed(), if fetched => {}
                _ = views.changed(), if fetched => {}
                () = tokio::time::sleep(if fetched { WATCH_EVERY } else { FETCH_RETRY }) => {}
            }
        }
    }

    /// Remembers the starts of others, so that one whose disk is put back to an earlier state is told so.
    async fn note_starts(&self, members: &Members) {
        for (store, seen) in members.seen.iter().filter(|(store, _)| **store != self.me()) {
            if let Err(error) = self.note_incarnation(*store, seen.incarnation).await {
                tracing::error!(%error, "the ledger can't be written");
            }
        }
    }

    /// Keeps account of who is away. What was seen before a pause of this node, or while it was cut off itself, counts
    /// for nothing.
    fn watch(&self, members: &Members, paused: bool) {
        let view = self.view();
        let mut missing = self.missing.lock();
        if paused || members.suspects_itself {
            missing.clear();
        }
        if members.suspects_itself {
            return;
        }
        let now = Instant::now();
        let away: BTreeSet<StoreId> = view
            .document()
            .active()
            .map(|(store, _)| store)
            .filter(|store| *store != self.me() && !drive::is_alive(members, *store))
            .collect();
        missing.retain(|store, _| away.contains(store));
        for store in away {
            missing.entry(store).or_insert(now);
        }
    }

    /// How long this node has missed a store without a break.
    fn missed(&self, store: StoreId) -> Duration {
        self.missing.lock().get(&store).map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Active members that have been away for longer than is put up with.
    fn gone(&self, view: &View, members: &Members) -> BTreeSet<StoreId> {
        let Some(patience) = self.settings.load().forget_after.max() else { return BTreeSet::new() };
        let active = view.document().active().map(|(store, _)| store);
        active
            .filter(|store| !drive::is_alive(members, *store) && self.missed(*store) >= patience.to_std())
            .filter(|store| *store != self.me())
            .collect()
    }

    /// Where stores are: as they say themselves, else as the ring document has it.
    fn tell_addresses(&self, members: &Members) {
        let view = self.view();
        let mut addresses: BTreeMap<StoreId, String> =
            view.document().members.iter().map(|(id, m)| (*id, m.peer_address.clone())).collect();
        let said =
            members.seen.iter().filter(|(_, seen)| seen.alive && !seen.profile.peer_address.is_empty());
        addresses.extend(said.map(|(store, seen)| (*store, seen.profile.peer_address.clone())));
        self.peers.me().set_addresses(addresses);
    }

    /// Brings into the bucket what others wait for, and tells the ring where this node is.
    async fn keep_on(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let round = async {
                let keeper = self.keeper.get()?;
                let worked = keeper.work().await;
                self.note_problem("keeper", worked.err().map(|error: NotYet| error.to_string()));
                let open = self.view().document().placements.iter().map(|p| p.id).collect();
                if let Err(error) = keeper.reclaim(&self.documents, &open).await {
                    tracing::error!(%error, "the ledger can't be written");
                }
                self.introduce().await;
                Some(())
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = round => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(KEEP_EVERY) => {}
            }
        }
    }

    /// Corrects what the ring document says of this node's name and addresses.
    async fn introduce(self: &Arc<Self>) {
        let (me, info) = (self.me(), &self.info);
        let is_right = |member: &MemberInfo| {
            member.name == info.name
                && member.peer_address == info.peer_address
                && member.http_address == info.http_address
        };
        if self.view().document().members.get(&me).is_none_or(|member| !belongs(member) || is_right(member)) {
            return;
        }
        let change = |document: &Document| match document.members.get(&me) {
            Some(member) if belongs(member) && !is_right(member) => {
                document.set_addresses(me, &info.name, &info.peer_address, &info.http_address).map(Some)
            }
            _ => Ok(None),
        };
        if let Err(error) = self.change(change).await {
            tracing::warn!(%error, "the ring doesn't know this node's new address yet; peers hear of it by gossip");
        }
    }

    /// Asks others whether they reach this node, until one does; says loudly when none can.
    async fn ask_whether_reached(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let others = self
                .members()
                .seen
                .iter()
                .filter(|(s, seen)| seen.alive && **s != self.me())
                .map(|(s, _)| *s)
                .collect::<Vec<_>>();
            for store in others {
                match self.calls.reach(store, self.info.peer_address.clone(), self.me()).await {
                    Ok(None) => {
                        self.note_problem("reach", None);
                        return;
                    }
                    Ok(Some(problem)) => {
                        let text = format!(
                            "{} can't reach this node at {}: {problem}; correct --advertise-address, or let peers                              through to that port",
                            self.name(store),
                            self.info.peer_address
                        );
                        tracing::error!("{text}");
                        self.note_problem("reach", Some(text));
                    }
                    Err(status) => {
                        tracing::debug!(%store, reason = status.message(), "can't ask whether it reaches this node");
                    }
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REACH_EVERY) => {}
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

    fn noted_problems(&self) -> Vec<String> {
        self.noted.lock().values().cloned().collect()
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

#[cfg(test)]
mod tests;

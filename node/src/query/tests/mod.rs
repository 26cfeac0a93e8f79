//! Several nodes in one process, each with a store and a peer port on the loopback interface, and a ring document that
//! the test gives them.

mod cost;
mod imported;
mod incomplete;
mod pushed;
mod rotted;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ring::epoch::{Epoch, NewMember};
use ring::hash::series_token;
use ring::{ClusterId, Document, StoreId, View};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tsdb::db::{Append, Bounds};
use tsdb::model::{Labels, Sample, TenantId};

use super::Reads;
use super::reach::{Reach, Ring};
use crate::env::{Net as _, TcpNet};
use crate::grpc::{self, Me, Peers, Protocol};
use crate::http::tests::{NOW_MS, TestNode};

/// Names that go at the very end keep series apart whose metrics differ: what owners aggregate is so, too.
const CONFIG: &str = "query: {delayed_name_removal: true}\n";

/// What the cluster would know.
pub(super) struct Known {
    me: StoreId,
    view: watch::Sender<Arc<View>>,
    /// Stores that gossip takes for dead.
    dead: Mutex<BTreeSet<StoreId>>,
    disclaimed: Mutex<BTreeSet<Epoch>>,
}

impl Ring for Known {
    fn me(&self) -> StoreId {
        self.me
    }

    fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    fn is_alive(&self, store: StoreId) -> bool {
        !self.dead.lock().contains(&store)
    }

    fn has_disclaimed(&self, placement: Epoch) -> bool {
        self.disclaimed.lock().contains(&placement)
    }
}

/// One node.
pub(super) struct Member {
    pub(super) node: TestNode,
    pub(super) known: Arc<Known>,
    me: Arc<Me>,
    stop: CancellationToken,
}

/// All of them.
pub(super) struct Cluster {
    pub(super) members: Vec<Member>,
    pub(super) document: Document,
    addresses: BTreeMap<StoreId, String>,
    paused: Mutex<BTreeSet<StoreId>>,
}

pub(super) fn tenant() -> TenantId {
    TenantId::new("default").unwrap()
}

pub(super) fn new_member(number: u128) -> NewMember {
    NewMember {
        name: format!("n{number}"),
        zone: format!("z{number}"),
        peer_address: format!("127.0.0.1:{number}"),
        http_address: format!("127.0.0.1:{number}"),
    }
}

impl Cluster {
    /// `stores` nodes, numbered from 1, that keep `rf` copies.
    pub(super) async fn of(stores: u128, rf: u32) -> Self {
        let first = (1..=stores).map(|i| (StoreId(i), new_member(i))).collect();
        Self::with(Document::found(ClusterId(9), 1 << 70 | 5, rf, &first).unwrap()).await
    }

    /// The nodes of a document.
    pub(super) async fn with(document: Document) -> Self {
        Self::made(document, |_| TestNode::with(CONFIG)).await
    }

    /// The nodes of a document, made by their stores.
    pub(super) async fn made<F: Future<Output = TestNode>>(
        document: Document,
        make: impl Fn(StoreId) -> F,
    ) -> Self {
        let view = Arc::new(View::new(document.clone()).unwrap());
        let (mut members, mut addresses) = (Vec::new(), BTreeMap::new());
        for store in document.members.keys() {
            let node = make(*store).await;
            let me = Me::new(*store, Protocol::default());
            me.join(document.cluster).unwrap();
            me.adopt(document.epoch);
            let known = Arc::new(Known {
                me: *store,
                view: watch::Sender::new(view.clone()),
                dead: Mutex::default(),
                disclaimed: Mutex::default(),
            });
            let (member, address) = Member::start(node, known, me).await;
            addresses.insert(*store, address);
            members.push(member);
        }
        let cluster = Self { members, document, addresses, paused: Mutex::default() };
        cluster.introduce();
        cluster
    }

    /// All processes start again on their disks.
    pub(super) async fn restart(self) -> Self {
        let (mut members, mut addresses) = (Vec::new(), BTreeMap::new());
        for Member { node, known, me, stop } in self.members {
            stop.cancel();
            let (member, address) = Member::start(node.crash(CONFIG).await, known, me).await;
            addresses.insert(member.known.me, address);
            members.push(member);
        }
        let cluster = Self { members, document: self.document, addresses, paused: self.paused };
        cluster.introduce();
        cluster
    }

    /// All know where the others are, but for those that are paused.
    fn introduce(&self) {
        let mut addresses = self.addresses.clone();
        addresses.retain(|store, _| !self.paused.lock().contains(store));
        self.members.iter().for_each(|member| member.me.set_addresses(addresses.clone()));
    }

    /// Nobody reaches a node until it is resumed.
    pub(super) fn pause(&self, number: usize) {
        self.paused.lock().insert(self.members[number - 1].known.me);
        self.introduce();
    }

    /// It is reached again.
    pub(super) fn resume(&self, number: usize) {
        self.paused.lock().remove(&self.members[number - 1].known.me);
        self.introduce();
    }

    /// Takes a node's peer port away, so that calls of it are refused.
    pub(super) async fn kill(&self, number: usize) {
        self.members[number - 1].stop.cancel();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// All go by another document.
    pub(super) fn adopt(&mut self, document: Document) {
        for member in &self.members {
            member.adopt(&document);
        }
        self.document = document;
    }

    /// Writes so many series of a few samples to all owners.
    pub(super) fn fill(&self, series: i32) {
        for i in 0..series {
            for step in 0..8 {
                let at_ms = NOW_MS - 120_000 + i64::from(step) * 15_000;
                self.write(&format!("m{i}"), f64::from(i * step), at_ms, &[]);
            }
        }
    }

    /// Appends a sample to all owners of a series but those that miss it.
    pub(super) fn write(&self, name: &str, value: f64, at_ms: i64, missed_by: &[u128]) {
        let labels = Labels::from_sorted([("__name__", name), ("job", "a")]);
        let view = View::new(self.document.clone()).unwrap();
        let token = series_token("default", labels.iter());
        let owners: BTreeSet<_> = view
            .write_sets(token)
            .iter()
            .flat_map(|set| set.stores)
            .map(|index| view.store(*index))
            .collect();
        for member in &self.members {
            if owners.contains(&member.known.me) && !missed_by.contains(&member.known.me.0) {
                member.append(&labels, Sample::float(at_ms, value));
            }
        }
    }
}

impl Member {
    /// Lets a node's peers ask it, and it them; gives where.
    async fn start(node: TestNode, known: Arc<Known>, me: Arc<Me>) -> (Self, String) {
        let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        let routes = Routes::default().add_service(Reads::server(node.app.clone()));
        let stop = CancellationToken::new();
        tokio::spawn(grpc::serve(listener, routes, me.clone(), Duration::ZERO, stop.clone()));
        node.app.queries.reach(Reach::new(known.clone(), Peers::new(Arc::new(TcpNet), me.clone())));
        (Self { node, known, me, stop }, address)
    }

    pub(super) fn adopt(&self, document: &Document) {
        self.me.adopt(document.epoch);
        self.known.view.send_replace(Arc::new(View::new(document.clone()).unwrap()));
    }

    pub(super) fn append(&self, labels: &Labels, sample: Sample) {
        let tenant = self.node.app.storage.tenant(&tenant(), &self.node.app.config.load()).unwrap();
        let series = tenant.intern_unnamed(labels).unwrap();
        let mut outcomes = Vec::new();
        tenant.append(&[Append { series, sample }], &Bounds::ALL, &mut outcomes).unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.is_ack()), "{outcomes:?}");
    }
}

//! The other nodes, as a question reaches them.

use std::sync::Arc;
use std::time::Duration;

use ring::epoch::Epoch;
use ring::{StoreId, View};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::grpc::read::Opening;
use crate::grpc::{Lane, Peers};

/// How long a question waits for a ring document that another node goes by already.
const DOCUMENT_WAIT: Duration = Duration::from_secs(3);

/// What the cluster knows that questions depend on.
pub trait Ring: Send + Sync + 'static {
    /// This node's store.
    fn me(&self) -> StoreId;
    /// The ring document that is adopted, and each one that follows.
    fn views(&self) -> watch::Receiver<Arc<View>>;
    /// Whether a store seems to be there. Nothing rests on it but the order in which stores are asked.
    fn is_alive(&self, store: StoreId) -> bool;
    /// Whether this store doesn't vouch to have all that it acknowledged under a placement.
    fn has_disclaimed(&self, placement: Epoch) -> bool;
}

impl Ring for Cluster {
    fn me(&self) -> StoreId {
        self.me()
    }

    fn views(&self) -> watch::Receiver<Arc<View>> {
        self.subscribe()
    }

    fn is_alive(&self, store: StoreId) -> bool {
        self.is_alive(store)
    }

    fn has_disclaimed(&self, placement: Epoch) -> bool {
        self.disclaimed(placement)
    }
}

/// A way to all who keep something.
pub struct Reach {
    pub(super) ring: Arc<dyn Ring>,
    pub(super) peers: Arc<Peers>,
}

/// Who is asked.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    pub view: Arc<View>,
    /// Those that will probably answer; this node, if it keeps anything, is one of them.
    pub likely: Vec<StoreId>,
    /// Those that seem to be away.
    pub suspects: Vec<StoreId>,
}

impl Reach {
    /// From the cluster and the connections to its nodes.
    pub fn new(ring: Arc<dyn Ring>, peers: Arc<Peers>) -> Self {
        Self { ring, peers }
    }

    /// The ring document that is adopted.
    pub(super) fn view(&self) -> Arc<View> {
        self.ring.views().borrow().clone()
    }

    /// Whether nobody else keeps anything.
    pub(super) fn is_alone(&self) -> bool {
        let view = self.view();
        let me = view.index(self.ring.me());
        view.read_sets().iter().all(|table| table.members().iter().all(|member| Some(*member) == me))
    }

    /// All who keep something, in the order of their ids.
    pub(super) fn owners(&self) -> Owners {
        let view = self.view();
        let mut owners: Vec<_> =
            view.read_sets().iter().flat_map(ring::PlacementTable::members).copied().collect();
        owners.sort_unstable();
        owners.dedup();
        let kept = owners.into_iter().map(|index| view.store(index));
        let there = kept.filter(|store| !view.document().members[store].state.is_lost());
        let me = self.ring.me();
        let (likely, suspects) = there.partition(|store| {
            *store == me || (self.ring.is_alive(*store) && !self.peers.is_unreachable(*store, Lane::Data))
        });
        Owners { view, likely, suspects }
    }

    /// Waits until the document of an epoch is adopted here; whether it is.
    pub(super) async fn adopted(&self, epoch: Epoch) -> bool {
        let mut views = self.ring.views();
        let adopted = tokio::time::timeout(DOCUMENT_WAIT, views.wait_for(|view| view.epoch() >= epoch)).await;
        matches!(adopted, Ok(Ok(_)))
    }

    /// How this node's answers begin.
    pub(super) fn opening(&self, view: &View) -> Opening {
        let ids = view.read_sets().iter().map(ring::PlacementTable::id);
        let disclaimed = ids.filter(|id| self.ring.has_disclaimed(*id)).collect();
        Opening { epoch: view.epoch(), disclaimed, stale_catalog: None }
    }
}

//! What this node says of itself on every call, and what it has learnt from others' answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use ring::{ClusterId, StoreId};
use tokio::sync::watch;

use super::protocol::Protocol;
use super::traffic::Traffic;
use crate::log::Repeats;

/// This node among its peers: one for client and server. The cluster keeps it up to date.
pub struct Me {
    store: StoreId,
    protocol: Protocol,
    cluster: OnceLock<ClusterId>,
    epoch: AtomicU64,
    addresses: ArcSwap<BTreeMap<StoreId, String>>,
    newest: watch::Sender<Seen>,
    pub(super) traffic: Arc<Traffic>,
    /// Calls that were refused.
    pub(super) refusals: Repeats,
}

/// The newest ring document that some peer has told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its epoch; 0 before any was seen.
    pub epoch: u64,
    /// Who goes by it.
    pub store: Option<StoreId>,
}

impl Me {
    /// A node that belongs to no cluster yet.
    pub fn new(store: StoreId, protocol: Protocol) -> Arc<Self> {
        Arc::new(Self {
            store,
            protocol,
            cluster: OnceLock::new(),
            epoch: AtomicU64::new(0),
            addresses: ArcSwap::default(),
            newest: watch::Sender::new(Seen::default()),
            traffic: Arc::default(),
            refusals: Repeats::default(),
        })
    }

    /// Which store this is.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Its cluster, once that is known.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster.get().copied()
    }

    /// The cluster is known from now on; a second one isn't taken, and comes back.
    ///
    /// # Errors
    /// The cluster that the node belongs to already.
    pub fn join(&self, cluster: ClusterId) -> Result<(), ClusterId> {
        match *self.cluster.get_or_init(|| cluster) {
            same if same == cluster => Ok(()),
            other => Err(other),
        }
    }

    /// The epoch that it goes by.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// From now on it goes by this epoch; a lower one changes nothing.
    pub fn adopt(&self, epoch: u64) {
        self.epoch.fetch_max(epoch, Ordering::AcqRel);
    }

    /// Where stores are, as ring document and gossip have it: `host:port` of their peer ports.
    pub fn set_addresses(&self, addresses: BTreeMap<StoreId, String>) {
        self.addresses.store(Arc::new(addresses));
    }

    /// Where a store is, if that is known.
    pub fn address(&self, store: StoreId) -> Option<String> {
        self.addresses.load().get(&store).cloned()
    }

    /// Changes whenever a peer has told of a newer epoch than any before.
    pub fn newest(&self) -> watch::Receiver<Seen> {
        self.newest.subscribe()
    }

    /// Bytes sent to other nodes, headers and all.
    pub fn sent_bytes(&self) -> u64 {
        self.traffic.sent_bytes()
    }

    pub(super) fn saw(&self, epoch: u64, store: StoreId) {
        self.newest.send_if_modified(|seen| {
            let newer = epoch > seen.epoch;
            if newer {
                *seen = Seen { epoch, store: Some(store) };
            }
            newer
        });
    }
}

//! A cluster that stands still, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use ring::epoch::NewMember;
use ring::{ClusterId, Document, StoreId, View};
use tokio::sync::watch;

use super::{Admission, Membership};

pub(crate) const CLUSTER: ClusterId = ClusterId(77);

/// A document of `stores` stores, numbered from 1, each in a zone of its own.
pub(crate) fn document(stores: u128, rf: u32, epoch: u64) -> Document {
    let member = |store: u128| NewMember {
        name: format!("node-{store}"),
        zone: format!("zone-{store}"),
        peer_address: format!("127.0.0.1:{}", 9000 + store),
        http_address: format!("127.0.0.1:{}", 8000 + store),
    };
    let first: BTreeMap<_, _> = (1..=stores).map(|store| (StoreId(store), member(store))).collect();
    let mut document = Document::found(CLUSTER, 5, rf, &first).unwrap();
    document.epoch = epoch;
    document.placements[0].id = epoch;
    document
}

pub(crate) fn view(stores: u128, rf: u32, epoch: u64) -> Arc<View> {
    Arc::new(View::new(document(stores, rf, epoch)).unwrap())
}

/// A node's place in a cluster, as the test says.
pub(crate) struct Fixed {
    me: StoreId,
    view: watch::Sender<Arc<View>>,
    pub(crate) offered: Mutex<Vec<Bytes>>,
    /// The gate is closed to writes of older documents, whichever is shown.
    closed_below: AtomicU64,
}

impl Fixed {
    pub(crate) fn new(me: u128, view: Arc<View>) -> Arc<Self> {
        Arc::new(Self {
            me: StoreId(me),
            view: watch::Sender::new(view),
            offered: Mutex::default(),
            closed_below: AtomicU64::new(0),
        })
    }

    /// An adoption has begun, and the document isn't shown yet.
    pub(crate) fn close_below(&self, epoch: u64) {
        self.closed_below.store(epoch, Ordering::Relaxed);
    }

    pub(crate) fn adopt(&self, view: Arc<View>) {
        self.view.send_replace(view);
    }
}

impl Membership for Fixed {
    fn me(&self) -> StoreId {
        self.me
    }

    fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    fn admit(&self, epoch: u64) -> Result<Admission, Bytes> {
        let view = self.view();
        let lowest = view.epoch().max(self.closed_below.load(Ordering::Relaxed));
        if epoch < lowest { Err(view.document().encode().into()) } else { Ok(Box::new(())) }
    }

    fn offer(&self, document: Bytes) {
        self.offered.lock().push(document);
    }
}

//! Chitchat's transport over ours: messages go out as frames and come in from a queue.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use chitchat::transport::{Socket, Transport as ChitchatTransport};
use chitchat::{ChitchatMessage, Serializable};
use tokio::sync::{Mutex, mpsc};

use super::Transport;
use super::frame::{Frame, store_at};
use super::shared::Shared;

/// A message that has passed all checks, and the made-up address of its sender.
pub(super) type Arrived = (SocketAddr, ChitchatMessage);

/// One end, which survives restarts of chitchat.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) shared: Arc<Shared>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) arrivals: Arc<Mutex<mpsc::Receiver<Arrived>>>,
}

#[async_trait]
impl ChitchatTransport for Wire {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Socket for Wire {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let store = store_at(&to);
        let address = match store {
            Some(store) => self.shared.address(store),
            None => self.shared.next_seed(),
        };
        // One whose address hasn't come yet is reached through others meanwhile.
        let Some(address) = address else { return Ok(()) };
        let me = self.shared.me;
        let frame = Frame {
            cluster: me.cluster,
            store: me.store,
            incarnation: me.incarnation,
            instance: me.instance,
            to: store,
            address: &self.shared.own_address(),
            message: &message.serialize_to_vec(),
        };
        self.transport.send(&address, frame.encode());
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<Arrived> {
        self.arrivals.lock().await.recv().await.context("gossip has been stopped")
    }
}

//! Gossip on the peer port: frames go out as calls, and what comes in is handed to [`ring::gossip`].

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::gossip::Transport;

use super::calls::Calls;

/// Frames on their way to one address; further ones are dropped, since newer ones follow anyway.
const UNDER_WAY_MAX: usize = 4;

/// Sends frames as calls.
pub(super) struct OverCalls {
    calls: Calls,
    under_way: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl OverCalls {
    pub(super) fn new(calls: Calls) -> Self {
        Self { calls, under_way: Arc::default() }
    }
}

impl Transport for OverCalls {
    fn send(&self, to: &str, frame: Vec<u8>) {
        {
            let mut under_way = self.under_way.lock();
            let count = under_way.entry(to.to_owned()).or_default();
            if *count >= UNDER_WAY_MAX {
                return;
            }
            *count += 1;
        }
        let (calls, to, under_way) = (self.calls.clone(), to.to_owned(), self.under_way.clone());
        tokio::spawn(async move {
            if let Err(status) = calls.gossip(&to, frame.into()).await {
                tracing::debug!(to, reason = status.message(), "gossip didn't get through");
            }
            let mut under_way = under_way.lock();
            if let Some(count) = under_way.get_mut(&to) {
                *count -= 1;
                if *count == 0 {
                    under_way.remove(&to);
                }
            }
        });
    }
}

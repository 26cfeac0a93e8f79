//! The end of a node whose disk has failed in a way that only a restart can judge.
//!
//! After a failed `fdatasync` nobody knows what the disk has, and a second one would lie: the store takes nothing any
//! more. 1. Whoever meets that says so here; the first reason stays, and is logged. 2. The node is unready at once, for
//! load balancers and in gossip. 3. The process ends a moment later with an exit code that isn't 0, so that whatever
//! supervises it starts it again; the start reads what the disk has. Requests in work aren't waited for.

use std::sync::OnceLock;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Time between the failure and the end of the process: others hear by gossip, and look at `/-/ready`, meanwhile.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// Whether the store has stopped, and why.
#[derive(Debug, Default)]
pub(crate) struct FailStop {
    reason: OnceLock<String>,
    stopped: CancellationToken,
}

impl FailStop {
    /// The store has stopped for good. The first reason stays.
    pub(crate) fn stop(&self, reason: &str) {
        if planted::is(planted::Bug::StoppedNodeGoesOn) {
            return;
        }
        if self.reason.set(reason.to_owned()).is_ok() {
            tracing::error!(
                reason,
                "the store has stopped: this node takes no writes any more, and its process ends; a start reads what \
                 the disk has"
            );
            self.stopped.cancel();
        }
    }

    /// Why the store has stopped; `None` while it works.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Returns once the store has stopped, with why.
    pub(crate) async fn stopped(&self) -> &str {
        self.stopped.cancelled().await;
        self.reason().expect("it is set before")
    }
}

//! Beside real Prometheus servers: what they send us, our answers to the same questions, our blocks in their hands.

mod answers;
mod blocks;
mod metrics;
mod senders;
pub mod stage;
mod write_v2;

use std::path::Path;

use tests::Peer;

/// A judge: a Prometheus 3 that takes what is sent to it and scrapes nothing. Experimental functions are on, as in ours.
async fn judge(program: &Path, dir: &Path) -> Peer {
    let args = ["--web.enable-remote-write-receiver", "--enable-feature=promql-experimental-functions"];
    Peer::prometheus(program, dir, "global: {}\n", &args).await
}

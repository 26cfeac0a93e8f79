//! The peer port: gRPC between nodes, over the network seam.
//!
//! One server for several services, each added by its owner, and one client for all of them:
//!
//! ```text
//! let me = Me::new(store, Protocol::default());            this node, for both sides
//! let routes = Routes::default().add_service(WriteServer::new(..));
//! tokio::spawn(grpc::serve(listener, routes, me.clone(), stop_timeout, stop));
//!
//! let peers = Peers::new(env.net.clone(), me);
//! let channel = peers.to_store(store, Lane::Data)?.timeout(Duration::from_secs(3));
//! WriteClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `protocol` | versions, and which of them go together |
//! | `header` | the metadata of every call and answer, and the one place where it is checked |
//! | `me` | what this node says of itself there, and the newest epoch that others told of |
//! | `server` | the port |
//! | `peers`, `breaker`, `deadline` | calling: lazy connections, silent peers, bounded time |
//! | [`read`] | questions between nodes, as messages |
//! | `repair` | series as messages |
//! | `traffic` | bytes, counted at the socket |
//! | [`frame`] | what frames of the write stream carry |
//!
//! A handler finds its caller's [`Header`] among the request's extensions.

use std::time::Duration;

mod breaker;
mod deadline;
pub mod frame;
mod header;
mod me;
mod peers;
mod protocol;
pub mod read;
mod repair;
mod server;
mod traffic;

pub use crate::env::Lane;
pub use header::{Header, Refusal};
pub use me::{Me, Seen};
pub use peers::{PeerChannel, Peers};
pub use protocol::Protocol;
pub use repair::{series_from_proto, series_to_proto};
pub use server::serve;

/// Largest message that a client or server of ours takes; whoever sends more cuts it into several.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Longest time of a call, unless its caller says otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for making a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for the first bytes of a connection that was accepted.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle connection is pinged this often, and is gone when the answer takes this long: a peer that vanished without
/// a word is noticed, and what waits for it fails.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes on the way on a connection, and on one of its streams.
pub(crate) const WINDOW_BYTES: u32 = 4 << 20;
/// Connections either way: two for each of as many nodes as a ring may have.
const CONNECTIONS_MAX: usize = 2 * ring::MAX_MEMBERS;

#[cfg(test)]
mod tests;

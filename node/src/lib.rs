//! One node of Carillon: where storage, PromQL and HTTP are wired together.
//!
//! | module | what it holds |
//! |---|---|
//! | [`mod@env`] | the seams: clock, disk, ledger, network, threads |
//! | [`config`] | one declaration per option, and reading them |
//! | [`node`], `fail_stop` | start, run, stop, and the end after a failed sync |
//! | [`http`] | what is served: writes, questions, status |
//! | [`grpc`] | the peer port: between nodes |
//! | [`cluster`] | this node's part in its cluster |
//! | [`identity`] | which store this is |
//! | [`log`] | log lines as logfmt or JSON |
//! | `query` | answering questions: limits, fetching, replicas |
//! | [`receive`] | taking samples in |
//! | `repair` | replicas compare what they have, and pull what they lack |
//! | `glance` | the cluster at a glance, for `status` and the page |
//! | `server` | accepting connections, and reading the heads of requests |
//! | [`time`], `text`, `error_text` | times, names and errors as text |
//! | `storage`, `metrics` | the engine inside the node, and what the node tells of itself |
//! | [`bucket`] | object storage: catalog, shipping blocks, reading them |
//! | [`cli`] | the command line, one file a verb |
//! | [`mod@bench`] | load and measurements, for any server |
//! | [`client`] | HTTP clients for those two |

pub mod bench;
pub mod bucket;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
pub mod env;
mod error_text;
mod fail_stop;
mod glance;
pub mod grpc;
pub mod http;
pub mod identity;
pub mod log;
mod metrics;
pub mod node;
mod query;
pub mod receive;
mod repair;
mod server;
mod starting;
mod storage;
mod text;
pub mod time;

pub use config::Config;
pub use env::Env;
pub use node::Node;

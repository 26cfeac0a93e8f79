//! PromQL's functions.

mod signature;

pub use signature::{Function, Signature};

//! PromQL's functions: the table of them, and what they compute.

pub(crate) mod classic;
pub(crate) mod histogram;
pub(crate) mod instant;
mod signature;
pub(crate) mod window;

pub use signature::{Function, Signature};

//! PromQL: from a query's text to series of values. Sees only the engine's model and select.

pub mod functions;
pub mod parse;

pub use parse::{ParseError, Syntax, parse, parse_with};

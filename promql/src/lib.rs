//! PromQL: from a query's text to series of values. Sees only the engine's model and select.
//!
//! 1. [`mod@parse`] makes a typed syntax tree of a text.
//! 2. [`plan()`] resolves its times and says what to fetch: [`Plan::selects`].
//! 3. The caller fetches that, from wherever, and [`Plan::evaluate`] computes: no clock, no I/O, no threads but
//!    the caller's [`Workers`].

pub mod annotations;
pub mod error;
mod eval;
mod explain;
pub mod folded;
pub mod functions;
pub mod parse;
mod plan;
pub mod value;

pub use annotations::{Annotations, Level};
pub use error::Error;
pub use eval::{Held, Inline, Lender, Limits, Telling, Workers};
pub use explain::Step;
pub use folded::Folded;
pub use functions::histogram::{Bucket, buckets};
pub use parse::{ParseError, Syntax, parse, parse_with};
pub use plan::{Plan, QueryRange, Settings, plan};
pub use value::{Output, SampleValue, Value};

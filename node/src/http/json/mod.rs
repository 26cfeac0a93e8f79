//! Answers as JSON, written by hand and in pieces: values to the letter as Prometheus writes them.

mod number;
mod point;
mod result;
mod text;

pub use number::{push_float, push_timestamp};
pub use result::ResultBody;
pub use text::{push_labels, push_string};

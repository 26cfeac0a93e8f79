//! From labels to series: what head and blocks share in finding series, and the index file of a block.
//!
//! | module | what it holds |
//! |---|---|
//! | [`postings`] | lists of series ids, and the planner that turns matchers into one |
//! | [`memory`] | the head's postings: label name → value → ids |

pub mod memory;
pub mod postings;

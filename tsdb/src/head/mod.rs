//! The head: what has been written and isn't in a block yet.

mod reference;

pub use reference::SeriesRef;

//! Who owns what, and who is alive.

mod id;

pub use id::{ClusterId, ParseIdError, StoreId};

/// Most members that a ring may have, dead and departing ones included.
pub const MAX_MEMBERS: usize = 1024;

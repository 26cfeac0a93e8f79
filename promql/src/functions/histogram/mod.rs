//! Arithmetic of native histograms.
//!
//! Operands are unfolded into sparse form, brought to one layout (the lower resolution, the wider zero bucket, the
//! common custom bounds), combined bucket by bucket, and folded again without empty buckets.

mod bounds;
mod ops;
mod quantile;
mod sparse;
mod table;
mod trim;

pub use bounds::{Bucket, buckets, upper_bound};
pub use ops::{Incompatible, Total, add, divided, equal, is_reset, scaled, subtract};
pub use quantile::{NanObservations, average, deviation, fraction, fraction_of, quantile, variance};
pub use trim::{Keep, trimmed};

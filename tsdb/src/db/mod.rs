//! The engine's front: tenants' series go in, questions are answered, and blocks come to be.

mod settings;
mod types;

pub use settings::{DbSettings, SHARDS_MAX, TenantSettings};
pub use types::{
    Append, Bounds, Exemplar, Metadata, Outcome, SERIES_ALIASES_MAX, SeriesExemplars, SeriesKey,
};

pub use crate::head::SeriesRef;

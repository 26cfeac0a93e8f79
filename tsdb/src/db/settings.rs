//! Settings of the engine: data, each documented here once.

use crate::chunk::Writes;
use crate::wal::WalSettings;

/// Settings of a node's engine.
#[derive(Clone, Debug, PartialEq)]
pub struct DbSettings {
    /// Parts that the head is locked by, rounded up to a power of two, at most [`SHARDS_MAX`]. A data folder keeps the
    /// number that it was made with.
    pub shards: usize,
    /// WAL bytes after which each shard writes a checkpoint: a restart replays about this much.
    pub checkpoint_bytes: u64,
    /// Exemplars kept in memory on this node, the oldest go first.
    pub exemplars_max: usize,
    /// Bytes of them.
    pub exemplar_bytes_max: usize,
    /// Metric families whose metadata is kept, per node; further families are refused until restart.
    pub metadata_max: usize,
    /// Bytes of it.
    pub metadata_bytes_max: usize,
    /// Whether start times are kept, in encodings that not everybody reads, or dropped as samples come in.
    pub writes: Writes,
    /// The write-ahead log.
    pub wal: WalSettings,
    /// What holds for tenants without settings of their own.
    pub tenant: TenantSettings,
}

/// Most shards of a head.
pub const SHARDS_MAX: usize = 64;

impl Default for DbSettings {
    fn default() -> Self {
        Self {
            shards: 8,
            checkpoint_bytes: 32 << 20,
            exemplars_max: 100_000,
            exemplar_bytes_max: 32 << 20,
            metadata_max: 20_000,
            metadata_bytes_max: 16 << 20,
            writes: Writes::default(),
            wal: WalSettings::default(),
            tenant: TenantSettings::default(),
        }
    }
}

/// Settings of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantSettings {
    /// Most series in the head at once.
    pub series_max: u32,
    /// How far behind a series' newest sample others are taken, in milliseconds: a range [T, T+2h) stays in the
    /// head until the tenant's newest sample is this much past its end.
    pub out_of_order_window_ms: i64,
    /// Local blocks whose newest sample is older than this, in milliseconds before now, are removed; `None` keeps
    /// them for ever.
    pub retention_ms: Option<i64>,
}

impl Default for TenantSettings {
    fn default() -> Self {
        Self { series_max: 10_000_000, out_of_order_window_ms: 2 * 60 * 60 * 1000, retention_ms: None }
    }
}

//! The engine inside a node: opening it, tenants with their settings, and what has to be done every few seconds.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use tokio_util::sync::CancellationToken;
use tsdb::chunk::Writes;
use tsdb::clock::ClockReading;
use tsdb::db::{Db, DbSettings, Maintenance, Recovery, Replay, Tenant, TenantSettings};
use tsdb::model::TenantId;
use tsdb::{Error, Result};

use crate::config::{Bound, ChunkEncoding, Config, Duration, WalSync};
use crate::env::{Clock, Env, Pool, PoolWorkers, Work, on_disk, run_on};
use crate::fail_stop::FailStop;
use crate::log::Repeats;
use crate::metrics::at_scrape;

/// What stands for "unlimited" where the engine adds to it: a hundred years, in milliseconds.
const UNLIMITED_MS: i64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// In the ledger for as long as writes are acked before they are synced: whoever finds it at a start finds a store that
/// didn't end in order, and may lack what it acked last.
const LEDGER_UNSYNCED: &str = "wal/unsynced";

/// Most names of unknown files that are logged.
const UNKNOWN_NAMES_MAX: usize = 20;

/// The engine, and the tenants that were written to since the start.
pub struct Storage {
    db: Arc<Db>,
    configured: RwLock<HashMap<TenantId, Arc<Tenant>>>,
    is_loss: bool,
    fail_stop: Arc<FailStop>,
    /// What keeps maintenance from doing its work.
    problems: Repeats,
}

impl Storage {
    /// Opens the data folder; `replay` is told how far that is.
    ///
    /// # Errors
    /// Those of [`Db::open`]; damage is none, and is logged.
    pub async fn open(config: &Config, env: &Env, replay: &Arc<Replay>) -> Result<Self> {
        let (disk, now_ms, seed) = (env.disk.clone(), env.clock.now_ms(), env.seed);
        let writes = match config.chunk_encoding {
            ChunkEncoding::Xor => Writes::Classic,
            ChunkEncoding::Xor2 => Writes::WithStarts,
        };
        let settings = DbSettings { tenant: settings_of(config, None), writes, ..DbSettings::default() };
        let began = tokio::time::Instant::now();
        let (pool, ledger, replay) = (env.pool.clone(), env.ledger.clone(), replay.clone());
        let opened = run_on(&*env.pool, Work::Maintenance, move || {
            let was_unsynced = ledger.get(LEDGER_UNSYNCED)?.is_some();
            let workers = PoolWorkers::new(&*pool);
            let (db, recovery) = Db::open_watched(disk, settings, now_ms, seed, &workers, &replay)?;
            Ok::<_, Error>((db, recovery, was_unsynced))
        });
        let (db, recovery, was_unsynced) = opened.await?;
        log_recovery(&recovery, began.elapsed());
        if was_unsynced {
            tracing::error!("the node didn't end in order, and writes were answered before they were synced");
        }
        let is_loss = was_unsynced || recovery.is_loss();
        let configured = RwLock::default();
        let (fail_stop, problems) = (Arc::default(), Repeats::default());
        let storage = Self { db: Arc::new(db), configured, is_loss, fail_stop, problems };
        storage.configure(config);
        Ok(storage)
    }

    /// Whether samples may be missing that this store once acked.
    pub fn is_loss(&self) -> bool {
        self.is_loss
    }

    /// Hears when the engine has stopped for good.
    pub fn fail_stop(&self) -> &Arc<FailStop> {
        &self.fail_stop
    }

    /// Notes whether writes are answered before they are synced from now on; durable on return. To be called before the
    /// first of them, and once it is noted what the last ones mean to this store.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn begin(&self, sync: WalSync, env: &Env) -> Result<()> {
        let ledger = env.ledger.clone();
        on_disk(&*env.pool, move || match (sync, ledger.get(LEDGER_UNSYNCED)?) {
            (WalSync::Interval, None) => ledger.put(LEDGER_UNSYNCED, &[]),
            (WalSync::Group, Some(_)) => ledger.remove(LEDGER_UNSYNCED),
            _ => Ok(()),
        })
        .await
    }

    /// Ends in order: all that was acked is synced.
    ///
    /// # Errors
    /// Those of [`Db::seal`], and when the ledger fails.
    pub async fn seal(&self, env: &Env) -> Result<()> {
        let (db, ledger) = (self.db.clone(), env.ledger.clone());
        run_on(&*env.pool, Work::Maintenance, move || {
            db.seal()?;
            if ledger.get(LEDGER_UNSYNCED)?.is_some() { ledger.remove(LEDGER_UNSYNCED) } else { Ok(()) }
        })
        .await
    }

    /// The engine.
    pub fn db(&self) -> &Arc<Db> {
        &self.db
    }

    /// A tenant to write to; it begins to exist where it didn't.
    ///
    /// # Errors
    /// When the node has as many tenants as it takes.
    pub fn tenant(&self, id: &TenantId, config: &Config) -> Result<Arc<Tenant>> {
        if let Some(tenant) = self.configured.read().get(id) {
            return Ok(tenant.clone());
        }
        let tenant = self.db.tenant(id)?;
        let mut configured = self.configured.write();
        tenant.configure(settings_of(config, Some(id)));
        Ok(configured.entry(id.clone()).or_insert(tenant).clone())
    }

    /// A tenant to ask; `None` where nothing was ever written.
    pub fn existing(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.db.existing_tenant(id)
    }

    /// Applies the configuration to all tenants.
    pub fn configure(&self, config: &Config) {
        let mut configured = self.configured.write();
        for tenant in self.db.tenants() {
            tenant.configure(settings_of(config, Some(tenant.id())));
            configured.insert(tenant.id().clone(), tenant);
        }
    }

    /// What the engine tells at each scrape.
    pub fn collector(&self) -> Box<dyn Collector> {
        let db = self.db.clone();
        at_scrape(move |out| {
            let stats = db.stats();
            out.gauge("carillon_tenants", "Tenants known", stats.tenants as f64)?;
            out.gauge("carillon_head_series", "Series in the head", stats.series as f64)?;
            out.gauge(
                "carillon_head_series_bytes",
                "Memory of series and open chunks",
                stats.series_bytes as f64,
            )?;
            out.gauge("carillon_head_label_bytes", "Memory of labels", stats.label_bytes as f64)?;
            out.gauge(
                "carillon_head_key_bytes",
                "Memory of tables that find series",
                stats.key_bytes as f64,
            )?;
            out.gauge("carillon_head_chunk_files", "Files of sealed chunks", stats.head_chunk_files as f64)?;
            out.counter("carillon_wal_appended_bytes", "Bytes logged", stats.wal.appended_bytes as f64)?;
            out.counter("carillon_wal_syncs", "Syncs of the log", stats.wal.syncs as f64)?;
            out.gauge("carillon_wal_segments", "Segments of the log", stats.wal.segments as f64)?;
            out.gauge(
                "carillon_wal_pending_bytes",
                "Bytes that wait for a sync",
                stats.wal.pending_bytes as f64,
            )?;
            out.gauge("carillon_wal_full", "1 while the disk is full", f64::from(u8::from(stats.wal.full)))?;
            out.gauge("carillon_wal_stopped", "1 after a failed sync", f64::from(u8::from(stats.wal.stopped)))
        })
    }

    /// Maintains the engine until `stop`.
    pub async fn maintain(
        &self,
        interval: impl Fn() -> std::time::Duration,
        clock: Arc<dyn Clock>,
        pool: Arc<dyn Pool>,
        stop: CancellationToken,
    ) {
        let began = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval()) => {}
            }
            let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let (db, now) = (self.db.clone(), ClockReading { wall_ms: clock.now_ms(), elapsed_ms });
            let maintained = run_on(&*pool, Work::Maintenance, move || db.maintain(now)).await;
            if let Some(reason) = self.db.stop_reason() {
                self.fail_stop.stop(&reason);
                // Nothing can be maintained any more.
                return;
            }
            match maintained {
                Ok(done) => log_maintenance(&done, &self.problems),
                Err(error) => {
                    if let Some(untold) = self.problems.due(&error.to_string()) {
                        tracing::error!(%error, untold, "maintenance failed");
                    }
                }
            }
        }
    }
}

fn settings_of(config: &Config, tenant: Option<&TenantId>) -> TenantSettings {
    let limits = tenant.map_or(&config.limits, |id| config.limits_of(id.as_str()));
    let ms = |bound: &Bound<Duration>| bound.max().map(|d| d.ms);
    let series_max = limits.max_series.max().map_or(u32::MAX, |most| u32::try_from(most).unwrap_or(u32::MAX));
    TenantSettings {
        series_max,
        out_of_order_window_ms: ms(&limits.out_of_order_window).map_or(UNLIMITED_MS, |w| w.min(UNLIMITED_MS)),
        retention_ms: ms(&config.retention),
    }
}

fn log_recovery(recovery: &Recovery, took: std::time::Duration) {
    let took_ms = took.as_millis();
    tracing::info!(series = recovery.series, wal_samples = recovery.samples, took_ms, "storage is open");
    if recovery.orphans > 0 {
        // Most are of series that were collected after their samples went into a block; damage is told below.
        tracing::info!(samples = recovery.orphans, "samples in the WAL belong to series that are gone");
    }
    for damaged in &recovery.damage {
        let (tenant, times_ms) = (&damaged.tenant, &damaged.times_ms);
        tracing::error!(error = %damaged.error, ?tenant, ?times_ms, "damaged, and left out");
    }
    if recovery.unknown_count > 0 {
        let (count, names) =
            (recovery.unknown_count, &recovery.unknown[..recovery.unknown.len().min(UNKNOWN_NAMES_MAX)]);
        tracing::warn!(count, ?names, "the data folder holds what isn't the node's own; it is left alone");
    }
    for damage in &recovery.wal.damage {
        tracing::error!(?damage, "a part of the WAL is damaged, and left out");
    }
}

fn log_maintenance(done: &Maintenance, problems: &Repeats) {
    for (tenant, block) in &done.cut {
        tracing::info!(%tenant, block = %block.ulid, samples = block.stats.num_samples, "cut a block");
    }
    for (tenant, block) in &done.removed {
        tracing::info!(%tenant, block = %block.ulid, "removed a block: its time had come");
    }
    for problem in &done.problems {
        let (tenant, lost_ms) = (&problem.tenant, &problem.lost_ms);
        if let Some(untold) = problems.due(&format!("{tenant:?} {lost_ms:?} {}", problem.error)) {
            tracing::error!(error = %problem.error, ?tenant, ?lost_ms, untold, "a part of the maintenance failed");
        }
    }
}

//! Blocks of the bucket, as a node uses them: catalogs, shipping and reading, opened together.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use ring::StoreId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tsdb::db::Db;

use super::Bucket;
use super::catalog::Catalogs;
use super::error::Result;
use super::remote::RemoteBlocks;
use super::ship::Shipper;
use crate::config::Config;
use crate::env::Env;
use crate::metrics::at_scrape;

/// What a node has of its bucket.
pub struct Blocks {
    /// The bucket itself.
    pub bucket: Arc<Bucket>,
    /// Which blocks are there.
    pub catalogs: Arc<Catalogs>,
    /// Brings this node's blocks there.
    pub shipper: Shipper,
    /// Reads them.
    pub remote: RemoteBlocks,
}

impl Blocks {
    /// Opens what the ledger knows of the catalogs, and an empty cache. Asks nothing of the bucket.
    ///
    /// # Errors
    /// When the ledger or the disk fails.
    pub async fn open(bucket: Arc<Bucket>, config: &Config, env: &Env, store: StoreId) -> Result<Self> {
        let catalogs = Arc::new(Catalogs::open(bucket.clone(), env).await?);
        let cache_bytes = config.bucket_cache.bytes;
        let remote = RemoteBlocks::open(bucket.clone(), catalogs.clone(), env, cache_bytes).await?;
        let shipper = Shipper::new(catalogs.clone(), bucket.clone(), env, &config.data_dir.0, store);
        Ok(Self { bucket, catalogs, shipper, remote })
    }

    /// What `/metrics` tells of the bucket.
    pub fn collector(self: &Arc<Self>) -> Box<dyn Collector> {
        let blocks = self.clone();
        at_scrape(move |out| {
            let (shipping, health) = (blocks.shipper.progress(), blocks.bucket.health());
            for (name, help, value) in [
                (
                    "carillon_bucket_blocks_waiting",
                    "Blocks that wait for their upload",
                    shipping.waiting as u64,
                ),
                (
                    "carillon_bucket_blocks_refused",
                    "Blocks that won't be uploaded as they are",
                    shipping.refused.len() as u64,
                ),
                (
                    "carillon_bucket_failures_in_a_row",
                    "Calls of the bucket that have failed since the last success",
                    health.failures,
                ),
            ] {
                out.gauge(name, help, value as f64)?;
            }
            out.known_gauge(
                "carillon_bucket_last_success_timestamp_seconds",
                "When a call of the bucket last succeeded, in Unix time",
                health.last_success_ms.map(|ms| ms as f64 / 1000.0),
            )?;
            out.counter("carillon_bucket_blocks_uploaded", "Blocks uploaded", shipping.blocks as f64)?;
            out.counter("carillon_bucket_uploaded_bytes", "Bytes of uploaded blocks", shipping.bytes as f64)?;
            out.counter(
                "carillon_bucket_upload_failures",
                "Tries to upload a block that failed",
                shipping.failures as f64,
            )
        })
    }

    /// Keeps catalogs fresh, and if `ships` brings the blocks of `db` into the bucket, every so often, until `stop`.
    pub fn start(
        self: &Arc<Self>,
        db: Arc<Db>,
        ships: bool,
        every: Duration,
        stop: &CancellationToken,
    ) -> Vec<JoinHandle<()>> {
        let (blocks, stopped) = (self.clone(), stop.clone());
        let fresh = async move { blocks.catalogs.keep_fresh(every, stopped).await };
        let mut tasks = vec![tokio::spawn(fresh)];
        if ships {
            let (blocks, stopped) = (self.clone(), stop.clone());
            tasks.push(tokio::spawn(async move { blocks.shipper.keep_shipping(&db, every, stopped).await }));
        }
        tasks
    }
}

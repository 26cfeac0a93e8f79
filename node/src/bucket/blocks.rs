//! Blocks of the bucket, as a node uses them: catalogs, shipping and reading, opened together.

use std::sync::Arc;
use std::time::Duration;

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

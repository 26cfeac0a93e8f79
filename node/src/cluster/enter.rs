//! From a start to a node's part in its cluster: who this store is, which cluster it finds, and by which document it
//! begins.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ring::epoch::{Invalid, NewMember};
use ring::{ClusterId, Document, StoreId, View};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::arrive::{ArriveError, Newcomer};
use super::calls::Calls;
use super::documents::Documents;
use super::gate::Gate;
use super::{Addresses, Cluster, belongs};
use crate::bucket::Bucket;
use crate::config::Config;
use crate::env::{Env, on_disk};
use crate::grpc::{Me, Peers, Protocol};
use crate::identity::Identity;

impl Cluster {
    /// Finds this node's cluster, or founds one; waits as long as that takes, and for the bucket too where nothing is
    /// known without it.
    ///
    /// # Errors
    /// Whatever waiting doesn't mend: two clusters that meet, a bucket that can't be used, a failing ledger.
    pub async fn arrive(
        config: &Config,
        env: &Env,
        at: &Addresses,
        protocol: Protocol,
    ) -> Result<Arc<Self>, ArriveError> {
        let bucket = Bucket::open(&config.bucket_url(), env)?;
        let documents =
            Documents { bucket: bucket.clone(), ledger: env.ledger.clone(), pool: env.pool.clone() };
        let (ledger, disk, fresh_store) = (env.ledger.clone(), env.disk.clone(), fresh(env, "store"));
        let mut identity =
            on_disk(&*env.pool, move || Identity::begin(&*ledger, &*disk, fresh_store)).await?;
        let info = NewMember {
            name: if config.name.is_empty() { at.peer.clone() } else { config.name.clone() },
            zone: config.zone.clone(),
            peer_address: at.peer.clone(),
            http_address: at.http.clone(),
        };
        tracing::info!(store = %identity.store, incarnation = identity.incarnation, name = info.name, "starting");

        let factor = config.replication_factor.0;
        let digest_key = fresh(env, "digests");
        let (store, founder) = (identity.store, info.clone());
        let found = move |cluster| {
            let first = BTreeMap::from([(store, founder.clone())]);
            Document::found(cluster, digest_key, factor, &first).map_err(|refusal| refusal.to_string())
        };
        let hellos = Calls(Peers::new(env.net.clone(), Me::new(identity.store, protocol)));
        let newcomer = Newcomer {
            documents: &documents,
            calls: &hellos,
            identity,
            peer_address: &at.peer,
            seeds: config.seeds.0.iter().map(|seed| seed.0.clone()).collect(),
            bucket_is_named: !config.bucket.is_empty(),
            bucket_url: config.bucket_url(),
            found: &found,
            fresh_cluster: ClusterId(fresh(env, "cluster")),
        };
        let mut arrival = newcomer.arrive().await?;
        if arrival.rolled_back {
            let (ledger, renewed) = (env.ledger.clone(), fresh(env, "renewed"));
            identity = on_disk(&*env.pool, move || Identity::renew(&*ledger, renewed)).await?;
        }
        if let Some(member) = arrival.document.members.get(&identity.store)
            && belongs(member)
            && member.zone != info.zone
        {
            let old = member.zone.clone();
            arrival.document = rezone(&documents, identity.store, old, info.zone.clone()).await?;
        }
        if factor != arrival.document.replication_factor {
            tracing::warn!(
                configured = factor,
                ring = arrival.document.replication_factor,
                "the ring's replication factor holds; `carillon ring replication-factor` changes it"
            );
        }
        let forgotten = arrival.forgotten && !arrival.rolled_back;
        Self::enter(config, env, identity, protocol, info, documents, bucket, arrival.document, forgotten)
            .await
    }

    #[allow(clippy::too_many_arguments, reason = "all that is known by then, once")]
    async fn enter(
        config: &Config,
        env: &Env,
        identity: Identity,
        protocol: Protocol,
        info: NewMember,
        documents: Documents,
        bucket: Arc<Bucket>,
        document: Document,
        forgotten: bool,
    ) -> Result<Arc<Self>, ArriveError> {
        let invalid = |e: Invalid| ArriveError::Ring(e.to_string());
        let me = Me::new(identity.store, protocol);
        let peers = Peers::new(env.net.clone(), me);
        let ages = documents.seen().await?.into_iter().collect();
        documents.adopt(&document).await?;
        documents.belongs_in(config.bucket_url()).await?;
        let view = Arc::new(View::new(document).map_err(invalid)?);
        let is_alone =
            view.document().members.iter().all(|(store, m)| *store == identity.store || !belongs(m));
        let cluster = Arc::new(Self {
            identity,
            info,
            documents,
            bucket,
            calls: Calls(peers.clone()),
            clock: env.clock.clone(),
            peers,
            gate: Gate::default(),
            adopting: tokio::sync::Mutex::default(),
            view: watch::Sender::new(view.clone()),
            ages: Mutex::new(ages),
            watermark: AtomicU64::new(identity.watermark),
            disclaimed_up_to: Mutex::default(),
            settings: ArcSwap::from_pointee(config.clone()),
            instance: fresh(env, "instance") as u64,
            keeper: OnceLock::new(),
            hints: OnceLock::new(),
            gossip: OnceLock::new(),
            missing: Mutex::default(),
            watched: Mutex::default(),
            clock_ahead_ms: Mutex::default(),
            noted: Mutex::default(),
            is_announced: AtomicBool::new(is_alone),
            leaving: Mutex::default(),
            ended: CancellationToken::new(),
            fail_stop: OnceLock::new(),
            stopped: CancellationToken::new(),
            forgotten,
            was_member: AtomicBool::new(false),
            begins_anew: CancellationToken::new(),
        });
        cluster.gate.close_below(view.epoch());
        cluster.publish(view);
        Ok(cluster)
    }
}

/// Puts a store that stands alone in the ring, as one does that is to become a cluster, into the zone of its
/// configuration.
async fn rezone(
    documents: &Documents,
    store: StoreId,
    old: String,
    new: String,
) -> Result<Document, ArriveError> {
    if let Some((document, tag)) = documents.current().await?
        && let Ok(changed) = document.set_zone(store, &new)
        && documents.swap(&tag, &changed).await?
    {
        tracing::info!(%store, old, new, "this store stands alone in the ring, and goes to another zone");
        return Ok(changed);
    }
    Err(ArriveError::Zone { store, old, new })
}

/// 128 bits from the node's source of randomness, for one purpose.
fn fresh(env: &Env, purpose: &str) -> u128 {
    let [low, high] = [env.seed as u64, (env.seed >> 64) as u64];
    xxh3_128_with_seed(&[purpose.as_bytes(), &high.to_le_bytes()].concat(), low)
}

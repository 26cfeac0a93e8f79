//! How a node finds its cluster when it starts, or founds one.
//!
//! The bucket decides which cluster there is and what its ring document is; the seeds must tell the same. In order:
//!
//! 1. A data folder that belongs to a cluster keeps to it. Without the bucket it goes by the newest document that its
//!    ledger or a peer has.
//! 2. A bucket that belongs to a cluster is joined.
//! 3. Where neither is so, a cluster is founded: at once by a node without seeds, or with itself as one; otherwise
//!    after none of the seeds has told of a cluster for a while. A store writes into its ledger which cluster it founds, and
//!    then that into the bucket: the first to write wins, and writes the first ring document. Others wait for it.
//!
//! Whatever contradicts that ends the start with both sides named.
//!
//! **Nothing is ever founded beside a cluster** that the bucket or a seed has told of: a bucket that names a cluster and has
//! no ring document has lost it, unless this very store is founding that cluster. What a second history would acknowledge
//! the first one's nodes would never ask for. Members start on their ledger's document then, and `super::restore` puts
//! the newest one back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ring::epoch::Offer;
use ring::{ClusterId, Document, StoreId};
use tokio::time::Instant;

use super::calls::{Calls, Hello, ask_all};
use super::documents::Documents;
use super::rollback::Age;
use crate::bucket;
use crate::identity::Identity;

/// How long nodes that could tell of a cluster are waited for before one is founded.
const FOUND_AFTER: Duration = Duration::from_secs(5);
/// Pause between looks, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Most members that are asked at a start what they know of this store.
const ASKED_MAX: usize = 16;

/// Why a node can't be part of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ArriveError {
    /// Seeds and bucket, or data folder and either, belong to different clusters.
    #[error(
        "{this} belongs to cluster {this_cluster}, and {other} to cluster {other_cluster}: this node can be part of \
         only one; correct --seed, --bucket or --data-dir"
    )]
    Clusters {
        /// One side.
        this: String,
        /// Its cluster.
        this_cluster: ClusterId,
        /// The other side.
        other: String,
        /// Its cluster.
        other_cluster: ClusterId,
    },
    /// Somebody else tells of a cluster that isn't in the bucket.
    #[error(
        "{this} belongs to cluster {cluster}, and the bucket {bucket} to none: give this node the cluster's --bucket \
         (where the bucket has moved, copy all of it first, with every node stopped)"
    )]
    NotInBucket {
        /// Seed or data folder.
        this: String,
        /// Its cluster.
        cluster: ClusterId,
        /// As configured.
        bucket: String,
    },
    /// Seeds without a bucket.
    #[error(
        "with --seed, --bucket must name what all nodes of the cluster share: a folder, s3://…, gs://… or az://…"
    )]
    NoBucket,
    /// The same data folder runs elsewhere.
    #[error(
        "store {store} already runs at {address}: this data folder is a copy of that node's; remove the copy and start \
         with an empty folder"
    )]
    Twin {
        /// This data folder's store.
        store: StoreId,
        /// Where the other one is.
        address: String,
    },
    /// The zone in the configuration isn't the one in the ring.
    #[error(
        "store {store} is a member in zone {old:?}, and the configuration says {new:?}: a member's zone can't change; \
         drain it first (`carillon node drain`)"
    )]
    Zone {
        /// This data folder's store.
        store: StoreId,
        /// In the ring.
        old: String,
        /// In the configuration.
        new: String,
    },
    /// The bucket can't be used.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    /// The ledger can't be used.
    #[error(transparent)]
    Storage(#[from] tsdb::Error),
    /// The ring doesn't allow it.
    #[error("{0}")]
    Ring(String),
}

/// What a node knows of itself before it knows its cluster.
pub(super) struct Newcomer<'a> {
    pub(super) documents: &'a Documents,
    pub(super) calls: &'a Calls,
    pub(super) identity: Identity,
    /// Where others reach it.
    pub(super) peer_address: &'a str,
    pub(super) seeds: Vec<String>,
    /// Whether the bucket was named in the configuration.
    pub(super) bucket_is_named: bool,
    /// As configured, for messages.
    pub(super) bucket_url: String,
    /// Makes a cluster's first document.
    pub(super) found: &'a (dyn Fn(ClusterId) -> Result<Document, String> + Sync),
    /// The id of a cluster that this node founds.
    pub(super) fresh_cluster: ClusterId,
}

/// What a node has found.
pub(super) struct Arrival {
    /// The newest document there is.
    pub(super) document: Document,
    /// Whether peers remember later starts of this store than it does itself: its disk was put back to an older state.
    pub(super) rolled_back: bool,
    /// Whether it was a member, and is none any more.
    pub(super) forgotten: bool,
}

/// What is to be done next.
#[derive(Debug)]
enum Verdict {
    Enter(Document),
    Found,
    Wait(String),
}

/// What this store's ledger tells of a cluster.
#[derive(Default)]
struct Kept {
    /// The last document that it adopted.
    document: Option<Document>,
    /// The cluster that it is about to found.
    founding: Option<ClusterId>,
    /// Whether the bucket is the one in which it found its cluster last.
    is_same_bucket: bool,
}

/// The bucket's answer.
type InBucket = Result<(Option<ClusterId>, Option<Document>), bucket::Error>;

impl Newcomer<'_> {
    /// Finds the cluster, or founds it; waits as long as that takes.
    ///
    /// # Errors
    /// Whatever waiting doesn't mend.
    pub(super) async fn arrive(&self) -> Result<Arrival, ArriveError> {
        let only_me = self.seeds.iter().all(|seed| seed == self.peer_address);
        if !only_me && !self.bucket_is_named {
            return Err(ArriveError::NoBucket);
        }
        let mut kept = Kept {
            document: self.documents.adopted().await?,
            founding: self.documents.founding().await?,
            is_same_bucket: self.documents.bucket_before().await?.is_some_and(|url| url == self.bucket_url),
        };
        let members = kept.document.as_ref().map(|d| self.addresses(d)).unwrap_or_default();
        let (began, mut pause) = (Instant::now(), RETRY_FIRST);
        let mut heard: BTreeMap<String, Hello> = BTreeMap::new();
        let document = loop {
            let asked: BTreeSet<String> = self.others().chain(members.iter().cloned()).collect();
            heard.extend(self.greet(&asked).await);
            // Behind it: a cluster that somebody tells of is in the bucket by then.
            let in_bucket = self.look().await;
            match self.judge(&kept, in_bucket, &heard, began.elapsed())? {
                Verdict::Enter(document) => break document,
                Verdict::Found => {
                    let fresh = kept.founding.unwrap_or(self.fresh_cluster);
                    self.documents.will_found(fresh).await?;
                    kept.founding = Some(fresh);
                    let cluster = self.documents.found_cluster(fresh).await?;
                    if cluster != fresh && !planted::is(planted::Bug::FoundedBeside) {
                        continue;
                    }
                    let document = (self.found)(cluster).map_err(ArriveError::Ring)?;
                    if self.documents.begin(&document).await? {
                        tracing::info!(%cluster, bucket = self.bucket_url, "founded a cluster");
                        break document;
                    }
                }
                Verdict::Wait(why) => {
                    tracing::warn!(why, waited_s = began.elapsed().as_secs(), "can't find the cluster yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        };
        self.look_around(kept.document.as_ref(), document, heard).await
    }

    /// Asks the members what they know of this store, and takes the newest document that any of them has.
    async fn look_around(
        &self,
        kept: Option<&Document>,
        mut document: Document,
        mut heard: BTreeMap<String, Hello>,
    ) -> Result<Arrival, ArriveError> {
        let me = self.identity.store;
        let unasked: BTreeSet<String> =
            self.addresses(&document).into_iter().filter(|address| !heard.contains_key(address)).collect();
        heard.extend(self.greet(&unasked).await);
        for (address, hello) in &heard {
            self.same_cluster(&format!("the node at {address}"), hello.cluster, document.cluster)?;
            if hello.store == me {
                return Err(ArriveError::Twin { store: me, address: address.clone() });
            }
        }
        if let Some((address, newest)) = heard.iter().max_by_key(|(_, hello)| hello.epoch)
            && newest.epoch > document.epoch
        {
            match self.calls.document_at(address).await {
                Ok(newer) => match document.compare(&newer) {
                    Ok(Offer::Newer) => document = newer,
                    Ok(_) => {}
                    Err(error) => tracing::error!(address, %error, "a peer's ring document isn't taken"),
                },
                Err(error) => tracing::warn!(address, %error, "a newer ring document couldn't be fetched"),
            }
        }
        let remembered = heard.values().map(|hello| hello.remembered).fold(Age::default(), Age::highest);
        let rolled_back = self.before().is_behind(remembered);
        if rolled_back {
            tracing::error!(
                store = %me, peers_saw = ?remembered, this_disk_remembers = ?self.before(),
                "this disk was put back to an older state: it becomes a new store"
            );
        }
        let was_member = kept.is_some_and(|kept| super::has_entered(kept, me));
        let is_member = document.members.get(&me).is_some_and(super::belongs);
        Ok(Arrival { document, rolled_back, forgotten: was_member && !is_member })
    }

    fn judge(
        &self,
        kept: &Kept,
        in_bucket: InBucket,
        heard: &BTreeMap<String, Hello>,
        waited: Duration,
    ) -> Result<Verdict, ArriveError> {
        let told = heard.iter().find_map(|(address, hello)| Some((address, hello.cluster?)));
        let seed = |address: &String| format!("the seed {address}");
        let bucket = || format!("the bucket {}", self.bucket_url);
        let founding = kept.founding;
        if let Kept { document: Some(kept), is_same_bucket, .. } = kept {
            let folder = "the data folder".to_owned();
            for (address, hello) in heard {
                self.same_cluster(&seed(address), hello.cluster, kept.cluster)?;
            }
            return match in_bucket {
                Ok((Some(cluster), found)) => {
                    if cluster != kept.cluster {
                        let (this, other) = (folder, bucket());
                        return Err(ArriveError::Clusters {
                            this,
                            this_cluster: kept.cluster,
                            other,
                            other_cluster: cluster,
                        });
                    }
                    Ok(Verdict::Enter(self.newer(kept, found)))
                }
                Ok((None, _)) if *is_same_bucket => {
                    let (cluster, bucket) = (kept.cluster, &self.bucket_url);
                    tracing::error!(
                        %cluster, bucket,
                        "the bucket doesn't know this cluster any more: was it emptied? Starting by the last known ring \
                         document; `carillon ring restore` puts it back"
                    );
                    Ok(Verdict::Enter(kept.clone()))
                }
                Ok((None, _)) => {
                    let bucket = self.bucket_url.clone();
                    Err(ArriveError::NotInBucket { this: folder, cluster: kept.cluster, bucket })
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "starting without the bucket, by the last known ring document");
                    Ok(Verdict::Enter(kept.clone()))
                }
                Err(error) => Err(error.into()),
            };
        }
        let (cluster, document) = match in_bucket {
            Ok(found) => found,
            Err(error) if error.is_transient() => return Ok(Verdict::Wait(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        match (cluster, told) {
            (Some(cluster), Some((address, other))) if cluster != other => Err(ArriveError::Clusters {
                this: seed(address),
                this_cluster: other,
                other: bucket(),
                other_cluster: cluster,
            }),
            (None, Some((address, cluster))) => Err(ArriveError::NotInBucket {
                this: seed(address),
                cluster,
                bucket: self.bucket_url.clone(),
            }),
            (cluster, _) => match (document, cluster) {
                (Some(document), _) => Ok(Verdict::Enter(document)),
                (None, Some(cluster)) if founding == Some(cluster) && told.is_none() => Ok(Verdict::Found),
                (None, Some(cluster)) if !planted::is(planted::Bug::FoundedBeside) => {
                    Ok(Verdict::Wait(format!(
                        "the bucket belongs to cluster {cluster} and has no ring document: whoever founds it hasn't \
                         written one yet, or it was lost; `carillon ring restore --yes`, asked of a member, puts it back \
                         (where no member has ever been, remove the object carillon/cluster)"
                    )))
                }
                (None, _) if self.may_found(waited) => Ok(Verdict::Found),
                (None, _) => {
                    Ok(Verdict::Wait("no seed answers, and the bucket belongs to no cluster yet".to_owned()))
                }
            },
        }
    }

    /// Whether the one who could know of a cluster has been waited for long enough.
    fn may_found(&self, waited: Duration) -> bool {
        let am_seed = self.seeds.is_empty() || self.seeds.iter().any(|seed| seed == self.peer_address);
        am_seed || waited >= FOUND_AFTER
    }

    /// The newer one of what the ledger has and what the bucket has.
    fn newer(&self, kept: &Document, found: Option<Document>) -> Document {
        let why = match found {
            None => "there is none".to_owned(),
            Some(found) => match kept.compare(&found) {
                Ok(Offer::Newer | Offer::Same) => return found,
                Ok(Offer::Older) => format!("it is of epoch {}", found.epoch),
                Err(conflict) => conflict.to_string(),
            },
        };
        tracing::error!(
            ledger = kept.epoch,
            why,
            "the bucket's ring document isn't this store's or a later one: was the bucket restored? It isn't taken, and \
             the ring stands still until `carillon ring restore` puts the newest one back"
        );
        kept.clone()
    }

    fn same_cluster(
        &self,
        other: &str,
        theirs: Option<ClusterId>,
        ours: ClusterId,
    ) -> Result<(), ArriveError> {
        match theirs {
            Some(theirs) if theirs != ours => Err(ArriveError::Clusters {
                this: other.to_owned(),
                this_cluster: theirs,
                other: format!("the bucket {}, or the data folder,", self.bucket_url),
                other_cluster: ours,
            }),
            _ => Ok(()),
        }
    }

    /// How far this store had come before this start, as its disk says.
    fn before(&self) -> Age {
        Age { incarnation: self.identity.previous, watermark: self.identity.watermark }
    }

    /// Says hello to these, all at once; who answered what.
    async fn greet(&self, addresses: &BTreeSet<String>) -> BTreeMap<String, Hello> {
        let (me, before) = (self.identity.store, self.before());
        ask_all(addresses.iter().cloned(), |address| {
            let calls = self.calls.clone();
            async move { calls.hello(&address, me, before).await }
        })
        .await
    }

    async fn look(&self) -> InBucket {
        let cluster = self.documents.cluster().await?;
        let document = self.documents.current().await?.map(|(document, _)| document);
        Ok((cluster, document))
    }

    /// Where other members are.
    fn addresses(&self, document: &Document) -> Vec<String> {
        let others =
            document.members.values().filter(|m| super::belongs(m) && m.peer_address != self.peer_address);
        others.map(|m| m.peer_address.clone()).take(ASKED_MAX).collect()
    }

    fn others(&self) -> impl Iterator<Item = String> {
        self.seeds.iter().filter(|seed| *seed != self.peer_address).cloned()
    }
}

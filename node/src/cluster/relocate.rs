//! Moving the bucket of a node that is stopped, so that others can share it: `carillon bucket move`.
//!
//! 1. The new bucket is marked as being filled ([`Mark`]) and given the cluster's id: no node starts with it.
//! 2. All objects are copied and read back.
//! 3. The old bucket's ring document is swapped for a mark that names the new bucket. This is the fence: it holds only
//!    if the document still is the one that was read, and from then on no node changes the ring there.
//! 4. What changes by compare-and-swap is copied again, in case it did.
//! 5. The new bucket's mark is swapped for the ring document.
//!
//! Cut anywhere, it is run again and goes on from what it finds: up to 3 the old bucket is the cluster's, from 5 the new
//! one, in between neither. The data folder is claimed meanwhile, so that the one member can't run; where there are
//! more, nothing is moved.

use std::collections::BTreeSet;

use object_store::path::Path;
use ring::{ClusterId, Document, Epoch, StoreId};

use super::belongs;
use super::documents::{Documents, Found, is_ring};
use super::mark::Mark;
use crate::bucket::{self, Bucket, Copied, Entry, Location, keys};
use crate::config::Config;
use crate::env::{Env, on_disk};
use crate::identity::Identity;

/// Tries of a swap that others win.
const SWAPS_MAX: u32 = 8;

/// Why a bucket isn't moved.
#[derive(Debug, thiserror::Error)]
pub enum RelocateError {
    /// The data folder is no member's.
    #[error("the data folder {0} belongs to no cluster: no node has run with it")]
    NoNode(String),
    /// The new bucket is the old one, or one lies in the other.
    #[error("{from} and {to} are the same place, or one lies inside the other: name another")]
    SamePlace {
        /// The old bucket.
        from: String,
        /// The new one.
        to: String,
    },
    /// A bucket that nobody else can see.
    #[error("{0} can't be shared: name a folder, s3://…, gs://… or az://…")]
    NotShared(String),
    /// One of the buckets belongs to another cluster.
    #[error(
        "the bucket {bucket} belongs to cluster {theirs}, and this node to cluster {ours}: nothing is moved"
    )]
    OtherCluster {
        /// Which bucket.
        bucket: String,
        /// Its cluster.
        theirs: ClusterId,
        /// The data folder's cluster.
        ours: ClusterId,
    },
    /// The old bucket isn't the node's.
    #[error("the bucket {0} belongs to no cluster: name the one that the node ran with by --bucket")]
    NotFrom(String),
    /// The old bucket was put back to an earlier state.
    #[error(
        "the ring document in the bucket {bucket} has epoch {found}, and this node has adopted epoch {adopted}: was \
         the bucket restored? Put the newest document back first"
    )]
    Restored {
        /// The old bucket.
        bucket: String,
        /// What it holds.
        found: Epoch,
        /// What the ledger holds.
        adopted: Epoch,
    },
    /// Other nodes use the bucket.
    #[error(
        "the bucket can be moved only while one node uses it, and {} use it: {}; drain the others first (`carillon \
         node drain`)",
        .0.len(),
        .0.join(", ")
    )]
    Shared(Vec<String>),
    /// The node isn't a member, or the ring is changing.
    #[error(
        "this node isn't settled in its ring: start it, wait until `carillon status` says so, and stop it again"
    )]
    Unsettled,
    /// It has been moved elsewhere, or is on its way there.
    #[error("the bucket {from} has been moved to {to}, or is on its way there: name that one")]
    Elsewhere {
        /// The old bucket.
        from: String,
        /// Where its mark points.
        to: String,
    },
    /// The new bucket is in use, or was.
    #[error("the bucket {to} isn't free: {why}; name an empty folder or prefix")]
    NotFree {
        /// The new bucket.
        to: String,
        /// What is there.
        why: String,
    },
    /// Others write to one of the buckets all the time.
    #[error("somebody else writes to the bucket {0}: stop them, and run this again")]
    Busy(String),
    /// A bucket can't be used.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    /// The ledger can't be used.
    #[error(transparent)]
    Storage(#[from] tsdb::Error),
}

type Result<T> = std::result::Result<T, RelocateError>;

/// A move that can be made, or has been.
pub struct Relocation {
    from: Documents,
    to: Documents,
    from_url: String,
    to_url: String,
    store: StoreId,
    cluster: ClusterId,
    entries: Vec<Entry>,
    is_finished: bool,
}

impl Relocation {
    /// Looks whether the bucket of the node that has this configuration can be moved to `to`. Writes nothing, but makes
    /// a folder.
    ///
    /// # Errors
    /// What speaks against it.
    pub async fn plan(config: &Config, env: &Env, to: &str) -> Result<Self> {
        let (from_url, to_url) = (absolute(&config.bucket_url())?, absolute(to)?);
        let (from, to) = (open(&from_url, env)?, open(&to_url, env)?);
        if *to.bucket.location() == Location::Memory {
            return Err(RelocateError::NotShared(to_url));
        }
        if from.bucket.location().overlaps(to.bucket.location()) {
            return Err(RelocateError::SamePlace { from: from_url, to: to_url });
        }
        let ledger = env.ledger.clone();
        let store = on_disk(&*env.pool, move || Identity::store(&*ledger)).await?;
        let (Some(store), Some(kept)) = (store, from.adopted().await?) else {
            return Err(RelocateError::NoNode(config.data_dir.0.display().to_string()));
        };
        let mut plan = Self {
            from,
            to,
            from_url,
            to_url,
            store,
            cluster: kept.cluster,
            entries: Vec::new(),
            is_finished: false,
        };
        plan.same_cluster(&plan.to_url, plan.to.cluster().await?)?;
        let cluster = plan.from.cluster().await?;
        plan.same_cluster(&plan.from_url, cluster)?;
        if cluster.is_none() {
            return Err(RelocateError::NotFrom(plan.from_url));
        }
        let is_fenced = match plan.from.read().await? {
            Found::Document(document, _) => {
                let (found, adopted) = (document.epoch, kept.epoch);
                if found < adopted {
                    return Err(RelocateError::Restored { bucket: plan.from_url, found, adopted });
                }
                plan.alone(&document)?;
                false
            }
            Found::Mark(mark, _) => plan.is_fence(&mark)?,
            Found::Nothing => return Err(RelocateError::NotFrom(plan.from_url)),
        };
        plan.is_finished = plan.look_at_target(is_fenced).await?;
        plan.entries = plan.from.bucket.list(&Path::default()).await?;
        plan.entries.retain(is_moved);
        Ok(plan)
    }

    /// Which cluster's bucket it is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The old bucket.
    pub fn from(&self) -> &str {
        &self.from_url
    }

    /// The new bucket.
    pub fn to(&self) -> &str {
        &self.to_url
    }

    /// Objects to be moved.
    pub fn objects(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Bytes of them.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size_bytes).sum()
    }

    /// Whether it has been made already.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Makes the move; `done` is told the bytes of each object as it is in the new bucket.
    ///
    /// # Errors
    /// What is in the way: run again, it goes on. [`bucket::Error::NoConditions`] where the new store can't be a
    /// cluster's bucket.
    pub async fn carry_out(self, done: &(dyn Fn(u64) + Sync)) -> Result<Copied> {
        if self.is_finished {
            return Ok(Copied::default());
        }
        let to = &self.to.bucket;
        to.prove().await?;
        self.claim().await?;
        let founded = self.to.found_cluster(self.cluster).await?;
        self.same_cluster(&self.to_url, Some(founded))?;
        let seen: BTreeSet<Path> = self.entries.iter().map(|entry| entry.key.clone()).collect();
        let copied = self.from.bucket.copy_to(to, self.entries.clone(), done).await?;
        let document = self.fence().await?;
        let mut again = self.from.bucket.list(&Path::default()).await?;
        again.retain(|entry| is_moved(entry) && (keys::is_own(&entry.key) || !seen.contains(&entry.key)));
        let late = self.from.bucket.copy_to(to, again, &|_| ()).await?;
        self.hand_over(&document).await?;
        Ok(Copied { written: copied.written + late.written, ..copied })
    }

    /// Marks the new bucket as being filled from the old one.
    async fn claim(&self) -> Result<()> {
        let mark = Mark::Filling { from: self.from_url.clone(), cluster: self.cluster };
        for _ in 0..SWAPS_MAX {
            let tag = match self.to.read().await? {
                Found::Mark(found, _) if found == mark => return Ok(()),
                Found::Mark(Mark::Moved { .. }, tag) => Some(tag),
                Found::Nothing => None,
                Found::Document(..) | Found::Mark(..) => break,
            };
            if self.to.mark(tag.as_ref(), &mark).await? {
                return Ok(());
            }
        }
        Err(RelocateError::Busy(self.to_url.clone()))
    }

    /// Ends the old bucket's time; the last ring document there.
    async fn fence(&self) -> Result<Document> {
        for _ in 0..SWAPS_MAX {
            let (document, tag) = match self.from.read().await? {
                Found::Document(document, tag) => (document, tag),
                Found::Mark(mark, _) if self.is_fence(&mark)? => {
                    let Mark::Moved { document, .. } = mark else { break };
                    return Ok(document);
                }
                Found::Mark(..) | Found::Nothing => break,
            };
            self.alone(&document)?;
            let mark = Mark::Moved { to: self.to_url.clone(), document: document.clone() };
            if self.from.mark(Some(&tag), &mark).await? {
                return Ok(document);
            }
        }
        Err(RelocateError::Busy(self.from_url.clone()))
    }

    /// Begins the new bucket's time.
    async fn hand_over(&self, document: &Document) -> Result<()> {
        for _ in 0..SWAPS_MAX {
            let tag = match self.to.read().await? {
                Found::Mark(Mark::Filling { .. }, tag) => tag,
                Found::Document(found, _) if found == *document => return Ok(()),
                _ => break,
            };
            if self.to.swap(&tag, document).await? {
                return Ok(());
            }
        }
        Err(RelocateError::Busy(self.to_url.clone()))
    }

    /// Whether the new bucket holds all already; an error where it holds something else.
    async fn look_at_target(&self, is_fenced: bool) -> Result<bool> {
        let not_free = |why: String| RelocateError::NotFree { to: self.to_url.clone(), why };
        match self.to.read().await? {
            Found::Document(..) if is_fenced => Ok(true),
            Found::Document(document, _) => {
                Err(not_free(format!("a ring is there, at epoch {}", document.epoch)))
            }
            Found::Mark(Mark::Filling { from, cluster }, _) => {
                self.same_cluster(&self.to_url, Some(cluster))?;
                match from == self.from_url {
                    true => Ok(false),
                    false => Err(not_free(format!("it is being filled from {from}"))),
                }
            }
            // This cluster's own, which comes back to where it was.
            Found::Mark(Mark::Moved { document, .. }, _) => {
                self.same_cluster(&self.to_url, Some(document.cluster)).map(|()| false)
            }
            Found::Nothing => {
                let own = self.to.bucket.list(&keys::own([])).await?;
                match own.iter().find(|entry| is_moved(entry)) {
                    None => Ok(false),
                    Some(entry) => Err(not_free(format!("it holds {}", entry.key))),
                }
            }
        }
    }

    /// Whether what stands in the old bucket is the mark of this very move.
    fn is_fence(&self, mark: &Mark) -> Result<bool> {
        match mark {
            Mark::Moved { to, .. } if *to == self.to_url => Ok(true),
            Mark::Moved { to, .. } => {
                Err(RelocateError::Elsewhere { from: self.from_url.clone(), to: to.clone() })
            }
            Mark::Filling { from, .. } => {
                let bucket = self.from_url.clone();
                Err(bucket::Error::Filling { bucket, from: from.clone() }.into())
            }
        }
    }

    /// That this store is the ring's one member.
    fn alone(&self, document: &Document) -> Result<()> {
        self.same_cluster(&self.from_url, Some(document.cluster))?;
        let members = document.members.iter().filter(|(_, member)| belongs(member));
        let (mine, others): (Vec<_>, Vec<_>) = members.partition(|(store, _)| **store == self.store);
        if !others.is_empty() {
            let all = mine.into_iter().chain(others);
            return Err(RelocateError::Shared(all.map(|(_, member)| member.name.clone()).collect()));
        }
        if mine.is_empty() || document.is_joint() { Err(RelocateError::Unsettled) } else { Ok(()) }
    }

    fn same_cluster(&self, bucket: &str, theirs: Option<ClusterId>) -> Result<()> {
        match theirs {
            Some(theirs) if theirs != self.cluster => {
                Err(RelocateError::OtherCluster { bucket: bucket.to_owned(), theirs, ours: self.cluster })
            }
            _ => Ok(()),
        }
    }
}

/// Whether an object goes along: all do but the ring document with its mark, the cluster's id, and leftovers.
fn is_moved(entry: &Entry) -> bool {
    !is_ring(&entry.key) && !keys::is_self_test(&entry.key)
}

fn open(url: &str, env: &Env) -> Result<Documents> {
    let bucket = Bucket::open(url, env)?;
    Ok(Documents { bucket, ledger: env.ledger.clone(), pool: env.pool.clone() })
}

/// As somebody in another folder would name it too.
fn absolute(url: &str) -> Result<String> {
    let Location::Folder(path) = Location::parse(url)? else { return Ok(url.to_owned()) };
    let path = std::path::absolute(&path).map_err(|e| tsdb::Error::io("find", path, e))?;
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;

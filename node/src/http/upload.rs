//! Uploading blocks, as Mimir has it: start with `meta.json`, send files, finish, ask until it is complete.
//!
//! ```text
//! POST /api/v1/upload/block/{ulid}/start             body: meta.json
//! POST /api/v1/upload/block/{ulid}/files?path=index  body: the file; also chunks/000001 and so on
//! POST /api/v1/upload/block/{ulid}/finish            the block is verified in the background
//! GET  /api/v1/upload/block/{ulid}/check             {"result":"uploading|validating|complete|failed","error":"…"}
//! ```
//! Files are written below `uploads/` in the data folder; what a crash leaves there is removed at the next start. At the end
//! the block is read whole; where it has external labels, it is written anew with them as labels of its series
//! (`crate::bucket::foreign`).
//!
//! `complete` is an ack like that of a write: a node alone has the block on its disk; in a cluster it lies in the bucket, was
//! read back, is listed in the tenant's catalog, and no complete answer does without it any more, whichever node gives it and
//! whatever becomes of this one. Until it is listed nobody sees anything of it. Its name in the bucket is made of the tenant and
//! of what the block says of itself, so that it is there once however often and through however many nodes it comes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tsdb::block::{Block, BlockMeta};
use tsdb::disk::{Disk, DiskFile};
use tsdb::model::{Labels, TenantId};
use tsdb::{Error, files};
use ulid::Ulid;

use super::error::{ApiError, Kind};
use super::params::{Params, Tenant};
use super::routes::{Effect, Routes};
use crate::bucket::foreign::{self, Terms};
use crate::config::Config;
use crate::env::{Work, on_disk, run_on};
use crate::node::App;
use crate::query;
use crate::text::shortened;
use crate::time::format_rfc3339;

/// Uploads that are known at once; finished ones are forgotten first.
const UPLOADS_MAX: usize = 1000;
/// Largest `meta.json`.
const META_BYTES_MAX: usize = 8 << 20;
/// Largest single file: beyond an index's own bound.
const FILE_BYTES_MAX: u64 = 64 << 30;
/// Longest silence inside a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Where a block is written anew, inside of its upload's folder.
const EXTENDED_DIR: &str = "extended";
/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

pub(super) fn routes() -> Routes {
    Routes::default()
        .route("/api/v1/upload/block/{block}/start", Effect::Upload, post(start))
        .route("/api/v1/upload/block/{block}/files", Effect::Upload, post(file))
        .route("/api/v1/upload/block/{block}/finish", Effect::Upload, post(finish))
        .route("/api/v1/upload/block/{block}/check", Effect::Read, get(check))
}

/// The uploads that are under way, or were.
#[derive(Default)]
pub struct Uploads(Mutex<HashMap<(TenantId, Ulid), Upload>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Upload {
    /// Files come. Whoever writes one has the token too: a file mustn't change after it was verified.
    Uploading(Arc<()>),
    Validating,
    Complete,
    Failed(String),
}

impl Uploads {
    /// Removes what a crash left.
    ///
    /// # Errors
    /// When the folder can't be removed.
    pub fn clean(disk: &dyn Disk) -> tsdb::Result<()> {
        let dir = Path::new(files::UPLOADS_DIR);
        match disk.remove_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| Error::io("remove", dir, e)),
        }
    }

    fn state(&self, key: &(TenantId, Ulid)) -> Option<Upload> {
        self.0.lock().get(key).cloned()
    }

    fn set(&self, key: &(TenantId, Ulid), state: Upload) {
        self.0.lock().insert(key.clone(), state);
    }

    /// Begins an upload, or begins it again after it failed, or after the block that it brought was removed.
    fn begin(&self, key: &(TenantId, Ulid)) -> Result<(), ApiError> {
        let mut uploads = self.0.lock();
        match uploads.get(key) {
            Some(Upload::Validating) => return Err(bad("the block is being verified")),
            Some(Upload::Uploading(token)) if Arc::strong_count(token) > 1 => return Err(still_sent()),
            Some(Upload::Uploading(_) | Upload::Complete | Upload::Failed(_)) | None => {}
        }
        if uploads.len() >= UPLOADS_MAX {
            uploads.retain(|_, state| matches!(state, Upload::Uploading(_) | Upload::Validating));
        }
        if uploads.len() >= UPLOADS_MAX {
            return Err(ApiError::new(Kind::TooMany, "too many uploads are under way"));
        }
        uploads.insert(key.clone(), Upload::Uploading(Arc::default()));
        Ok(())
    }

    /// Lets a file of a block come; to be held until it is written.
    fn file(&self, key: &(TenantId, Ulid)) -> Result<Arc<()>, ApiError> {
        match self.0.lock().get(key) {
            Some(Upload::Uploading(token)) => Ok(token.clone()),
            _ => Err(not_started()),
        }
    }

    /// Ends the files of a block; `false` where that was done before.
    fn finish(&self, key: &(TenantId, Ulid)) -> Result<bool, ApiError> {
        match self.0.lock().get_mut(key) {
            Some(Upload::Uploading(token)) if Arc::strong_count(token) > 1 => Err(still_sent()),
            Some(state @ Upload::Uploading(_)) => {
                *state = Upload::Validating;
                Ok(true)
            }
            Some(Upload::Validating | Upload::Complete) => Ok(false),
            Some(Upload::Failed(_)) | None => Err(not_started()),
        }
    }
}

fn still_sent() -> ApiError {
    ApiError::new(Kind::Unavailable, "a file of the block is still being sent; try again")
}

fn not_started() -> ApiError {
    bad("the upload wasn't started")
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(Kind::BadData, message)
}

fn block_id(text: &str) -> Result<Ulid, ApiError> {
    Ulid::from_string(text).map_err(|_| bad(format!("{text:?} isn't a block's ULID")))
}

/// Where an upload's files lie.
fn folder(tenant: &TenantId, block: Ulid) -> PathBuf {
    Path::new(files::UPLOADS_DIR).join(tenant.as_str()).join(block.to_string())
}

async fn start(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    UrlPath(block): UrlPath<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let block = block_id(&block)?;
    let body = http_body_util::Limited::new(body, META_BYTES_MAX);
    let meta = body.collect().await.map_err(|e| bad(format!("meta.json can't be read: {e}")))?.to_bytes();
    let parsed = BlockMeta::from_json(&meta).map_err(|e| bad(e.to_string()))?;
    if parsed.ulid != block {
        return Err(bad(format!("meta.json is that of block {}", parsed.ulid)));
    }
    let is_there = match app.queries.has_others() {
        true => is_in_bucket(&app, &tenant, &parsed).await?,
        false => is_here(&app, &tenant, &parsed).await?,
    };
    if is_there {
        return Err(ApiError::new(Kind::Conflict, format!("tenant {tenant} has block {block} already")));
    }
    let config = app.config.load_full();
    terms(&app, &config, &tenant).judge(&parsed).map_err(bad)?;
    app.uploads.begin(&(tenant.clone(), block))?;
    let (disk, dir) = (app.env.disk.clone(), folder(&tenant, block));
    on_disk(&*app.env.pool, move || {
        let io = |e| Error::io("write", &dir, e);
        match disk.remove_dir(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
        disk.create_dir(&dir.join(files::BLOCK_CHUNKS_DIR)).map_err(io)?;
        let file = disk.create(&dir.join(files::BLOCK_META)).map_err(io)?;
        file.write_at(0, &meta).and_then(|()| file.sync()).map_err(io)
    })
    .await?;
    Ok(StatusCode::OK)
}

/// Whether this node has a block, for itself.
async fn is_here(app: &App, tenant: &TenantId, offered: &BlockMeta) -> Result<bool, ApiError> {
    let block = offered.ulid;
    let (disk, own) = (app.env.disk.clone(), files::tenant(tenant).join(block.to_string()));
    let stored = on_disk(&*app.env.pool, move || {
        let size = disk.size_bytes(&own.join(files::BLOCK_META));
        match size.map_err(|e| Error::io("look for", &own, e))? {
            Some(_) => BlockMeta::read(&*disk, &own).map(Some),
            None => Ok(None),
        }
    });
    match stored.await? {
        Some(stored) if foreign::is_same(&stored, offered) => Ok(true),
        Some(stored) => Err(bad(format!(
            "tenant {tenant} has another block that is called {block}: from {} to {}, {} samples",
            format_rfc3339(stored.min_ms),
            format_rfc3339(stored.max_ms),
            stored.stats.num_samples
        ))),
        None => Ok(false),
    }
}

/// Whether a block is listed for all nodes; on return, if it is, all know of it. What this node alone has doesn't count.
async fn is_in_bucket(app: &Arc<App>, tenant: &TenantId, offered: &BlockMeta) -> Result<bool, ApiError> {
    let unavailable = |why: String| ApiError::new(Kind::Unavailable, why);
    let catalog = app.blocks.catalogs.refresh(tenant).await;
    let catalog = catalog.map_err(|e| unavailable(format!("blocks are kept in the bucket, and {e}")))?;
    let Some(listed) = catalog.block(foreign::name_in_bucket(tenant, offered)) else { return Ok(false) };
    let known = query::make_known(app, tenant, listed.version).await;
    known.map_err(|few| unavailable(format!("the block is in the bucket, but {few}")))?;
    Ok(true)
}

/// What blocks of a tenant are judged by.
fn terms<'a>(app: &App, config: &'a Config, tenant: &TenantId) -> Terms<'a> {
    let limits = config.limits_of(tenant.as_str());
    Terms { now_ms: app.env.clock.now_ms(), retention: config.retention, limits }
}

/// A block's file by its path in the block: nothing else may be written.
fn file_path(path: &str) -> Result<&Path, ApiError> {
    let is_chunk_file =
        |name: &str| name.len() >= 6 && name.len() <= 10 && name.bytes().all(|b| b.is_ascii_digit());
    let known = path == files::BLOCK_INDEX || path.strip_prefix("chunks/").is_some_and(is_chunk_file);
    if known { Ok(Path::new(path)) } else { Err(bad(format!("{path:?} is neither index nor chunks/NNNNNN"))) }
}

async fn file(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    UrlPath(block): UrlPath<String>,
    request: axum::extract::Request,
) -> Result<StatusCode, ApiError> {
    let block = block_id(&block)?;
    let (parts, body) = request.into_parts();
    let params = Params::of_url(&parts)?;
    let path = folder(&tenant, block).join(file_path(params.get("path").unwrap_or_default())?);
    let _token = app.uploads.file(&(tenant, block))?;
    receive_file(&app, path, body).await?;
    Ok(StatusCode::OK)
}

/// Writes a body to a file, piece by piece.
async fn receive_file(app: &App, path: PathBuf, mut body: Body) -> Result<(), ApiError> {
    let (disk, pool) = (app.env.disk.clone(), &*app.env.pool);
    let at = path.clone();
    let created = on_disk(pool, move || {
        // Sent again, it begins anew.
        match disk.remove_file(&at) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        disk.create(&at)
    });
    let io = |e| Error::io("write", &path, e);
    let file: Arc<dyn DiskFile> = created.await.map_err(io)?;
    let mut offset = 0;
    let mut gathered = Vec::with_capacity(WRITE_BYTES);
    loop {
        let frame = tokio::time::timeout(BODY_TIMEOUT, body.frame());
        let frame = frame.await.map_err(|_| bad(format!("the body fell silent for {BODY_TIMEOUT:?}")))?;
        let last = frame.is_none();
        if let Some(frame) = frame {
            let frame = frame.map_err(|e| bad(format!("the body can't be read: {e}")))?;
            gathered.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
        if gathered.len() >= WRITE_BYTES || last {
            let length = gathered.len() as u64;
            if offset + length > FILE_BYTES_MAX {
                return Err(ApiError::new(
                    Kind::TooLarge,
                    format!("the file has more than {FILE_BYTES_MAX} bytes"),
                ));
            }
            let piece = std::mem::replace(&mut gathered, Vec::with_capacity(WRITE_BYTES));
            let file = file.clone();
            on_disk(pool, move || {
                file.write_at(offset, &piece)?;
                if last { file.sync() } else { Ok(()) }
            })
            .await
            .map_err(io)?;
            offset += length;
        }
        if last {
            return Ok(());
        }
    }
}

async fn finish(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    UrlPath(block): UrlPath<String>,
) -> Result<StatusCode, ApiError> {
    let block = block_id(&block)?;
    let key = (tenant, block);
    // A tenant that never wrote begins to exist with its block. Before the state changes: where the node takes no more
    // tenants, nobody would ever end the validation.
    app.intake.tenant(&key.0)?;
    if !app.uploads.finish(&key)? {
        return Ok(StatusCode::OK);
    }
    tokio::spawn(async move {
        let state = match take(&app, &key.0, block).await {
            Ok(()) => Upload::Complete,
            Err(why) => {
                tracing::warn!(tenant = %key.0, %block, error = why, "an uploaded block isn't taken");
                Upload::Failed(shortened(why))
            }
        };
        app.uploads.set(&key, state);
    });
    Ok(StatusCode::OK)
}

/// Takes a block whose files are all there, or says why not; its upload's folder is gone then.
async fn take(app: &Arc<App>, tenant: &TenantId, block: Ulid) -> Result<(), String> {
    let dir = folder(tenant, block);
    let (own, of, at) = (app.clone(), tenant.clone(), dir.clone());
    let prepared = run_on(&*app.env.pool, Work::Bulk, move || Prepared::new(&own, &of, &at)).await;
    let taken = match prepared {
        Ok(prepared) => keep(app, tenant, prepared).await,
        Err(error) => Err(error.to_string()),
    };
    let disk = app.env.disk.clone();
    on_disk(&*app.env.pool, move || match disk.remove_dir(&dir) {
        // A block that was added is no longer there.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "what is left of an upload can't be removed");
        }
        _ => {}
    })
    .await;
    taken
}

/// Keeps a block as safely as samples that are acked: where others keep something too, in the bucket, listed and known to
/// them; a node alone keeps it itself.
async fn keep(app: &Arc<App>, tenant: &TenantId, Prepared { dir, name }: Prepared) -> Result<(), String> {
    loop {
        let epoch = app.cluster.view().epoch();
        if app.queries.has_others() {
            let listed = app.blocks.shipper.import(tenant, &dir, name).await;
            let version =
                listed.map_err(|e| format!("nothing of it is stored: {e}; import it again after that"))?;
            let known = query::make_known(app, tenant, version).await;
            return known.map_err(|few| format!("it is in the bucket, but {few}"));
        }
        // Until it is there, no other node is let into the ring: what a node has when another comes goes to the bucket.
        if let Ok(admission) = app.cluster.admit(epoch) {
            let (db, tenant) = (app.storage.db().clone(), tenant.clone());
            let added = run_on(&*app.env.pool, Work::Bulk, move || {
                let added = db.add_block(&tenant, &dir);
                drop(admission);
                added
            });
            return added.await.map_err(|e| e.to_string());
        }
        tokio::task::yield_now().await;
    }
}

/// A block that was found to be good, as it is to be kept.
struct Prepared {
    /// Where it lies: the upload's folder or, where it was written anew, one in that.
    dir: PathBuf,
    /// What it is called in a bucket of many.
    name: Ulid,
}

impl Prepared {
    /// Verifies a block whole, and writes it anew where it has external labels.
    fn new(app: &App, tenant: &TenantId, dir: &Path) -> tsdb::Result<Self> {
        let external = verify(app, tenant, dir)?;
        let block = Block::open(&*app.env.disk, dir)?;
        let name = foreign::name_in_bucket(tenant, block.meta());
        let dir = match external.is_empty() {
            true => dir.to_owned(),
            false => extended(app, dir, &block, &external)?,
        };
        Ok(Self { dir, name })
    }
}

/// Reads all of a block; its external labels.
fn verify(app: &App, tenant: &TenantId, dir: &Path) -> tsdb::Result<Labels> {
    let disk = &*app.env.disk;
    disk.sync_dir(&dir.join(files::BLOCK_CHUNKS_DIR))
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|e| Error::io("sync", dir, e))?;
    let block = Block::open(disk, dir)?;
    let report = block.verify();
    if let Some(first) = report.problems.first() {
        return Err(Error::Invalid(format!(
            "the block has {} problems; the first: {first}",
            report.problem_count
        )));
    }
    let config = app.config.load_full();
    let terms = terms(app, &config, tenant);
    if let Some(range_ms) = report.range_ms {
        terms.judge_newest(block.meta(), *range_ms.end()).map_err(Error::Invalid)?;
    }
    terms.judge(block.meta()).map_err(Error::Invalid)
}

/// Writes a block anew inside of its folder, with more labels; where it lies then.
fn extended(app: &App, dir: &Path, block: &Block, external: &Labels) -> tsdb::Result<PathBuf> {
    let parent = dir.join(EXTENDED_DIR);
    app.env.disk.create_dir(&parent).map_err(|e| Error::io("create", &parent, e))?;
    let meta = foreign::extended_meta(block.meta());
    let extended = tsdb::compact::extend(&app.env.disk, &parent, meta, block, external)?;
    let extended = extended.ok_or_else(|| Error::Invalid("the block holds no samples".to_owned()))?;
    Ok(parent.join(extended.ulid.to_string()))
}

async fn check(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    UrlPath(block): UrlPath<String>,
) -> Result<Response, ApiError> {
    let block = block_id(&block)?;
    let body = match app.uploads.state(&(tenant, block)) {
        Some(Upload::Uploading(_)) => serde_json::json!({"result": "uploading"}),
        Some(Upload::Validating) => serde_json::json!({"result": "validating"}),
        Some(Upload::Failed(error)) => serde_json::json!({"result": "failed", "error": error}),
        Some(Upload::Complete) => serde_json::json!({"result": "complete"}),
        None => return Err(ApiError::new(Kind::NotFound, "there is no such upload")),
    };
    Ok(([(CONTENT_TYPE, "application/json")], body.to_string()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_blocks_own_files_can_be_written() {
        for path in ["index", "chunks/000001", "chunks/1234567"] {
            assert!(file_path(path).is_ok(), "{path}");
        }
        for path in [
            "",
            "meta.json",
            "../index",
            "chunks/",
            "chunks/../index",
            "chunks/00000a",
            "/index",
            "tombstones",
        ] {
            assert!(file_path(path).is_err(), "{path}");
        }
    }
}

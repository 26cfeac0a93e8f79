//! Uploading blocks, as Mimir has it: start with `meta.json`, send files, finish, ask until it is complete.
//!
//! ```text
//! POST /api/v1/upload/block/{ulid}/start             body: meta.json
//! POST /api/v1/upload/block/{ulid}/files?path=index  body: the file; also chunks/000001 and so on
//! POST /api/v1/upload/block/{ulid}/finish            the block is verified in the background
//! GET  /api/v1/upload/block/{ulid}/check             {"result":"uploading|validating|complete|failed","error":"…"}
//! ```
//! Files are written below `uploads/` in the data folder; what a crash leaves there is removed at the next start.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
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
use tsdb::model::TenantId;
use tsdb::{Error, files};
use ulid::Ulid;

use super::error::{ApiError, Kind};
use super::params::{Params, Tenant};
use crate::env::{Work, on_disk, run_on};
use crate::node::App;
use crate::text::shortened;

/// Uploads that are known at once; finished ones are forgotten first.
const UPLOADS_MAX: usize = 1000;
/// Largest `meta.json`.
const META_BYTES_MAX: usize = 8 << 20;
/// Largest single file: beyond an index's own bound.
const FILE_BYTES_MAX: u64 = 64 << 30;
/// Longest silence inside a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/upload/block/{block}/start", post(start))
        .route("/api/v1/upload/block/{block}/files", post(file))
        .route("/api/v1/upload/block/{block}/finish", post(finish))
        .route("/api/v1/upload/block/{block}/check", get(check))
}

/// The uploads that are under way, or were.
#[derive(Default)]
pub struct Uploads(Mutex<HashMap<(TenantId, Ulid), Upload>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Upload {
    Uploading,
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
            Some(Upload::Uploading | Upload::Complete | Upload::Failed(_)) | None => {}
        }
        if uploads.len() >= UPLOADS_MAX {
            uploads.retain(|_, state| matches!(state, Upload::Uploading | Upload::Validating));
        }
        if uploads.len() >= UPLOADS_MAX {
            return Err(ApiError::new(Kind::TooMany, "too many uploads are under way"));
        }
        uploads.insert(key.clone(), Upload::Uploading);
        Ok(())
    }
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
    let (disk, own) = (app.env.disk.clone(), files::tenant(&tenant).join(block.to_string()));
    let is_there = on_disk(&*app.env.pool, move || {
        disk.size_bytes(&own.join(files::BLOCK_META)).map_err(|e| Error::io("look for", &own, e))
    });
    if is_there.await?.is_some() {
        return Err(ApiError::new(Kind::Conflict, format!("tenant {tenant} has block {block} already")));
    }
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
    use axum::extract::FromRequest as _;
    let block = block_id(&block)?;
    let (parts, body) = request.into_parts();
    let url_only = axum::extract::Request::from_parts(parts, Body::empty());
    let params = Params::from_request(url_only, &app).await?;
    let path = folder(&tenant, block).join(file_path(params.get("path").unwrap_or_default())?);
    if app.uploads.state(&(tenant, block)) != Some(Upload::Uploading) {
        return Err(bad("the upload wasn't started"));
    }
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
    app.tenant(&key.0)?;
    {
        let mut uploads = app.uploads.0.lock();
        match uploads.get_mut(&key) {
            Some(state @ Upload::Uploading) => *state = Upload::Validating,
            Some(Upload::Validating | Upload::Complete) => return Ok(StatusCode::OK),
            Some(Upload::Failed(_)) | None => return Err(bad("the upload wasn't started")),
        }
    }
    tokio::spawn(async move {
        let own = app.clone();
        let dir = folder(&key.0, block);
        let tenant = key.0.clone();
        let added = run_on(&*app.env.pool, Work::Bulk, move || add(&own, &tenant, &dir)).await;
        let state = match added {
            Ok(()) => Upload::Complete,
            Err(error) => {
                tracing::warn!(tenant = %key.0, %block, %error, "an uploaded block is refused");
                Upload::Failed(shortened(error.to_string()))
            }
        };
        app.uploads.set(&key, state);
    });
    Ok(StatusCode::OK)
}

/// Verifies the block whole, then adds it; a bad one is removed.
fn add(app: &App, tenant: &TenantId, dir: &Path) -> tsdb::Result<()> {
    let disk = &*app.env.disk;
    let added = verify(disk, dir).and_then(|()| app.storage.db().add_block(tenant, dir));
    if added.is_err()
        && let Err(error) = disk.remove_dir(dir)
    {
        tracing::warn!(dir = %dir.display(), %error, "a refused block can't be removed");
    }
    added
}

fn verify(disk: &dyn Disk, dir: &Path) -> tsdb::Result<()> {
    disk.sync_dir(&dir.join(files::BLOCK_CHUNKS_DIR))
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|e| Error::io("sync", dir, e))?;
    let report = Block::open(disk, dir)?.verify();
    match report.problems.first() {
        None => Ok(()),
        Some(first) => Err(Error::Invalid(format!(
            "the block has {} problems; the first: {first}",
            report.problem_count
        ))),
    }
}

async fn check(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    UrlPath(block): UrlPath<String>,
) -> Result<Response, ApiError> {
    let block = block_id(&block)?;
    let body = match app.uploads.state(&(tenant, block)) {
        Some(Upload::Uploading) => serde_json::json!({"result": "uploading"}),
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

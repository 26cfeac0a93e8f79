//! Hands a block to a node, by the calls that Mimir has for it.
//!
//! 1. `POST /api/v1/upload/block/ULID/start` with `meta.json`, which lists the files;
//! 2. `POST …/files?path=PATH` for the index and each chunk file;
//! 3. `POST …/finish`, and `GET …/check` until the node has read the block and taken it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tsdb::block::BlockMeta;
use tsdb::disk::Disk;
use tsdb::files;

use crate::cli::Failure;
use crate::cli::api::Api;

/// Between looks at whether the node has taken a block.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a node may take to read a block: the largest have some 100 GB.
const CHECK_LIMIT: Duration = Duration::from_secs(3600);

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uploaded {
    /// The node has it now.
    Taken,
    /// The node had it before.
    AlreadyThere,
}

/// Uploads the block in `dir`, which has no tombstones. `progress` hears of bytes sent.
///
/// # Errors
/// When the node can't be reached or refuses the block, with its reason.
pub(super) async fn upload(
    api: &Api,
    disk: &dyn Disk,
    dir: &Path,
    progress: impl Fn(u64),
) -> Result<Uploaded, Failure> {
    let (meta, files) = match offer(api, disk, dir).await? {
        Offered::Wanted(meta, files) => (*meta, files),
        Offered::AlreadyThere => return Ok(Uploaded::AlreadyThere),
    };
    let call = |step: &str| call(&meta, step);
    for (path, size_bytes) in files {
        let bytes =
            disk.map(&dir.join(&path), 0..size_bytes).map_err(|e| tsdb::Error::io("read", &path, e))?;
        let name = path.to_string_lossy().into_owned();
        let (status, text) = api.post_bytes(&call("files"), &[("path", &name)], bytes).await?;
        accepted(&meta, &name, status, &text)?;
        progress(size_bytes);
    }
    let (status, text) = api.post_bytes(&call("finish"), &[], bytes::Bytes::new()).await?;
    accepted(&meta, "finish", status, &text)?;
    wait_until_taken(api, &meta, &call("check")).await
}

/// What a node says to a block of which it knows `meta.json` alone.
#[derive(Debug)]
pub(super) enum Offered {
    /// It waits for the files, which are these with their sizes in bytes.
    Wanted(Box<BlockMeta>, Vec<(PathBuf, u64)>),
    /// It has the block.
    AlreadyThere,
}

/// Begins an upload: the node judges what the block says of itself.
///
/// # Errors
/// When the node can't be reached or refuses the block, with its reason.
pub(super) async fn offer(api: &Api, disk: &dyn Disk, dir: &Path) -> Result<Offered, Failure> {
    let mut meta = BlockMeta::read(disk, dir)?;
    let files = block_files(disk, dir)?;
    list_files(&mut meta, &files);
    let (status, text) = api.post_bytes(&call(&meta, "start"), &[], meta.to_json().into()).await?;
    if status == reqwest::StatusCode::CONFLICT {
        return Ok(Offered::AlreadyThere);
    }
    accepted(&meta, "begin", status, &text)?;
    Ok(Offered::Wanted(Box::new(meta), files))
}

fn call(meta: &BlockMeta, step: &str) -> String {
    format!("/api/v1/upload/block/{}/{step}", meta.ulid)
}

async fn wait_until_taken(api: &Api, meta: &BlockMeta, path: &str) -> Result<Uploaded, Failure> {
    let deadline = tokio::time::Instant::now() + CHECK_LIMIT;
    loop {
        let state = api.get_plain(path).await?;
        match state["result"].as_str() {
            Some("complete") => return Ok(Uploaded::Taken),
            Some("failed") => {
                let why = state["error"].as_str().unwrap_or("it gives no reason");
                return Err(Failure::failed(format!("the node refused block {}: {why}", meta.ulid)));
            }
            _ if tokio::time::Instant::now() > deadline => {
                return Err(Failure::failed(format!(
                    "the node didn't take block {} in time: {state}",
                    meta.ulid
                )));
            }
            _ => tokio::time::sleep(CHECK_INTERVAL).await,
        }
    }
}

fn accepted(meta: &BlockMeta, step: &str, status: reqwest::StatusCode, text: &str) -> Result<(), Failure> {
    if status.is_success() {
        return Ok(());
    }
    Err(Failure::failed(format!("the node refused block {} ({step}): {status}: {}", meta.ulid, text.trim())))
}

/// Index and chunk files of a block, relative to it, with their sizes in bytes.
fn block_files(disk: &dyn Disk, dir: &Path) -> Result<Vec<(PathBuf, u64)>, Failure> {
    let size = |path: &Path| disk.size_bytes(&dir.join(path)).map_err(|e| tsdb::Error::io("open", path, e));
    let mut found = Vec::new();
    let chunks = disk
        .list(&dir.join(files::BLOCK_CHUNKS_DIR))
        .map_err(|e| tsdb::Error::io("list", dir.join(files::BLOCK_CHUNKS_DIR), e))?;
    let chunks = chunks.into_iter().filter(|entry| !entry.is_dir);
    let mut paths: Vec<_> = chunks.map(|entry| Path::new(files::BLOCK_CHUNKS_DIR).join(entry.name)).collect();
    paths.push(files::BLOCK_INDEX.into());
    for path in paths {
        if let Some(size_bytes) = size(&path)? {
            found.push((path, size_bytes));
        }
    }
    Ok(found)
}

/// Puts the list of files where a node looks for it.
fn list_files(meta: &mut BlockMeta, files: &[(PathBuf, u64)]) {
    let mut listed: Vec<_> = files
        .iter()
        .map(|(path, size_bytes)| json!({"rel_path": path.to_string_lossy(), "size_bytes": size_bytes}))
        .collect();
    listed.push(json!({"rel_path": files::BLOCK_META}));
    let thanos =
        meta.other.entry("thanos").or_insert_with(|| json!({"labels": {}, "downsample": {"resolution": 0}}));
    if !thanos.is_object() {
        *thanos = json!({});
    }
    thanos["files"] = Value::Array(listed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_beside_what_the_meta_says_already() {
        let mut meta = BlockMeta::new(ulid::Ulid::from_parts(1, 1), 0, 10);
        meta.other.insert("thanos".to_owned(), json!({"labels": {"replica": "a"}}));
        list_files(&mut meta, &[("index".into(), 7)]);
        assert_eq!(
            meta.other["thanos"],
            json!({
                "labels": {"replica": "a"},
                "files": [{"rel_path": "index", "size_bytes": 7}, {"rel_path": "meta.json"}],
            })
        );
    }
}

//! `meta.json` as it stands in the bucket: a block's own, with the section that Thanos adds, and in it ours.
//!
//! ```json
//! "thanos": {
//!   "version": 1,
//!   "labels": { "tenant_id": "default", "carillon_replica": "STORE" },
//!   "downsample": { "resolution": 0 },
//!   "source": "receive",
//!   "files": [ { "rel_path": "chunks/000001", "size_bytes": 123 }, … { "rel_path": "meta.json" } ],
//!   "upload_time": "2026-11-22T12:00:00Z",
//!   "extensions": { "carillon": { "cluster": "…", "store": "…", "intent": "…", "crc32c": { "index": "e3069283", … } } }
//! }
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tsdb::block::BlockMeta;
use tsdb::files;

use crate::time::format_rfc3339;

/// The section's name in `meta.json`.
pub(super) const SECTION: &str = "thanos";
/// Where others may put what is theirs, and where ours is.
pub(super) const OURS: &str = "carillon";
/// External labels: they tell Thanos that replicas of a tenant's blocks are replicas.
pub const TENANT_LABEL: &str = "tenant_id";
/// As [`TENANT_LABEL`]: which store a block came from.
pub const REPLICA_LABEL: &str = "carillon_replica";
/// Most files that a block may have: 512 MB each.
const FILES_MAX: usize = 100_000;

/// A file of a block in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockFile {
    /// Its name in the block's folder: `chunks/000001`.
    pub(super) name: String,
    pub(super) size_bytes: u64,
    /// CRC32C of its bytes, where the block's maker said it.
    pub(super) crc32c: Option<u32>,
}

/// Who uploads, and what.
pub(super) struct Upload<'a> {
    pub(super) tenant: &'a str,
    pub(super) store: String,
    pub(super) cluster: Option<String>,
    pub(super) intent: &'a str,
    pub(super) time_ms: i64,
    pub(super) files: &'a [BlockFile],
}

#[derive(Deserialize, Serialize)]
struct ListedFile {
    rel_path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
}

/// The bytes of the `meta.json` to upload: the same for the same upload.
pub(super) fn meta_to_upload(mut meta: BlockMeta, upload: &Upload<'_>) -> Vec<u8> {
    let mut listed: Vec<_> = upload
        .files
        .iter()
        .map(|file| ListedFile { rel_path: file.name.clone(), size_bytes: Some(file.size_bytes) })
        .collect();
    listed.push(ListedFile { rel_path: files::BLOCK_META.to_owned(), size_bytes: None });
    let sums: BTreeMap<_, _> =
        upload.files.iter().filter_map(|file| Some((&file.name, format!("{:08x}", file.crc32c?)))).collect();
    let mut ours = json!({ "store": upload.store, "intent": upload.intent, "crc32c": sums });
    if let Some(cluster) = &upload.cluster {
        ours["cluster"] = json!(cluster);
    }
    let section = json!({
        "version": 1,
        "labels": { TENANT_LABEL: upload.tenant, REPLICA_LABEL: upload.store },
        "downsample": { "resolution": 0 },
        "source": "receive",
        "files": listed,
        "upload_time": format_rfc3339(upload.time_ms),
        "extensions": { OURS: ours },
    });
    meta.other.insert(SECTION.to_owned(), section);
    meta.to_json()
}

/// The files of a block, as its `meta.json` in the bucket lists them, `meta.json` left out.
///
/// # Errors
/// What is wrong, where the list is missing or names what can't be a block's file.
pub(super) fn files_of(meta: &BlockMeta) -> Result<Vec<BlockFile>, String> {
    let section = meta.other.get(SECTION).ok_or("it has no section of Thanos")?;
    let listed = section.get("files").cloned().ok_or("it doesn't list its files")?;
    let listed: Vec<ListedFile> = serde_json::from_value(listed).map_err(|e| e.to_string())?;
    if listed.len() > FILES_MAX {
        return Err(format!("it lists more than {FILES_MAX} files"));
    }
    let sums = section.pointer(&format!("/extensions/{OURS}/crc32c"));
    let mut found = Vec::with_capacity(listed.len());
    for file in listed.into_iter().filter(|file| file.rel_path != files::BLOCK_META) {
        let name = file.rel_path;
        // They become names on this node's disk.
        if !is_block_file(&name) {
            return Err(format!("{name:?} is no file of a block"));
        }
        let size_bytes = file.size_bytes.ok_or_else(|| format!("it doesn't say how long {name} is"))?;
        let sum = sums.and_then(|sums| sums.get(&name)).and_then(Value::as_str);
        let crc32c = sum.map(|sum| u32::from_str_radix(sum, 16).map_err(|e| e.to_string())).transpose()?;
        found.push(BlockFile { name, size_bytes, crc32c });
    }
    if !found.iter().any(|file| file.name == files::BLOCK_INDEX) {
        return Err("it doesn't list an index".to_owned());
    }
    Ok(found)
}

fn is_block_file(name: &str) -> bool {
    let chunk = |name: &str| files::chunk_file_number(name.as_ref()).is_some();
    match name.split_once('/') {
        Some((dir, file)) => dir == files::BLOCK_CHUNKS_DIR && chunk(file),
        None => name == files::BLOCK_INDEX || name == files::BLOCK_TOMBSTONES,
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    fn file(name: &str, size_bytes: u64, crc32c: u32) -> BlockFile {
        BlockFile { name: name.to_owned(), size_bytes, crc32c: Some(crc32c) }
    }

    #[test]
    fn what_is_uploaded_says_what_thanos_wants_to_know() {
        let files = [file("chunks/000001", 10, 7), file("index", 20, 8)];
        let upload = Upload {
            tenant: "team-a",
            store: "0a".to_owned(),
            cluster: Some("0b".to_owned()),
            intent: "0c",
            time_ms: 1_700_000_000_000,
            files: &files,
        };
        let bytes = meta_to_upload(BlockMeta::new(Ulid(5), 0, 7_200_000), &upload);
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        let thanos = &document["thanos"];
        assert_eq!(thanos["labels"], json!({"tenant_id": "team-a", "carillon_replica": "0a"}));
        assert_eq!(thanos["downsample"]["resolution"], 0);
        assert_eq!((&thanos["source"], &thanos["version"]), (&json!("receive"), &json!(1)));
        assert_eq!(thanos["files"][0], json!({"rel_path": "chunks/000001", "size_bytes": 10}));
        assert_eq!(thanos["files"][2], json!({"rel_path": "meta.json"}));
        assert_eq!(thanos["upload_time"], "2023-11-14T22:13:20Z");
        assert_eq!(thanos["extensions"]["carillon"]["cluster"], "0b");
        assert_eq!(files_of(&BlockMeta::from_json(&bytes).unwrap()).unwrap(), files);
    }

    #[test]
    fn no_name_leads_out_of_a_blocks_folder() {
        for name in ["../index", "/etc/passwd", "chunks/../index", "chunks/1", "chunks", "meta.json.x", ""] {
            assert!(!is_block_file(name), "{name}");
        }
    }
}

//! Every file name in the data folder, in one place.
//!
//! ```text
//! LOCK                  held by the process that owns the folder
//! wal/                  the write-ahead log of all tenants (`wal`)
//!   00000007            a segment: number in decimal, eight digits or more
//!   spare-00000003      a segment that was truncated away, kept to be written again
//! head/layout           how many shards the head has (`head::layout`)
//! head/07/              a shard of the head (`head`)
//!   checkpoint-00000003 what was only in memory; the last two are kept
//!   chunks-00000012     finished chunks
//! hints/STORE/          what another store has missed (`node::receive::hints`)
//!   00000001            a segment
//! uploads/NAME/ULID/   a block that a client is sending; removed at a start
//! cache/7-ULID/         a block that was fetched from the bucket, with a number; removed at a start
//! ledger...             small facts that outlive the process (`node::env::ledger`)
//! bucket/               the bucket of a node that keeps one on its own disk
//! tenants/NAME/         a tenant's blocks
//!   01J9.../            a block, named by its ULID
//! ```

use std::path::{Path, PathBuf};

use ulid::Ulid;

use crate::db::SHARDS_MAX;
use crate::disk::DirEntry;
use crate::model::TenantId;

/// Held by the process that owns the folder.
pub const LOCK: &str = "LOCK";

/// What the names of the ledger's files and folders begin with.
const LEDGER: &str = "ledger";

/// The bucket of a node that keeps one on its own disk.
pub const BUCKET_DIR: &str = "bucket";

/// Blocks that clients are sending, by tenant.
pub const UPLOADS_DIR: &str = "uploads";

/// Blocks that were fetched from the bucket.
pub const CACHE_DIR: &str = "cache";

/// The folder of the write-ahead log.
pub const WAL_DIR: &str = "wal";

/// What other stores have missed, with a folder for each.
pub const HINTS_DIR: &str = "hints";

/// What a WAL segment's name begins with while it waits to be written again.
const WAL_SPARE_PREFIX: &str = "spare-";

/// The folder of the head, with a folder for each shard.
pub const HEAD_DIR: &str = "head";

/// The folder with a folder for each tenant.
pub const TENANTS_DIR: &str = "tenants";

/// What says how many shards the head has.
const HEAD_LAYOUT: &str = "layout";
const HEAD_LAYOUT_UNFINISHED: &str = "layout.tmp";

/// What the names of the head's files begin with.
const CHECKPOINT_PREFIX: &str = "checkpoint-";
const HEAD_CHUNKS_PREFIX: &str = "chunks-";

/// The folder of a shard of the head.
pub fn head_shard(index: usize) -> PathBuf {
    Path::new(HEAD_DIR).join(format!("{index:02}"))
}

/// The number of a shard of the head, from its folder's name.
pub fn parse_head_shard(name: &Path) -> Option<usize> {
    let digits = name.to_str()?;
    let index: usize = digits.parse().ok()?;
    (index < SHARDS_MAX && digits == format!("{index:02}")).then_some(index)
}

/// How many shards the head has.
pub fn head_layout() -> PathBuf {
    Path::new(HEAD_DIR).join(HEAD_LAYOUT)
}

/// The same while it is written.
pub fn head_layout_unfinished() -> PathBuf {
    Path::new(HEAD_DIR).join(HEAD_LAYOUT_UNFINISHED)
}

/// A checkpoint in a shard's folder.
pub fn checkpoint(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{CHECKPOINT_PREFIX}{number:08}"))
}

/// A checkpoint that isn't whole yet.
pub fn checkpoint_unfinished(dir: &Path) -> PathBuf {
    dir.join("checkpoint.tmp")
}

/// The number of a checkpoint, from its name in a shard's folder.
pub fn parse_checkpoint(name: &Path) -> Option<u32> {
    numbered(name, CHECKPOINT_PREFIX)
}

/// A head-chunk file in a shard's folder.
pub fn head_chunks(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{HEAD_CHUNKS_PREFIX}{number:08}"))
}

/// The number of a head-chunk file, from its name in a shard's folder.
pub fn parse_head_chunks(name: &Path) -> Option<u32> {
    numbered(name, HEAD_CHUNKS_PREFIX)
}

/// The folder with what a store has missed.
pub fn hints(store: u128) -> PathBuf {
    Path::new(HINTS_DIR).join(format!("{store:032x}"))
}

/// The store, from the name of the folder with what it has missed.
pub fn parse_hints(name: &Path) -> Option<u128> {
    let digits = name.to_str()?;
    let store = u128::from_str_radix(digits, 16).ok()?;
    (digits == format!("{store:032x}")).then_some(store)
}

/// A segment of hints in its store's folder.
pub fn hint_segment(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}"))
}

/// The number of a segment of hints, from its name in its store's folder.
pub fn parse_hint_segment(name: &Path) -> Option<u32> {
    numbered(name, "")
}

/// The folder of a tenant.
pub fn tenant(id: &TenantId) -> PathBuf {
    Path::new(TENANTS_DIR).join(id.as_str())
}

/// The number behind a prefix, if the name is spelled as it is written.
fn numbered(name: &Path, prefix: &str) -> Option<u32> {
    let digits = name.to_str()?.strip_prefix(prefix)?;
    let number = digits.parse().ok()?;
    (digits == format!("{number:08}")).then_some(number)
}

/// A file in the WAL's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalFile {
    /// The segment of this number.
    Segment(u32),
    /// A file to be reused, which once was the segment of this number.
    Spare(u32),
}

impl WalFile {
    /// Its path in the WAL's folder `dir`.
    pub fn path(self, dir: &Path) -> PathBuf {
        match self {
            Self::Segment(number) => dir.join(format!("{number:08}")),
            Self::Spare(number) => dir.join(format!("{WAL_SPARE_PREFIX}{number:08}")),
        }
    }

    /// From a name in the WAL's folder; `None` when it isn't one of ours.
    pub fn parse(name: &Path) -> Option<Self> {
        let name = name.to_str()?;
        let spare = name.strip_prefix(WAL_SPARE_PREFIX);
        let digits = spare.unwrap_or(name);
        if digits.len() < 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let number = digits.parse().ok()?;
        let file = if spare.is_some() { Self::Spare(number) } else { Self::Segment(number) };
        // Only the one spelling that `path` gives: two files must never stand for one segment.
        (file.path(Path::new("")) == Path::new(name)).then_some(file)
    }
}

/// A block's file of what it says of itself.
pub const BLOCK_META: &str = "meta.json";
/// A block's index.
pub const BLOCK_INDEX: &str = "index";
/// A block's deletions.
pub const BLOCK_TOMBSTONES: &str = "tombstones";
/// A block's deletions while they are written.
pub const TEMPORARY_TOMBSTONES: &str = "tombstones.tmp";
/// A block's folder of chunk files.
pub const BLOCK_CHUNKS_DIR: &str = "chunks";

/// What a block's folder is called while it is written, behind its name: Prometheus removes such folders too.
const TEMPORARY_BLOCK_SUFFIX: &str = ".tmp-for-creation";

/// The folder of a block while it is written.
pub fn temporary_block(ulid: Ulid) -> PathBuf {
    format!("{ulid}{TEMPORARY_BLOCK_SUFFIX}").into()
}

/// Whether a name in a folder of blocks is a block that a crash left unfinished: remove it.
pub fn is_leftover_block(name: &Path) -> bool {
    let ulid = name.to_str().and_then(|name| name.strip_suffix(TEMPORARY_BLOCK_SUFFIX));
    ulid.is_some_and(|ulid| Ulid::from_string(ulid).is_ok())
}

/// The ULID of a block's folder; `None` when the name isn't one.
pub fn block_ulid(name: &Path) -> Option<Ulid> {
    let name = name.to_str()?;
    // Only the one spelling that we write: two folders must never stand for one block.
    Ulid::from_string(name).ok().filter(|ulid| ulid.to_string() == name)
}

/// A chunk file, numbered from 1.
pub fn chunk_file(number: u32) -> PathBuf {
    format!("{number:06}").into()
}

/// The number of a chunk file; `None` when the name isn't one.
pub fn chunk_file_number(name: &Path) -> Option<u32> {
    let number = name.to_str()?.parse().ok()?;
    (chunk_file(number) == name).then_some(number)
}

/// A folder of the data folder, by what may lie in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// The data folder itself.
    Data,
    /// The log's.
    Wal,
    /// The head's.
    Head {
        /// Shards that it has.
        shards: usize,
    },
    /// A shard's.
    HeadShard,
    /// The one with a folder for each tenant.
    Tenants,
    /// A tenant's.
    Tenant,
    /// A block's.
    Block,
    /// The one with a block's chunk files.
    BlockChunks,
}

impl Folder {
    /// Whether a file or folder in it is one that a store puts there.
    pub fn knows(self, entry: &DirEntry) -> bool {
        let (name, is_dir) = (&*entry.name, entry.is_dir);
        let is = |known: &str| name == Path::new(known);
        match self {
            Self::Data => {
                // What the ledger is called depends on who keeps it, and on what became of the one before.
                let is_ledger = name.to_str().is_some_and(|name| name.starts_with(LEDGER));
                let dirs = [WAL_DIR, HEAD_DIR, HINTS_DIR, UPLOADS_DIR, CACHE_DIR, BUCKET_DIR, TENANTS_DIR];
                is_ledger || if is_dir { dirs.into_iter().any(is) } else { is(LOCK) }
            }
            Self::Wal => !is_dir && WalFile::parse(name).is_some(),
            Self::Head { shards } if is_dir => parse_head_shard(name).is_some_and(|index| index < shards),
            Self::Head { .. } => !is_dir && [HEAD_LAYOUT, HEAD_LAYOUT_UNFINISHED].into_iter().any(is),
            Self::HeadShard => {
                let is_numbered = parse_checkpoint(name).is_some() || parse_head_chunks(name).is_some();
                !is_dir && (is_numbered || checkpoint_unfinished(Path::new("")) == name)
            }
            Self::Tenants => is_dir && name.to_str().is_some_and(|name| TenantId::new(name).is_ok()),
            Self::Tenant => is_dir && (block_ulid(name).is_some() || is_leftover_block(name)),
            Self::Block if is_dir => is(BLOCK_CHUNKS_DIR),
            Self::Block => {
                [BLOCK_META, BLOCK_INDEX, BLOCK_TOMBSTONES, TEMPORARY_TOMBSTONES].into_iter().any(is)
            }
            Self::BlockChunks => !is_dir && chunk_file_number(name).is_some(),
        }
    }
}

/// Whether a file system puts this into the folder that it is mounted on.
pub fn is_of_file_system(entry: &DirEntry) -> bool {
    entry.is_dir && entry.name == Path::new("lost+found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_knows_its_own_names_and_no_others() {
        let entry = |name: &str, is_dir| DirEntry { name: name.into(), is_dir };
        let block = Ulid(12345).to_string();
        let unfinished = temporary_block(Ulid(12345)).to_string_lossy().into_owned();
        let head = Folder::Head { shards: 8 };
        let cases: [(Folder, &[(&str, bool)]); 8] = [
            (
                Folder::Data,
                &[("LOCK", false), ("wal", true), ("head", true), ("ledger", true), ("tenants", true)],
            ),
            (Folder::Wal, &[("00000001", false), ("spare-00000001", false)]),
            (head, &[("00", true), ("07", true), ("layout", false), ("layout.tmp", false)]),
            (
                Folder::HeadShard,
                &[("checkpoint-00000001", false), ("checkpoint.tmp", false), ("chunks-00000001", false)],
            ),
            (Folder::Tenants, &[("a", true), ("b-c_d", true)]),
            (Folder::Tenant, &[(&block, true), (&unfinished, true)]),
            (
                Folder::Block,
                &[("meta.json", false), ("index", false), ("tombstones", false), ("chunks", true)],
            ),
            (Folder::BlockChunks, &[("000001", false)]),
        ];
        for (folder, own) in cases {
            for (name, is_dir) in own {
                assert!(folder.knows(&entry(name, *is_dir)), "{folder:?} {name}");
                // The ledger is a folder on one disk and a file on another.
                assert_eq!(folder.knows(&entry(name, !is_dir)), *name == "ledger", "{folder:?} {name}");
            }
            for name in [
                "",
                ".DS_Store",
                "a file",
                "00.bak",
                "000",
                "08",
                "64",
                "00000001~",
                "index.swp",
                "lost+found",
            ] {
                for is_dir in [false, true] {
                    let is_tenant = folder == Folder::Tenants && is_dir && TenantId::new(name).is_ok();
                    assert_eq!(folder.knows(&entry(name, is_dir)), is_tenant, "{folder:?} {name}");
                }
            }
        }
    }

    #[test]
    fn names_of_wal_files_round_trip() {
        for number in [0, 1, 99_999_999, 100_000_000, u32::MAX] {
            for file in [WalFile::Segment(number), WalFile::Spare(number)] {
                assert_eq!(WalFile::parse(&file.path(Path::new(""))), Some(file));
            }
        }
    }

    #[test]
    fn names_of_the_heads_files_round_trip() {
        let empty = Path::new("");
        for number in [0, 7, u32::MAX] {
            assert_eq!(parse_checkpoint(&checkpoint(empty, number)), Some(number));
            assert_eq!(parse_head_chunks(&head_chunks(empty, number)), Some(number));
        }
        for name in ["checkpoint.tmp", "checkpoint-1", "chunks-+0000001", "chunks-4294967296", "x"] {
            assert_eq!(parse_checkpoint(Path::new(name)), None, "{name}");
            assert_eq!(parse_head_chunks(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn foreign_names_are_no_wal_files() {
        for name in ["", "1", "0000000a", "000000001", "spare-", "spare-1", "4294967296", "00000001.tmp"] {
            assert_eq!(WalFile::parse(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn names_of_blocks_are_told_from_what_a_crash_left() {
        let ulid = Ulid(12345);
        assert_eq!(block_ulid(Path::new(&ulid.to_string())), Some(ulid));
        assert!(is_leftover_block(&temporary_block(ulid)));
        assert_eq!(block_ulid(&temporary_block(ulid)), None);
        for name in ["", "wal", "0000000000000000000000001r", "x.tmp-for-creation"] {
            assert!(block_ulid(Path::new(name)).is_none() && !is_leftover_block(Path::new(name)), "{name}");
        }
        assert_eq!(chunk_file_number(&chunk_file(1_234_567)), Some(1_234_567));
        assert_eq!(chunk_file_number(Path::new("1")), None);
    }
}

//! Which fetched blocks are on this node's disk, within a bound.
//!
//! Room is reserved before a fetch begins; the blocks that weren't asked for longest make way. A block that makes way
//! while a question still reads it stays readable, since its files are mapped, and takes room until that is over.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tsdb::block::Block;
use ulid::Ulid;

/// What is on the disk, and what is being fetched.
pub(super) struct Cache {
    limit_bytes: u64,
    /// Bytes of the blocks below, and of fetches in work.
    taken_bytes: u64,
    blocks: BTreeMap<Ulid, Cached>,
    /// Grows with each use.
    tick: u64,
}

struct Cached {
    block: Block,
    size_bytes: u64,
    used: u64,
}

/// Whether there is room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It is reserved; these folders are to be removed.
    Reserved(Vec<PathBuf>),
    /// Once other fetches end there may be.
    Wait,
    /// There never will be.
    Never,
}

impl Cache {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, taken_bytes: 0, blocks: BTreeMap::new(), tick: 0 }
    }

    /// A block that is on the disk.
    pub(super) fn get(&mut self, ulid: Ulid) -> Option<Block> {
        self.tick += 1;
        let cached = self.blocks.get_mut(&ulid)?;
        cached.used = self.tick;
        Some(cached.block.clone())
    }

    /// Takes room for a fetch.
    pub(super) fn reserve(&mut self, size_bytes: u64) -> Room {
        if size_bytes > self.limit_bytes {
            return Room::Never;
        }
        let kept: u64 = self.blocks.values().map(|cached| cached.size_bytes).sum();
        if self.taken_bytes - kept + size_bytes > self.limit_bytes {
            return Room::Wait;
        }
        let mut removed = Vec::new();
        while self.taken_bytes + size_bytes > self.limit_bytes {
            let oldest = self.blocks.iter().min_by_key(|(_, cached)| cached.used).map(|(ulid, _)| *ulid);
            let Some(dir) = oldest.and_then(|ulid| self.remove(ulid)) else { break };
            removed.push(dir);
        }
        self.taken_bytes += size_bytes;
        Room::Reserved(removed)
    }

    /// A fetch failed: its room is free again.
    pub(super) fn release(&mut self, size_bytes: u64) {
        self.taken_bytes -= size_bytes;
    }

    /// A fetch succeeded: its room is the block's.
    pub(super) fn insert(&mut self, block: &Block, size_bytes: u64) {
        self.tick += 1;
        let cached = Cached { block: block.clone(), size_bytes, used: self.tick };
        self.blocks.insert(block.meta().ulid, cached);
    }

    /// Forgets a block, and returns its folder.
    pub(super) fn remove(&mut self, ulid: Ulid) -> Option<PathBuf> {
        let cached = self.blocks.remove(&ulid)?;
        self.taken_bytes -= cached.size_bytes;
        Some(cached.block.dir().to_owned())
    }

    /// Bytes taken now.
    pub(super) fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }
}

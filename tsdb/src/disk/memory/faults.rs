//! What can be made to go wrong on the in-memory disk.

use std::io;

use rustix::io::Errno;

/// A fault to come. `after` counts the operations of its kind that still succeed, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One operation of any kind fails with EIO; a write after half of its bytes.
    Io {
        /// Operations that succeed first.
        after: u64,
    },
    /// The power goes: from one operation on, all fail, until [`crash`](super::MemoryDisk::crash).
    Power {
        /// Operations that succeed first.
        after: u64,
    },
    /// One sync of a file fails with EIO, nothing of it becomes safe, and its pages count as clean: a second sync
    /// succeeds and has done nothing (Rebello et al., ATC 2020).
    Sync {
        /// Syncs of files that succeed first.
        after: u64,
    },
    /// One write or allocation finds no room (ENOSPC); a write after half of its bytes.
    NoSpace {
        /// Writes and allocations that succeed first.
        after: u64,
    },
}

/// The kinds of operations that faults tell apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Takes room: a write, an allocation.
    Room,
    /// A file's sync.
    Sync,
    /// Anything else.
    Other,
}

/// Faults still to come, and how many operations there have been.
#[derive(Clone, Default)]
pub(super) struct Faults {
    coming: Vec<Fault>,
    operations: u64,
    struck: u64,
    powerless: bool,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.coming.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.coming.clear();
        self.powerless = false;
    }

    /// Whether the power is gone: a sync that fails for this leaves its pages to the crash.
    pub(super) fn powerless(&self) -> bool {
        self.powerless
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn struck(&self) -> u64 {
        self.struck
    }

    /// Counts an operation; the error that it shall end with.
    pub(super) fn strike(&mut self, operation: Operation) -> io::Result<()> {
        self.operations += 1;
        let mut struck = None;
        self.coming.retain_mut(|fault| {
            let (concerned, after, lasting, errno) = match fault {
                Fault::Io { after } => (true, after, false, Errno::IO),
                Fault::Power { after } => (true, after, true, Errno::IO),
                Fault::Sync { after } => (operation == Operation::Sync, after, false, Errno::IO),
                Fault::NoSpace { after } => (operation == Operation::Room, after, false, Errno::NOSPC),
            };
            if !concerned {
                return true;
            }
            if *after > 0 {
                *after -= 1;
                return true;
            }
            struck.get_or_insert(errno);
            self.powerless |= lasting;
            lasting
        });
        self.struck += u64::from(struck.is_some());
        struck.map_or(Ok(()), |errno| Err(errno.into()))
    }
}

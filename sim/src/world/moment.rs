//! Moments at which a disk is made to fail: a fault that counts operations from where it is injected seldom meets the few
//! that cut a block, upload it, or adopt a ring. One that waits is injected when such a thing begins.

use std::sync::Arc;

use node::cluster::LEDGER_DOCUMENT;
use node::env::{DiskLedger, Ledger};
use parking_lot::Mutex;
use tsdb::Result;
use tsdb::disk::{Fault, MemoryDisk};

use crate::exercise::Exercise;

/// What begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A block is cut: the folder is made that its chunks are written to.
    Cut,
    /// A block is uploaded: the first of its files goes to the bucket.
    Ship,
    /// A ring document is adopted: it is written to the ledger.
    Adopt,
}

impl Moment {
    /// The row that counts faults at this moment.
    pub fn exercise(self) -> Exercise {
        match self {
            Self::Cut => Exercise::FailCut,
            Self::Ship => Exercise::FailShip,
            Self::Adopt => Exercise::FailAdopt,
        }
    }
}

/// The fault of one machine that waits for its moment.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<Option<(Moment, Fault)>>>);

impl Waiting {
    /// Lets a fault wait, or none any more.
    pub fn set(&self, fault: Option<(Moment, Fault)>) {
        *self.0.lock() = fault;
    }

    /// A moment has come: what waits for it is injected.
    pub fn reached(&self, moment: Moment, disk: &MemoryDisk) {
        let mut waiting = self.0.lock();
        if let Some((_, fault)) = waiting.take_if(|(waits_for, _)| *waits_for == moment) {
            disk.inject(fault);
        }
    }
}

/// A ledger that says when a ring is adopted.
pub struct WatchedLedger {
    /// What does the work.
    pub ledger: DiskLedger,
    /// Where it lies.
    pub disk: MemoryDisk,
    /// What goes wrong.
    pub waiting: Waiting,
}

impl Ledger for WatchedLedger {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.ledger.get(name)
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<()> {
        if name == LEDGER_DOCUMENT {
            self.waiting.reached(Moment::Adopt, &self.disk);
        }
        self.ledger.put(name, value)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.ledger.remove(name)
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
        self.ledger.scan(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_waits_for_its_own_moment_and_strikes_once() {
        let (disk, waiting) = (MemoryDisk::new(), Waiting::default());
        let ledger = DiskLedger::open(Arc::new(disk.clone())).unwrap();
        let ledger = WatchedLedger { ledger, disk: disk.clone(), waiting: waiting.clone() };
        waiting.set(Some((Moment::Adopt, Fault::Io { after: 0 })));
        waiting.reached(Moment::Cut, &disk);
        ledger.put("another fact", b"goes well").unwrap();
        ledger.put(LEDGER_DOCUMENT, b"fails").unwrap_err();
        ledger.put(LEDGER_DOCUMENT, b"once").unwrap();
    }
}

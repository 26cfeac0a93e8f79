//! Which store this is: an id made with the data folder, and a number that grows with each start.
//!
//! A store that has handed everything over, or that was put back to an older state, goes on as a new one.

use ring::StoreId;
use tsdb::disk::Disk;
use tsdb::{Error, Result, emptying};

use crate::env::Ledger;

const STORE_ID: &str = "store/id";
const INCARNATION: &str = "store/incarnation";
const WATERMARK: &str = "store/watermark";
/// There from when all that the store has lies elsewhere until its folder is empty.
const EMPTIED: &str = "store/emptied";

/// Who this store is among all that ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Random, made with the data folder.
    pub store: StoreId,
    /// Of the start before this one; 0 at the first.
    pub previous: u64,
    /// 1 at the first start; grows by one at each.
    pub incarnation: u64,
    /// How far the store had come when this start began ([`Identity::raise_watermark`]); 0 at the first.
    pub watermark: u64,
}

impl Identity {
    /// Reads who this store is, makes it a store if it is none yet, and counts this start; durable on return. A folder
    /// that is to be emptied is so first.
    ///
    /// # Errors
    /// When ledger or disk fail, or the ledger holds something else than what was put there.
    pub fn begin(ledger: &dyn Ledger, disk: &dyn Disk, fresh_id: u128) -> Result<Self> {
        Self::finish_leaving(ledger, disk)?;
        let store = match Self::store(ledger)? {
            Some(store) => store,
            None => {
                ledger.put(STORE_ID, &fresh_id.to_be_bytes())?;
                StoreId(fresh_id)
            }
        };
        let previous = match ledger.get(INCARNATION)? {
            Some(bytes) => u64::from_be_bytes(number(INCARNATION, &bytes)?),
            None => 0,
        };
        let watermark = match ledger.get(WATERMARK)? {
            Some(bytes) => u64::from_be_bytes(number(WATERMARK, &bytes)?),
            None => 0,
        };
        let incarnation = previous + 1;
        ledger.put(INCARNATION, &incarnation.to_be_bytes())?;
        Ok(Self { store, previous, incarnation, watermark })
    }

    /// Remembers how far the store has come; durable on return, and to be told to others only then.
    ///
    /// # Errors
    /// When the ledger fails.
    pub fn raise_watermark(ledger: &dyn Ledger, watermark: u64) -> Result<()> {
        ledger.put(WATERMARK, &watermark.to_be_bytes())
    }

    /// Which store this is, without counting a start; `None` for an empty folder.
    ///
    /// # Errors
    /// As [`Identity::begin`].
    pub fn store(ledger: &dyn Ledger) -> Result<Option<StoreId>> {
        let id = ledger.get(STORE_ID)?.map(|bytes| number(STORE_ID, &bytes)).transpose()?;
        Ok(id.map(|bytes| StoreId(u128::from_be_bytes(bytes))))
    }

    /// Makes this another store, which keeps what lies on the disk; durable on return. `fresh_id` is new even where the
    /// same disk was put back to the same older state before.
    ///
    /// # Errors
    /// When the ledger fails.
    pub fn renew(ledger: &dyn Ledger, fresh_id: u128) -> Result<Self> {
        // The process may end in the middle: the id changes first, so that what else is said of the old store is at
        // worst said of nobody.
        ledger.put(STORE_ID, &fresh_id.to_be_bytes())?;
        forget(ledger, &[STORE_ID])?;
        ledger.put(INCARNATION, &1u64.to_be_bytes())?;
        Ok(Self { store: StoreId(fresh_id), previous: 0, incarnation: 1, watermark: 0 })
    }

    /// Remembers that the folder is to be emptied before the next start; durable on return.
    ///
    /// # Errors
    /// When the ledger fails.
    pub fn leave(ledger: &dyn Ledger) -> Result<()> {
        ledger.put(EMPTIED, &[])
    }

    /// Empties a folder of which [`Identity::leave`] has said that it should be, once nothing uses it any more.
    ///
    /// # Errors
    /// When ledger or disk fail; the next start tries again.
    pub fn finish_leaving(ledger: &dyn Ledger, disk: &dyn Disk) -> Result<()> {
        if ledger.get(EMPTIED)?.is_some() { empty(ledger, disk) } else { Ok(()) }
    }
}

/// Removes all that a store has: samples first, then what it knows of itself, then the mark that says so.
fn empty(ledger: &dyn Ledger, disk: &dyn Disk) -> Result<()> {
    emptying::empty(disk)?;
    forget(ledger, &[EMPTIED])?;
    ledger.remove(EMPTIED)
}

/// Forgets all facts but these.
fn forget(ledger: &dyn Ledger, but: &[&str]) -> Result<()> {
    for (name, _) in ledger.scan("")? {
        if !but.contains(&name.as_str()) {
            ledger.remove(&name)?;
        }
    }
    Ok(())
}

fn number<const N: usize>(name: &'static str, bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::corrupt(name, 0, format!("{} bytes instead of {N}", bytes.len())))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tsdb::disk::MemoryDisk;
    use tsdb::files;

    use super::*;
    use crate::env::{DiskLedger, SledLedger};

    #[test]
    fn the_id_stays_and_the_incarnation_grows() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::new());
        let begin = |fresh| Identity::begin(&SledLedger::open(dir.path()).unwrap(), &disk, fresh).unwrap();
        assert_eq!(begin(7), Identity { store: StoreId(7), previous: 0, incarnation: 1, watermark: 0 });
        assert_eq!(begin(8), Identity { store: StoreId(7), previous: 1, incarnation: 2, watermark: 0 });
    }

    #[test]
    fn a_renewed_store_has_another_id_and_forgets_what_it_knew() {
        let ledger = DiskLedger::open(Arc::new(MemoryDisk::new())).unwrap();
        let disk = MemoryDisk::new();
        let old = Identity::begin(&ledger, &disk, 7).unwrap();
        ledger.put("ring/document", b"old").unwrap();
        let new = Identity::renew(&ledger, 9).unwrap();
        assert_ne!(new.store, old.store);
        assert_eq!(ledger.get("ring/document").unwrap(), None);
        let again = Identity::begin(&ledger, &disk, 8).unwrap();
        assert_eq!((again.store, again.previous), (new.store, 1));
    }

    #[test]
    fn a_store_that_left_starts_with_an_empty_folder_as_another() {
        let disk = MemoryDisk::new();
        let ledger = DiskLedger::open(Arc::new(disk.clone())).unwrap();
        let old = Identity::begin(&ledger, &disk, 7).unwrap();
        let block = Path::new(files::TENANTS_DIR).join("t/01ARZ3NDEKTSV4RRFFQ69G5FAV");
        disk.create_dir(&block).unwrap();
        Identity::finish_leaving(&ledger, &disk).unwrap();
        assert!(disk.list(&block).is_ok(), "it hasn't left");
        Identity::leave(&ledger).unwrap();
        let new = Identity::begin(&ledger, &disk, 8).unwrap();
        assert!(disk.list(&block).is_err());
        assert_ne!(new.store, old.store);
        assert_eq!(new.incarnation, 1);
        assert_eq!(Identity::begin(&ledger, &disk, 8).unwrap().store, new.store);
    }
}

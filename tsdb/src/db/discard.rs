//! Blocks whose folders have to go: those past their retention, and those of cuts that failed in the end.
//!
//! A folder goes in three steps, each of which may fail and is tried again by the next maintenance: it gets the name of
//! an unfinished block, that name is made safe, and only then its files are removed. A folder half removed is never taken
//! for a block by a start.

use std::io;

use ulid::Ulid;

use super::tenant::Tenant;
use crate::{Error, Result, files};

impl Tenant {
    /// Notes that a block, which nobody sees any more, has to go from the disk.
    pub(super) fn discard(&self, ulid: Ulid) {
        let mut discarded = self.discarded.lock();
        if !discarded.contains(&ulid) {
            discarded.push(ulid);
        }
    }

    /// Removes the folders of discarded blocks.
    ///
    /// # Errors
    /// [`Error::Io`]: what is left is removed by the next call.
    pub(super) fn remove_discarded(&self) -> Result<()> {
        let mut discarded = self.discarded.lock();
        while let Some(ulid) = discarded.last() {
            self.remove_folder(*ulid)?;
            discarded.pop();
        }
        Ok(())
    }

    /// Does what is left to do for one block; there may be nothing of it.
    fn remove_folder(&self, ulid: Ulid) -> Result<()> {
        let disk = &self.core.disk;
        let parent = files::tenant(&self.id);
        let (folder, unfinished) = (parent.join(ulid.to_string()), parent.join(files::temporary_block(ulid)));
        if_there(disk.rename(&folder, &unfinished)).map_err(|e| Error::io("remove", &folder, e))?;
        if_there(disk.sync_dir(&parent)).map_err(|e| Error::io("sync", &parent, e))?;
        if_there(disk.remove_dir(&unfinished)).map_err(|e| Error::io("remove", &unfinished, e))
    }
}

fn if_there(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

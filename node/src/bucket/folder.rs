//! What a folder can't do by itself: compare-and-swap.
//!
//! A swap takes an exclusive lock of the system on `FOLDER/LOCK_FILE`, reads the object, compares it with what the
//! caller read, and puts the new bytes in its place with a rename, all in one piece of blocking work: a caller that
//! stops waiting leaves nothing behind that could write without the lock. The lock goes with its process, so a crash
//! leaves none; it holds between all processes of a machine, and over NFS since version 4. The tag of an object is a
//! hash of its bytes: unlike an inode number or a time of change it can't come back with other bytes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

/// `object_store` takes names that end so for writes that aren't finished: listings pass over them. Its own numbers
/// begin at 1.
const HIDDEN: &str = "#0";
const LOCK_FILE: &str = "lock#0";
/// Time between two tries of a lock that another holds.
pub(super) const LOCK_EVERY: Duration = Duration::from_millis(5);

/// The tag of an object in a folder.
pub(super) fn tag(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

/// How a swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Another has the lock: try again.
    Busy,
    /// The object isn't what it was when `tag` was read.
    Lost,
    /// It holds the new bytes, durably.
    Won,
}

/// Replaces an object whose tag still is `expected`. Blocks on the disk.
#[allow(clippy::disallowed_methods, reason = "this is the seam: a folder as bucket isn't the data folder")]
pub(super) fn swap(
    root: &Path,
    key: &object_store::path::Path,
    expected: &str,
    bytes: &[u8],
) -> io::Result<Outcome> {
    let lock =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(root.join(LOCK_FILE))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Outcome::Busy),
        Err(TryLockError::Error(e)) => return Err(e),
    }
    let target = root.join(key.as_ref());
    match std::fs::read(&target) {
        Ok(found) if tag(&found) == expected => {}
        Ok(_) => return Ok(Outcome::Lost),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Lost),
        Err(e) => return Err(e),
    }
    let staged = staged(&target);
    let mut file = File::create(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&staged, &target)?;
    sync_above(root, &target)?;
    Ok(Outcome::Won)
}

/// Gives a local file a second name in the folder, durable on return; `false` where the two can't share it (another
/// filesystem, or one without links). An object that is there already is replaced. Blocks on the disk.
#[allow(clippy::disallowed_methods, reason = "this is the seam: a folder as bucket isn't the data folder")]
pub(super) fn link(file: &Path, root: &Path, key: &object_store::path::Path) -> io::Result<bool> {
    let target = root.join(key.as_ref());
    std::fs::create_dir_all(target.parent().expect("a key has a name"))?;
    // A link never replaces a file; a name of its own and a rename do.
    let staged = staged(&target);
    match std::fs::remove_file(&staged) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    match std::fs::hard_link(file, &staged) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(e),
        Err(_) => return Ok(false),
    }
    std::fs::rename(&staged, &target)?;
    // Where both names are the same file already, a rename does nothing and leaves the first name.
    drop(std::fs::remove_file(&staged));
    sync_above(root, &target)?;
    Ok(true)
}

fn staged(target: &Path) -> PathBuf {
    let mut staged = target.as_os_str().to_owned();
    staged.push(HIDDEN);
    staged.into()
}

/// Makes the name of a file safe, and those of the folders between it and the root.
#[allow(clippy::disallowed_methods, reason = "this is the seam: a folder as bucket isn't the data folder")]
fn sync_above(root: &Path, target: &Path) -> io::Result<()> {
    for dir in target.ancestors().skip(1).take_while(|dir| dir.starts_with(root)) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

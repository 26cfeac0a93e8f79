//! What a folder can't do by itself: compare-and-swap.
//!
//! A swap does four steps, in one piece of blocking work:
//!
//! 1. It *stages* the new bytes in a file beside the object, `OBJECT#0NONCE`, whose name no other attempt ever has.
//! 2. It *sweeps*: it removes what all others have staged for the object.
//! 3. It *reads* the object, and has lost unless that still is what its caller read.
//! 4. It *puts* its staged file in the object's place by a rename, which fails if somebody has swept the file.
//!
//! Of two attempts one has staged before the other sweeps. Either its rename came before that sweep, and then the other
//! reads what it wrote; or its file is gone, and its rename fails, however long its process was paused. So two attempts
//! that expect the same bytes never both win, and this rests on no lock and no clock.
//!
//! Attempts that sweep each other's files away would go on for long. So each first takes an exclusive lock of the system
//! on `FOLDER/LOCK_FILE`, which goes with its process, and holds between all processes of a machine, and over NFS since
//! version 4. Whoever has waited for it for [`LOCK_LEASE`] goes ahead with a lock file of its own in that one's place:
//! a process that is paused holds up nobody for longer.
//!
//! The tag of an object is a hash of its bytes: unlike an inode number or a time of change it can't come back with
//! other bytes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

/// `object_store` takes names that end in `#` and digits for writes that aren't finished: listings pass over them. Its
/// own numbers begin at 1.
const HIDDEN: &str = "#0";
const LOCK_FILE: &str = "lock#0";
/// Time between two tries of a lock that another holds.
pub(super) const LOCK_EVERY: Duration = Duration::from_millis(5);
/// How long a lock is waited for: a swap takes a few milliseconds, so its holder is paused, or its disk is.
pub(super) const LOCK_LEASE: Duration = Duration::from_secs(2);

/// The tag of an object in a folder.
pub(super) fn tag(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

/// How a swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Another has the lock, or has swept this attempt's file away: try again.
    Busy,
    /// The object isn't what it was when `tag` was read.
    Lost,
    /// It holds the new bytes, durably.
    Won,
}

/// Replaces an object whose tag still is `expected`. No two calls have the same `nonce`; `breaks` takes the lock from
/// whoever has it. Blocks on the disk.
pub(super) fn swap(
    root: &Path,
    key: &object_store::path::Path,
    expected: &str,
    bytes: &[u8],
    nonce: u64,
    breaks: bool,
) -> io::Result<Outcome> {
    let Some(_lock) = lock(root, nonce, breaks)? else { return Ok(Outcome::Busy) };
    let attempt = match Attempt::stage(root, key, bytes, nonce) {
        Ok(attempt) => attempt,
        // Not even its folder is there.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Lost),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(Outcome::Busy),
        Err(e) => return Err(e),
    };
    attempt.sweep()?;
    if attempt.finds(expected)? { attempt.put() } else { Ok(Outcome::Lost) }
}

/// The lock, until it is dropped; `None` while another has it.
#[allow(clippy::disallowed_methods, reason = "this is the seam: a folder as bucket isn't the data folder")]
fn lock(root: &Path, nonce: u64, breaks: bool) -> io::Result<Option<File>> {
    let path = root.join(LOCK_FILE);
    let name = if breaks { staged(&path, nonce) } else { path.clone() };
    let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(e)) => return Err(e),
    }
    if breaks {
        std::fs::rename(&name, &path)?;
    }
    Ok(Some(lock))
}

/// A swap under way: see the module.
struct Attempt {
    root: PathBuf,
    target: PathBuf,
    staged: PathBuf,
}

#[allow(clippy::disallowed_methods, reason = "this is the seam: a folder as bucket isn't the data folder")]
impl Attempt {
    fn stage(root: &Path, key: &object_store::path::Path, bytes: &[u8], nonce: u64) -> io::Result<Self> {
        let target = root.join(key.as_ref());
        let attempt = Self { root: root.to_owned(), staged: staged(&target, nonce), target };
        let mut file = File::create_new(&attempt.staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(attempt)
    }

    /// Removes what others have staged for the same object, and what a crash has left there.
    fn sweep(&self) -> io::Result<()> {
        let dir = self.target.parent().expect("a key has a name");
        let mut prefix = self.target.file_name().expect("a key has a name").to_owned();
        prefix.push(HIDDEN);
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name();
            let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
            let is_staged = rest.is_some_and(|rest| rest.iter().all(u8::is_ascii_digit));
            let path = dir.join(&name);
            if !is_staged || path == self.staged {
                continue;
            }
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the object has this tag.
    fn finds(&self, expected: &str) -> io::Result<bool> {
        match std::fs::read(&self.target) {
            Ok(found) => Ok(tag(&found) == expected),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn put(self) -> io::Result<Outcome> {
        match std::fs::rename(&self.staged, &self.target) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Busy),
            Err(e) => return Err(e),
        }
        sync_above(&self.root, &self.target)?;
        Ok(Outcome::Won)
    }
}

impl Drop for Attempt {
    /// Leaves nothing behind; what a crash leaves, the next swap sweeps away.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the seam: a folder as bucket isn't the data folder"
    )]
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.staged));
    }
}

/// Gives a local file a second name in the folder, durable on return; `false` where the two can't share it (another
/// filesystem, or one without links). An object that is there already is replaced. Blocks on the disk.
#[allow(clippy::disallowed_methods, reason = "this is the seam: a folder as bucket isn't the data folder")]
pub(super) fn link(file: &Path, root: &Path, key: &object_store::path::Path) -> io::Result<bool> {
    let target = root.join(key.as_ref());
    std::fs::create_dir_all(target.parent().expect("a key has a name"))?;
    // A link never replaces a file; a name of its own and a rename do.
    let staged = hidden(&target);
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

fn hidden(target: &Path) -> PathBuf {
    let mut hidden = target.as_os_str().to_owned();
    hidden.push(HIDDEN);
    hidden.into()
}

/// Where one attempt stages what it puts in the place of `target`.
fn staged(target: &Path, nonce: u64) -> PathBuf {
    let mut staged = hidden(target).into_os_string();
    staged.push(nonce.to_string());
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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the tests look at the folder itself")]
mod tests {
    //! Swaps of one object in a folder. Varied: every interleaving of the steps of two attempts, and pauses of one
    //! between any two steps while another makes two swaps in a row; who has the lock. Held fixed: one object, one
    //! filesystem.

    use super::*;

    const KEY: &str = "carillon/ring";

    fn folder() -> (tempfile::TempDir, object_store::path::Path) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("carillon")).unwrap();
        std::fs::write(dir.path().join(KEY), b"0").unwrap();
        (dir, object_store::path::Path::from(KEY))
    }

    fn read(dir: &tempfile::TempDir) -> Vec<u8> {
        std::fs::read(dir.path().join(KEY)).unwrap()
    }

    /// An attempt that is taken a step further at a time.
    struct Steps {
        bytes: &'static [u8],
        nonce: u64,
        done: usize,
        attempt: Option<Attempt>,
        outcome: Option<Outcome>,
    }

    const STEPS: usize = 4;

    impl Steps {
        fn new(bytes: &'static [u8], nonce: u64) -> Self {
            Self { bytes, nonce, done: 0, attempt: None, outcome: None }
        }

        fn step(&mut self, dir: &tempfile::TempDir, key: &object_store::path::Path, expected: &str) {
            self.done += 1;
            match self.done {
                1 => self.attempt = Some(Attempt::stage(dir.path(), key, self.bytes, self.nonce).unwrap()),
                _ if self.outcome.is_some() => {}
                2 => self.attempt.as_ref().unwrap().sweep().unwrap(),
                3 if !self.attempt.as_ref().unwrap().finds(expected).unwrap() => {
                    self.outcome = Some(Outcome::Lost);
                }
                3 => {}
                _ => self.outcome = Some(self.attempt.take().unwrap().put().unwrap()),
            }
        }
    }

    #[test]
    fn of_two_attempts_one_wins_at_most_however_their_steps_interleave() {
        let mut won = 0;
        for order in 0u32..1 << (2 * STEPS) {
            if order.count_ones() as usize != STEPS {
                continue;
            }
            let (dir, key) = folder();
            let mut two = [Steps::new(b"a", 1), Steps::new(b"b", 2)];
            for at in 0..2 * STEPS {
                two[(order >> at & 1) as usize].step(&dir, &key, &tag(b"0"));
            }
            let winners: Vec<_> = two.iter().filter(|one| one.outcome == Some(Outcome::Won)).collect();
            assert!(winners.len() <= 1, "both won: {order:08b}");
            let expected = winners.first().map_or(&b"0"[..], |winner| winner.bytes);
            assert_eq!(read(&dir), expected, "{order:08b}");
            won += winners.len();
        }
        assert!(won > 10, "only {won} of 70 orders had a winner");
    }

    #[test]
    fn a_paused_writer_that_wakes_never_overwrites_a_newer_object() {
        for paused_after in 1..STEPS {
            let (dir, key) = folder();
            let mut paused = Steps::new(b"old", 1);
            (0..paused_after).for_each(|_| paused.step(&dir, &key, &tag(b"0")));
            let swap = |from: &[u8], to, nonce| swap(dir.path(), &key, &tag(from), to, nonce, false).unwrap();
            assert_eq!(swap(b"0", b"1", 2), Outcome::Won);
            assert_eq!(swap(b"1", b"2", 3), Outcome::Won);
            (paused_after..STEPS).for_each(|_| paused.step(&dir, &key, &tag(b"0")));
            assert_ne!(paused.outcome, Some(Outcome::Won), "paused after step {paused_after}");
            assert_eq!(read(&dir), b"2", "paused after step {paused_after}");
            drop(paused);
            let left = std::fs::read_dir(dir.path().join("carillon")).unwrap().count();
            assert_eq!(left, 1, "something is left behind");
        }
    }

    #[test]
    fn a_lock_is_respected_until_it_is_broken_and_the_one_in_its_place_is_respected_too() {
        let (dir, key) = folder();
        let held = lock(dir.path(), 1, false).unwrap();
        assert!(held.is_some());
        let swap = |nonce, breaks| swap(dir.path(), &key, &tag(b"0"), b"1", nonce, breaks).unwrap();
        assert_eq!(swap(2, false), Outcome::Busy);
        let broken = lock(dir.path(), 3, true).unwrap();
        assert!(broken.is_some());
        assert_eq!(swap(4, false), Outcome::Busy);
        drop(broken);
        assert_eq!(swap(5, false), Outcome::Won, "the first lock still counts");
        drop(held);
    }
}

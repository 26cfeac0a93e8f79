//! A folder for the time that a verb runs.

use std::path::{Path, PathBuf};

use ulid::Ulid;

use super::Failure;

/// A new folder that is removed with all that it holds when this is dropped.
#[derive(Debug)]
pub struct WorkDir(PathBuf);

impl WorkDir {
    /// In `parent`, or where the system keeps temporary files.
    ///
    /// # Errors
    /// When it can't be made.
    #[allow(clippy::disallowed_methods, reason = "the folder isn't part of any node's data")]
    pub fn create(parent: Option<&Path>, prefix: &str) -> Result<Self, Failure> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("{prefix}-{}", Ulid::from_parts(0, rand::random())));
        std::fs::create_dir_all(&path).map_err(|e| {
            Failure::failed(format!("can't make {}: {e}; name another by --work-dir", path.display()))
        })?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDir {
    #[allow(clippy::disallowed_methods, reason = "the folder isn't part of any node's data")]
    fn drop(&mut self) {
        // What can't be removed stays where temporary files are.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

//! Whose data it is.

use std::fmt;
use std::sync::Arc;

use crate::{Error, Result};

/// Longest tenant id, in bytes: what object stores and file systems take as one part of a path.
pub const TENANT_ID_BYTES_MAX: usize = 150;

/// A tenant's name: 1 to 150 of `A-Z a-z 0-9 ! - _ . * ' ( )`, but not `.` or `..`.
///
/// It becomes a folder's name, an object's prefix and a label's value, so nothing else may be made into one
/// (Cortex CVE-2021-36157, Loki CVE-2026-21726). Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::Invalid`] says what is wrong with it.
    pub fn new(name: &str) -> Result<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b);
        if name.is_empty() || name.len() > TENANT_ID_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "a tenant id has 1 to {TENANT_ID_BYTES_MAX} bytes, not {}",
                name.len()
            )));
        }
        if let Some(c) = name.chars().find(|c| !u8::try_from(*c).is_ok_and(allowed)) {
            return Err(Error::Invalid(format!("a tenant id can't hold {c:?}")));
        }
        if name == "." || name == ".." {
            return Err(Error::Invalid("a tenant id can't be . or ..".to_owned()));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::str::FromStr for TenantId {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_tenants() {
        for name in ["anonymous", "a", "team-1_x.y!*'()", "...", &"x".repeat(150)] {
            assert_eq!(TenantId::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn nothing_that_could_leave_its_folder_is_a_tenant() {
        for name in ["", ".", "..", "a/b", "..%2f", "a\\b", "a b", "é", "a\0", "a|b", &"x".repeat(151)] {
            assert!(matches!(TenantId::new(name), Err(Error::Invalid(_))), "{name:?}");
        }
    }
}

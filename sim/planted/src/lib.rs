//! Bugs that are planted in the product, one at a time, to see whether a checker notices.
//!
//! 1. Each stands at its place as one condition, `planted::is(Bug::…)`.
//! 2. Without the feature `planted` that is `false` at compile time: a product build holds none of them.
//! 3. With it, the bug is there that the environment variable [`VARIABLE`] names; without the variable, none.
//!
//! `.ci/planted` runs every checker against every bug, and writes `docs/planted.md`.

mod bugs;

pub use bugs::Bug;

/// The environment variable that names a bug.
pub const VARIABLE: &str = "CARILLON_PLANTED";

/// Whether bugs can be planted in this build.
pub const IS_POSSIBLE: bool = cfg!(feature = "planted");

/// Whether this bug is planted in this process.
#[cfg(not(feature = "planted"))]
#[inline(always)]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}

/// Whether this bug is planted in this process.
///
/// # Panics
/// Where [`VARIABLE`] names none: a run that tests nothing must not pass for one that does.
#[cfg(feature = "planted")]
#[inline]
#[must_use]
pub fn is(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
        Some(Bug::named(&name).unwrap_or_else(|| panic!("{VARIABLE} names no bug: {name:?}")))
    });
    *planted == Some(bug)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_bug_is_found_by_its_own_name_and_says_what_it_is() {
        let names: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        for bug in Bug::ALL {
            assert_eq!(Bug::named(bug.name()), Some(*bug));
            assert!(bug.what().starts_with(char::is_uppercase) && bug.what().ends_with('.'), "{bug:?}");
        }
        assert_eq!(Bug::named("NoSuchBug"), None);
    }

    #[test]
    fn at_most_one_bug_is_planted_and_none_without_the_feature() {
        let planted: Vec<_> = Bug::ALL.iter().filter(|bug| is(**bug)).map(|bug| bug.name()).collect();
        let named = std::env::var(VARIABLE).ok().filter(|name| IS_POSSIBLE && !name.is_empty());
        assert_eq!(planted, Vec::from_iter(named.as_deref()));
    }
}

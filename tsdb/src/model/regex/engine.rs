//! The regex engine's form of a pattern. Dashboards ask with the same few patterns again and again, and each takes the
//! engine 30 to 200 µs to compile: the last ones are kept.

use std::num::NonZero;
use std::sync::LazyLock;

use lru::LruCache;
use parking_lot::Mutex;

use super::COMPILED_BYTES_MAX;
use crate::{Error, Result};

/// Most patterns that are kept.
const KEPT_MAX: usize = 64;
/// Longest pattern, in bytes of text, that is kept.
const KEPT_TEXT_BYTES_MAX: usize = 1 << 10;
/// Largest compiled form, in bytes, that is kept. The engine may add tables of up to 1 MiB for capturing groups; what it
/// needs while it matches belongs to those who match, since they get copies.
const KEPT_COMPILED_BYTES_MAX: usize = 16 << 10;
/// Nesting that the engine's own parser may meet in what we print, where one group takes up to six levels: a repetition,
/// the group, a choice and a concatenation with a group around each. Ours is limited before.
const PRINTED_DEPTH_MAX: u32 = 8 * super::parse::DEPTH_MAX as u32;

static KEPT: LazyLock<Kept> = LazyLock::new(Kept::default);

/// Compiles what we have printed, or finds it among the kept.
///
/// # Errors
/// [`Error::Limit`] where it is larger than [`COMPILED_BYTES_MAX`] once compiled; [`Error::Invalid`].
pub(super) fn compile(printed: &str) -> Result<regex::Regex> {
    KEPT.compile(printed)
}

/// Patterns that were compiled, the latest used ones.
struct Kept(Mutex<LruCache<Box<str>, regex::Regex>>);

impl Default for Kept {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(const { NonZero::new(KEPT_MAX).expect("some are kept") })))
    }
}

impl Kept {
    fn compile(&self, printed: &str) -> Result<regex::Regex> {
        if printed.len() > KEPT_TEXT_BYTES_MAX {
            return within(printed, COMPILED_BYTES_MAX);
        }
        if let Some(kept) = self.0.lock().get(printed) {
            return Ok(kept.clone());
        }
        match within(printed, KEPT_COMPILED_BYTES_MAX) {
            Ok(compiled) => {
                self.0.lock().put(printed.into(), compiled.clone());
                Ok(compiled)
            }
            Err(Error::Limit(_)) => within(printed, COMPILED_BYTES_MAX),
            Err(error) => Err(error),
        }
    }
}

fn within(printed: &str, bytes_max: usize) -> Result<regex::Regex> {
    let mut builder = regex::RegexBuilder::new(printed);
    builder.size_limit(bytes_max).nest_limit(PRINTED_DEPTH_MAX).build().map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => {
            Error::Limit(format!("compiled regular expression exceeds {bytes_max} bytes"))
        }
        e => Error::Invalid(format!("invalid regular expression: {e}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_pattern_matches_as_a_new_one_does() {
        let kept = Kept::default();
        for _ in 0..3 {
            let regex = kept.compile("^a(b+)$").unwrap();
            assert_eq!(regex.captures("abb").unwrap().get(1).unwrap().as_str(), "bb");
            assert!(!regex.is_match("a"));
        }
        assert_eq!(kept.0.lock().len(), 1);
    }

    #[test]
    fn the_latest_used_are_kept_and_no_more() {
        let kept = Kept::default();
        let first = "^first[0-9]$";
        for number in 0..2 * KEPT_MAX {
            kept.compile(first).unwrap();
            kept.compile(&format!("^{number}[a-z]+$")).unwrap();
        }
        let patterns = kept.0.lock();
        assert_eq!(patterns.len(), KEPT_MAX);
        assert!(patterns.contains(first) && !patterns.contains("^0[a-z]+$"));
    }

    #[test]
    fn what_is_long_or_large_is_compiled_and_not_kept() {
        let kept = Kept::default();
        let long = format!("^[ab]{}$", "c".repeat(KEPT_TEXT_BYTES_MAX));
        for printed in ["^(?:[a-z]{3}x){1000}$", &long] {
            assert!(kept.compile(printed).is_ok(), "{printed}");
        }
        let too_large = kept.compile("^(?:(?:[a-z]{1000}){1000}){1000}$").unwrap_err();
        assert_eq!(
            too_large.to_string(),
            format!("compiled regular expression exceeds {COMPILED_BYTES_MAX} bytes")
        );
        assert!(kept.compile("^($").is_err());
        assert!(kept.0.lock().is_empty());
    }
}

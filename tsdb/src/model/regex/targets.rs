//! Fuzz target: translating patterns.

use fuzz::Corpus;

use super::{Pattern, anchored_regex};
use crate::Error;

/// A pattern, a tab and a value: whatever short cut a pattern allows, it matches what the engine says, and what is known
/// of its matches is true.
fn translate(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (pattern, value) = text.split_once('\t').unwrap_or((&text, ""));
    let (ours, engine) = match (Pattern::new(pattern), anchored_regex(pattern)) {
        (Ok(ours), Ok(engine)) => (ours, engine),
        // A short cut needs no engine, and capturing makes what is compiled larger.
        (_, Err(Error::Limit(_))) => return,
        (Err(ours), Err(engine)) => return assert_eq!(ours.to_string(), engine.to_string()),
        (ours, engine) => panic!("{pattern:?}: {ours:?}, but the engine says {engine:?}"),
    };
    let set: Vec<&str> = ours.set().unwrap_or_default().iter().map(|value| &**value).collect();
    for value in [value, "", pattern, ours.prefix()].into_iter().chain(set.iter().copied()) {
        let matches = ours.matches(value);
        assert_eq!(matches, engine.is_match(value), "{pattern:?} on {value:?}");
        assert!(!matches || value.starts_with(ours.prefix()), "{pattern:?} on {value:?}");
        assert!(ours.set().is_none() || matches == set.contains(&value), "{pattern:?} on {value:?}");
        assert!(matches || !ours.is_everything(), "{pattern:?} on {value:?}");
    }
}

#[test]
fn a_pattern_matches_what_the_engine_says_whatever_it_is() {
    fuzz::target!(Corpus::lines(include_str!("../../../corpus/patterns.txt")), translate);
}

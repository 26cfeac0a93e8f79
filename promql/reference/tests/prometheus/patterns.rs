//! Random patterns; `FUZZ_PATTERN_COUNT` is how many. Each is tried as a matcher and by `label_replace`, on the same values.
//!
//! # What differs by design
//! - A matcher matches what `label_replace` does. To some matchers without regard to case, U+017F is no `s` and U+212A no
//!   `k` in Prometheus, whose short cuts compare otherwise than its patterns: matchers aren't tried on them. Of some
//!   10,000 others one isn't what `label_replace` says either, as `(?i:A)b|A`, which takes `a`: where that is as here, a
//!   matcher that differs is a contradiction of Prometheus's. More than [`CONTRADICTIONS_MAX`] would be something else.
//! - A pattern stands by itself, in `label_replace` too: Prometheus puts text around it there, so that it takes `a)(b` and
//!   refuses `\Qa`. No such patterns are tried.

use reference::fuzz::{Random, engine, pattern, text};
use reference::{Series, Steps};
use tsdb::model::{Labels, Sample};

use crate::expect::{Number, Value};
use crate::peer::{Peer, program};
use crate::run::Target as _;
use crate::script::When;
use crate::{assert_none, number};

const COUNT: u64 = 1000;
/// How many patterns of a thousand may mean two things to Prometheus, and one more.
const CONTRADICTIONS_MAX: u64 = 1;
const TEXTS: usize = 200;
const TIME_MS: i64 = 60_000;

/// Samples of `m`, each with a text and a number of its own; those of `folds` have what folds to `k` or `s` only there.
fn series(random: &mut Random) -> Vec<Series> {
    let all = (0..TEXTS).map(|index| {
        let (text, number) = (text(random), format!("{index:03}"));
        let name = if text.contains(['\u{17f}', '\u{212a}']) { "folds" } else { "m" };
        let pairs = [("__name__", name), ("number", &number), ("text", &text)];
        let labels = Labels::from_pairs(pairs.into_iter().filter(|(_, value)| !value.is_empty()));
        Series { labels: labels.unwrap(), samples: vec![Sample::float(TIME_MS, 1.0)] }
    });
    all.collect()
}

/// Labels of a vector, sorted.
fn labels(value: Value) -> Vec<Labels> {
    let Value::Vector(mut vector) = value else { panic!("{value:?} is no vector") };
    vector.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(vector.iter().all(|(_, value)| matches!(value, Number::Float(1.0))), "{vector:?}");
    vector.into_iter().map(|(labels, _)| labels).collect()
}

#[test]
fn patterns_match_what_they_match_in_prometheus() {
    let Some(program) = program() else { return };
    let (first, count) = (number("FUZZ_SEED", 1), number("FUZZ_PATTERN_COUNT", COUNT));
    let series = series(&mut Random::new(first));
    let mut peer = Peer::start(&program, u64::MAX, false);
    peer.load(&series);
    let steps = Steps::instant(TIME_MS);
    let (mut differences, mut refused, mut matched, mut contradictions) = (Vec::new(), 0, 0, 0);
    for seed in first..first + count {
        let pattern = pattern(&mut Random::new(seed));
        let mut compared = |query: String| {
            let mine = engine(&query, &series, &steps).map(|answer| answer.into_keys().collect::<Vec<_>>());
            let theirs = peer.api.ask(&query, When::Instant(TIME_MS)).map(|answer| labels(answer.value));
            let difference = match (mine, theirs) {
                (Ok(mine), Ok(theirs)) => {
                    let found = |labels: &Labels| !labels.value("found").is_empty();
                    matched += u64::from(mine.len() < TEXTS && !mine.is_empty() || mine.iter().any(found));
                    let differs = |labels: &&Labels| !mine.contains(labels) || !theirs.contains(labels);
                    mine.iter().chain(&theirs).find(differs).map(|labels| format!("{labels}"))
                }
                (Err(_), Err(_)) => {
                    refused += 1;
                    None
                }
                (Ok(_), Err(error)) => Some(format!("Prometheus fails: {error}")),
                (Err(error), Ok(_)) => Some(format!("the engine fails: {error}")),
            };
            difference.map(|found| format!("seed {seed}: {query}: {found}"))
        };
        let replacement = r#""found", "$0|$1|$2|$3", "text""#;
        let replaced = compared(format!("label_replace({{text!=\"\"}}, {replacement}, `{pattern}`)"));
        match compared(format!("m{{text=~`{pattern}`}}")) {
            Some(matcher) if replaced.is_none() => {
                eprintln!("not so to label_replace: {matcher}");
                contradictions += 1;
            }
            matcher => differences.extend(matcher),
        }
        differences.extend(replaced);
    }
    eprintln!(
        "{count} answers to patterns compared with {}: {refused} errors, {matched} matches, \
         {contradictions} contradictions",
        program.display()
    );
    assert!(
        refused < count && matched > count / 2,
        "{refused} of {} refused, {matched} match something",
        2 * count
    );
    assert!(
        contradictions <= 1 + CONTRADICTIONS_MAX * count / 1000,
        "{contradictions} patterns mean two things"
    );
    assert_none(&differences);
}

//! Our parser beside `promql-parser`, which ports Prometheus's grammar: both accept the same texts, and mean the same by
//! them. What they see differently stands in [`DIFFERENCES`].

#![allow(clippy::unwrap_used, reason = "tests")]

use promql::Syntax;
use reference::fuzz::{Dialect, Random, expression};

const COUNT: u64 = 2000;

/// Texts that only one of both takes, whether that is ours, and why. Both take, and it writes in another way:
/// - `{"a.b"}`: it makes a plain matcher of a quoted name;
/// - `a @ -1.5`: it writes times before 1970 as 0.
const DIFFERENCES: [(&str, bool, &str); 7] = [
    ("rate(a[5m] anchored)", true, "extended ranges are newer than it"),
    ("a smoothed", true, "extended ranges are newer than it"),
    ("a </ 1", true, "trimming is newer than it"),
    ("a[5m * 2]", true, "lengths are computed only here"),
    ("a[step()]", true, "lengths are computed only here"),
    ("info(a, {b=~\".*\"})", true, "the label selector of info may match everything"),
    ("a{b=\"\\xff\"}", false, "label values are UTF-8 here"),
];

/// By hand: what each rule of the grammar is about, right and wrong.
const TEXTS: &[&str] = &[
    "1",
    "1e3",
    "0x1F",
    "+Inf",
    "-NaN",
    ".5",
    "5.",
    "1.2.3",
    "\"a\"",
    "'a\\'b'",
    "\"\\u00e9\"",
    "\"\\z\"",
    "\"a",
    "a",
    "a{}",
    "{}",
    "{a=\"b\"}",
    "{a!=\"b\"}",
    "{a=~\"\"}",
    "a{b=\"c\",}",
    "a{,}",
    "a{b=c}",
    "a{b==\"c\"}",
    "{__name__=\"a\"}",
    "a{__name__=\"b\"}",
    "a:b",
    ":a",
    "a[5m]",
    "a[5]",
    "a[5m:1m]",
    "a[5m:]",
    "a[:]",
    "a[0s]",
    "a[1h30m]",
    "a[30m1h]",
    "a[5m][5m]",
    "a offset 5m",
    "a offset -5m",
    "a offset 5m offset 5m",
    "a[5m] offset 1w",
    "a offset 5m[5m]",
    "a @ 10",
    "a @ start()",
    "a @ end()",
    "a @ start",
    "a @ 10 @ 20",
    "(a + b)[5m:]",
    "(a)[5m]",
    "1 offset 5m",
    "a + b",
    "a + on (x) b",
    "a + on (x) group_left (y) b",
    "a + group_left b",
    "a + on (x) group_left (x) b",
    "a and on () b",
    "a and on (x) group_left () b",
    "a + bool b",
    "1 > 2",
    "1 > bool 2",
    "1 and 2",
    "a == on (x) bool b",
    "2 ^ 3 ^ 2",
    "-2 ^ 2",
    "-a",
    "!a",
    "sum(a)",
    "sum by (x) (a)",
    "sum(a) by (x,)",
    "sum by x (a)",
    "sum(a, b)",
    "topk(5, a)",
    "topk(a)",
    "rate(a)",
    "rate(a[5m])",
    "rate(a[5m],)",
    "nosuch(a)",
    "label_replace(a, \"b\", \"c\", \"d\", \"(\")",
];

fn ours(text: &str) -> Option<String> {
    promql::parse_with(text, Syntax { experimental: true }).ok().map(|expr| expr.to_string())
}

/// What it makes of a text, as it writes it.
fn theirs(text: &str) -> Option<String> {
    promql_parser::parser::parse(text).ok().map(|expr| expr.to_string())
}

fn compare(text: &str, failures: &mut Vec<String>) {
    match (ours(text), theirs(text)) {
        (None, None) => {}
        // Read back by ours, what it writes must be the same tree.
        (Some(mine), Some(written)) => {
            let read = ours(&written);
            if read.as_ref() != Some(&mine) {
                failures.push(format!("{text}: {mine} here and {written} there"));
            }
        }
        (mine, theirs) => failures.push(format!("{text}: {mine:?} here and {theirs:?} there")),
    }
}

#[test]
fn both_parsers_accept_the_same_and_mean_the_same() {
    let mut failures = Vec::new();
    for text in TEXTS {
        compare(text, &mut failures);
    }
    for seed in 0..COUNT {
        compare(&expression(&mut Random::new(seed), Dialect::Prometheus35), &mut failures);
    }
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_list_of_differences_is_true() {
    let found = |text| (ours(text).is_some(), theirs(text).is_some());
    let wrong: Vec<_> = DIFFERENCES
        .into_iter()
        .filter(|(text, is_ours, _)| found(text) != (*is_ours, !*is_ours))
        .map(|(text, _, why)| format!("{text}: {why}: {:?}", found(text)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_shown_reads_back_as_the_same_tree() {
    for seed in 0..COUNT {
        let text = expression(&mut Random::new(seed), Dialect::Whole);
        let shown = ours(&text).unwrap();
        assert_eq!(ours(&shown).as_deref(), Some(shown.as_str()), "{text}");
        let pretty = promql::parse_with(&text, Syntax { experimental: true }).unwrap().pretty();
        assert_eq!(ours(&pretty).as_deref(), Some(shown.as_str()), "{text} as {pretty}");
    }
}

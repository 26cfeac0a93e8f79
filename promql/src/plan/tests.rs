use super::*;
use crate::parse::{Syntax, parse_with};

fn plan_of(query: &str, range: QueryRange) -> Plan {
    let expr = parse_with(query, Syntax { experimental: true }).unwrap();
    plan(&expr, &range, &Settings::default()).unwrap()
}

fn ranges(query: &str) -> Vec<(i64, i64)> {
    let range = QueryRange { start_ms: 1_000_000, end_ms: 2_000_000, step_ms: 10_000, lookback_ms: 300_000 };
    plan_of(query, range).selects().iter().map(|s| (*s.range_ms.start(), *s.range_ms.end())).collect()
}

#[test]
fn selects_cover_look_back_range_offset_and_at() {
    assert_eq!(ranges("m"), [(700_001, 2_000_000)]);
    assert_eq!(ranges("rate(m[1m])"), [(940_001, 2_000_000)]);
    assert_eq!(ranges("m offset 1m"), [(640_001, 1_940_000)]);
    assert_eq!(ranges("m @ 500"), [(200_001, 500_000)]);
    assert_eq!(ranges("m @ end()"), [(1_700_001, 2_000_000)]);
    // The subquery's first step is the first full minute inside its first window.
    assert_eq!(ranges("sum_over_time(m[10m:1m])"), [(120_001, 1_980_000)]);
}

#[test]
fn selects_cover_what_anchored_and_smoothed_look_at_beyond_their_ends() {
    assert_eq!(ranges("rate(m[1m] anchored)"), [(640_001, 2_000_000)]);
    assert_eq!(ranges("rate(m[1m] smoothed)"), [(640_001, 2_300_000)]);
    assert_eq!(ranges("m smoothed offset 1m"), [(640_001, 2_240_000)]);
    assert_eq!(ranges("m anchored"), [(700_001, 2_000_000)]);
}

#[test]
fn equal_selectors_share_a_select_where_their_ranges_touch() {
    assert_eq!(ranges("rate(m[1m]) / rate(m[10m])"), [(400_001, 2_000_000)]);
    assert_eq!(ranges("m{a=\"1\"} + m").len(), 2);
    assert_eq!(ranges("m + m @ 5").len(), 2);
}

#[test]
fn equal_expressions_over_equal_steps_are_one() {
    let range = QueryRange { start_ms: 0, end_ms: 60_000, step_ms: 1_000, lookback_ms: 300_000 };
    let places = |query: &str| -> Vec<usize> {
        plan_of(query, range).shared().iter().map(|shared| shared.places).collect()
    };
    // The rate inside stands once in the sum that stands twice.
    assert_eq!(places("sum(rate(m[5m])) / (1 + sum(rate(m[5m])))"), [1, 2]);
    assert_eq!(places("rate(m[5m]) + rate(m[5m] offset 1m)"), Vec::<usize>::new());
    assert_eq!(places("rate(m[5m]) + max_over_time(rate(m[5m])[1h:1m])"), [1, 1]);
}

#[test]
fn constants_are_folded() {
    let plan = plan_of("1 + 2 * pi()", QueryRange::instant(0, 1));
    let Root::Scalar(ScalarNode::Constant(value)) = plan.root() else { panic!("{:?}", plan.root()) };
    assert_eq!(*value, 1.0 + 2.0 * std::f64::consts::PI);
}

#[test]
fn what_stands_under_at_is_evaluated_once() {
    let range = QueryRange { start_ms: 0, end_ms: 60_000, step_ms: 1_000, lookback_ms: 300_000 };
    let once = |query: &str| matches!(plan_of(query, range).root(), Root::Vector(VectorNode::Once(_)));
    assert!(once("sum(rate(m[5m] @ 30))"));
    assert!(!once("sum(rate(m[5m]))"));
    assert!(!once("predict_linear(m[5m] @ 30, 60)"));
}

#[test]
fn range_queries_want_scalars_or_vectors() {
    let range = QueryRange { start_ms: 0, end_ms: 60_000, step_ms: 1_000, lookback_ms: 300_000 };
    let error = plan(&crate::parse("m[5m]").unwrap(), &range, &Settings::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"invalid expression type "range vector" for range query, must be Scalar or instant Vector"#
    );
}

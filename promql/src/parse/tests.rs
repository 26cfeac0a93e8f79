use proptest::prelude::*;
use tsdb::model::MatchOp;

use super::ast::*;
use super::*;

const EXPERIMENTAL: Syntax = Syntax { experimental: true };

/// The tree as it was grouped: every operation in brackets of its own.
fn grouped(query: &str) -> String {
    fn show(expr: &Expr) -> String {
        match &expr.node {
            Node::Binary(b) => {
                let (first, operations) = b.operations();
                operations.fold(show(first), |before, operation| {
                    let (op, other) = (operation.operator.op.symbol(), show(operation.other));
                    if operation.other_on_left {
                        format!("<{other} {op} {before}>")
                    } else {
                        format!("<{before} {op} {other}>")
                    }
                })
            }
            Node::Unary(u) => format!("<{}{}>", if u.negative { "-" } else { "+" }, show(&u.operand)),
            Node::Paren(inner) => format!("({})", show(inner)),
            _ => expr.to_string(),
        }
    }
    show(&parse(query).unwrap())
}

#[test]
fn operators_bind_as_in_prometheus() {
    for (query, tree) in [
        ("1 + 2 * 3 ^ 4", "<1 + <2 * <3 ^ 4>>>"),
        ("1 - 2 - 3", "<<1 - 2> - 3>"),
        ("2 ^ 3 ^ 4", "<2 ^ <3 ^ 4>>"),
        ("-1 ^ 2", "<-<1 ^ 2>>"),
        ("-1 * 2", "<-1 * 2>"),
        ("2 ^ -1 * 3", "<<2 ^ -1> * 3>"),
        ("2 ^ -1 ^ 2", "<2 ^ <-<1 ^ 2>>>"),
        ("-a * b", "<<-a> * b>"),
        ("a or b and c", "<a or <b and c>>"),
        ("a unless b and c", "<<a unless b> and c>"),
        ("a and b == c + d", "<a and <b == <c + d>>>"),
        ("a atan2 b * c", "<<a atan2 b> * c>"),
        ("a == b != c", "<<a == b> != c>"),
        ("a + b offset 5m", "<a + b offset 5m>"),
        ("-a[5m:1m] + b", ""),
        ("1 + -+-2", "<1 + 2>"),
        ("a AND b Or c UNLESS d", "<<a and b> or <c unless d>>"),
    ] {
        if !tree.is_empty() {
            assert_eq!(grouped(query), tree, "{query}");
        }
    }
}

/// Each query as it is shown; itself where the second is empty.
#[test]
fn what_is_written_is_shown_in_one_way() {
    for (query, shown) in [
        ("1", ""),
        ("1e3", "1000"),
        ("0x1F", "31"),
        ("010", "8"),
        ("INF", "+Inf"),
        ("inf ^ a - inf", "Inf ^ a - +Inf"),
        ("-inF", "-Inf"),
        ("nan", "NaN"),
        ("1h30m", ""),
        ("-90s", "-1m30s"),
        ("1e-9", "0.000000001"),
        (r#""a\"b""#, ""),
        (r"'a\'b'", r#""a'b""#),
        (r"`a\n`", r#""a\\n""#),
        ("foo", ""),
        ("foo{}", "foo"),
        ("foo:bar_total", ""),
        (":foo", ""),
        (r#"{__name__="foo"}"#, ""),
        (r#"foo{b="1", a!="2", c=~"x.*", d!~"y",}"#, r#"foo{a!="2",b="1",c=~"x.*",d!~"y"}"#),
        (r#"{"my.metric", "a.b"="c"}"#, r#"{"my.metric","a.b"="c"}"#),
        (r#"{"foo", a="c"}"#, r#"foo{a="c"}"#),
        (r#"{"on"}"#, ""),
        (r#"{"inf"}"#, ""),
        (r#"foo{sum="a",on="b",bool="c"}"#, r#"foo{bool="c",on="b",sum="a"}"#),
        ("foo offset 5m @ 10", "foo @ 10.000 offset 5m"),
        ("foo @ 10.5 offset -5m", "foo @ 10.500 offset -5m"),
        ("foo offset 300", "foo offset 5m"),
        ("foo offset 0", "foo"),
        ("foo @ -1.5", "foo @ -1.500"),
        ("foo @ start() offset 1m", ""),
        ("foo[5m] @ END()", "foo[5m] @ end()"),
        ("foo[300]", "foo[5m]"),
        ("foo[1.5]", "foo[1s500ms]"),
        ("foo[5m] offset 1w", ""),
        ("rate(foo[5m])[1h:1m] offset 1y2w", "rate(foo[5m])[1h:1m] offset 379d"),
        ("foo[1h:]", ""),
        ("foo @ 5[1h:30s] @ start()", "foo @ 5.000[1h:30s] @ start()"),
        ("sum(foo)", ""),
        ("SUM by (a, b,) (foo)", "sum by (a, b) (foo)"),
        ("sum(foo) by (a)", "sum by (a) (foo)"),
        ("sum(foo) without ()", "sum without () (foo)"),
        ("sum by () (foo)", "sum(foo)"),
        (r#"sum by ("a.b", by, sum) (foo)"#, ""),
        ("topk(5, foo) by (a)", "topk by (a) (5, foo)"),
        (r#"count_values("v", foo)"#, ""),
        ("a + on (x) group_left b", "a + on (x) group_left () b"),
        ("a / ignoring (x) group_right (y, z) b", ""),
        ("a == bool on () b", "a == bool on () b"),
        ("a == bool 1", ""),
        ("1 > bool 2", ""),
        ("a and ignoring () b", "a and b"),
        ("sum", ""),
        ("sum + by", ""),
        ("start + end + offset offset 5m", ""),
        ("and and and", ""),
        ("time()", ""),
        ("round(foo)", ""),
        ("round(foo, 5)", ""),
        (r#"label_join(foo, "a", ",")"#, ""),
        ("# first\nfoo # second\n+ # third\nbar", "foo + bar"),
        ("((1))", ""),
    ] {
        let shown = if shown.is_empty() { query } else { shown };
        assert_eq!(parse(query).map(|e| e.to_string()), Ok(shown.to_owned()), "{query}");
        assert_eq!(parse(shown).map(|e| e.to_string()), Ok(shown.to_owned()), "{shown}");
    }
}

#[test]
fn durations_are_computed() {
    for (query, shown) in [
        ("foo[5m*2]", "foo[5m * 2]"),
        ("foo[-5s+(30m - 60) % 7m]", "foo[-5s + (30m - 60) % 7m]"),
        ("foo[step()+1ms]", "foo[step() + 1ms]"),
        ("foo[1h:max_of(STEP(), 1m) / 2]", "foo[1h:max_of(step(), 1m) / 2]"),
        ("foo offset -min_of(range(), 5)", ""),
        ("foo offset +(100 + 2)", "foo offset (100 + 2)"),
        ("foo offset 100 + 2", "foo offset 1m40s + 2"),
        ("foo offset -2 ^ 2", "foo offset -2s ^ 2"),
        ("foo offset (-2 ^ 2) @ 5", "foo @ 5.000 offset (-2 ^ 2)"),
        ("step() + range() + start() + end() + min_of(1, 2)", ""),
    ] {
        let shown = if shown.is_empty() { query } else { shown };
        let parsed = parse_with(query, EXPERIMENTAL).unwrap_or_else(|e| panic!("{query}: {e}"));
        assert_eq!(parsed.to_string(), shown, "{query}");
        assert_eq!(parse_with(shown, EXPERIMENTAL).unwrap().to_string(), shown);
        assert!(
            shown.starts_with("foo offset 1m40s")
                || shown.starts_with("foo offset -2s")
                || parse(query).is_err()
        );
    }
    let ms = |length: &str| {
        let expr = parse_with(&format!("foo[{length}]"), EXPERIMENTAL).map_err(|e| e.message)?;
        let Node::Matrix(matrix) = expr.node else { panic!("a range was written") };
        matrix.range.positive_ms(10_000, 60_000).map_err(|e| e.to_string())
    };
    assert_eq!(ms("2 ^ 3 ^ 1 * 1s"), Ok(8000));
    assert_eq!(ms("step() * 2 - range() / 6"), Ok(10_000));
    assert_eq!(ms("-2 ^ 2 + 5"), Ok(1000));
    assert_eq!(ms("min_of(step(), 1.5)"), Ok(1500));
    assert_eq!(ms("5m - 5m"), Err("duration must be greater than 0".to_owned()));
    assert_eq!(ms("5m - 6m"), Err("duration must be greater than 0".to_owned()));
    assert_eq!(ms("step() - 10"), Err("duration must be greater than 0".to_owned()));
    assert_eq!(ms("5m / 0"), Err("division by zero".to_owned()));
    assert_eq!(ms("5m % (1 - 1)"), Err("modulo by zero".to_owned()));
    assert_eq!(ms("10 ^ 300"), Err("duration out of range".to_owned()));
    assert!(ms(&"(".repeat(10_000)).unwrap_err().contains("nested too deeply"));
    assert!(ms(&format!("1{}", "+1".repeat(10_000))).unwrap_err().contains("nested too deeply"));
}

#[test]
fn errors_say_where_and_what() {
    for (query, error) in [
        ("", "1:1: parse error: no expression found in input"),
        (" # nothing", "1:11: parse error: no expression found in input"),
        ("1 +", "1:4: parse error: unexpected end of input"),
        ("1 1", "1:3: parse error: unexpected number \"1\""),
        ("a\n+ ]", "2:3: parse error: unexpected \"]\""),
        ("(1", "1:3: parse error: unexpected end of input in parentheses, expected \")\""),
        ("1)", "1:2: parse error: unexpected \")\""),
        ("a ? b", "1:3: parse error: unexpected character: '?'"),
        ("5mm", "1:1: parse error: bad number or duration syntax: \"5mm\""),
        ("1e999", "1:1: parse error: error parsing number: \"1e999\" is out of range"),
        ("'a", "1:1: parse error: unterminated quoted string"),
        ("'a\nb'", "1:1: parse error: unterminated quoted string"),
        ("`a", "1:1: parse error: unterminated raw string"),
        (r#""a\qb""#, "1:3: parse error: unknown escape sequence \\q"),
        (r#"{""}"#, "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        (r#"{a=""}"#, "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        (r#"{a=~".*"}"#, "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        (r#"foo{"bar"}"#, r#"1:1: parse error: metric name must not be set twice: "foo" or "bar""#),
        (r#"foo{__name__="b"}"#, r#"1:1: parse error: metric name must not be set twice: "foo" or "b""#),
        ("foo{a}", r#"1:6: parse error: unexpected "}" in label matching, expected label matching operator"#),
        ("foo{a=b}", r#"1:7: parse error: unexpected identifier "b" in label matching, expected string"#),
        ("foo{,}", r#"1:5: parse error: unexpected "," in label matching, expected identifier or "}""#),
        (
            "foo[5m",
            r#"1:7: parse error: unexpected end of input in subquery or range selector, expected ":" or "]""#,
        ),
        ("foo[0]", "1:5: parse error: duration must be greater than 0"),
        (
            "foo[a]",
            "1:5: parse error: unexpected identifier \"a\" in subquery or range selector, expected duration",
        ),
        ("(foo)[5m]", "1:6: parse error: ranges only allowed for vector selectors"),
        ("foo offset 5m[5m]", "1:14: parse error: no offset modifiers allowed before range"),
        ("foo @ 5[5m]", "1:8: parse error: no @ modifiers allowed before range"),
        ("foo offset 5m offset 5m", "1:15: parse error: offset may not be set multiple times"),
        ("foo @ 5 @ 5", "1:9: parse error: @ <timestamp> may not be set multiple times"),
        ("foo @ Inf", "1:7: parse error: timestamp out of bounds for @ modifier: Inf"),
        ("foo @ x", "1:7: parse error: unexpected identifier \"x\" in @, expected timestamp"),
        ("foo offset", "1:11: parse error: unexpected end of input in offset, expected duration"),
        (
            "sum(foo) offset 5m",
            "1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector \
             selector or a subquery",
        ),
        ("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
        ("a + bool b", "1:3: parse error: bool modifier can only be used on comparison operators"),
        ("a and 1", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression"),
        ("a and on (x) group_left b", "1:1: parse error: no grouping allowed for \"and\" operation"),
        ("a + on (x) 1", "1:1: parse error: vector matching only allowed between instant vectors"),
        (
            "a + on (x) group_left (x) b",
            "1:3: parse error: label \"x\" must not occur in ON and GROUP clause at once",
        ),
        ("a + group_left b", "1:5: parse error: unexpected identifier \"group_left\""),
        ("a + 'b'", "1:5: parse error: binary expression must contain only scalar and instant vector types"),
        (
            "-foo[5m]",
            "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"range vector\"",
        ),
        ("1[5m:]", "1:1: parse error: subquery is only allowed on instant vector, got scalar instead"),
        (
            "rate(foo)",
            "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
        ),
        ("rate()", "1:1: parse error: expected 1 argument(s) in call to \"rate\", got 0"),
        ("round()", "1:1: parse error: expected at least 1 argument(s) in call to \"round\", got 0"),
        ("round(a, 1, 2)", "1:1: parse error: expected at most 2 argument(s) in call to \"round\", got 3"),
        ("abs(a,)", "1:6: parse error: trailing commas not allowed in function call args"),
        ("nothing(a)", "1:1: parse error: unknown function with name \"nothing\""),
        ("sum()", "1:1: parse error: no arguments for aggregate expression provided"),
        (
            "topk(a)",
            "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
        ),
        ("topk('a', b)", "1:6: parse error: expected type scalar in aggregation parameter, got string"),
        ("sum(1)", "1:5: parse error: expected type instant vector in aggregation expression, got scalar"),
        (
            "sum by (a:b) (c)",
            "1:9: parse error: unexpected identifier \"a:b\" in grouping opts, expected label",
        ),
        ("sum by (a) b", "1:12: parse error: unexpected identifier \"b\" in aggregation, expected \"(\""),
        ("limitk(1, a)", "1:1: parse error: limitk() is experimental and isn't enabled"),
    ] {
        assert_eq!(parse(query).map_err(|e| e.to_string()), Err(error.to_owned()), "{query}");
    }
}

#[test]
fn a_pattern_that_is_no_re2_is_an_error_at_its_matcher() {
    let error = parse(r#"foo{a="b", c=~"("}"#).unwrap_err();
    assert_eq!((error.span, error.column), (Span { start: 11, end: 17 }, 12));
}

#[test]
fn experimental_functions_need_the_setting() {
    assert!(parse("mad_over_time(a[5m])").is_err());
    assert!(parse_with("mad_over_time(a[5m])", EXPERIMENTAL).is_ok());
    assert!(parse_with("limit_ratio(0.5, a)", EXPERIMENTAL).is_ok());
}

#[test]
fn experimental_modifiers_need_the_setting_and_are_shown_in_one_way() {
    for (query, shown) in [
        ("a + fill(0) b", "a + fill (0) b"),
        (
            "a / on (x) group_left fill_right (-1.5) fill_left (NaN) b",
            "a / on (x) group_left () fill_left (NaN) fill_right (-1.5) b",
        ),
        ("a == bool fill_left(+Inf) fill", "a == bool fill_left (+Inf) fill"),
        ("rate(a[5m] anchored offset 1m)", "rate(a[5m] anchored offset 1m)"),
        ("a @ 100 smoothed", "a smoothed @ 100.000"),
        ("a offset -100 smoothed + 0", "a smoothed offset -1m40s + 0"),
        (r#"info(a, {b=~".*"})"#, ""),
        (r#"info(a, {})"#, ""),
        ("a[(1m + 2m) * 3]", ""),
        ("a[1m + (2m * 3):(step())]", ""),
        ("a[-(-(5m))]", ""),
        ("a[((300))]", ""),
        ("a offset (1m * 2) + 1", ""),
        ("a offset -(1m * 2)", ""),
    ] {
        let shown = if shown.is_empty() { query } else { shown };
        let expr = parse_with(query, EXPERIMENTAL).unwrap_or_else(|e| panic!("{query}: {e}"));
        assert_eq!(expr.to_string(), shown, "{query}");
        assert_eq!(parse_with(shown, EXPERIMENTAL).unwrap().to_string(), shown);
        assert!(parse(query).is_err(), "{query}");
    }
    for metric in ["fill", "fill_left + fill", "a + fill_right", "anchored", "smoothed + anchored"] {
        assert!(parse(metric).is_ok(), "{metric}");
    }
    for wrong in [
        "a and fill(0) b",
        "a + fill(0) 1",
        "a + fill(b) c",
        "rate(a[5m] anchored smoothed)",
        "a[5m:1m] anchored",
        "info(a, b)",
        "info(a, sum(b))",
        r#"{b=~".*"}"#,
        r#"info(a, sum({b=~".*"}))"#,
        "1 </ 2",
    ] {
        assert!(parse_with(wrong, EXPERIMENTAL).is_err(), "{wrong}");
    }
    assert_eq!(grouped("a </ 1 + 2 == b >/ 3"), "<<<a </ <1 + 2>> == b> >/ 3>");
}

#[test]
fn spans_cover_what_was_written() {
    let query = " sum by (a) (rate( foo{a='b'}[5m] offset 1m ) * 2) ";
    let sum = parse(query).unwrap();
    let text = |e: &Expr| &query[e.span.start as usize..e.span.end as usize];
    assert_eq!(text(&sum), query.trim());
    let product = sum.children()[0];
    assert_eq!(text(product), "rate( foo{a='b'}[5m] offset 1m ) * 2");
    let rate = product.children()[0];
    assert_eq!(text(rate.children()[0]), "foo{a='b'}[5m] offset 1m");
}

#[test]
fn a_selectors_matchers_include_its_name() {
    let expr = parse(r#"foo{a=~"b|c"}"#).unwrap();
    let Node::Vector(selector) = &expr.node else { panic!("a selector was written") };
    assert_eq!(selector.name.as_deref(), Some("foo"));
    let matchers: Vec<_> = selector.matchers.iter().map(|m| (m.name(), m.op(), m.value())).collect();
    assert_eq!(matchers, [("a", MatchOp::Regex, "b|c"), ("__name__", MatchOp::Equal, "foo")]);
}

#[test]
fn nesting_is_bounded_however_it_is_written() {
    let n = 10_000;
    for query in [
        format!("{}1{}", "(".repeat(n), ")".repeat(n)),
        "(".repeat(n),
        format!("{}a", "-".repeat(n)),
        format!("a{}", "[5m:]".repeat(n)),
        format!("{}a{}", "abs(".repeat(n), ")".repeat(n)),
        format!("{}a{}", "sum(".repeat(n), ")".repeat(n)),
    ] {
        let error = parse(&query).unwrap_err();
        let short = &query[..query.len().min(20)];
        assert!(
            error.message.contains("at most 200 levels")
                || error.message.contains("at most 128 levels")
                || error.message.contains("only allowed"),
            "{short}: {error}"
        );
    }
}

#[test]
fn chains_of_operators_are_no_nesting() {
    for op in ["+", "or", "and", "^", "unless", "== on (x) group_left (y)", "/"] {
        let query = format!("a{}", format!(" {op} a").repeat(LINKS));
        let expr = parse(&query).unwrap();
        assert_eq!(expr.to_string(), query);
        assert_eq!(parse(&expr.pretty()).unwrap().to_string(), query);
        assert_eq!(expr.to_json().matches("binaryExpr").count(), LINKS);
        assert_eq!(expr.clone(), expr);
        assert_eq!(expr.children().len(), LINKS + 1);
    }
    // What differs in how it binds is grouped all the same.
    let mixed = format!("1{}", " + 2 * 3 ^ 4 - 5 / 6".repeat(LINKS / 4));
    assert_eq!(parse(&mixed).unwrap().to_string(), mixed);
    let wrong = parse(&format!("a{} + \"s\"", " + a".repeat(LINKS))).unwrap_err();
    assert!(wrong.message.contains("binary expression must contain only"), "{wrong}");
}

/// A query of 16 KiB and more.
const LINKS: usize = 4_999;

#[test]
fn long_chains_are_split_as_nested_ones_are() {
    let operand = "a_metric_with_a_name_of_some_greater_length{job=\"one\"}";
    let expr = parse(&format!("{operand} + {operand} * {operand} - {operand}")).unwrap();
    let lines = format!(
        "    {operand}
  +
      {operand}
    *
      {operand}
-
  {operand}"
    );
    assert_eq!(expr.pretty(), lines);
    let expr = parse(&format!("Inf ^ {operand} ^ {operand} ^ {operand}")).unwrap();
    let lines = format!(
        "  Inf
^
    {operand}
  ^
      {operand}
    ^
      {operand}"
    );
    assert_eq!(expr.pretty(), lines);
}

#[test]
fn the_highest_tree_is_walked_without_trouble() {
    let n = MAX_NESTING - 1;
    for query in [
        format!("{}1{}", "(".repeat(n), ")".repeat(n)),
        format!("{}a{}", "abs(".repeat(n), ")".repeat(n)),
        format!("{}a", "-".repeat(n)),
    ] {
        let expr = parse(&query).unwrap();
        assert_eq!(expr.to_string(), query);
        assert_eq!(parse(&expr.pretty()).unwrap().to_string(), query);
        assert!(expr.to_json().len() > query.len());
        assert_eq!(expr.clone(), expr);
    }
}

#[test]
fn what_is_too_long_for_a_line_is_split() {
    let long = "a_rather_long_metric_name_that_fills_the_line{instance=\"somewhere\",job=\"something\"}";
    let query = format!("sum by (job) (rate({long}[5m]) / on (job) group_left () -topk(5, {long})) > 5");
    let lines = format!(
        "  sum by (job) (
      rate({long}[5m])
    / on (job) group_left ()
      -topk(5, {long})
  )
>
  5"
    );
    // Prometheus indents an operator's sides by one level more than the operator.
    let pretty = parse(&query).unwrap().pretty();
    assert_eq!(pretty, lines);
    assert_eq!(parse("a + b").unwrap().pretty(), "a + b");
}

#[test]
fn json_has_the_shape_of_parse_query() {
    for (query, json) in [
        ("-1.5", r#"{"type":"numberLiteral","val":"-1.5"}"#),
        ("('<a>')", r#"{"expr":{"type":"stringLiteral","val":"\u003ca\u003e"},"type":"parenExpr"}"#),
        (
            "-foo @ 5 offset 1m",
            r#"{"expr":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":60000,"smoothed":false,"startOrEnd":null,"timestamp":5000,"type":"vectorSelector"},"op":"-","type":"unaryExpr"}"#,
        ),
        (
            "1 > bool 2",
            r#"{"bool":true,"lhs":{"type":"numberLiteral","val":"1"},"matching":null,"op":"\u003e","rhs":{"type":"numberLiteral","val":"2"},"type":"binaryExpr"}"#,
        ),
        (
            "rate(foo[5m] @ end())",
            r#"{"args":[{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":0,"range":300000,"smoothed":false,"startOrEnd":"end","timestamp":null,"type":"matrixSelector"}],"func":{"argTypes":["matrix"],"name":"rate","returnType":"vector","variadic":0},"type":"call"}"#,
        ),
    ] {
        assert_eq!(parse(query).unwrap().to_json(), json, "{query}");
    }
    let variadic = |query: &str| {
        let json = parse_with(query, EXPERIMENTAL).unwrap().to_json();
        json[json.find("variadic").unwrap() + 10..].split('}').next().unwrap().to_owned()
    };
    assert_eq!(variadic("day_of_week()"), "1");
    assert_eq!(variadic("label_join(vector(1), 'a', 'b')"), "0", "the inner call's comes first");
    assert_eq!(variadic("label_join(a, 'a', 'b')"), "-1");
    assert_eq!(variadic("histogram_quantiles(a, 'q', 0.5)"), "9");
}

/// Queries made at random by the grammar: vectors at the top.
fn vector_query() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "[a-c]{1,2}",
        Just("sum".to_owned()),
        Just("offset".to_owned()),
        Just(r#"{"é.x"}"#.to_owned())
    ];
    let modifiers = prop_oneof![
        4 => Just(String::new()),
        1 => Just(" offset 5m".to_owned()),
        1 => (-5000i64..5000).prop_map(|ms| format!(" @ {}", ms as f64 / 1000.0)),
        1 => Just(" @ start() offset -1h30m".to_owned()),
    ];
    let selector = (name, proptest::option::of("[a-z\"\\\\é\n]{0,4}"), modifiers).prop_map(
        |(name, value, modifiers)| match value {
            Some(value) if !name.starts_with('{') => {
                format!("{name}{{l!={}, \"q.r\"=\"x\"}}{modifiers}", string::quoted(&value))
            }
            _ => format!("{name}{modifiers}"),
        },
    );
    let leaf = selector.boxed();
    leaf.prop_recursive(6, 40, 3, |inner| {
        let scalar = prop_oneof![
            any::<f64>().prop_map(|v| v.to_string()),
            Just("1h".to_owned()),
            Just("time()".to_owned()),
            inner.clone().prop_map(|v| format!("scalar({v})")),
        ];
        let any_op = proptest::sample::select(vec!["+", "-", "*", "/", "%", "^", "atan2", "==", "> bool"]);
        let pair_op = proptest::sample::select(vec![
            "and",
            "or",
            "unless on (a)",
            "+ on (a, b) group_left (c)",
            "* ignoring (\"x.y\") group_right ()",
            "!= bool",
        ]);
        prop_oneof![
            inner.clone().prop_map(|v| format!("({v})")),
            inner.clone().prop_map(|v| format!("-{v}")),
            (inner.clone(), any_op.clone(), scalar.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (scalar.clone(), any_op, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} ({b})")),
            (inner.clone(), pair_op, inner.clone()).prop_map(|(a, op, b)| format!("({a}) {op} ({b})")),
            inner.clone().prop_map(|v| format!("sum without (a) ({v})")),
            (scalar.clone(), inner.clone()).prop_map(|(k, v)| format!("topk({k}, {v}) by (b)")),
            inner.clone().prop_map(|v| format!("rate(({v})[1h:5m] offset 1m)")),
            (inner.clone(), scalar).prop_map(|(v, s)| format!("clamp_max({v}, {s})")),
        ]
    })
}

/// Spans differ between a query and the same query as it is shown.
pub(super) fn without_spans(expr: &Expr) -> String {
    let mut text = format!("{expr:?}");
    while let Some(at) = text.find("span: Span {") {
        let end = at + text[at..].find('}').unwrap();
        text.replace_range(at..=end, "");
    }
    text
}

proptest! {
    #[test]
    fn a_tree_is_shown_as_a_query_that_parses_to_it(query in vector_query()) {
        let expr = parse(&query).unwrap_or_else(|e| panic!("{query}: {e}"));
        let shown = expr.to_string();
        let again = parse(&shown).unwrap_or_else(|e| panic!("{shown}: {e}"));
        // Matchers are shown in order, so one more round compares whole trees.
        prop_assert_eq!(&again.to_string(), &shown);
        prop_assert_eq!(without_spans(&parse(&again.pretty()).unwrap()), without_spans(&again));
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,40}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_mix_of_tokens_is_parsed_or_refused(tokens in prop::collection::vec(proptest::sample::select(vec![
        "a", "sum", "by", "on", "bool", "offset", "@", "(", ")", "[", "]", "{", "}", ",", ":", "=", "=~", "!=", "==",
        "+", "-", "^", "5m", "5", "0x", "\"s\"", "'", "rate", "topk", "group_left", "#", "\n", "step()", "min_of(5,", "*", "start", "é", "::",
    ]), 0..24)) {
        let text = tokens.join(" ");
        if let Ok(expr) = parse_with(&text, EXPERIMENTAL) {
            prop_assert!(parse_with(&expr.to_string(), EXPERIMENTAL).is_ok(), "{} is shown as {}", text, expr);
        }
        let _ = parse(&tokens.concat());
    }
}

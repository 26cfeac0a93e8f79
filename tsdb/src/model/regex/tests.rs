use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn set(text: &str) -> Vec<String> {
    let pattern = pattern(text);
    pattern.set().unwrap_or_else(|| panic!("{text:?} is no set")).iter().map(ToString::to_string).collect()
}

#[test]
fn re2s_meaning_holds_where_rusts_differs() {
    // (pattern, what matches, what doesn't)
    let cases: &[(&str, &[&str], &[&str])] = &[
        (r"\d+", &["123"], &["١٢", ""]),
        (r"\w+", &["a_9"], &["é", "a-b"]),
        (r"\W", &["é", "-"], &["a"]),
        (r"\s", &[" ", "\n", "\x0c"], &["\x0b", "\u{a0}"]),
        (r"[[:space:]]", &["\x0b"], &["\u{a0}"]),
        (r"\S", &["\x0b", "x"], &[" "]),
        (r"é\b.*", &[], &["é"]),
        (r".*\ba", &["éa", " a"], &["ba"]),
        (r".*\Ba", &["ba"], &["éa"]),
        (r"[a&&b]", &["a", "&", "b"], &["c"]),
        (r"[a[b]", &["a", "[", "b"], &["]"]),
        (r"[a~~b+--c]", &["a", "~", "b", "+", ",", "-", "c"], &["d"]),
        (r"[]a]", &["]", "a"], &[""]),
        (r"[^]a]", &["b"], &["]", "a"]),
        (r"[a-]", &["a", "-"], &["b"]),
        (r"[\d-z]", &["5", "-", "z"], &["a"]),
        (r"[[:word:][:^alpha:]]", &["_", "a", "é"], &[]),
        (r"\Qa.b\E.", &["a.bc"], &["axbc"]),
        (r"\Qa.*", &["a.*"], &["ab"]),
        (r"\Qab\E*", &["a", "abb"], &["abab"]),
        (r"\pN\p{Greek}\PL", &["1α-"], &["aα-", "1a-"]),
        (r"\p{^Lu}", &["a", "1"], &["A"]),
        (r"\p{Any}", &["\n"], &[""]),
        (r"\x41\x{1F600}\101\07", &["A\u{1F600}A\x07"], &[]),
        (r"\a\f\t\n\r\v\A?\_\-", &["\x07\x0c\t\n\r\x0b_-"], &[]),
        (r"a.c", &["a\nc"], &["ac"]),
        (r"(?-s)a.c", &["abc"], &["a\nc"]),
        (r"(?-s:a.)c.", &["abc\n"], &["a\nc\n"]),
        (r"a{,3}", &["a{,3}"], &["aa"]),
        (r"a{x}", &["a{x}"], &[]),
        (r"a{2}", &["aa"], &["a"]),
        (r"a{2,}?", &["aaa"], &["a"]),
        (r"x{0}y", &["y"], &["xy"]),
        (r"(?i)straSSe", &["STRASSE", "ſtrasse"], &["strase"]),
        (r"(?i)k", &["K", "\u{212a}"], &[]),
        (r"(?i:a)b", &["Ab"], &["AB"]),
        (r"(?i)[^a]", &["b"], &["A"]),
        (r"a(?i)b|c", &["aB", "C"], &["AB"]),
        (r"(?i)(?-i)a", &["a"], &["A"]),
        (r"(?P<n>a)(?<m>b)", &["ab"], &[]),
        (r"(?U)a+", &["aaa"], &[]),
        (r"(?)a", &["a"], &[]),
        (r"(?m)a$\n^b", &["a\nb"], &["ab"]),
        (r"a|", &["a", ""], &["b"]),
        (r"", &[""], &["a"]),
        (r"^*a", &["a"], &[]),
        (r"\<\b{start}", &[], &["<start"]),
        (r"^a$", &["a"], &["a\n"]),
        (r"a$|^b", &["a", "b"], &["ab"]),
        (r"(a)(b)?", &["a", "ab"], &[]),
    ];
    for (text, matching, others) in cases {
        let pattern = pattern(text);
        for value in *matching {
            assert!(pattern.matches(value), "{text:?} should match {value:?}");
        }
        for value in *others {
            assert!(!pattern.matches(value), "{text:?} shouldn't match {value:?}");
        }
    }
}

#[test]
fn what_re2_refuses_is_refused() {
    for text in [
        "x{1001}",
        "x{1,1001}",
        "x{2,1}",
        "(x{500}){3}",
        "((x{10}){10}){11}",
        "a**",
        "a*+",
        "a++",
        "a??*",
        "a{2}{3}",
        "*a",
        "+",
        "a|*",
        "(*a)",
        "(?i)*a",
        r"\Q\E*",
        "(",
        ")",
        "a)(b",
        "(a",
        "[a",
        "[",
        "[]",
        "[b-a]",
        "[a-\\d]",
        "[[:foo:]]",
        "(?x)a",
        "(?u)a",
        "(?R)a",
        "(?-)a",
        "(?i-)a",
        "(?--i)a",
        "(?",
        "(?i",
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(?<!a)",
        "(?>a)",
        "(?#c)",
        "(?P=n)",
        "(?P<n>a)(?P<n>b)",
        "(?P<>a)",
        "(?P<a-b>c)",
        "(?P<n",
        r"\1",
        r"\8",
        r"\C",
        r"\Z",
        r"\R",
        r"\X",
        r"\K",
        r"\G",
        r"\h",
        r"\e",
        r"\u0041",
        r"\u{41}",
        r"\é",
        r"\x",
        r"\x4",
        r"\x{}",
        r"\x{110000}",
        r"\x{D800}",
        r"\x{41",
        r"\p",
        r"\p{",
        r"\p{Foo}",
        r"\p{Alphabetic}",
        r"\p{sc=Greek}",
        r"\pé",
        "\\",
        r"[\",
        r"[\b]",
        r"[\Q]\E]",
    ] {
        assert!(matches!(Pattern::new(text), Err(Error::Invalid(_))), "{text:?} was accepted");
    }
}

#[test]
fn limits_are_named() {
    let long = "a".repeat(1 << 20);
    assert!(matches!(Pattern::new(&long), Err(Error::Limit(m)) if m.contains("524288")));
    let too_large = Pattern::new(r"((\pL|\pN|\pM|\pS|\pP){30}x){33}((\pL|\pN|\pM|\pS|\pP){30}y){33}");
    assert!(matches!(too_large, Err(Error::Limit(m)) if m.contains(&COMPILED_BYTES_MAX.to_string())));
    for taken in [r"\pL{500}", r"[\p{L}\p{N}]{1,253}", r"(\pL{30}){33}"] {
        assert!(Pattern::new(taken).is_ok(), "{taken}");
    }
    let deep = format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(matches!(Pattern::new(&deep), Err(Error::Invalid(_))));
    let nested = format!("{}a.b{}", "(".repeat(200), "*)".repeat(200));
    assert!(pattern(&nested).matches("axbazb"));
}

#[test]
fn an_option_of_a_repetition_matches_nothing_too() {
    for text in [
        "(?:[a-z]+)?",
        "(?:[a-z]+?)?",
        "(?:[a-z]+)??",
        "(?U)(?:[a-z]+)?",
        "(?:(?:[a-z]{2,3}){2}){0,1}",
        "([a-z]+)?",
    ] {
        assert!(pattern(text).matches("") && pattern(text).matches("aaaa"), "{text:?}");
        assert!(!pattern(text).matches("1"), "{text:?}");
    }
    // Which of both it prefers shows in what is captured.
    let taken = |text| anchored_regex(text).unwrap().captures("ab").unwrap()[1].to_string();
    assert_eq!(taken("((?:[a-z]+)?).*"), "ab");
    assert_eq!(taken("((?:[a-z]+)??).*"), "");
    assert_eq!(taken("((?:[a-z]+?)?).*"), "a");
}

#[test]
fn the_deepest_pattern_is_compiled() {
    let depth = parse::DEPTH_MAX;
    let deep = format!("{}{}", "(x|y[ab]".repeat(depth), "c+)?".repeat(depth));
    assert!(pattern(&deep).matches("x") && anchored_regex(&deep).unwrap().is_match("x"));
}

#[test]
fn a_long_list_of_literals_needs_no_engine() {
    let list: Vec<String> = (0..20_000).map(|i| format!("host-{i}:9100")).collect();
    let pattern = pattern(&list.join("|"));
    assert_eq!(pattern.set().unwrap().len(), 20_000);
    assert!(pattern.matches("host-19999:9100") && !pattern.matches("host-20000:9100"));
}

#[test]
fn captures_are_numbered_and_named_as_written() {
    let regex = anchored_regex(r"(?i:x)(a+?)(?P<rest>\d*a*)(?U)(.*)(.*)").unwrap();
    let found = regex.captures("Xaa1").unwrap();
    assert_eq!((&found[1], &found["rest"], &found[3], &found[4]), ("a", "a", "", "1"));
    assert!(regex.captures("yXaa1").is_none());
    assert!(anchored_regex("(a)**").is_err());
    let regex = anchored_regex("(?:(x)(?P<y>y)+){0}(z)(a){0}").unwrap();
    let found = regex.captures("z").unwrap();
    assert_eq!(
        (found.len(), found.get(1), found.name("y"), &found[3], found.get(4)),
        (5, None, None, "z", None)
    );
    assert!(regex.captures("xyz").is_none());
}

#[test]
fn sets_are_found() {
    assert_eq!(set("foo"), ["foo"]);
    assert_eq!(set("b|a|b"), ["a", "b"]);
    assert_eq!(set("(foo|bar)-[12]"), ["bar-1", "bar-2", "foo-1", "foo-2"]);
    assert_eq!(set("^(a|b)?$"), ["", "a", "b"]);
    assert_eq!(set("x{2}|y{0,2}"), ["", "xx", "y", "yy"]);
    assert_eq!(set("(?i)ab"), ["AB", "Ab", "aB", "ab"]);
    assert_eq!(set(r"a\.b"), ["a.b"]);
    assert_eq!(set("^a$|^b$"), ["a", "b"]);
}

#[test]
fn literals_with_gaps_need_no_engine() {
    for text in
        ["a.*", "a.+", ".*a", ".+a", ".*a.*", ".+a.+", "a.*b", "a.+b.*c", ".+", "^a.*$", "node.*exporter:.+"]
    {
        assert!(matches!(pattern(text).form, Form::Glob(_)), "{text:?}");
    }
    assert!(pattern(".*").is_everything() && pattern("^(.*)$").is_everything());
    assert!(!pattern(".+").is_everything());
    assert!(!pattern("(?-s).*").is_everything());
    assert_eq!(pattern("ab.*").prefix(), "ab");
    assert_eq!(pattern("ab[cd]+").prefix(), "ab");
    assert_eq!(pattern("(ab|cd).*").prefix(), "");
}

proptest! {
    #[test]
    fn fast_forms_agree_with_the_engine(text in "([ab]|\\.\\*|\\.\\+|\\||[(]a|b[)]|[?]|\\[ab\\]){0,8}", value in "[ab\n]{0,6}") {
        if let Ok(pattern) = Pattern::new(&text) {
            let engine = regex::Regex::new(&format!("^(?s:{text})$")).unwrap();
            prop_assert_eq!(pattern.matches(&value), engine.is_match(&value), "{:?} {:?}", text, value);
            prop_assert!(!pattern.matches(&value) || value.starts_with(pattern.prefix()));
        }
    }

    #[test]
    fn what_both_write_alike_matches_alike(
        text in "(a|b|[ab]|[(](\\?:)?|[)]|[|]|[*+?]\\??|[{][0-3][}]|[{][0-2],[}]|[{][01],[2-3][}]){0,14}",
        values in prop::collection::vec("[ab]{0,6}", 4),
    ) {
        let engine = regex::Regex::new(&format!("^(?s:{text})$"));
        if let (Ok(pattern), Ok(captures), Ok(engine)) = (Pattern::new(&text), anchored_regex(&text), engine) {
            // The engine forgets groups that are repeated no times; Go numbers them all the same, and so do we.
            let has_all_groups = engine.captures_len() == captures.captures_len();
            prop_assert!(has_all_groups || text.contains("{0}"), "{:?}", text);
            for value in &values {
                prop_assert_eq!(pattern.matches(value), engine.is_match(value), "{:?} {:?}", text, value);
                let groups = |regex: &regex::Regex| {
                    regex.captures(value).map(|c| c.iter().map(|g| g.map(|g| g.range())).collect::<Vec<_>>())
                };
                if has_all_groups {
                    prop_assert_eq!(groups(&captures), groups(&engine), "{:?} {:?}", text, value);
                }
            }
        }
    }

    #[test]
    fn any_text_is_refused_or_compiled(text in "\\PC{0,20}") {
        let _ = Pattern::new(&text);
    }

    #[test]
    fn syntax_soup_never_panics(text in "[]\\[()a-c{}0-9,*+?|.^$\\\\:&<>P=!iQEpxd-]{0,16}") {
        let _ = Pattern::new(&text);
    }
}

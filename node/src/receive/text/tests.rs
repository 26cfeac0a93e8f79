//! Lines as clients write them, good and bad.

use proptest::prelude::*;

use super::*;

const NOW_MS: i64 = 1_000;

/// Each sample as `series timestamp value`, each refusal, each exemplar.
fn read(body: &str, format: Format) -> (Vec<String>, Vec<String>, Vec<Exemplar>) {
    let mut batch = Batch::default();
    decode(body.as_bytes(), format, NOW_MS, &SeriesHasher::new(1), &mut batch);
    let mut refused: Vec<_> = batch.refused.iter().map(|r| r.why.clone()).collect();
    let mut samples = Vec::new();
    for (append, owner) in batch.appends.iter().zip(&batch.owners) {
        let Value::Float(value) = append.sample.value else { panic!("text has floats only") };
        match labels(batch.raw_labels(body.as_bytes(), *owner), &Limits::default()) {
            Ok(labels) => samples.push(format!("{labels} {} {value}", append.sample.timestamp_ms)),
            Err(why) => refused.push(why),
        }
    }
    (samples, refused, batch.exemplars.into_iter().map(|(_, e)| e).collect())
}

#[test]
fn the_text_format_is_read() {
    let body = "# HELP up Is it up?\n# TYPE up gauge\nup 1\n\nup{job=\"a\"} 0 123\n  up { job = \"b\" , } -Inf\n\
                http_total{a=\"x\\\"}{\\\\\\n\",b=\"\"} 1.5e3 -7\r\n# just a comment\nx:y_1 NaN";
    let (samples, refused, _) = read(body, Format::Text);
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(
        samples,
        [
            "up 1000 1",
            "up{job=\"a\"} 123 0",
            "up{job=\"b\"} 1000 -inf",
            "http_total{a=\"x\\\"}{\\\\\\n\"} -7 1500",
            "x:y_1 1000 NaN",
        ]
    );
}

#[test]
fn names_may_be_any_text_in_quotes() {
    let (samples, refused, _) = read("{\"my metric\", \"a.b\"=\"c\"} 1\n", Format::Text);
    assert_eq!((samples, refused), (vec!["my metric{a.b=\"c\"} 1000 1".to_owned()], vec![]));
}

#[test]
fn openmetrics_has_seconds_and_exemplars_and_an_end() {
    let body = "# TYPE foo histogram\nfoo_bucket{le=\"1\"} 11 1.5 # {trace_id=\"K}\"} 0.67 1.25\n\
                foo_bucket{le=\"2\"} 17 # {} 9\nfoo_count 17\n# EOF\nbar 1\n";
    let (samples, refused, exemplars) = read(body, Format::OpenMetrics);
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(
        samples,
        ["foo_bucket{le=\"1\"} 1500 11", "foo_bucket{le=\"2\"} 1000 17", "foo_count 1000 17"]
    );
    let times: Vec<_> = exemplars.iter().map(|e| (e.timestamp_ms, e.value, e.labels.to_string())).collect();
    assert_eq!(times, [(1250, 0.67, "{trace_id=\"K}\"}".to_owned()), (1000, 9.0, "{}".to_owned())]);
}

#[test]
fn a_bad_line_is_named_and_the_others_are_taken() {
    let body = "up 1\nup\nup one\nup{a=\"b\" 1\nup{a} 1\nup{a=\"b\",a=\"c\"} 1\n1up 1\nup 1 2 3\nup 1 x\n\
                up{a=\"b\"c=\"d\"} 1\n{a=\"b\"} 1\nup 2 # {} 1\nup 3 5\n";
    let (samples, refused, _) = read(body, Format::Text);
    assert_eq!(samples, ["up 1000 1", "up 5 3"]);
    let all = refused.join("\n");
    for wanted in [
        "line 2: the value is missing",
        "line 3: \"one\" isn't a number",
        "line 4: a closing brace is missing",
        "line 8: there is something behind the timestamp",
        "line 9: \"x\" isn't a timestamp in milliseconds",
        "line 12: there is something behind the timestamp",
        "a label's name and = are expected",
        "label \"a\" occurs twice",
        "\"1up\" isn't a metric's name",
        "a comma or closing brace is expected",
        "label __name__ is missing",
    ] {
        assert!(all.contains(wanted), "{wanted} is not in:\n{all}");
    }
    assert_eq!(refused.len(), 11);
}

#[test]
fn metadata_comes_from_comments() {
    let body = "# HELP a Some\\nhelp\n# TYPE a counter\n# UNIT a seconds\na 1\n# TYPE b strange\n# TYPE\n";
    let mut batch = Batch::default();
    decode(body.as_bytes(), Format::OpenMetrics, 0, &SeriesHasher::new(1), &mut batch);
    let found: Vec<_> = batch.metadata.iter().map(|m| [&m.family[..], &m.kind, &m.help, &m.unit]).collect();
    assert_eq!(found, [["a", "counter", "Some\nhelp", "seconds"], ["b", "unknown", "", ""]]);
    assert_eq!(batch.refused.len(), 1);
}

proptest! {
    #[test]
    fn any_labels_read_back(pairs in prop::collection::btree_map("\\PC{1,8}", "(?s).{1,20}", 0..5)) {
        let quoted = |s: &str| s.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let mut line = String::from("{\"m\"");
        for (name, value) in &pairs {
            line += &format!(", \"{}\"=\"{}\"", quoted(name), quoted(value));
        }
        line += "} 1";
        let mut batch = Batch::default();
        decode(line.as_bytes(), Format::Text, 0, &SeriesHasher::new(1), &mut batch);
        let found = labels(batch.raw_labels(line.as_bytes(), 0), &Limits::default()).unwrap();
        let wanted = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain([("__name__", "m")]);
        prop_assert_eq!(found, Labels::from_pairs(wanted).unwrap());
    }

    #[test]
    fn hostile_text_is_refused_or_read(body in "[ \\t\\n{}\"\\\\=,#a0é]{0,80}", openmetrics: bool) {
        read(&body, if openmetrics { Format::OpenMetrics } else { Format::Text });
    }
}

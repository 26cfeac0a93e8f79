//! Lines as clients write them, good and bad.

use proptest::prelude::*;

use super::*;

const NOW_MS: i64 = 1_000;

fn decode_into(body: &str, format: Format, batch: &mut Batch) -> Result<(), TextError> {
    let mut held = Budget::new(usize::MAX).hold();
    let memory = &mut DecodedBytes::new(&mut held, usize::MAX);
    decode(body.as_bytes(), format, NOW_MS, &SeriesHasher::new(1), memory, batch)
}

/// Each sample as `series timestamp value`, each refusal, each exemplar.
fn read(body: &str, format: Format) -> (Vec<String>, Vec<String>, Vec<Exemplar>) {
    let mut batch = Batch::default();
    Reader::new(format, NOW_MS).read(body.as_bytes(), &SeriesHasher::new(1), &mut batch).unwrap();
    let mut refused: Vec<_> = batch.refused.described().iter().map(|r| r.why.clone()).collect();
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
                foo_bucket{le=\"2\"} 17 # {} 9\nfoo_count 17\n# EOF\n\n";
    let (samples, refused, exemplars) = read(body, Format::OpenMetrics);
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(
        samples,
        ["foo_bucket{le=\"1.0\"} 1500 11", "foo_bucket{le=\"2.0\"} 1000 17", "foo_count 1000 17"]
    );
    let times: Vec<_> = exemplars.iter().map(|e| (e.timestamp_ms, e.value, e.labels.to_string())).collect();
    assert_eq!(times, [(1250, 0.67, "{trace_id=\"K}\"}".to_owned()), (1000, 9.0, "{}".to_owned())]);
}

#[test]
fn openmetrics_that_was_cut_or_joined_is_refused_wherever_that_happened() {
    let whole = "# TYPE m counter\nm_total{a=\"b\"} 1 17\nm_total{a=\"c\"} 2 1795625140.5\n# EOF\n";
    let decoded = |body: &str| {
        decode_into(body, Format::OpenMetrics, &mut Batch::default()).map_err(|error| error.to_string())
    };
    let mark_end = whole.len() - 1;
    for end in 0..=whole.len() {
        let (cut, is_whole) = (&whole[..end], end >= mark_end);
        assert_eq!(decoded(cut).is_ok(), is_whole, "{cut:?}");
        if !is_whole {
            assert!(decoded(cut).unwrap_err().contains("does not end with # EOF"));
        }
        // A cut one with a whole one behind it has one end mark, and passes; two whole ones never do.
        let joined = format!("{whole}{cut}");
        assert_eq!(decoded(&joined).is_ok(), cut.is_empty(), "{joined:?}");
    }
    // The same in pieces of a line each.
    let mut reader = Reader::new(Format::OpenMetrics, NOW_MS);
    for line in format!("{whole}m 1\n").split_inclusive('\n') {
        let read = reader.read(line.as_bytes(), &SeriesHasher::new(1), &mut Batch::default());
        assert_eq!(read.is_ok(), line != "m 1\n", "{line}");
        assert_eq!(reader.finish().is_ok(), line == "# EOF\n" || line == "m 1\n", "{line}");
    }
}

#[test]
fn milliseconds_are_not_taken_for_seconds() {
    for (time, taken) in [
        ("1700000000000", false),
        ("-1700000000000", false),
        ("253402300800", false),
        ("1e300", false),
        ("NaN", false),
        ("253402300799", true),
        ("1700000000.123", true),
        ("-5", true),
    ] {
        let (samples, refused, _) = read(&format!("m 1 {time}\n"), Format::OpenMetrics);
        assert_eq!((samples.len(), refused.len()), (usize::from(taken), usize::from(!taken)), "{time}");
        let (_, refused, _) = read(&format!("m 1 17 # {{}} 1 {time}\n"), Format::OpenMetrics);
        assert_eq!(refused.len(), usize::from(!taken), "of an exemplar: {time}");
    }
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
fn bounds_are_spelled_one_way_where_the_type_says_that_they_are_bounds() {
    let body = "# TYPE h histogram\nh_bucket{ le = \"1\" , a=\"x\\\"\\\\\\n,\"} 1\n{\"h_bucket\",le=\"+Inf\"} 2\nh_count{le=\"1\"} 2\n\
                # TYPE s summary\ns{quantile=\".5\",le=\"1\"} 3\n# TYPE g gauge\ng{le=\"1\",quantile=\"1\"} 4\n";
    let (samples, refused, _) = read(body, Format::Text);
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(
        samples,
        [
            "h_bucket{a=\"x\\\"\\\\\\n,\", le=\"1.0\"} 1000 1",
            "h_bucket{le=\"+Inf\"} 1000 2",
            "h_count{le=\"1.0\"} 1000 2",
            "s{le=\"1\", quantile=\"0.5\"} 1000 3",
            "g{le=\"1\", quantile=\"1\"} 1000 4"
        ]
    );
}

#[test]
fn escapes_are_read_once_from_left_to_right() {
    for (written, meant) in [
        ("a\\\\nb", "a\\nb"),
        ("a\\nb", "a\nb"),
        ("\\\\\\n", "\\\n"),
        ("\\\\\\\\n", "\\\\n"),
        ("\\\"", "\""),
        ("\\x\\", "\\x\\"),
    ] {
        let mut batch = Batch::default();
        decode_into(&format!("# HELP m {written}\n"), Format::Text, &mut batch).unwrap();
        assert_eq!(batch.metadata[0].help, meant, "{written}");
        if !written.ends_with("x\\") {
            let line = format!("m{{a=\"{written}\"}} 1\n");
            decode_into(&line, Format::Text, &mut batch).unwrap();
            let raw = batch.raw_labels(line.as_bytes(), batch.raw.len() as u32 - 1);
            assert_eq!(labels(raw, &Limits::default()).unwrap().value("a"), meant, "{written}");
        }
    }
}

#[test]
fn metadata_comes_from_comments() {
    let body = "# HELP a Some\\nhelp\n# TYPE a counter\n# UNIT a seconds\na 1\n# TYPE b strange\n# TYPE\n";
    let mut batch = Batch::default();
    Reader::new(Format::OpenMetrics, 0).read(body.as_bytes(), &SeriesHasher::new(1), &mut batch).unwrap();
    let found: Vec<_> = batch.metadata.iter().map(|m| [&m.family[..], &m.kind, &m.help, &m.unit]).collect();
    assert_eq!(found, [["a", "counter", "Some\nhelp", "seconds"], ["b", "unknown", "", ""]]);
    assert_eq!(batch.refused.count(), 1);
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
        decode_into(&line, Format::Text, &mut batch).unwrap();
        let found = labels(batch.raw_labels(line.as_bytes(), 0), &Limits::default()).unwrap();
        let wanted = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain([("__name__", "m")]);
        prop_assert_eq!(found, Labels::from_pairs(wanted).unwrap());
    }

    #[test]
    fn hostile_text_is_refused_or_read(body in "[ \\t\\n{}\"\\\\=,#a0é]{0,80}", openmetrics: bool) {
        read(&body, if openmetrics { Format::OpenMetrics } else { Format::Text });
        let format = if openmetrics { Format::OpenMetrics } else { Format::Text };
        let _ = decode_into(&body, format, &mut Batch::default());
    }
}

//! Judging the labels of a series that is new to the node.

use tsdb::model::{Labels, METRIC_NAME};

use super::wire::Reader;
use crate::config::Limits;

/// Memory that a pair of texts takes while it is judged.
pub const PAIR_BYTES: usize = size_of::<(&str, &str)>();

/// Longest part of a name or value that an error quotes.
const QUOTED_BYTES_MAX: usize = 200;

/// The labels in remote write's raw bytes, repeated field 1 of `TimeSeries`, sorted by name. The specification demands
/// that senders sort them; vmagent with external labels and many clients don't, Prometheus takes theirs, and a sender
/// that is answered 400 drops its data for good.
///
/// # Errors
/// What is wrong with them, for the sender to read.
pub fn from_remote_write(raw: &[u8], limits: &Limits) -> Result<Labels, String> {
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(16);
    let mut fields = Reader::new(raw);
    while let Some((_, field)) = fields.field().map_err(|e| e.to_string())? {
        let (mut name, mut value) = (&b""[..], &b""[..]);
        let mut parts = Reader::new(field.bytes().map_err(|e| e.to_string())?);
        while let Some((number, part)) = parts.field().map_err(|e| e.to_string())? {
            match number {
                1 => name = part.bytes().map_err(|e| e.to_string())?,
                2 => value = part.bytes().map_err(|e| e.to_string())?,
                _ => {}
            }
        }
        let name = text(name).map_err(|shown| format!("label name {shown} isn't UTF-8"))?;
        let value = text(value).map_err(|shown| format!("value {shown} of label {name:?} isn't UTF-8"))?;
        if pairs.len() >= pairs_max(limits) {
            let most = limits.max_labels;
            return Err(format!("there are more than {most} labels (max_labels) in {}", shown(&pairs)));
        }
        pairs.push((name, value));
    }
    if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
        pairs.sort_unstable();
        if let Some(twice) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(format!("label {} occurs twice in {}", quoted(twice[0].0), shown(&pairs)));
        }
    }
    checked(&pairs, limits)
}

/// Pairs of a series that are looked at: those that may be stored, and as many that are empty, and so absent. A hostile
/// series has millions.
pub fn pairs_max(limits: &Limits) -> usize {
    usize::try_from(limits.max_labels.saturating_mul(2)).unwrap_or(usize::MAX)
}

/// Labels from sorted, unique pairs, after all other checks.
///
/// # Errors
/// What is wrong with them, for the sender to read.
pub fn checked(pairs: &[(&str, &str)], limits: &Limits) -> Result<Labels, String> {
    let wrong = |what: String| Err(format!("{what} in {}", shown(pairs)));
    let mut has_name = false;
    let mut count = 0u64;
    for (name, value) in pairs {
        if name.is_empty() {
            return wrong("a label has an empty name".to_owned());
        }
        if name.len() as u64 > limits.max_label_name_length {
            let most = limits.max_label_name_length;
            return wrong(format!(
                "label name {} has more than {most} bytes (max_label_name_length)",
                quoted(name)
            ));
        }
        if value.len() as u64 > limits.max_label_value_length {
            let most = limits.max_label_value_length;
            return wrong(format!(
                "the value of label {} has more than {most} bytes (max_label_value_length)",
                quoted(name)
            ));
        }
        // A label without a value is an absent label.
        has_name |= *name == METRIC_NAME && !value.is_empty();
        count += u64::from(!value.is_empty());
    }
    if !has_name {
        return wrong(format!("label {METRIC_NAME} is missing"));
    }
    if count > limits.max_labels {
        return wrong(format!("there are {count} labels, more than {} (max_labels)", limits.max_labels));
    }
    Ok(Labels::from_sorted(pairs.iter().copied().filter(|(_, value)| !value.is_empty())))
}

/// Labels of an exemplar: sorted here, since senders needn't.
///
/// # Errors
/// When a name occurs twice, or the text isn't UTF-8.
pub fn of_exemplar<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Labels, String> {
    let mut texts = Vec::new();
    for (name, value) in pairs {
        let name = text(name).map_err(|shown| format!("exemplar's label name {shown} isn't UTF-8"))?;
        let value = text(value).map_err(|shown| format!("exemplar's label value {shown} isn't UTF-8"))?;
        texts.push((name, value));
    }
    Labels::from_pairs(texts).map_err(|e| format!("exemplar: {e}"))
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| quoted(&String::from_utf8_lossy(bytes)))
}

/// Text in quotes, cut where it is long.
pub fn quoted(text: &str) -> String {
    let end = text.floor_char_boundary(QUOTED_BYTES_MAX);
    let dots = if end < text.len() { "…" } else { "" };
    format!("{:?}{dots}", &text[..end])
}

/// The pairs as they came, cut where they are long.
fn shown(pairs: &[(&str, &str)]) -> String {
    let mut shown = String::from("{");
    for (i, (name, value)) in pairs.iter().enumerate() {
        if shown.len() > QUOTED_BYTES_MAX * 4 {
            shown.push_str(", …");
            break;
        }
        let (cut, gap) = (name.floor_char_boundary(QUOTED_BYTES_MAX), if i == 0 { "" } else { ", " });
        shown.push_str(gap);
        shown.push_str(&name[..cut]);
        shown.push('=');
        shown.push_str(&quoted(value));
    }
    shown.push('}');
    shown
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::prometheus::{Label, TimeSeries};

    use super::*;

    fn judged(pairs: &[(&str, &str)]) -> Result<Labels, String> {
        let labels =
            pairs.iter().map(|(n, v)| Label { name: (*n).to_owned(), value: (*v).to_owned() }).collect();
        let raw = TimeSeries { labels, ..TimeSeries::default() }.encode_to_vec();
        from_remote_write(&raw, &Limits::default())
    }

    #[test]
    fn good_labels_pass_and_empty_ones_vanish() {
        let labels = judged(&[("__name__", "up"), ("a", ""), ("job", "ü")]).unwrap();
        assert_eq!(labels, Labels::from_pairs([("__name__", "up"), ("job", "ü")]).unwrap());
    }

    #[test]
    fn labels_in_any_order_are_the_same_labels() {
        let wanted = Labels::from_pairs([("__name__", "up"), ("a", "1"), ("job", "x")]).unwrap();
        for pairs in [
            [("__name__", "up"), ("a", "1"), ("job", "x")],
            [("job", "x"), ("a", "1"), ("__name__", "up")],
            [("a", "1"), ("__name__", "up"), ("job", "x")],
        ] {
            assert_eq!(judged(&pairs).unwrap(), wanted);
        }
    }

    #[test]
    fn labels_that_blocks_have_too_are_a_series_own() {
        let pairs = [("__name__", "m"), ("carillon_replica", "a"), ("tenant_id", "42")];
        assert_eq!(judged(&pairs).unwrap(), Labels::from_pairs(pairs).unwrap());
    }

    #[test]
    fn bad_labels_are_named() {
        let long = "x".repeat(9000);
        let many: Vec<String> = (0..70).map(|i| format!("l{i:02}")).collect();
        let mut too_many: Vec<_> = many.iter().map(|n| (n.as_str(), "v")).collect();
        too_many.insert(0, ("__name__", "m"));
        for (pairs, wanted) in [
            (&[("job", "a")][..], "__name__ is missing"),
            (&[("__name__", ""), ("job", "a")], "__name__ is missing"),
            (&[], "__name__ is missing"),
            (&[("__name__", "m"), ("a", "1"), ("a", "2")], "\"a\" occurs twice"),
            (&[("a", "1"), ("__name__", "m"), ("a", "1")], "\"a\" occurs twice"),
            (&[("a", ""), ("__name__", "m"), ("a", "1")], "\"a\" occurs twice"),
            (&[("", "v"), ("__name__", "m")], "empty name"),
            (&[("__name__", "m"), ("a", &long)], "more than 8192 bytes"),
            (&[("__name__", "m"), (&long, "a")], "more than 1024 bytes"),
            (&too_many, "there are 71 labels"),
            (&[("", ""); 1000], "there are more than 64 labels"),
        ] {
            let message = judged(pairs).unwrap_err();
            assert!(message.contains(wanted), "{message}");
            assert!(message.len() < 3000);
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        // TimeSeries.labels[0] = {name: "a", value: 0xff}
        let raw = [0x0a, 6, 0x0a, 1, b'a', 0x12, 1, 0xff];
        assert!(from_remote_write(&raw, &Limits::default()).unwrap_err().contains("isn't UTF-8"));
    }
}

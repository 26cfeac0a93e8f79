//! What a series is called, by its number: so that an answer's labels can be checked, whoever wrote the series.

use serde_json::Value as Json;
use tsdb::model::Labels;

/// The metric that writers write.
pub const METRIC: &str = "sim_samples";
/// Numbers between the series of one writer and those of the next of its tenant; a multiple of the number of kinds.
pub const SERIES_OF_A_WRITER: usize = 900_000;

/// What a series has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A float a batch.
    Float,
    /// A native histogram a batch.
    Histogram,
    /// Several of everything, in any order.
    Mixed,
}

impl Kind {
    /// All of them; a series has that at the remainder of its number.
    pub const ALL: [Self; 3] = [Self::Float, Self::Histogram, Self::Mixed];

    /// The value of the label `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Histogram => "histogram",
            Self::Mixed => "mixed",
        }
    }

    /// That of a series.
    pub fn of(series: usize) -> Self {
        Self::ALL[series % Self::ALL.len()]
    }

    /// The number of the `n`th series of this kind, counted from `first`, the first number of a writer.
    pub fn number(self, first: usize, n: usize) -> usize {
        first + n * Self::ALL.len() + self as usize
    }
}

/// Two groups, to aggregate by.
fn group(series: usize) -> &'static str {
    ["a", "b"][series / Kind::ALL.len() % 2]
}

/// Labels of a series, sorted by name.
pub fn labels(series: usize) -> [(&'static str, String); 4] {
    [
        ("__name__", METRIC.to_owned()),
        ("group", group(series).to_owned()),
        ("kind", Kind::of(series).name().to_owned()),
        ("series", series.to_string()),
    ]
}

/// The same, as the engine's model has them.
pub fn model_labels(series: usize) -> Labels {
    let labels = labels(series);
    Labels::from_sorted(labels.iter().map(|(name, value)| (*name, value.as_str())))
}

/// The number of a series that a writer made; nothing where its labels are others than it gave them. Functions leave
/// the metric's name out.
pub fn series_of(shown: &Json, is_named: bool) -> Option<usize> {
    let shown = shown.as_object()?;
    let series = shown.get("series")?.as_str()?.parse().ok()?;
    let expected = labels(series);
    let expected = &expected[usize::from(!is_named)..];
    let is_there = |(name, value): &(&str, String)| shown.get(*name).and_then(Json::as_str) == Some(value);
    (shown.len() == expected.len() && expected.iter().all(is_there)).then_some(series)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_series_is_known_by_all_of_its_labels() {
        let named = json!({"__name__": METRIC, "group": "b", "kind": "mixed", "series": "5"});
        assert_eq!(series_of(&named, true), Some(5));
        assert_eq!(series_of(&named, false), None);
        assert_eq!(series_of(&json!({"group": "b", "kind": "mixed", "series": "5"}), false), Some(5));
        for (label, value) in
            [("series", "x"), ("series", "6"), ("kind", "float"), ("group", "a"), ("pod", "a")]
        {
            let mut odd = named.clone();
            odd[label] = value.into();
            assert_eq!(series_of(&odd, true), None, "{odd}");
        }
        assert_eq!(series_of(&json!({}), false), None);
    }

    #[test]
    fn numbers_of_writers_and_kinds_never_meet() {
        assert_eq!(SERIES_OF_A_WRITER % Kind::ALL.len(), 0);
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.number(SERIES_OF_A_WRITER, 7)), kind);
        }
        assert_ne!(Kind::Float.number(0, 1), Kind::Histogram.number(0, 1));
    }
}

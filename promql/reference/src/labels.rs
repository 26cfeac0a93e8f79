//! Labels: what is left of them in the end, and functions that change them.

use promql::functions::Function;
use promql::parse::ast::Call;
use tsdb::model::{Labels, METRIC_NAME};

use super::{Evaluator, Point, Result, text};

/// `labels` with some of them only.
pub fn only(labels: &Labels, names: &[impl AsRef<str>]) -> Labels {
    labels.filtered(|name| names.iter().any(|n| n.as_ref() == name))
}

/// `labels` without some of them.
pub fn without(labels: &Labels, names: &[impl AsRef<str>]) -> Labels {
    labels.filtered(|name| !names.iter().any(|n| n.as_ref() == name))
}

/// `labels` without the metric's name, type and unit.
pub fn without_metadata(labels: &Labels) -> Labels {
    without(labels, &[METRIC_NAME, "__type__", "__unit__"])
}

/// What the caller sees of a point's labels.
pub fn shown(point: &Point) -> Labels {
    if point.drop_name { without_metadata(&point.labels) } else { point.labels.clone() }
}

/// One label changed; the empty text removes it.
pub fn with(labels: &Labels, name: &str, value: &str) -> Labels {
    labels.to_builder().set(name, value).labels()
}

/// Refuses two points with the same labels.
pub fn refuse_twins(points: &[Point]) -> Result<()> {
    for (i, point) in points.iter().enumerate() {
        if points[..i].iter().any(|other| other.labels == point.labels) {
            return Err("two series with the same labels".to_owned());
        }
    }
    Ok(())
}

impl Evaluator<'_> {
    /// `label_replace` and `label_join`.
    pub fn edit_labels(&self, call: &Call, time_ms: i64) -> Result<Vec<Point>> {
        let mut points = self.vector(&call.args[0], time_ms)?;
        let destination = text(&call.args[1]);
        if destination.is_empty() {
            return Err("a label has a name".to_owned());
        }
        for point in &mut points {
            let value = if call.function == Function::LabelJoin {
                let sources =
                    call.args[3..].iter().map(text).map(|name| point.labels.value(&name).to_owned());
                Some(sources.collect::<Vec<_>>().join(&text(&call.args[2])))
            } else {
                let pattern = regex::Regex::new(&format!("^(?s:{})$", text(&call.args[4])));
                let pattern = pattern.map_err(|e| e.to_string())?;
                let source = point.labels.value(&text(&call.args[3])).to_owned();
                pattern.captures(&source).map(|captures| {
                    let mut value = String::new();
                    captures.expand(&text(&call.args[2]), &mut value);
                    value
                })
            };
            if let Some(value) = value {
                point.labels = with(&point.labels, &destination, &value);
                point.drop_name &= destination != METRIC_NAME;
            }
        }
        refuse_twins(&points)?;
        Ok(points)
    }
}

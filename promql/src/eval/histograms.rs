//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction`, over native and classic histograms.

use std::collections::BTreeMap;

use tsdb::model::{FloatHistogram, Labels, METRIC_NAME};

use super::context::{Context, Rows};
use super::format;
use super::keys::LabelIndex;
use super::row::{Row, is_absent};
use crate::annotations::Level;
use crate::error::Result;
use crate::functions::classic::{self, ClassicBucket};
use crate::functions::histogram::{self, NanObservations};
use crate::functions::window::StepValues;
use crate::parse::Span;
use crate::parse::string::quoted;

/// The label of a classic bucket's upper bound.
const BUCKET_LABEL: &str = "le";

/// What is computed of each histogram.
pub(crate) enum Question {
    /// Quantiles, each under a label of its own if there is a name for it.
    Quantiles { quantiles: Vec<StepValues>, label: Option<std::sync::Arc<str>> },
    /// The share of observations between two values.
    Fraction { lower: StepValues, upper: StepValues },
}

/// Answers the question for every histogram at every step.
pub(crate) fn evaluate<'c>(
    context: &'c Context<'_>,
    question: &Question,
    input: Rows<'c>,
    span: Span,
) -> Result<Rows<'c>> {
    let mut groups = group(context, &input.rows, span);
    let mut out = Vec::new();
    let mut answers =
        Answers { context, question, span, rows: BTreeMap::new(), told: Vec::new(), buckets: Vec::new() };
    for group in &mut groups {
        context.limits.check()?;
        // Each step sorts its buckets: this leaves it little to do.
        group.classic.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        answers.told.clear();
        answers.of_group(group, &input.rows);
        out.extend(std::mem::take(&mut answers.rows).into_values().filter(Row::has_any));
    }
    drop(input);
    let mut out = context.rows(out)?;
    context.settle_all(&mut out)?;
    Ok(out)
}

/// ` for metric name "m"`, where there still is one.
fn of_metric(context: &Context<'_>, name: &str) -> String {
    if name.is_empty() || !context.delays_name_removal {
        return String::new();
    }
    format!(" for metric name {}", quoted(name))
}

/// A histogram's series.
struct Group {
    labels: Labels,
    /// Classic buckets: upper bound and row.
    classic: Vec<(f64, usize)>,
    native: Vec<usize>,
}

fn group(context: &Context<'_>, rows: &[Row], span: Span) -> Vec<Group> {
    let mut index = LabelIndex::default();
    let mut groups: Vec<Group> = Vec::new();
    let mut of = |labels: Labels, groups: &mut Vec<Group>| {
        let (number, new) = index.number(&labels);
        if new {
            groups.push(Group { labels, classic: Vec::new(), native: Vec::new() });
        }
        number
    };
    for (i, row) in rows.iter().enumerate() {
        if row.histograms.iter().any(Option::is_some) {
            let number = of(row.labels.clone(), &mut groups);
            groups[number].native.push(i);
        }
        if row.values.iter().all(|value| is_absent(*value)) {
            continue;
        }
        let written = row.labels.value(BUCKET_LABEL);
        let Ok(upper) = written.parse::<f64>() else {
            let of = of_metric(context, row.labels.metric_name());
            let text =
                format!("bucket label \"le\" is missing or has a malformed value of {}{of}", quoted(written));
            context.annotate(Level::Warning, &text, span);
            continue;
        };
        let number = of(row.labels.filtered(|name| name != BUCKET_LABEL), &mut groups);
        groups[number].classic.push((upper, i));
    }
    groups
}

struct Answers<'a> {
    context: &'a Context<'a>,
    question: &'a Question,
    span: Span,
    /// By the quantile's number and its label's value.
    rows: BTreeMap<(usize, String), Row>,
    /// What was told of the group: once is enough for all its steps.
    told: Vec<&'static str>,
    /// Buckets that are being changed.
    buckets: Vec<ClassicBucket>,
}

impl Answers<'_> {
    fn of_group(&mut self, group: &Group, rows: &[Row]) {
        let steps = group.native.first().or(group.classic.first().map(|(_, row)| row));
        let steps = steps.map_or(0, |row| rows[*row].values.len());
        let name = group.labels.metric_name();
        let mut buckets = Vec::with_capacity(group.classic.len());
        for step in 0..steps {
            buckets.clear();
            buckets.extend(group.classic.iter().filter_map(|(upper, row)| {
                let count = rows[*row].values[step];
                (!is_absent(count)).then_some(ClassicBucket { upper: *upper, count })
            }));
            let native = group.native.iter().find_map(|row| rows[*row].histogram(step));
            match native {
                Some(_) if !buckets.is_empty() => {
                    let of = of_metric(self.context, name);
                    let text = format!("vector contains a mix of classic and native histograms{of}");
                    self.context.annotate(Level::Warning, &text, self.span);
                }
                Some(native) => self.of_native(group, steps, step, native),
                None if !buckets.is_empty() => self.of_classic(group, steps, step, &buckets),
                None => {}
            }
        }
    }

    fn of_native(&mut self, group: &Group, steps: usize, step: usize, native: &FloatHistogram) {
        let name = group.labels.metric_name();
        match self.question {
            Question::Fraction { lower, upper } => {
                if native.sum.is_nan() {
                    self.info(
                        "input to histogram_fraction has NaN observations, which are excluded from all fractions",
                        name,
                    );
                }
                let value = histogram::fraction(lower.at(step), upper.at(step), native);
                self.put(group, steps, step, 0, None, value);
            }
            Question::Quantiles { quantiles, .. } => {
                for (number, phi) in quantiles.iter().enumerate() {
                    let phi = phi.at(step);
                    let (value, nans) = histogram::quantile(phi, native);
                    match nans {
                        NanObservations::None => {}
                        NanObservations::Skewed => self.info(
                            "input to histogram_quantile has NaN observations, result is skewed higher",
                            name,
                        ),
                        NanObservations::Reached => {
                            self.info(
                                "input to histogram_quantile has NaN observations, result is NaN",
                                name,
                            );
                        }
                    }
                    self.put(group, steps, step, number, Some(phi), value);
                }
            }
        }
    }

    fn of_classic(&mut self, group: &Group, steps: usize, step: usize, buckets: &[ClassicBucket]) {
        match self.question {
            Question::Fraction { lower, upper } => {
                self.buckets.clear();
                self.buckets.extend_from_slice(buckets);
                let value = classic::fraction(lower.at(step), upper.at(step), &mut self.buckets);
                self.put(group, steps, step, 0, None, value);
            }
            Question::Quantiles { quantiles, .. } => {
                for (number, phi) in quantiles.iter().enumerate() {
                    let phi = phi.at(step);
                    self.buckets.clear();
                    self.buckets.extend_from_slice(buckets);
                    let (value, forced) = classic::quantile(phi, &mut self.buckets);
                    if forced {
                        self.info(
                            "input to histogram_quantile needed to be fixed for monotonicity (see \
                             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
                            group.labels.metric_name(),
                        );
                    }
                    self.put(group, steps, step, number, Some(phi), value);
                }
            }
        }
    }

    fn info(&mut self, text: &'static str, name: &str) {
        if self.told.iter().any(|told| std::ptr::eq(*told, text)) {
            return;
        }
        self.told.push(text);
        let of = of_metric(self.context, name);
        self.context.annotate(Level::Info, &format!("{text}{of}"), self.span);
    }

    fn put(&mut self, group: &Group, steps: usize, step: usize, number: usize, phi: Option<f64>, value: f64) {
        let label = match (self.question, phi) {
            (Question::Quantiles { label: Some(name), .. }, Some(phi)) => {
                Some((name, format::open_metrics(phi)))
            }
            _ => None,
        };
        let key = (number, label.as_ref().map_or_else(String::new, |(_, value)| value.clone()));
        let row = self.rows.entry(key).or_insert_with(|| {
            let mut labels = group.labels.clone();
            if let Some((name, value)) = &label {
                labels = labels.to_builder().set(name, value).labels();
            }
            let mut row = Row::absent(labels, steps);
            row.drop_name = true;
            row
        });
        if let Some((name, _)) = &label
            && ***name == *METRIC_NAME
        {
            row.drop_name = false;
        }
        row.values[step] = value;
    }
}

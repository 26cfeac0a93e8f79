//! The `load` command: series with points at multiples of a step, from time 0 on.

use std::collections::BTreeMap;
use std::sync::Arc;

use tsdb::model::{Labels, Sample, Value};

use crate::nhcb;
use crate::scan::Scanner;
use crate::script::parse_series;
use crate::values::{Point, repeats};

/// What a command loads.
pub struct Load {
    pub series: Vec<(Labels, Vec<Sample>)>,
}

/// For each point of a series when it started, in milliseconds relative to the point's time.
type Starts = Vec<Option<i64>>;

impl Load {
    pub fn parse(head: &str, body: &[&str]) -> Result<Self, String> {
        let mut scanner = Scanner::new(head);
        let with_nhcb = scanner.word() == "load_with_nhcb";
        let step_ms = scanner.time()?;
        let mut starts: BTreeMap<Labels, Starts> = BTreeMap::new();
        // Of a series that stands there twice the last line counts.
        let mut series: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
        for line in body {
            if let Some((labels, offsets)) = parse_starts(line)? {
                starts.insert(labels, offsets);
                continue;
            }
            let (labels, items) = parse_series(line).map_err(|message| format!("{line:?}: {message}"))?;
            let starts = starts.get(&labels);
            let mut samples = Vec::new();
            let mut timestamp_ms = -step_ms;
            for (i, item) in items.into_iter().enumerate() {
                timestamp_ms += step_ms;
                let value = match item {
                    None => continue,
                    Some(Point::Float(value)) => Value::Float(value),
                    Some(Point::Histogram { value, .. }) => Value::Histogram(Arc::new(value)),
                };
                let offset_ms = starts.and_then(|s| s.get(i).copied().flatten());
                let start_ms = offset_ms.map_or(0, |offset_ms| timestamp_ms + offset_ms);
                samples.push(Sample { timestamp_ms, start_ms, value });
            }
            series.insert(labels, samples);
        }
        let mut series: Vec<_> = series.into_iter().collect();
        if with_nhcb {
            let converted = nhcb::convert(&series)?;
            series.extend(converted);
        }
        Ok(Self { series })
    }
}

/// `series@st -30s-1mx2`, if the line is such.
fn parse_starts(line: &str) -> Result<Option<(Labels, Starts)>, String> {
    let mut scanner = Scanner::new(line);
    scanner.skip_spaces();
    let stands_first = scanner.take("@st");
    scanner.skip_spaces();
    let labels = scanner.labels()?;
    if !stands_first && !scanner.take("@st") {
        return Ok(None);
    }
    let mut offsets = Vec::new();
    loop {
        scanner.skip_spaces();
        if scanner.rest().is_empty() {
            return Ok(Some((labels, offsets)));
        }
        if scanner.take("_") {
            let count = repeats(&mut scanner)?.unwrap_or(1);
            offsets.extend(std::iter::repeat_n(None, count));
            continue;
        }
        let mut offset_ms = scanner.signed_duration()?;
        let step_ms = if matches!(scanner.peek(), Some('+' | '-')) { scanner.signed_duration()? } else { 0 };
        for _ in 0..=repeats(&mut scanner)?.unwrap_or(0) {
            offsets.push(Some(offset_ms));
            offset_ms += step_ms;
        }
    }
}

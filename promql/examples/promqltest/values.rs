//! The points of a series: `1 2 _ 5x3 1+2x3 stale {{sum:1 count:2}}x4`.

use tsdb::model::{FloatHistogram, stale_nan};

use crate::histogram;
use crate::scan::Scanner;

/// A point of a series, or that there is none at its time.
pub type Item = Option<Point>;

#[derive(Clone, Debug)]
pub enum Point {
    Float(f64),
    Histogram {
        value: FloatHistogram,
        /// Whether the hint was written, and so is to be compared.
        has_hint: bool,
    },
}

/// A run repeated more often than this is a slip of the pen.
const REPEATS_MAX: usize = 1_000_000;

/// Reads points up to the end of the line.
pub fn parse(scanner: &mut Scanner<'_>) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    loop {
        scanner.skip_spaces();
        if scanner.rest().is_empty() {
            return Ok(items);
        }
        if scanner.take("_") {
            let count = repeats(scanner)?.unwrap_or(1);
            items.extend(std::iter::repeat_n(None, count));
        } else if scanner.take("stale") {
            items.push(Some(Point::Float(stale_nan())));
        } else if scanner.rest().starts_with("{{") {
            histograms(scanner, &mut items)?;
        } else {
            floats(scanner, &mut items)?;
        }
        if scanner.peek().is_some_and(|c| !c.is_whitespace()) {
            return Err(format!("unexpected {:?} in a series", scanner.rest()));
        }
    }
}

/// `x3`, if it comes next.
pub fn repeats(scanner: &mut Scanner<'_>) -> Result<Option<usize>, String> {
    if !scanner.take("x") {
        return Ok(None);
    }
    match scanner.integer()? {
        count if count <= REPEATS_MAX => Ok(Some(count)),
        count => Err(format!("{count} repeats are too many")),
    }
}

fn floats(scanner: &mut Scanner<'_>, items: &mut Vec<Item>) -> Result<(), String> {
    let mut value = scanner.float()?;
    let step = if matches!(scanner.peek(), Some('+' | '-')) { scanner.float()? } else { 0.0 };
    let has_step = step != 0.0;
    let count = repeats(scanner)?.unwrap_or(0);
    for _ in 0..=count {
        items.push(Some(Point::Float(value)));
        if has_step {
            value += step;
        }
    }
    Ok(())
}

fn histograms(scanner: &mut Scanner<'_>, items: &mut Vec<Item>) -> Result<(), String> {
    let (mut value, mut has_hint) = histogram::parse(scanner)?;
    let negative = scanner.rest().starts_with("-{{");
    let step = if scanner.take("+") || scanner.take("-") {
        let (step, step_has_hint) = histogram::parse(scanner)?;
        has_hint = step_has_hint;
        Some(step)
    } else {
        None
    };
    let count = repeats(scanner)?.unwrap_or(0);
    for i in 0..=count {
        items.push(Some(Point::Histogram { value: value.clone(), has_hint }));
        if let (Some(step), true) = (&step, i < count) {
            value = histogram::add(&value, step, if negative { -1.0 } else { 1.0 })?;
        }
    }
    Ok(())
}

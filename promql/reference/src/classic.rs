//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction`, over classic and native histograms.

use promql::parse::ast::Expr;
use tsdb::model::Labels;

use super::aggregate::beyond;
use super::histogram::Bucket;
use super::{Evaluator, Histogram, Point, Result, Value, labels, sketch};

/// A histogram of one or both kinds.
struct Group {
    labels: Labels,
    drop_name: bool,
    /// Upper bounds and cumulative counts.
    classic: Vec<(f64, f64)>,
    native: Option<Histogram>,
}

impl Evaluator<'_> {
    fn histograms(&self, expr: &Expr, time_ms: i64) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        for point in self.vector(expr, time_ms)? {
            let is_native = point.histogram().is_some();
            let upper = point.labels.value("le").parse::<f64>();
            if !is_native && upper.is_err() {
                continue;
            }
            let labels =
                if is_native { point.labels.clone() } else { labels::without(&point.labels, &["le"]) };
            let at = groups.iter().position(|group| group.labels == labels).unwrap_or_else(|| {
                groups.push(Group { labels, drop_name: true, classic: Vec::new(), native: None });
                groups.len() - 1
            });
            match (point.value, upper) {
                (Value::Float(count), Ok(upper)) => groups[at].classic.push((upper, count)),
                (Value::Histogram(h), _) => groups[at].native = Some(h),
                (Value::Float(_), Err(_)) => {}
            }
        }
        groups.retain(|group| group.classic.is_empty() || group.native.is_none());
        groups.iter_mut().for_each(|group| group.classic.sort_by(|a, b| a.0.total_cmp(&b.0)));
        Ok(groups)
    }

    pub fn quantiles(
        &self,
        expr: &Expr,
        quantiles: &[(f64, Option<String>)],
        time_ms: i64,
    ) -> Result<Vec<Point>> {
        let mut out = Vec::new();
        for group in self.histograms(expr, time_ms)? {
            for (phi, label) in quantiles {
                let value = match &group.native {
                    Some(h) => sketch::quantile(*phi, h),
                    None => quantile(*phi, &group.classic),
                };
                let mut drop_name = group.drop_name;
                let mut labels = group.labels.clone();
                if let Some(name) = label {
                    labels = labels::with(&labels, name, &open_metrics(*phi));
                    drop_name &= name != tsdb::model::METRIC_NAME;
                }
                out.push(Point { labels, drop_name, value: Value::Float(value) });
            }
        }
        Ok(out)
    }

    pub fn fraction(&self, expr: &Expr, (lower, upper): (f64, f64), time_ms: i64) -> Result<Vec<Point>> {
        let groups = self.histograms(expr, time_ms)?;
        Ok(groups
            .into_iter()
            .map(|group| {
                let value = match &group.native {
                    Some(h) => sketch::fraction_of(lower, upper, h),
                    None => fraction(lower, upper, &group.classic),
                };
                Point { labels: group.labels, drop_name: group.drop_name, value: Value::Float(value) }
            })
            .collect())
    }
}

/// A quantile as a label's value: whole numbers have a fraction.
fn open_metrics(phi: f64) -> String {
    if phi.is_finite() && phi.fract() == 0.0 {
        format!("{phi:.1}")
    } else if phi.is_infinite() {
        (if phi > 0.0 { "+Inf" } else { "-Inf" }).to_owned()
    } else {
        phi.to_string()
    }
}

/// Buckets of equal bounds are one.
fn united(buckets: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut united: Vec<(f64, f64)> = Vec::new();
    for (upper, count) in buckets {
        match united.last_mut() {
            Some(last) if last.0 == *upper => last.1 += count,
            _ => united.push((*upper, *count)),
        }
    }
    united
}

fn quantile(phi: f64, buckets: &[(f64, f64)]) -> f64 {
    if let Some(beyond) = beyond(phi) {
        return beyond;
    }
    let mut buckets = united(buckets);
    if buckets.last().is_none_or(|last| last.0 != f64::INFINITY) {
        return f64::NAN;
    }
    for i in 1..buckets.len() {
        let (before, here) = (buckets[i - 1].1, buckets[i].1);
        let nearly = here == before || (here - before).abs() / (here.abs() + before.abs()) < 1e-12;
        if nearly || here < before {
            buckets[i].1 = before;
        }
    }
    let total = buckets[buckets.len() - 1].1;
    if buckets.len() < 2 || total == 0.0 {
        return f64::NAN;
    }
    let rank = phi * total;
    let finite = &buckets[..buckets.len() - 1];
    let Some(at) = finite.iter().position(|(_, count)| *count >= rank) else {
        return finite[finite.len() - 1].0;
    };
    let (upper, count) = finite[at];
    if at == 0 {
        return if upper <= 0.0 { upper } else { upper * (rank / count) };
    }
    let (lower, below) = finite[at - 1];
    lower + (upper - lower) * ((rank - below) / (count - below))
}

fn fraction(lower: f64, upper: f64, buckets: &[(f64, f64)]) -> f64 {
    let buckets = united(buckets);
    if buckets.last().is_none_or(|last| last.0 != f64::INFINITY) {
        return f64::NAN;
    }
    let mut below = (f64::NEG_INFINITY, 0.0);
    let mut separate = Vec::new();
    for bucket in &buckets {
        separate.push(Bucket { lower: below.0, upper: bucket.0, count: bucket.1 - below.1 });
        below = *bucket;
    }
    sketch::fraction(lower, upper, &separate, below.1, true)
}

//! Functions of the samples of an instant vector.

use promql::functions::Function as F;
use promql::parse::ast::{Call, Expr, Node};
use tsdb::model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp};

use super::{Evaluator, Point, Result, Value, labels, text};

/// Go's: `-Inf` before NaN before all else.
pub fn least(a: f64, b: f64) -> f64 {
    match [a, b] {
        both if both.contains(&f64::NEG_INFINITY) => f64::NEG_INFINITY,
        both if both.iter().any(|v| v.is_nan()) => f64::NAN,
        [a, b] => *[a, b].iter().min_by(|a, b| a.total_cmp(b)).expect("there are two"),
    }
}

/// Go's: `+Inf` before NaN before all else.
pub fn greatest(a: f64, b: f64) -> f64 {
    match [a, b] {
        both if both.contains(&f64::INFINITY) => f64::INFINITY,
        both if both.iter().any(|v| v.is_nan()) => f64::NAN,
        [a, b] => *[a, b].iter().max_by(|a, b| a.total_cmp(b)).expect("there are two"),
    }
}

/// Halves of the logarithm's argument, so that it never overflows: `ln(x + √(x² ± 1))`.
fn area(value: f64, sign: f64) -> f64 {
    let half = value / 2.0;
    let root = half * (1.0 + sign / value / value).sqrt();
    (half + root).ln() + std::f64::consts::LN_2
}

/// A function of each float, if it is one; histograms are left out.
fn of_float(function: F) -> Option<fn(f64) -> f64> {
    Some(match function {
        F::Abs => f64::abs,
        F::Acos => f64::acos,
        F::Acosh => |v| if v > 1e6 { area(v, -1.0) } else { v.acosh() },
        F::Asin => f64::asin,
        F::Asinh => |v| if v.abs() > 1e6 { area(v.abs(), 1.0).copysign(v) } else { v.asinh() },
        F::Atan => f64::atan,
        F::Atanh => f64::atanh,
        F::Ceil => f64::ceil,
        F::Cos => f64::cos,
        F::Cosh => f64::cosh,
        F::Deg => |v| v * 180.0 / std::f64::consts::PI,
        F::Exp => f64::exp,
        F::Floor => f64::floor,
        F::Ln => f64::ln,
        F::Log10 => f64::log10,
        F::Log2 => f64::log2,
        F::Rad => |v| v * std::f64::consts::PI / 180.0,
        F::Sgn => |v| if v == 0.0 || v.is_nan() { v } else { v.signum() },
        F::Sin => f64::sin,
        F::Sinh => f64::sinh,
        F::Sqrt => f64::sqrt,
        F::Tan => f64::tan,
        F::Tanh => f64::tanh,
        _ => return None,
    })
}

fn date_part(function: F) -> bool {
    matches!(
        function,
        F::Minute
            | F::Hour
            | F::DayOfWeek
            | F::DayOfMonth
            | F::DayOfYear
            | F::DaysInMonth
            | F::Month
            | F::Year
    )
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// A part of the date `seconds` after 1970, by counting years and months.
fn date(part: F, seconds: f64) -> f64 {
    let seconds = seconds as i64;
    let (mut days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let weekday = (days + 4).rem_euclid(7);
    let year_days = |year| if is_leap(year) { 366 } else { 365 };
    // The calendar repeats itself every 400 years.
    let mut year = 1970 + days.div_euclid(146_097) * 400;
    days = days.rem_euclid(146_097);
    while days >= year_days(year) {
        days -= year_days(year);
        year += 1;
    }
    let day_of_year = days + 1;
    let lengths = [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (match part {
        F::Minute => second / 60 % 60,
        F::Hour => second / 3600,
        F::DayOfWeek => weekday,
        F::DayOfMonth => days + 1,
        F::DayOfYear => day_of_year,
        F::DaysInMonth => lengths[month],
        F::Month => month as i64 + 1,
        _ => year,
    }) as f64
}

impl Evaluator<'_> {
    pub fn call(&self, call: &Call, time_ms: i64) -> Result<Vec<Point>> {
        let args = &call.args;
        let seconds = time_ms as f64 / 1000.0;
        let scalar = |i: usize| self.scalar(&args[i], time_ms);
        let vector = |i: usize| self.vector(&args[i], time_ms);
        if let Some(of) = of_float(call.function) {
            return Ok(floats(vector(0)?, of));
        }
        if date_part(call.function) {
            if args.is_empty() {
                let value = Value::Float(date(call.function, seconds));
                return Ok(vec![Point { labels: Labels::default(), drop_name: false, value }]);
            }
            return Ok(floats(vector(0)?, |v| date(call.function, v)));
        }
        match call.function {
            F::Clamp => {
                let (min, max) = (scalar(1)?, scalar(2)?);
                let mut points = vector(0)?;
                points.retain(|_| max >= min || max.is_nan() || min.is_nan());
                Ok(floats(points, |v| greatest(min, least(max, v))))
            }
            F::ClampMin => {
                let min = scalar(1)?;
                Ok(floats(vector(0)?, |v| greatest(min, v)))
            }
            F::ClampMax => {
                let max = scalar(1)?;
                Ok(floats(vector(0)?, |v| least(max, v)))
            }
            F::Round => {
                let inverse = 1.0 / if args.len() > 1 { scalar(1)? } else { 1.0 };
                Ok(floats(vector(0)?, |v| (v * inverse + 0.5).floor() / inverse))
            }
            F::Timestamp | F::StartTimestamp => match &args[0].unwrap_parens().node {
                Node::Vector(selector) => {
                    let times = self.picked(selector, time_ms)?.into_iter().map(|(labels, sample)| {
                        let ms =
                            if call.function == F::Timestamp { sample.timestamp_ms } else { sample.start_ms };
                        Point { labels, drop_name: true, value: Value::Float(ms as f64 / 1000.0) }
                    });
                    Ok(times.collect())
                }
                _ if call.function == F::StartTimestamp => vector(0).map(|_| Vec::new()),
                _ => Ok(each(vector(0)?, |_| Some(Value::Float(seconds)))),
            },
            F::VectorOf => {
                let value = Value::Float(scalar(0)?);
                Ok(vec![Point { labels: Labels::default(), drop_name: false, value }])
            }
            F::Absent | F::AbsentOverTime => {
                let is_there = match call.function {
                    F::Absent => !vector(0)?.is_empty(),
                    _ => {
                        super::windows::refuse_edges(&args[0], None)?;
                        !self.range(&args[0], time_ms)?.is_empty()
                    }
                };
                let labels = absent_labels(&args[0].unwrap_parens().node);
                let point = Point { labels, drop_name: false, value: Value::Float(1.0) };
                Ok(if is_there { Vec::new() } else { vec![point] })
            }
            F::LabelReplace | F::LabelJoin => self.edit_labels(call, time_ms),
            // Order isn't told here.
            F::Sort | F::SortDesc => {
                let mut points = vector(0)?;
                points.retain(|point| point.float().is_some());
                Ok(points)
            }
            F::SortByLabel | F::SortByLabelDesc => vector(0),
            F::HistogramCount => Ok(histograms(vector(0)?, |h| h.count)),
            F::HistogramSum => Ok(histograms(vector(0)?, |h| h.sum)),
            F::HistogramAvg => Ok(histograms(vector(0)?, |h| h.sum / h.count)),
            F::HistogramStdvar => Ok(histograms(vector(0)?, super::sketch::variance)),
            F::HistogramStddev => Ok(histograms(vector(0)?, |h| super::sketch::variance(h).sqrt())),
            F::HistogramQuantile => self.quantiles(&args[1], &[(scalar(0)?, None)], time_ms),
            F::HistogramQuantiles => {
                let name = text(&args[1]);
                let quantiles =
                    args[2..].iter().map(|arg| Ok((self.scalar(arg, time_ms)?, Some(name.clone()))));
                self.quantiles(&args[0], &quantiles.collect::<Result<Vec<_>>>()?, time_ms)
            }
            F::HistogramFraction => self.fraction(&args[2], (scalar(0)?, scalar(1)?), time_ms),
            F::Info => self.info(args, time_ms),
            _ => self.window(call, time_ms),
        }
    }

    /// The time at which the first selector of an expression looks from a step.
    fn first_seen(&self, expr: &Expr, time_ms: i64) -> Result<Option<i64>> {
        let (inside_ms, children) = match &expr.node {
            Node::Vector(v) => return self.seen_from(time_ms, v.at, &v.offset).map(Some),
            Node::Matrix(m) => return self.seen_from(time_ms, m.selector.at, &m.selector.offset).map(Some),
            Node::Subquery(s) => (self.seen_from(time_ms, s.at, &s.offset)?, vec![&s.expr]),
            Node::Aggregate(a) => (time_ms, [&a.expr].into_iter().chain(&a.param).collect()),
            _ => (time_ms, expr.children()),
        };
        for child in children {
            if let Some(seen_ms) = self.first_seen(child, inside_ms)? {
                return Ok(Some(seen_ms));
            }
        }
        Ok(None)
    }

    fn info(&self, args: &[Expr], time_ms: i64) -> Result<Vec<Point>> {
        const IDENTITY: [&str; 2] = ["instance", "job"];
        let asked = match args.get(1).map(|arg| &arg.node) {
            Some(Node::Vector(selector)) => selector.matchers.clone(),
            _ => vec![tsdb::model::Matcher::equal(METRIC_NAME, "target_info")],
        };
        let (names, data): (Vec<_>, Vec<_>) = asked.into_iter().partition(|m| m.name() == METRIC_NAME);
        let is_info = |labels: &Labels| {
            if names.is_empty() {
                labels.metric_name() == "target_info"
            } else {
                names.iter().all(|m| m.matches(labels.metric_name()))
            }
        };
        let base = self.vector(&args[0], time_ms)?;
        let stays = |point: &Point| !names.is_empty() && is_info(&point.labels);
        // Values of identifying labels that any series has.
        let wanted = IDENTITY.map(|label| {
            let points = base.iter().filter(|point| !stays(point));
            points.map(|p| p.labels.value(label).to_owned()).filter(|v| !v.is_empty()).collect::<Vec<_>>()
        });
        let seen_ms = self.first_seen(&args[0], time_ms)?.unwrap_or(time_ms);
        let mut infos: Vec<(&Labels, i64)> = Vec::new();
        for series in self.data.iter().filter(|series| is_info(&series.labels)) {
            let labels = &series.labels;
            let fits = wanted.iter().any(|values| !values.is_empty())
                && IDENTITY.iter().zip(&wanted).all(|(label, values)| {
                    values.is_empty() || values.iter().any(|v| v == labels.value(label))
                });
            if !fits || !data.iter().all(|m| m.matches(labels.value(m.name()))) {
                continue;
            }
            let Some(sample) = self.newest(series, seen_ms) else { continue };
            if !matches!(sample.value, tsdb::model::Value::Float(_)) {
                return Err("an info metric is a float".to_owned());
            }
            let same = |other: &Labels| {
                [METRIC_NAME, "instance", "job"].iter().all(|label| other.value(label) == labels.value(label))
            };
            match infos.iter_mut().find(|(other, _)| same(other)) {
                None => infos.push((labels, sample.timestamp_ms)),
                Some((_, time)) if *time == sample.timestamp_ms => return Err("two infos".to_owned()),
                Some(older) if older.1 < sample.timestamp_ms => *older = (labels, sample.timestamp_ms),
                Some(_) => {}
            }
        }
        let mut out = Vec::new();
        for mut point in base {
            if stays(&point) {
                out.push(point);
                continue;
            }
            let about = |info: &Labels| IDENTITY.iter().all(|l| info.value(l) == point.labels.value(l));
            let met: Vec<&Labels> = infos.iter().map(|(labels, _)| *labels).filter(|l| about(l)).collect();
            if met.is_empty() && !data.iter().all(|m| m.matches("")) {
                continue;
            }
            let mut added = Labels::default();
            for (name, value) in met.iter().flat_map(|info| info.iter()) {
                let asked_for = data.is_empty() || data.iter().any(|m| m.name() == name);
                if name == METRIC_NAME || !asked_for || point.labels.get(name).is_some() {
                    continue;
                }
                if added.get(name).is_some_and(|other| other != value) {
                    return Err("infos contradict each other".to_owned());
                }
                added = labels::with(&added, name, value);
            }
            for (name, value) in &added {
                point.labels = labels::with(&point.labels, name, value);
            }
            out.push(point);
        }
        labels::refuse_twins(&out)?;
        Ok(out)
    }
}

fn each(points: Vec<Point>, of: impl Fn(&Point) -> Option<Value>) -> Vec<Point> {
    let changed = |point: Point| of(&point).map(|value| Point { drop_name: true, value, ..point });
    points.into_iter().filter_map(changed).collect()
}

fn floats(points: Vec<Point>, of: impl Fn(f64) -> f64) -> Vec<Point> {
    each(points, |point| point.float().map(|value| Value::Float(of(value))))
}

fn histograms(points: Vec<Point>, of: impl Fn(&super::Histogram) -> f64) -> Vec<Point> {
    each(points, |point| point.histogram().map(|h| Value::Float(of(h))))
}

/// Labels asked for by `=` once; whatever is asked of a label again takes it away.
fn absent_labels(node: &Node) -> Labels {
    let matchers = match node {
        Node::Vector(selector) => &selector.matchers,
        Node::Matrix(matrix) => &matrix.selector.matchers,
        _ => return Labels::default(),
    };
    let mut labels = LabelsBuilder::default();
    let mut seen = Vec::new();
    for matcher in matchers.iter().filter(|m| m.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !seen.contains(&matcher.name()) {
            labels.set(matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            labels.remove(matcher.name());
        }
    }
    labels.labels()
}

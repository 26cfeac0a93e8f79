//! Random expressions that type-check.
//!
//! What is left out on purpose, for two right answers may differ there: `topk`, `bottomk` and `limitk` anywhere but
//! outermost (which of equal samples they pick); `count_values` of histograms; comparisons for equality of computed
//! values.

use std::fmt::Write as _;

use super::Random;

/// Which language is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// All of it.
    Whole,
    /// What Prometheus 3.5 knows.
    Prometheus35,
}

/// A random expression: a vector, or now and then a scalar.
pub fn expression(random: &mut Random, dialect: Dialect) -> String {
    let mut maker = Maker { random, dialect };
    if maker.random.one_in(25) {
        return maker.scalar(2);
    }
    if maker.random.one_in(20) {
        let op = maker.random.pick(&["topk", "bottomk", "limitk"]);
        let op = if dialect == Dialect::Prometheus35 && op == "limitk" { "topk" } else { op };
        let grouping = maker.grouping();
        // With none wanted, the engine doesn't look for what may be wrong inside.
        let k = maker.random.below(3) + 1;
        return format!("{op}{grouping} ({k}, {})", maker.vector(2));
    }
    maker.vector(3)
}

struct Maker<'a> {
    random: &'a mut Random,
    dialect: Dialect,
}

const METRICS: [&str; 6] = ["c_total", "g", "h", "m", "b_bucket", "target_info"];
const RANGES: [&str; 6] = ["30s", "1m", "2m", "5m", "7m30s", "15m"];
const LABELS: [&str; 4] = ["job", "instance", "zone", "le"];

const OVER_TIME: [&str; 20] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "changes",
    "resets",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "deriv",
    "absent_over_time",
    "rate",
    "increase",
];
const OVER_TIME_NEW: [&str; 6] = [
    "first_over_time",
    "mad_over_time",
    "ts_of_min_over_time",
    "ts_of_max_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
];
const OF_VECTOR: [&str; 24] = [
    "abs",
    "ceil",
    "floor",
    "exp",
    "sgn",
    "sqrt",
    "ln",
    "log2",
    "log10",
    "sin",
    "cos",
    "tanh",
    "atan",
    "deg",
    "rad",
    "histogram_count",
    "histogram_sum",
    "histogram_avg",
    "histogram_stddev",
    "histogram_stdvar",
    "timestamp",
    "absent",
    "day_of_month",
    "minute",
];

impl Maker<'_> {
    fn whole(&self) -> bool {
        self.dialect == Dialect::Whole
    }

    fn number(&mut self) -> String {
        self.random.pick(&["0", "1", "2", "0.5", "-1.25", "3.1", "10", "60", "0.37"]).to_owned()
    }

    fn scalar(&mut self, depth: usize) -> String {
        match self.random.below(if depth == 0 { 2 } else { 7 }) {
            0 | 1 => self.number(),
            2 => "time()".to_owned(),
            3 => format!("scalar({})", self.vector(depth - 1)),
            4 => format!("-{}", self.number()),
            5 if self.whole() => {
                let of = self.random.pick(&["min_of", "max_of"]);
                format!("{of}({}, {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
            _ => {
                let op = self.random.pick(&["+", "-", "*", "/", "%", "^", "> bool", "<= bool"]);
                format!("({} {op} {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
        }
    }

    fn selector(&mut self) -> String {
        let mut text = self.random.pick(&METRICS).to_owned();
        let matcher = match self.random.below(8) {
            0 => r#"{job="a"}"#,
            1 => r#"{instance=~"1|3"}"#,
            2 => r#"{zone!=""}"#,
            3 => r#"{instance!="2", job!~"b"}"#,
            _ => "",
        };
        text.push_str(matcher);
        text
    }

    /// `offset` and `@`.
    fn modifiers(&mut self) -> String {
        let mut text = String::new();
        if self.random.one_in(6) {
            text.push_str(self.random.pick(&[" offset 1m", " offset -2m", " offset 10m"]));
        }
        if self.random.one_in(10) {
            text.push_str(self.random.pick(&[" @ 300", " @ start()", " @ end()"]));
        }
        text
    }

    fn edges(&mut self, fitting: &[&'static str]) -> &'static str {
        if self.whole() && !fitting.is_empty() && self.random.one_in(5) {
            self.random.pick(fitting)
        } else {
            ""
        }
    }

    fn range(&mut self, depth: usize, edges: &[&'static str]) -> String {
        let range = self.random.pick(&RANGES);
        if depth > 0 && self.random.one_in(6) {
            let step = self.random.pick(&["", "30s", "1m", "45s"]);
            let inner = self.vector(depth - 1);
            return format!("({inner})[{range}:{step}]{}", self.modifiers());
        }
        let (selector, edges, modifiers) = (self.selector(), self.edges(edges), self.modifiers());
        format!("{selector}[{range}]{edges}{modifiers}")
    }

    fn grouping(&mut self) -> String {
        let labels = |random: &mut Random| {
            let mut names: Vec<&str> = LABELS.to_vec();
            names.retain(|_| random.one_in(2));
            names.join(", ")
        };
        match self.random.below(4) {
            0 => String::new(),
            1 => format!(" without ({})", labels(self.random)),
            _ => format!(" by ({})", labels(self.random)),
        }
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            let (selector, edges, modifiers) =
                (self.selector(), self.edges(&[" smoothed"]), self.modifiers());
            return format!("{selector}{edges}{modifiers}");
        }
        let depth = depth - 1;
        match self.random.below(20) {
            0..=5 => self.over_time(depth),
            6..=9 => self.aggregate(depth),
            10 | 11 => format!("{}({})", self.random.pick(&OF_VECTOR), self.vector(depth)),
            12..=14 => self.binary(depth),
            15 => {
                let op = self
                    .random
                    .pick(&["+", "-", "*", "/", "%", "^", "atan2", ">", "<", ">= bool", "!= bool"]);
                let op =
                    if self.whole() && self.random.one_in(5) { self.random.pick(&["</", ">/"]) } else { op };
                if self.random.one_in(3) {
                    format!("({} {op} {})", self.scalar(depth.min(1)), self.vector(depth))
                } else {
                    format!("({} {op} {})", self.vector(depth), self.scalar(depth.min(1)))
                }
            }
            16 => self.with_params(depth),
            17 => self.of_labels(depth),
            18 => format!("-({})", self.vector(depth)),
            _ => self.vector(0),
        }
    }

    fn over_time(&mut self, depth: usize) -> String {
        if self.random.one_in(8) {
            let phi = self.random.pick(&["0.5", "0.9", "0", "1", "0.33", "-1", "2"]);
            return format!("quantile_over_time({phi}, {})", self.range(depth, &[]));
        }
        if self.random.one_in(12) {
            return format!("predict_linear({}, 60)", self.range(depth, &[]));
        }
        if self.whole() && self.random.one_in(12) {
            return format!("double_exponential_smoothing({}, 0.5, 0.25)", self.range(depth, &[]));
        }
        let function = if self.whole() && self.random.one_in(4) {
            self.random.pick(&OVER_TIME_NEW)
        } else {
            self.random.pick(&OVER_TIME)
        };
        let edges: &[&str] = match function {
            "rate" | "increase" | "delta" => &[" anchored", " smoothed"],
            "changes" | "resets" => &[" anchored"],
            _ => &[],
        };
        format!("{function}({})", self.range(depth, edges))
    }

    fn aggregate(&mut self, depth: usize) -> String {
        let op = self
            .random
            .pick(&["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar", "sum", "avg"]);
        let grouping = self.grouping();
        match self.random.below(12) {
            0 => {
                let phi = self.random.pick(&["0.5", "0.9", "0.1"]);
                format!("quantile{grouping} ({phi}, {})", self.vector(depth))
            }
            1 if self.whole() => {
                let ratio = self.random.pick(&["0.5", "-0.5", "0.2", "1"]);
                format!("limit_ratio{grouping} ({ratio}, {})", self.vector(depth))
            }
            2 => format!(r#"count_values{grouping} ("v", count_over_time({}))"#, self.range(0, &[])),
            _ => format!("{op}{grouping} ({})", self.vector(depth)),
        }
    }

    fn binary(&mut self, depth: usize) -> String {
        let left = self.vector(depth);
        // What stands at two places may be evaluated once.
        let right = if self.random.one_in(8) { left.clone() } else { self.vector(depth) };
        if self.random.one_in(3) {
            let op = self.random.pick(&["and", "or", "unless"]);
            let on = self.random.pick(&["", " on (job)", " ignoring (zone)", " on (job, instance)"]);
            return format!("({left} {op}{on} {right})");
        }
        let op = self.random.pick(&["+", "-", "*", "/", ">", "<", ">= bool", "atan2"]);
        let on = self.random.pick(&[
            "",
            " on (job, instance)",
            " on (job, instance) group_left ()",
            " on (job, instance) group_right (zone)",
            " ignoring (zone)",
            " ignoring (zone) group_left ()",
        ]);
        let fill = if self.whole() && self.random.one_in(4) {
            self.random.pick(&[
                " fill (1)",
                " fill_left (2.5)",
                " fill_right (0)",
                " fill_left (1) fill_right (2)",
            ])
        } else {
            ""
        };
        format!("({left} {op}{on}{fill} {right})")
    }

    fn with_params(&mut self, depth: usize) -> String {
        let vector = self.vector(depth);
        match self.random.below(7) {
            0 => format!("clamp({vector}, {}, {})", self.number(), self.number()),
            1 => format!("clamp_min({vector}, {})", self.number()),
            2 => format!("round({vector}, {})", self.random.pick(&["1", "5", "0.5"])),
            3 => {
                let phi = self.random.pick(&["0.5", "0.9", "0.01", "1"]);
                format!("histogram_quantile({phi}, {vector})")
            }
            4 => format!("histogram_fraction(-1, {}, {vector})", self.random.pick(&["0.7", "2", "+Inf"])),
            5 if self.whole() => format!(r#"histogram_quantiles({vector}, "q", 0.5, 0.9)"#),
            _ => format!("histogram_quantile(0.8, rate(b_bucket[{}]))", self.random.pick(&RANGES)),
        }
    }

    fn of_labels(&mut self, depth: usize) -> String {
        let vector = self.vector(depth);
        let mut text = String::new();
        match self.random.below(if self.whole() { 4 } else { 2 }) {
            0 => write!(text, r#"label_replace({vector}, "zone", "$1-z", "job", "(.*)")"#),
            1 => write!(text, r#"label_join({vector}, "both", "-", "job", "instance")"#),
            // What is pinned as a whole is evaluated once, and meets the infos of that time.
            _ if vector.contains('@') => write!(text, "{vector}"),
            2 => write!(text, "info({vector})"),
            _ => write!(text, r#"info({vector}, {{zone=~".+"}})"#),
        }
        .expect("writing to a string can't fail");
        text
    }
}

//! `carillon query {instant,range,explain,cost}`, `series` and `labels`: questions to a running node.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::api::{Answer, Api, Connection};
use super::output::{Output, Rows};
use super::{Failure, when};

/// A range is cut into so many steps where `--step` is absent: what a graph shows.
const DEFAULT_STEPS: i64 = 250;

/// Characters of the little graph in a table of ranges.
const SPARK_WIDTH: usize = 24;

/// What to ask.
#[derive(Debug, Subcommand)]
pub enum Query {
    /// Evaluate an expression at one time
    Instant(Instant),
    /// Evaluate an expression over a range of times
    Range(Range),
    /// Evaluate an expression, and show what each step of its plan took
    Explain(Planned),
    /// Estimate what an expression would have to read, without reading it
    Cost(Planned),
}

/// An instant query.
#[derive(Debug, Args)]
pub struct Instant {
    /// The PromQL expression
    expr: String,
    /// When: `now`, `now-1h`, Unix seconds or RFC 3339
    #[arg(long, default_value = "now", allow_hyphen_values = true)]
    time: String,
    /// How far back a sample may lie, such as `5m`; the node's default where absent
    #[arg(long)]
    lookback_delta: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// A range query.
#[derive(Debug, Args)]
pub struct Range {
    /// The PromQL expression
    expr: String,
    /// First evaluation: `now-1h`, Unix seconds or RFC 3339
    #[arg(long, default_value = "now-1h")]
    start: String,
    /// Last evaluation
    #[arg(long, default_value = "now")]
    end: String,
    /// Between evaluations, such as `15s`; a 250th of the range where absent
    #[arg(long)]
    step: Option<String>,
    /// How far back a sample may lie, such as `5m`; the node's default where absent
    #[arg(long)]
    lookback_delta: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// A query of which the plan is looked at: at one time, or over a range where `--start` is given.
#[derive(Debug, Args)]
pub struct Planned {
    /// The PromQL expression
    expr: String,
    /// When: `now`, `now-1h`, Unix seconds or RFC 3339
    #[arg(long, default_value = "now", allow_hyphen_values = true, conflicts_with = "start")]
    time: String,
    /// First evaluation of a range: `now-1h`, Unix seconds or RFC 3339
    #[arg(long)]
    start: Option<String>,
    /// Last evaluation of a range
    #[arg(long, default_value = "now", requires = "start")]
    end: String,
    /// Between evaluations of a range, such as `15s`; a 250th of it where absent
    #[arg(long, requires = "start")]
    step: Option<String>,
    /// How far back a sample may lie, such as `5m`; the node's default where absent
    #[arg(long)]
    lookback_delta: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Which series to list.
#[derive(Debug, Args)]
pub struct Series {
    /// Selectors, such as `up{job="node"}`: a series that any of them matches is listed
    #[arg(required = true)]
    selectors: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

/// Which names or values to list.
#[derive(Debug, Args)]
pub struct Labels {
    /// List this label's values; all label names where absent
    name: Option<String>,
    /// Only of series that one of these selectors matches (repeatable)
    #[arg(long = "match", value_name = "SELECTOR")]
    selectors: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

/// What a listing covers.
#[derive(Debug, Args)]
struct Scope {
    /// Where the range begins: `now-1h`, Unix seconds or RFC 3339; everything stored where absent
    #[arg(long)]
    start: Option<String>,
    /// Where the range ends
    #[arg(long)]
    end: Option<String>,
    /// At most so many
    #[arg(long)]
    limit: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

impl Query {
    pub(super) async fn run(&self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Instant(query) => query.run(output).await,
            Self::Range(query) => query.run(output).await,
            Self::Explain(query) => query.explain(output).await,
            Self::Cost(query) => query.estimate(output).await,
        }
    }
}

impl Instant {
    async fn run(&self, output: &Output) -> Result<(), Failure> {
        let mut parameters =
            vec![("query", self.expr.clone()), ("time", when::time_parameter(&self.time, when::now_ms())?)];
        parameters.extend(self.lookback_delta.clone().map(|delta| ("lookback_delta", delta)));
        let answer = Api::new(&self.connection)?.ask("/api/v1/query", &parameters).await?;
        show(&answer, output)
    }
}

impl Range {
    async fn run(&self, output: &Output) -> Result<(), Failure> {
        let mut parameters = range_parameters(&self.start, &self.end, self.step.as_deref())?;
        parameters.push(("query", self.expr.clone()));
        parameters.extend(self.lookback_delta.clone().map(|delta| ("lookback_delta", delta)));
        let answer = Api::new(&self.connection)?.ask("/api/v1/query_range", &parameters).await?;
        show(&answer, output)
    }
}

/// `start`, `end` and `step`.
fn range_parameters(
    start: &str,
    end: &str,
    step: Option<&str>,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let now_ms = when::now_ms();
    let step = match step {
        Some(step) => step.to_owned(),
        None => {
            let span_ms = when::time_ms(end, now_ms)? - when::time_ms(start, now_ms)?;
            // Whole seconds: shorter steps than that are asked for by name.
            format!("{}", (span_ms / DEFAULT_STEPS / 1000).max(1))
        }
    };
    Ok(vec![
        ("start", when::time_parameter(start, now_ms)?),
        ("end", when::time_parameter(end, now_ms)?),
        ("step", step),
    ])
}

impl Planned {
    async fn ask(&self, path: &str, output: &Output) -> Result<Answer, Failure> {
        let mut parameters = match &self.start {
            Some(start) => range_parameters(start, &self.end, self.step.as_deref())?,
            None => vec![("time", when::time_parameter(&self.time, when::now_ms())?)],
        };
        parameters.push(("query", self.expr.clone()));
        parameters.extend(self.lookback_delta.clone().map(|delta| ("lookback_delta", delta)));
        let answer = Api::new(&self.connection)?.ask(path, &parameters).await?;
        note_remarks(&answer, output);
        Ok(answer)
    }

    async fn explain(&self, output: &Output) -> Result<(), Failure> {
        let answer = self.ask("/api/v1/query_explain", output).await?;
        output.show(&answer.whole(), || {
            let mut rows = Rows::new(&["step", "#series", "#samples", "#bytes", "#ms", "node"]);
            tree_rows(&answer.data["plan"], 0, &mut rows);
            rows
        })
    }

    async fn estimate(&self, output: &Output) -> Result<(), Failure> {
        let answer = self.ask("/api/v1/query_cost", output).await?;
        let memory = &answer.data["memory"];
        output.note(&format!(
            "{} steps; of {} bytes that a query may hold, chunks would take {}, and rows of all series up to {}",
            answer.data["steps"], memory["limitBytes"], memory["selectedBytes"], memory["rowBytes"]
        ));
        output.show(&answer.whole(), || cost_rows(&answer.data))
    }
}

/// A row a selection; behind several, all together.
fn cost_rows(data: &Value) -> Rows {
    let mut rows = Rows::new(&["selector", "#series", "#chunks", "#samples", "#bytes", "#bytes to fetch"]);
    let mut row = |name: String, cost: &Value| {
        let numbers = ["series", "chunks", "samples", "bytes", "bytesToFetch"].map(|k| cost[k].to_string());
        rows.push([vec![name], numbers.to_vec()].concat());
    };
    let selects = data["selects"].as_array().map_or(&[][..], Vec::as_slice);
    selects.iter().for_each(|cost| row(text(&cost["selector"]), cost));
    if selects.len() != 1 {
        row("all".to_owned(), data);
    }
    rows
}

/// A row a step, what it works on below it and further in; below a selection, who gave its series.
fn tree_rows(step: &Value, depth: usize, rows: &mut Rows) {
    let indent = "  ".repeat(depth);
    let name = format!("{indent}{} {}", text(&step["step"]), text(&step["detail"]));
    let milliseconds = step["seconds"].as_f64().unwrap_or_default() * 1000.0;
    rows.push(vec![
        name.trim_end().to_owned(),
        step["series"].to_string(),
        step["samples"].to_string(),
        step["bytes"].to_string(),
        format!("{milliseconds:.3}"),
        text(&step["node"]),
    ]);
    for source in step["sources"].as_array().into_iter().flatten() {
        let empty = String::new;
        let (series, bytes) = (source["series"].to_string(), source["bytes"].to_string());
        rows.push(vec![format!("{indent}  from"), series, empty(), bytes, empty(), text(&source["node"])]);
    }
    for input in step["inputs"].as_array().into_iter().flatten() {
        tree_rows(input, depth + 1, rows);
    }
}

impl Series {
    pub(super) async fn run(&self, output: &Output) -> Result<(), Failure> {
        let mut parameters = self.scope.parameters()?;
        parameters.extend(self.selectors.iter().map(|s| ("match[]", s.clone())));
        let answer = Api::new(&self.scope.connection)?.ask("/api/v1/series", &parameters).await?;
        note_remarks(&answer, output);
        output.show(&answer.whole(), || {
            let mut rows = Rows::new(&["series"]);
            for labels in answer.data.as_array().into_iter().flatten() {
                rows.push(vec![series_name(labels)]);
            }
            rows
        })
    }
}

impl Labels {
    pub(super) async fn run(&self, output: &Output) -> Result<(), Failure> {
        let mut parameters = self.scope.parameters()?;
        parameters.extend(self.selectors.iter().map(|s| ("match[]", s.clone())));
        let (path, heading) = match &self.name {
            Some(name) => (format!("/api/v1/label/{}/values", path_label(name)), "value"),
            None => ("/api/v1/labels".to_owned(), "label"),
        };
        let answer = Api::new(&self.scope.connection)?.get(&path, &parameters).await?;
        note_remarks(&answer, output);
        output.show(&answer.whole(), || {
            let mut rows = Rows::new(&[heading]);
            for name in answer.data.as_array().into_iter().flatten() {
                rows.push(vec![name.as_str().unwrap_or_default().to_owned()]);
            }
            rows
        })
    }
}

impl Scope {
    fn parameters(&self) -> Result<Vec<(&'static str, String)>, Failure> {
        let now_ms = when::now_ms();
        let mut parameters = Vec::new();
        for (name, time) in [("start", &self.start), ("end", &self.end)] {
            if let Some(time) = time {
                parameters.push((name, when::time_parameter(time, now_ms)?));
            }
        }
        parameters.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        Ok(parameters)
    }
}

/// A label's name as a part of a path: Prometheus's `U__` escape for names that a path can't hold as they are.
fn path_label(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    if name.chars().all(plain) && !name.starts_with("U__") {
        return name.to_owned();
    }
    name.chars().fold("U__".to_owned(), |mut escaped, c| {
        match c {
            '_' => escaped.push_str("__"),
            c if plain(c) => escaped.push(c),
            c => escaped.push_str(&format!("_{:x}_", u32::from(c))),
        }
        escaped
    })
}

fn note_remarks(answer: &Answer, output: &Output) {
    for remark in answer.warnings.iter().chain(&answer.infos) {
        output.note(&format!("note: {remark}"));
    }
}

fn show(answer: &Answer, output: &Output) -> Result<(), Failure> {
    note_remarks(answer, output);
    output.show(&answer.whole(), || {
        let result = &answer.data["result"];
        match answer.data["resultType"].as_str() {
            Some("matrix") if output.is_table() => range_table(result),
            Some("matrix") => range_lines(result),
            Some("vector") => vector_rows(result),
            _ => {
                let mut rows = Rows::new(&["time", "#value"]);
                rows.push(vec![result[0].to_string(), text(&result[1])]);
                rows
            }
        }
    })
}

fn vector_rows(result: &Value) -> Rows {
    let mut rows = Rows::new(&["series", "#value"]);
    for series in result.as_array().into_iter().flatten() {
        let value = series.get("value").or_else(|| series.get("histogram")).unwrap_or(&Value::Null);
        rows.push(vec![series_name(&series["metric"]), text(&value[1])]);
    }
    rows
}

/// A line a sample, for pipes.
fn range_lines(result: &Value) -> Rows {
    let mut rows = Rows::new(&["series", "#time", "#value"]);
    for (name, points) in ranges(result) {
        for point in points {
            rows.push(vec![name.clone(), point[0].to_string(), text(&point[1])]);
        }
    }
    rows
}

/// A row a series, for eyes.
fn range_table(result: &Value) -> Rows {
    let mut rows = Rows::new(&["series", "#points", "#least", "#most", "#last", "course"]);
    for (name, points) in ranges(result) {
        let values: Vec<f64> = points.iter().filter_map(|p| p[1].as_str()?.parse().ok()).collect();
        let shown = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
        rows.push(vec![
            name,
            points.len().to_string(),
            shown(values.iter().copied().reduce(f64::min)),
            shown(values.iter().copied().reduce(f64::max)),
            points.last().map(|p| text(&p[1])).unwrap_or_default(),
            spark(&values),
        ]);
    }
    rows
}

/// Series with their points, floats and then histograms.
fn ranges(result: &Value) -> impl Iterator<Item = (String, Vec<&Value>)> {
    result.as_array().into_iter().flatten().map(|series| {
        let points =
            ["values", "histograms"].iter().flat_map(|k| series[*k].as_array().into_iter().flatten());
        (series_name(&series["metric"]), points.collect())
    })
}

/// A value as the node wrote it; a histogram as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `name{a="b"}` from a JSON object of labels.
fn series_name(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let pairs = pairs.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    // A node never sends a name twice: JSON objects can't.
    tsdb::model::Labels::from_pairs(pairs).map(|labels| labels.to_string()).unwrap_or_default()
}

/// A line of block characters: each the mean of its share of the values, between the least and the most.
fn spark(values: &[f64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let least = finite.iter().copied().fold(f64::INFINITY, f64::min);
    let height = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least;
    finite
        .chunks(finite.len().div_ceil(SPARK_WIDTH).max(1))
        .map(|share| {
            let mean = share.iter().sum::<f64>() / share.len() as f64;
            let level = if height > 0.0 { (mean - least) / height * (LEVELS.len() - 1) as f64 } else { 0.0 };
            LEVELS[(level.round() as usize).min(LEVELS.len() - 1)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn series_are_named_as_promql_does() {
        assert_eq!(series_name(&json!({"job": "node", "__name__": "up"})), r#"up{job="node"}"#);
        assert_eq!(series_name(&json!({})), "{}");
    }

    #[test]
    fn a_label_that_a_path_cant_hold_is_escaped() {
        assert_eq!(path_label("job"), "job");
        assert_eq!(path_label("a.b_c"), "U__a_2e_b__c");
        assert_eq!(path_label("a/b"), "U__a_2f_b");
    }

    #[test]
    fn a_course_goes_from_least_to_most() {
        assert_eq!(spark(&[0.0, 7.0]), "▁█");
        assert_eq!(spark(&[3.0, 3.0]), "▁▁");
        assert_eq!(spark(&[]), "");
        assert_eq!(spark(&[f64::NAN]), "");
        assert_eq!(spark(&vec![1.0; 1000]).chars().count(), 24);
    }

    #[test]
    fn a_plan_is_shown_with_a_row_for_each_step_and_source() {
        let leaf = json!({"step": "select", "detail": "{}", "node": "n1", "series": 2, "samples": 6, "bytes": 90,
            "seconds": 0.001, "inputs": [], "sources": [{"node": "n2", "series": 2, "bytes": 90}]});
        let plan = json!({"step": "aggregate", "detail": "sum", "node": "n1", "series": 1, "samples": 1, "bytes": 9,
            "seconds": 0.5, "inputs": [leaf]});
        let mut rows = Rows::new(&["step", "#series", "#samples", "#bytes", "#ms", "node"]);
        tree_rows(&plan, 0, &mut rows);
        assert_eq!(rows.len(), 3);
    }

    #[test]
    fn a_cost_is_shown_with_a_row_for_each_selection_and_their_sum() {
        let cost =
            json!({"selector": "{}", "series": 1, "chunks": 2, "samples": 3, "bytes": 4, "bytesToFetch": 0});
        let of = |selects: Vec<Value>| cost_rows(&json!({"selects": selects, "series": 2})).len();
        assert_eq!((of(vec![]), of(vec![cost.clone()]), of(vec![cost.clone(), cost])), (1, 1, 3));
    }

    #[test]
    fn lines_have_a_sample_each() {
        let result = json!([{"metric": {"a": "b"}, "values": [[1, "2"], [3.5, "NaN"]]}]);
        assert_eq!(range_lines(&result).len(), 2);
        assert_eq!(range_table(&result).len(), 1);
        assert_eq!(vector_rows(&json!([{"metric": {}, "value": [1, "2"]}])).len(), 1);
    }
}

//! What a query took, or would take: `stats` as Prometheus has them, with our own beside, the tree of `query_explain`, and
//! `query_cost`.

use std::time::Duration;

use promql::{QueryRange, Step};
use serde_json::{Value, json};
use tsdb::select::Select;

use crate::query::answer::{Answer, PushDown, Shared, Source, Timings};
use crate::query::cost::Costs;
use crate::query::names::Cost;

/// Bytes of a sample as Prometheus counts them: a time and a float. `peakSamples` are the bytes of our peak in these.
const SAMPLE_BYTES: usize = 16;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Sums.
    Sums,
    /// Each step's samples, too: `stats=all`.
    All,
}

impl Wanted {
    /// By the parameter's value, which isn't empty.
    pub(super) fn of(parameter: &str) -> Self {
        if parameter == "all" { Self::All } else { Self::Sums }
    }
}

/// `stats`.
pub(super) fn json(wanted: Wanted, answer: &Answer, range: &QueryRange, total: Duration) -> Value {
    let Answer { output, coverage, push_down, .. } = answer;
    let Timings { queue, preparation, evaluation, cpu } = answer.timings;
    let mut samples = json!({
        "totalQueryableSamples": output.per_step.iter().sum::<u64>(),
        "peakSamples": output.stats.peak_bytes.div_ceil(SAMPLE_BYTES),
    });
    if wanted == Wanted::All {
        let grid = range.grid();
        let count = |step: usize| output.per_step.get(step).copied().unwrap_or(0);
        let step = |step: usize| json!([seconds(grid.time_ms(step)), count(step)]);
        samples["totalQueryableSamplesPerStep"] = (0..grid.count).map(step).collect();
    }
    json!({
        "timings": {
            "evalTotalTime": (preparation + evaluation).as_secs_f64(),
            // Results come in order.
            "resultSortTime": 0.0,
            "queryPreparationTime": preparation.as_secs_f64(),
            "innerEvalTime": evaluation.as_secs_f64(),
            "execQueueTime": queue.as_secs_f64(),
            "execTotalTime": total.as_secs_f64(),
        },
        "samples": samples,
        "carillon": {
            "series": output.stats.series,
            "decodedSamples": output.stats.samples,
            "peakBytes": output.stats.peak_bytes,
            "cpuSeconds": cpu.as_secs_f64(),
            "coverage": coverage.json(),
            "pushDown": match push_down {
                PushDown::Done(_) => "done",
                PushDown::Not(why) => why,
            },
        },
    })
}

/// A time as Prometheus writes it: whole seconds without a fraction.
fn seconds(time_ms: i64) -> Value {
    if time_ms % 1000 == 0 { json!(time_ms / 1000) } else { json!(time_ms as f64 / 1000.0) }
}

/// What a query would cost. `rowBytes` is what rows of all series take at once, as far as they aren't aggregated as they
/// come.
pub(super) fn costs(costs: &Costs, limit_bytes: usize) -> Value {
    let of = |cost: &Cost| {
        let total = cost.total();
        json!({
            "series": total.series,
            "chunks": total.chunks,
            "samples": total.samples,
            "bytes": total.bytes,
            "blocksToFetch": cost.bucket.blocks_to_fetch,
            "bytesToFetch": cost.bucket.bytes_to_fetch,
        })
    };
    let select = |(select, cost): &(Select, Cost)| {
        let matchers: Vec<String> = select.matchers.iter().map(|matcher| format!("{matcher:?}")).collect();
        let mut own = of(cost);
        own["selector"] = format!("{{{}}}", matchers.join(", ")).into();
        own["start"] = seconds(*select.range_ms.start());
        own["end"] = seconds(*select.range_ms.end());
        own
    };
    let all = costs.selects.iter().fold(Cost::default(), |mut all, (_, cost)| {
        all.add(cost);
        all
    });
    let mut data = of(&all);
    // Those of different selections are others, whether nodes or blocks have them.
    let series = costs.selects.iter().map(|(_, cost)| cost.total().series).sum::<u64>();
    data["series"] = series.into();
    data["steps"] = costs.steps.into();
    data["memory"] = json!({
        "selectedBytes": all.total().bytes,
        "rowBytes": series.saturating_mul(costs.steps as u64).saturating_mul(size_of::<f64>() as u64),
        "limitBytes": limit_bytes,
    });
    data["selects"] = costs.selects.iter().map(select).collect();
    data
}

/// A step of the plan and all that it works on. All is done on `node`, but what each selection read came from several, and
/// others may have aggregated what they keep.
pub(super) fn step(step: &Step, node: &str, answer: &Answer) -> Value {
    let mut own = json!({
        "step": step.kind,
        "detail": step.detail,
        "node": node,
        "series": step.series,
        "samples": step.samples,
        "bytes": step.bytes,
        "seconds": Duration::from_nanos(step.nanos).as_secs_f64(),
        "inputs": step.inputs.iter().map(|input| self::step(input, node, answer)).collect::<Vec<_>>(),
    });
    if let Some(sources) = step.select.and_then(|select| answer.sources.get(select)) {
        let source = |s: &Source| json!({"node": s.name, "series": s.series, "bytes": s.bytes});
        own["sources"] = sources.iter().map(source).collect();
    }
    if let (Some(fold), PushDown::Done(others)) = (step.fold, &answer.push_down) {
        let other = |other: &Shared| {
            let (series, bytes) = other.folds.get(fold).copied().unwrap_or_default();
            json!({"node": other.name, "series": series, "bytes": bytes})
        };
        own["pushedDown"] = others.iter().map(other).collect();
    }
    own
}

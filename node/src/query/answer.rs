//! A PromQL query.
//!
//! 1. It is planned: which series over which range.
//! 2. Those are fetched, from all who keep any, with what the choice between replicas of a scraper needs around them; or,
//!    where the query only aggregates them, those who keep them do it.
//! 3. Replicas are merged, and the plan is evaluated over what is left, within a byte budget and until nobody waits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use promql::parse::ast::Expr;
use promql::value::Output;
use promql::{Folded, Plan, QueryRange, Settings, Telling};
use tokio::time::Instant;
use tsdb::model::TenantId;
use tsdb::select::{Need, Select, Series, merge_series};

use super::coverage::Coverage;
use super::dedup::Replicas;
use super::fanout::{self, Fetched, Folding, Part, Pushed};
use super::permits::Switch;
use super::reach::Reach;
use super::{Error, QueryPermit, Size, permits};
use crate::env::{CpuTime, PoolWorkers};
use crate::node::App;

/// A query.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whose data.
    pub tenant: TenantId,
    /// What is asked, as it was written.
    pub text: String,
    /// What that means.
    pub expr: Expr,
    /// Whether experimental syntax was allowed.
    pub experimental: bool,
    /// Whether names of metrics that are taken away go at the very end.
    pub delayed_name_removal: bool,
    /// For which times.
    pub range: QueryRange,
    /// Longest wait, that for a permit included.
    pub timeout: Duration,
    /// Labels by which replicas of a scraper differ.
    pub replicas: Replicas,
    /// Whether an answer may lack what too few owners answered for.
    pub partial: bool,
    /// What is to be told beside the result.
    pub told: Told,
    /// Whether owners aggregate what they keep, where that can be; else it is done where it pays.
    pub push_down: Option<bool>,
}

/// What is told of a query beside its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Samples by step: [`Output::per_step`].
    pub per_step: bool,
    /// What each step of the plan took, and from where series came: [`Output::explained`], [`Answer::sources`].
    pub explained: bool,
}

/// An answer, and who gave it.
#[derive(Debug)]
pub struct Answer {
    /// The result.
    pub output: Output,
    /// What isn't as it should be.
    pub warnings: Vec<String>,
    /// Who answered.
    pub coverage: Coverage,
    /// How long it took.
    pub timings: Timings,
    /// Where series came from, by selection; empty where that wasn't asked for.
    pub sources: Vec<Vec<Source>>,
    /// Whether owners have aggregated what they keep.
    pub push_down: PushDown,
}

/// Whether owners have aggregated what they keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushDown {
    /// No: why.
    Not(&'static str),
    /// These have, and this node.
    Done(Vec<Shared>),
}

/// What a node aggregated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The node's name.
    pub name: String,
    /// By foldable aggregation of the plan: of how many series, and in how many bytes it came.
    pub folds: Vec<(u64, usize)>,
}

impl PushDown {
    fn done(parts: &[Part]) -> Self {
        let shared = |part: &Part| {
            let series = part.folded.nodes.iter().map(|node| node.series);
            Shared { name: part.name.clone(), folds: series.zip(part.bytes.iter().copied()).collect() }
        };
        Self::Done(parts.iter().map(shared).collect())
    }
}

/// How long the parts of an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Waiting for a permit.
    pub queue: Duration,
    /// Planning and fetching.
    pub preparation: Duration,
    /// Merging replicas and evaluating.
    pub evaluation: Duration,
    /// CPU time of all this on this node's cores together: not that of reading the request, of what goes over the network
    /// and of writing the answer.
    pub cpu: Duration,
}

/// What a node, or the bucket, gave for a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The node's name, or `bucket`.
    pub name: String,
    /// Series, of which others may have given other parts.
    pub series: usize,
    /// Bytes of their chunks, as stored.
    pub bytes: usize,
}

impl Source {
    fn of(name: &str, series: &[Series]) -> Self {
        let bytes = series.iter().flat_map(|series| &series.chunks).map(|chunk| chunk.data.len()).sum();
        Self { name: name.to_owned(), series: series.len(), bytes }
    }
}

/// Answers a query.
///
/// # Errors
/// Whatever keeps it from being answered.
pub(crate) async fn answer(app: &Arc<App>, question: Question) -> Result<Answer, Error> {
    let question = Arc::new(question);
    let switch = Switch::default();
    let asked = Instant::now();
    permits::within(question.timeout, async {
        let permit = app.query_permit(&question.tenant, &switch).await?;
        let queue = asked.elapsed();
        let mut answer = match app.queries.elsewhere(app, &question.tenant).await {
            None => alone(app, question.clone(), &permit).await?,
            Some(reach) => with_others(app, reach, question.clone(), &permit).await?,
        };
        let evaluation = answer.timings.evaluation;
        let preparation = asked.elapsed().saturating_sub(queue + evaluation);
        answer.timings = Timings { queue, preparation, evaluation, cpu: permit.cpu.so_far() };
        Ok(answer)
    })
    .await
}

/// Where this node keeps everything: in one go.
async fn alone(app: &Arc<App>, question: Arc<Question>, permit: &QueryPermit) -> Result<Answer, Error> {
    let (own, cpu) = (app.clone(), permit.cpu.clone());
    let (of, asked) = (app.clone(), question.clone());
    let prepare = move || {
        let (plan, selects, size) = asked.prepare(&of)?;
        Ok((size, (plan, selects)))
    };
    let work = move |(plan, selects): (Plan, Vec<Select>), cancelled: &Arc<AtomicBool>| {
        let tenant = own.storage.existing(&question.tenant);
        let mut inputs = Vec::with_capacity(selects.len());
        for (select, need) in selects.iter().zip(plan.needs()) {
            permits::check(cancelled)?;
            let mut need = need.clone();
            // Replicas are told by their labels, and chosen by all of their samples.
            if !question.replicas.is_empty() {
                need = Need::default();
            }
            // Whoever wants to know which samples were looked at hears of those that weren't picked too.
            if question.told != Told::default() {
                need.best = None;
            }
            inputs.push(tenant.as_ref().map_or_else(|| Ok(Vec::new()), |t| t.select_needed(select, &need))?);
        }
        let purse = own.purse(&question.tenant);
        purse.pay_for(&inputs)?;
        let mut sources = Vec::new();
        if question.told.explained {
            let name = own.cluster.name(own.cluster.me());
            sources.extend(inputs.iter().map(|series: &Vec<Series>| vec![Source::of(&name, series)]));
        }
        let inputs = (inputs, Vec::new());
        Ok((evaluate(&own, &plan, &selects, inputs, &question, &cpu, cancelled)?, sources))
    };
    let ((output, timings), sources) = permit.on_cores_by_size(app, prepare, work).await?;
    let push_down = PushDown::Not("this node keeps everything");
    Ok(Answer { output, warnings: Vec::new(), coverage: Coverage::alone(), timings, sources, push_down })
}

async fn with_others(
    app: &Arc<App>,
    reach: &Reach,
    question: Arc<Question>,
    permit: &QueryPermit,
) -> Result<Answer, Error> {
    let (asked, of) = (question.clone(), app.clone());
    let (plan, selects, size) = permit.on_cores(app, move |_| asked.prepare(&of)).await?;
    let plan = Arc::new(plan);
    permit.has_size(size);
    if selects.is_empty() {
        // `1 + 1` needs nobody.
        return alone(app, question, permit).await;
    }
    let purse = app.purse(&question.tenant);
    let asker = fanout::Asker { app, reach, tenant: &question.tenant, purse: &purse, permit };
    let pushed = push(&asker, &question, &plan).await?;
    let (Fetched { sources, names, coverage }, parts, push_down) = match pushed {
        Ok(Pushed { fetched, parts }) => {
            let push_down = PushDown::done(&parts);
            (fetched, parts, push_down)
        }
        Err(why) => (asker.fetch(&selects).await?, Vec::new(), PushDown::Not(why)),
    };
    let warnings = app.queries.judged(&coverage, question.partial)?;
    // Others may have more than is here, and the bucket too.
    permit.has_size(Size::of_bytes(purse.taken_bytes()));
    let (own, cpu) = (app.clone(), permit.cpu.clone());
    let work = move |cancelled: &Arc<AtomicBool>| {
        let mut told = Vec::new();
        if question.told.explained {
            let of = |sources: &Vec<Vec<Series>>| {
                names.iter().zip(sources).map(|(name, series)| Source::of(name, series)).collect()
            };
            told.extend(sources.iter().map(of));
        }
        let merged = sources.into_iter().map(|sources| {
            permits::check(cancelled)?;
            Ok(merge_series(sources)?)
        });
        let inputs = merged.collect::<Result<_, Error>>()?;
        let folded = parts.into_iter().map(|part| part.folded).collect();
        let output = evaluate(&own, &plan, &selects, (inputs, folded), &question, &cpu, cancelled);
        // What was fetched is paid for until here.
        drop(purse);
        Ok((output?, told))
    };
    let ((output, timings), sources) = permit.on_cores(app, work).await?;
    Ok(Answer { output, warnings, coverage, timings, sources, push_down })
}

/// Has owners aggregate what they keep, unless that isn't wanted.
async fn push(
    asker: &fanout::Asker<'_>,
    question: &Question,
    plan: &Arc<Plan>,
) -> Result<Result<Pushed, &'static str>, Error> {
    if question.push_down == Some(false) {
        return Ok(Err("it isn't wanted"));
    }
    if !question.replicas.is_empty() {
        // One of the replicas of a scraper is chosen by looking at all of them.
        return Ok(Err("replicas of scrapers are merged"));
    }
    let folding = Folding {
        query: &question.text,
        experimental: question.experimental,
        delayed_name_removal: question.delayed_name_removal,
        range: question.range,
        plan: plan.clone(),
        is_forced: question.push_down == Some(true),
    };
    let pushed = asker.push(&folding).await?;
    if pushed.is_ok() {
        asker.app.queries.pushed();
    }
    Ok(pushed)
}

impl Question {
    /// The plan, what it selects, and how large that makes the query; for the pool.
    fn prepare(&self, app: &App) -> Result<(Plan, Vec<Select>, Size), Error> {
        let plan = self.plan()?;
        let selects = widened(&plan, &self.replicas);
        let tenant = app.storage.existing(&self.tenant);
        let steps = plan.range().grid().count;
        let size = Size::of_query(tenant.as_deref(), &selects, steps, self.text.len())?;
        Ok((plan, selects, size))
    }

    pub(super) fn plan(&self) -> Result<Plan, Error> {
        let delayed_name_removal = self.delayed_name_removal;
        let settings = Settings { delayed_name_removal, ..Settings::default() };
        Ok(promql::plan(&self.expr, &self.range, &settings)?)
    }
}

/// What to fetch for a plan.
pub(super) fn widened(plan: &Plan, replicas: &Replicas) -> Vec<Select> {
    let widen = |select: &Select| Select { range_ms: replicas.widen(&select.range_ms), ..select.clone() };
    plan.selects().iter().map(widen).collect()
}

/// Merges replicas and evaluates; for the pool.
fn evaluate(
    app: &App,
    plan: &Plan,
    selects: &[Select],
    (mut inputs, folded): (Vec<Vec<Series>>, Vec<Folded>),
    question: &Question,
    cpu: &Arc<CpuTime>,
    cancelled: &Arc<AtomicBool>,
) -> Result<(Output, Timings), Error> {
    let began = Instant::now();
    let workers = PoolWorkers::spending(&*app.env.pool, cpu);
    let now_ms = app.env.clock.now_ms();
    for (input, select) in inputs.iter_mut().zip(selects) {
        permits::check(cancelled)?;
        *input = question.replicas.merge(std::mem::take(input), &select.range_ms, now_ms, &workers)?;
    }
    let limits = app.limits(&question.tenant, cancelled);
    let clock = || began.elapsed();
    let Told { per_step, explained } = question.told;
    let telling = Telling { clock: explained.then_some(&clock as _), per_step };
    let output = plan.evaluate_with(inputs, folded, &limits, &workers, telling)?;
    Ok((output, Timings { evaluation: began.elapsed(), ..Timings::default() }))
}

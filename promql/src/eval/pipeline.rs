//! Series by series: a source, stages that each turn a row into a row, and a fold.
//!
//! Stretches of a plan in which each series goes its own way (decode, window, map, scalar operator, subquery) become
//! one pipeline. It is cut into tasks by series; each task decodes into buffers of its own and folds its rows into a
//! partial result; partials are merged in the order of series. How many tasks there are depends on the number of
//! series alone, so results don't depend on how many threads there are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tsdb::select::Series;
use tsdb::workers::{Inline, Workers};

use super::context::{Context, Rows, Scratch, row_bytes};
use super::labels::differ_in_metadata;
use super::leaf::LeafSource;
use super::limits::Charge;
use super::row::Row;
use super::same;
use super::stage::Stage;
use super::trace::Trace;
use crate::error::Result;

/// Tasks that a large source is cut into, at least.
const TASKS_WANTED: usize = 64;
/// Fewest and most series of a task: enough to make it worth it, few enough to keep partials small.
const TASK_SERIES: (usize, usize) = (8, 256);
/// Series whose memory is fetched together, before the first of them is decoded: few enough to stay in the nearest cache.
const SERIES_FETCHED: usize = 8;
/// Tasks between two merges: bounds the partials that are alive at one time.
const WAVE_TASKS: usize = 32;
/// Work that is done before another thread would be awake, as bytes that are read and written: some 0.1 ms.
const LITTLE_WORK_BYTES: usize = 64 << 10;

/// Where a pipeline's rows come from.
pub(crate) enum Source<'c> {
    /// Stored series, decoded as they are needed.
    Series { series: &'c [Series], leaf: LeafSource },
    /// Rows of an operator that needed all of its input.
    Rows(Rows<'c>),
}

impl Source<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Series { series, .. } => series.is_empty(),
            Self::Rows(rows) => rows.rows.is_empty(),
        }
    }
}

/// A source and what happens to each of its rows.
pub(crate) struct Pipeline<'c> {
    pub(crate) source: Source<'c>,
    pub(crate) stages: Vec<Stage>,
    /// Whether it takes names away, at once: rows of which none are left differ in other labels.
    nameless: bool,
}

impl<'c> Pipeline<'c> {
    pub(crate) fn of_rows(rows: Rows<'c>) -> Self {
        Self { source: Source::Rows(rows), stages: Vec::new(), nameless: false }
    }

    pub(crate) fn of_series(series: &'c [Series], leaf: LeafSource) -> Self {
        Self { source: Source::Series { series, leaf }, stages: Vec::new(), nameless: false }
    }

    /// What its last step takes names from, at once unless that is delayed. Where rows may become the same, all of them are
    /// made here, and looked at; `is_strict` refuses those whose samples never meet, too.
    ///
    /// # Errors
    /// As [`Context::settle_all`].
    pub(crate) fn without_names(mut self, context: &'c Context<'_>, is_strict: bool) -> Result<Self> {
        if context.delays_name_removal || self.nameless {
            return Ok(self);
        }
        self.nameless = true;
        let may_collide = match &self.source {
            Source::Series { series, .. } => differ_in_metadata(series.iter().map(|series| &series.labels)),
            Source::Rows(rows) => differ_in_metadata(rows.rows.iter().map(|row| &row.labels)),
        };
        if !may_collide {
            return Ok(self);
        }
        let mut rows = self.collect(context)?;
        if is_strict {
            same::refuse(&rows)?;
        }
        same::unite(&mut rows)?;
        Ok(Self { nameless: true, ..Self::of_rows(rows) })
    }

    pub(crate) fn then(mut self, stage: Stage) -> Self {
        self.stages.push(stage);
        self
    }

    /// All rows, in the order of the source.
    pub(crate) fn collect(self, context: &'c Context<'_>) -> Result<Rows<'c>> {
        if self.stages.is_empty()
            && let Source::Rows(rows) = self.source
        {
            return Ok(rows);
        }
        let mut all = Vec::new();
        let mut charge = context.budget.charge(0, "rows")?;
        self.fold(
            context,
            || Ok((Vec::new(), context.budget.charge(0, "rows")?)),
            |(rows, charge): &mut (Vec<Row>, Charge<'_>), mut row, _| {
                context.settle(&mut row);
                charge.grow(row_bytes(&row))?;
                rows.push(row);
                Ok(())
            },
            |(rows, part)| {
                // The part is given back before the whole grows: rows are never paid for twice.
                drop(part);
                charge.grow(rows.iter().map(row_bytes).sum())?;
                all.extend(rows);
                Ok(())
            },
        )?;
        Ok(Rows::paid(all, charge))
    }

    /// Folds rows into partials, and hands partials on in the order of the source.
    pub(crate) fn fold<T: Send>(
        self,
        context: &Context<'_>,
        new: impl Fn() -> Result<T> + Sync,
        fold: impl Fn(&mut T, Row, &mut Scratch) -> Result<()> + Sync,
        mut merge: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let stages = &self.stages;
        let timing = context.trace.as_ref().map(Trace::run);
        let consumer = timing.as_ref().and_then(|timing| timing.consumer.clone());
        match self.source {
            Source::Series { series, leaf } => {
                let size = task_size(series.len());
                let parts: Vec<&[Series]> = series.chunks(size).collect();
                // What a task's row in flight takes is paid for before it is made: a subquery may have many steps.
                let row_bytes_max =
                    leaf.steps() * size_of::<f64>() + stages.iter().map(Stage::work_bytes).sum::<usize>();
                let work = |part: usize, scratch: &mut Scratch| {
                    let mut partial = new()?;
                    let mut charge = context.budget.charge(row_bytes_max, "decoded samples")?;
                    for few in parts[part].chunks(SERIES_FETCHED) {
                        few.iter().for_each(Series::prefetch);
                        for series in few {
                            context.limits.check()?;
                            context.lap(scratch, None);
                            let Some(row) = leaf.row(context, series, scratch)? else { continue };
                            charge.grow_to(row_bytes_max + scratch.size_bytes())?;
                            if let Some(row) = apply(stages, context, row, scratch)? {
                                fold(&mut partial, row, scratch)?;
                                context.lap(scratch, consumer.as_ref());
                            }
                        }
                    }
                    Ok(partial)
                };
                let chunks_bytes = |series: &Series| series.chunks.iter().map(|chunk| chunk.data.len()).sum();
                let bytes = |series| leaf.work_bytes(chunks_bytes(series)).saturating_add(row_bytes_max);
                let workers = workers_for(context, series.iter().map(bytes));
                in_waves(context, workers, parts.len(), work, &mut merge)
            }
            Source::Rows(rows) => {
                let work_bytes = stages.iter().map(Stage::work_bytes).sum();
                let work = |partial: &mut T, _, row, scratch: &mut Scratch| {
                    context.lap(scratch, None);
                    if let Some(row) = apply(stages, context, row, scratch)? {
                        fold(partial, row, scratch)?;
                        context.lap(scratch, consumer.as_ref());
                    }
                    Ok(())
                };
                over_rows(context, rows, work_bytes, new, work, merge)
            }
        }
    }
}

/// Hands rows with their numbers to tasks that work side by side, and the tasks' results on in order. Beside a row itself
/// work looks at `work_bytes`.
pub(crate) fn over_rows<T: Send>(
    context: &Context<'_>,
    rows: Rows<'_>,
    work_bytes: usize,
    new: impl Fn() -> Result<T> + Sync,
    work: impl Fn(&mut T, usize, Row, &mut Scratch) -> Result<()> + Sync,
    mut merge: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let (rows, charge) = rows.into_parts();
    let workers = workers_for(context, rows.iter().map(|row| row_bytes(row) + work_bytes));
    let charge = Mutex::new(charge);
    let size = task_size(rows.len());
    let mut rest = rows.into_iter();
    let next = || Some(rest.by_ref().take(size).collect::<Vec<_>>()).filter(|part| !part.is_empty());
    let parts: Vec<_> = std::iter::from_fn(next).map(Mutex::new).collect();
    drop(rest);
    let of_part = |part: usize, scratch: &mut Scratch| {
        let mut partial = new()?;
        let rows = std::mem::take(&mut *parts[part].lock().unwrap_or_else(PoisonError::into_inner));
        // From here on whoever takes the rows pays for them.
        let bytes = rows.iter().map(row_bytes).sum();
        charge.lock().unwrap_or_else(PoisonError::into_inner).shrink(bytes);
        for (i, row) in rows.into_iter().enumerate() {
            context.limits.check()?;
            work(&mut partial, part * size + i, row, scratch)?;
        }
        Ok(partial)
    };
    in_waves(context, workers, parts.len(), of_part, &mut merge)
}

/// Who does work on items of so many bytes.
fn workers_for<'a>(context: &Context<'a>, mut bytes: impl Iterator<Item = usize>) -> &'a dyn Workers {
    let little = |sum: usize, bytes| Some(sum.saturating_add(bytes)).filter(|sum| *sum <= LITTLE_WORK_BYTES);
    if bytes.try_fold(0, little).is_some() { &Inline } else { context.workers }
}

fn task_size(items: usize) -> usize {
    items.div_ceil(TASKS_WANTED).clamp(TASK_SERIES.0, TASK_SERIES.1)
}

fn apply(
    stages: &[Stage],
    context: &Context<'_>,
    mut row: Row,
    scratch: &mut Scratch,
) -> Result<Option<Row>> {
    for (i, stage) in stages.iter().enumerate() {
        match stage.apply(context, row, scratch)? {
            Some(next) => row = next,
            None => {
                // What it took to find that nothing is left counts for the step that found it.
                let finder = stages[i..].iter().find_map(Stage::measure);
                context.lap(scratch, finder);
                return Ok(None);
            }
        }
    }
    Ok(Some(row))
}

fn in_waves<T: Send>(
    context: &Context<'_>,
    workers: &dyn Workers,
    tasks: usize,
    work: impl Fn(usize, &mut Scratch) -> Result<T> + Sync,
    merge: &mut impl FnMut(T) -> Result<()>,
) -> Result<()> {
    for first in (0..tasks).step_by(WAVE_TASKS) {
        let wave = WAVE_TASKS.min(tasks - first);
        let done: Vec<Mutex<Option<Result<T>>>> = (0..wave).map(|_| Mutex::new(None)).collect();
        let first_failed = AtomicUsize::new(usize::MAX);
        workers.run(wave, &|task| {
            // What comes behind a failure can't matter any more: the first error is told, whatever the order of work.
            if task > first_failed.load(Ordering::Relaxed) {
                return;
            }
            let mut scratch = context.scratch();
            let result = work(first + task, &mut scratch);
            context.give_back(scratch);
            if result.is_err() {
                first_failed.fetch_min(task, Ordering::Relaxed);
            }
            *done[task].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        for slot in done {
            let result = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
            merge(result.expect("workers ran each task before the first that failed")?)?;
        }
    }
    Ok(())
}

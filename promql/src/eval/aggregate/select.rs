//! Aggregations that pick some of their input's samples: `topk`, `bottomk`, `limitk`, `limit_ratio`.
//!
//! Rows are judged as they come, in the order of series: of those that aren't picked at any step nothing is kept, so that
//! memory is what is picked and what is in flight. Samples are judged step by step and group by group, with a heap of
//! `k`. Which of several equal samples stay is the heap's doing, so it is the heap that Prometheus uses (Go's
//! `container/heap`).

use tsdb::model::Labels;
use xxhash_rust::xxh64::xxh64;

use crate::annotations::Level;
use crate::error::Result;
use crate::eval::context::{Context, Rows, row_bytes};
use crate::eval::keys::{KeyIndex, KeySpec};
use crate::eval::limits::Charge;
use crate::eval::pipeline::Pipeline;
use crate::eval::row::{Cell, Row};
use crate::functions::window::StepValues;
use crate::parse::ast::AggregateOp;
use crate::plan::Aggregate;
use crate::plan::grid::Grid;

/// Runs a selecting aggregation.
pub(super) fn select<'c>(
    context: &'c Context<'_>,
    node: &Aggregate,
    spec: &KeySpec,
    param: &StepValues,
    input: Pipeline<'c>,
    grid: &Grid,
) -> Result<Rows<'c>> {
    let mut index = KeyIndex::new(spec);
    let mut selection = Selection {
        op: node.op,
        param,
        steps: grid.count,
        groups: Vec::new(),
        kept: Vec::new(),
        charge: context.budget.charge(0, "picked samples")?,
    };
    let mut has_histogram = false;
    input.fold(
        context,
        || Ok((Vec::new(), context.budget.charge(0, "rows")?)),
        |(rows, charge): &mut (Vec<Row>, Charge<'_>), mut row, _| {
            context.settle(&mut row);
            charge.grow(row_bytes(&row))?;
            rows.push(row);
            Ok(())
        },
        |(rows, _in_flight)| {
            context.limits.check()?;
            for row in rows {
                has_histogram |= row.histograms.iter().any(Option::is_some);
                let group = index.number(&row.labels);
                selection.judge(group, index.newest_bytes(), row)?;
            }
            Ok(())
        },
    )?;
    if has_histogram && matches!(node.op, AggregateOp::Topk | AggregateOp::Bottomk) {
        let text = format!("ignored histogram in {} aggregation", node.op.name());
        context.annotate(Level::Info, &text, node.span);
    }
    selection.picked()
}

/// `k` as a number of samples.
fn whole(k: f64) -> usize {
    if k < 1.0 { 0 } else { k as usize }
}

struct Selection<'a, 'c> {
    op: AggregateOp,
    param: &'a StepValues,
    steps: usize,
    groups: Vec<Group>,
    /// Rows of which a sample is picked so far, in the order in which they came; the others are gone.
    kept: Vec<Option<Kept>>,
    charge: Charge<'c>,
}

#[derive(Default)]
struct Group {
    /// By step, for `topk` and `bottomk`: values and the numbers of their rows, the root the one that goes first.
    heaps: Vec<Vec<(f64, u32)>>,
    /// By step, for `limitk`: how many are picked.
    counts: Vec<usize>,
    /// Rows in the order in which they were picked, for `limitk` and `limit_ratio`.
    order: Vec<u32>,
}

struct Kept {
    row: Row,
    /// At how many steps it is picked.
    picks: u32,
}

impl<'c> Selection<'_, 'c> {
    /// Takes of a row what is picked as things stand, and lets go what that displaces. A new group's key takes
    /// `keys_bytes`.
    fn judge(&mut self, group: usize, keys_bytes: usize, row: Row) -> Result<()> {
        if group == self.groups.len() {
            let (mut heaps, mut counts) = (Vec::new(), Vec::new());
            match self.op {
                AggregateOp::Limitk => counts.resize(self.steps, 0),
                AggregateOp::LimitRatio => {}
                _ => heaps.resize(self.steps, Vec::new()),
            }
            let steps_bytes = heaps.len() * size_of::<Vec<(f64, u32)>>() + counts.len() * size_of::<usize>();
            self.charge.grow(steps_bytes + keys_bytes)?;
            self.groups.push(Group { heaps, counts, order: Vec::new() });
        }
        match self.op {
            AggregateOp::Limitk => self.first(group, &row),
            AggregateOp::LimitRatio => self.by_hash(group, &row),
            _ => self.best(group, row),
        }
    }

    /// The first `k` of each step.
    fn first(&mut self, group: usize, row: &Row) -> Result<()> {
        let (param, counts) = (self.param, &mut self.groups[group].counts);
        let picked = picked_of(row, |step| {
            let is_picked = counts[step] < whole(param.at(step));
            counts[step] += usize::from(is_picked);
            is_picked
        });
        self.keep(group, picked)
    }

    /// Those whose labels' hash lies in the ratio's share.
    fn by_hash(&mut self, group: usize, row: &Row) -> Result<()> {
        let (param, share) = (self.param, share(&row.labels));
        let picked = picked_of(row, |step| {
            let ratio = param.at(step).clamp(-1.0, 1.0);
            // Complements, so that a ratio and 1 minus it, negated, part the series between them.
            if ratio >= 0.0 { share < ratio } else { share >= 1.0 + ratio }
        });
        self.keep(group, picked)
    }

    fn keep(&mut self, group: usize, picked: Option<Row>) -> Result<()> {
        let Some(row) = picked else { return Ok(()) };
        self.charge.grow(row_bytes(&row))?;
        self.groups[group].order.push(number(self.kept.len()));
        self.kept.push(Some(Kept { row, picks: 0 }));
        Ok(())
    }

    /// The greatest or least of each step.
    fn best(&mut self, group: usize, row: Row) -> Result<()> {
        let top = self.op == AggregateOp::Topk;
        let less = |a: &(f64, u32), b: &(f64, u32)| goes_first(top, a, b);
        let own = number(self.kept.len());
        let (mut picks, mut longer) = (0, 0);
        for (step, heap) in self.groups[group].heaps.iter_mut().enumerate() {
            let (k, Cell::Float(value)) = (whole(self.param.at(step)), row.cell(step)) else { continue };
            let entry = (value, own);
            if heap.len() < k {
                let before = heap.capacity();
                heap.push(entry);
                longer += heap.capacity() - before;
                sift_up(heap, less);
            } else if k > 0
                && ((if top { heap[0].0 < value } else { heap[0].0 > value })
                    || (heap[0].0.is_nan() && !value.is_nan()))
            {
                let (_, displaced) = std::mem::replace(&mut heap[0], entry);
                sift_down(heap, less);
                let slot = &mut self.kept[displaced as usize];
                let other = slot.as_mut().expect("a row stays while a heap has it");
                other.picks -= 1;
                if other.picks == 0 {
                    self.charge.shrink(row_bytes(&other.row));
                    *slot = None;
                }
            } else {
                continue;
            }
            picks += 1;
        }
        if picks > 0 {
            self.charge.grow(row_bytes(&row) + longer * size_of::<(f64, u32)>())?;
            self.kept.push(Some(Kept { row, picks }));
        }
        Ok(())
    }

    /// What was picked: at a single step group by group, as they rank; else in the order in which series came.
    fn picked(mut self) -> Result<Rows<'c>> {
        let top = self.op == AggregateOp::Topk;
        let mut order: Vec<u32> = Vec::new();
        let mut made: Vec<Option<Row>> = Vec::new();
        if matches!(self.op, AggregateOp::Limitk | AggregateOp::LimitRatio) {
            order.extend(self.groups.iter_mut().flat_map(|group| std::mem::take(&mut group.order)));
            made.extend(self.kept.into_iter().map(|kept| kept.map(|kept| kept.row)));
        } else {
            made.resize_with(self.kept.len(), || None);
            for mut group in self.groups {
                for (step, heap) in group.heaps.iter_mut().enumerate() {
                    // Most wanted first, NaN last.
                    heap.sort_by(|a, b| match (goes_first(top, b, a), goes_first(top, a, b)) {
                        (true, false) => std::cmp::Ordering::Less,
                        (false, true) => std::cmp::Ordering::Greater,
                        _ => std::cmp::Ordering::Equal,
                    });
                    for (_, number) in std::mem::take(heap) {
                        let slot = &mut self.kept[number as usize];
                        let kept = slot.as_mut().expect("a row stays while a heap has it");
                        let made = &mut made[number as usize];
                        if made.is_none() {
                            // Both are there until the last of its picks has been taken.
                            self.charge.grow(row_bytes(&kept.row))?;
                        }
                        made.get_or_insert_with(|| bare(&kept.row)).take_from(&kept.row, step);
                        kept.picks -= 1;
                        if kept.picks == 0 {
                            self.charge.shrink(row_bytes(&kept.row));
                            *slot = None;
                        }
                        order.push(number);
                    }
                }
            }
        }
        if self.steps == 1 {
            let ranked = order.into_iter().filter_map(|number| made[number as usize].take()).collect();
            return Ok(Rows::paid(ranked, self.charge));
        }
        Ok(Rows::paid(made.into_iter().flatten().collect(), self.charge))
    }
}

fn number(row: usize) -> u32 {
    u32::try_from(row).expect("fewer than 2^32 series are in memory")
}

/// A row's labels without its samples.
fn bare(row: &Row) -> Row {
    Row { drop_name: row.drop_name, ..Row::absent(row.labels.clone(), row.values.len()) }
}

/// A row's samples at the steps that are wanted; `None` where there is none.
fn picked_of(row: &Row, mut is_wanted: impl FnMut(usize) -> bool) -> Option<Row> {
    let mut picked: Option<Row> = None;
    for step in (0..row.values.len()).filter(|step| row.has(*step)) {
        if is_wanted(step) {
            picked.get_or_insert_with(|| bare(row)).take_from(row, step);
        }
    }
    picked
}

/// Whether `a` is wanted less than `b`: NaN is wanted least.
fn goes_first(top: bool, a: &(f64, u32), b: &(f64, u32)) -> bool {
    a.0.is_nan() || (if top { a.0 < b.0 } else { a.0 > b.0 })
}

fn sift_up<T>(heap: &mut [T], less: impl Fn(&T, &T) -> bool) {
    let mut at = heap.len() - 1;
    while at > 0 {
        let parent = (at - 1) / 2;
        if !less(&heap[at], &heap[parent]) {
            break;
        }
        heap.swap(at, parent);
        at = parent;
    }
}

fn sift_down<T>(heap: &mut [T], less: impl Fn(&T, &T) -> bool) {
    let mut at = 0;
    loop {
        let left = 2 * at + 1;
        if left >= heap.len() {
            break;
        }
        let right = left + 1;
        let child = if right < heap.len() && less(&heap[right], &heap[left]) { right } else { left };
        if !less(&heap[child], &heap[at]) {
            break;
        }
        heap.swap(at, child);
        at = child;
    }
}

/// Where a label set stands between 0 and 1 by Prometheus's hash, so that `limit_ratio` picks what it picks there:
/// xxh64 over names and values in order, each behind its length (one byte below 255, else 255 and three bytes, the
/// lowest first).
fn share(labels: &Labels) -> f64 {
    let mut bytes = Vec::with_capacity(labels.as_bytes().len());
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        match u8::try_from(text.len()) {
            Ok(length) if length < u8::MAX => bytes.push(length),
            _ => {
                bytes.push(u8::MAX);
                bytes.extend_from_slice(&text.len().to_le_bytes()[..3]);
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    xxh64(&bytes, 0) as f64 / u64::MAX as f64
}

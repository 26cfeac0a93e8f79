//! Aggregations that pick some of their input's samples: `topk`, `bottomk`, `limitk`, `limit_ratio`.
//!
//! Samples are judged step by step and group by group, in the order of series, with a heap of `k`. Which of several
//! equal samples stay is the heap's doing, so it is the heap that Prometheus uses (Go's `container/heap`).

use tsdb::model::Labels;
use xxhash_rust::xxh64::xxh64;

use crate::annotations::Level;
use crate::error::Result;
use crate::eval::context::{Context, Rows};
use crate::eval::keys::{KeyIndex, KeySpec};
use crate::eval::pipeline::Pipeline;
use crate::eval::row::{Cell, Row, is_absent};
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
    let input = input.collect(context)?;
    let rows = &input.rows;
    let mut index = KeyIndex::new(spec);
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let group = index.number(&row.labels);
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(u32::try_from(i).expect("fewer than 2^32 series are in memory"));
    }
    let by_value = matches!(node.op, AggregateOp::Topk | AggregateOp::Bottomk);
    if by_value && rows.iter().any(|row| row.histograms.iter().any(Option::is_some)) {
        let text = format!("ignored histogram in {} aggregation", node.op.name());
        context.annotate(Level::Info, &text, node.span);
    }
    // A series' share is the same at every step.
    let shares = match node.op {
        AggregateOp::LimitRatio => rows.iter().map(|row| share(&row.labels)).collect(),
        _ => Vec::new(),
    };
    let mut selection = Selection { rows, shares, chosen: vec![None; rows.len()], order: Vec::new() };
    for members in &groups {
        context.limits.check()?;
        for step in 0..grid.count {
            match node.op {
                AggregateOp::LimitRatio => selection.by_hash(members, step, param.at(step)),
                AggregateOp::Limitk => selection.first(members, step, whole(param.at(step))),
                op => selection.best(members, step, whole(param.at(step)), op == AggregateOp::Topk),
            }
        }
    }
    let Selection { chosen, order, .. } = selection;
    // At a single step the order is the ranking; else series stand as they came.
    let order = if grid.count == 1 { order } else { (0..rows.len()).collect() };
    let mut chosen = chosen;
    let picked = order.into_iter().filter_map(|i| chosen[i].take()).collect();
    drop(input);
    context.rows(picked)
}

/// `k` as a number of samples.
fn whole(k: f64) -> usize {
    if k < 1.0 { 0 } else { k as usize }
}

struct Selection<'a> {
    rows: &'a [Row],
    /// Where each row stands between 0 and 1, for `limit_ratio` alone.
    shares: Vec<f64>,
    /// The picked samples of each row, once there is one.
    chosen: Vec<Option<Row>>,
    /// Rows in the order in which samples were picked.
    order: Vec<usize>,
}

impl Selection<'_> {
    fn pick(&mut self, row: usize, step: usize) {
        let from = &self.rows[row];
        let into = self.chosen[row].get_or_insert_with(|| {
            let mut into = Row::absent(from.labels.clone(), from.values.len());
            into.drop_name = from.drop_name;
            into
        });
        into.take_from(from, step);
        if from.values.len() == 1 {
            self.order.push(row);
        }
    }

    fn first(&mut self, members: &[u32], step: usize, k: usize) {
        let rows = self.rows;
        let present = members.iter().map(|m| *m as usize).filter(|m| rows[*m].has(step));
        present.take(k).for_each(|member| self.pick(member, step));
    }

    fn by_hash(&mut self, members: &[u32], step: usize, ratio: f64) {
        let ratio = ratio.clamp(-1.0, 1.0);
        let rows = self.rows;
        for member in members.iter().map(|m| *m as usize).filter(|m| rows[*m].has(step)) {
            let share = self.shares[member];
            // Complements, so that a ratio and 1 minus it, negated, part the series between them.
            let taken = if ratio >= 0.0 { share < ratio } else { share >= 1.0 + ratio };
            if taken {
                self.pick(member, step);
            }
        }
    }

    fn best(&mut self, members: &[u32], step: usize, k: usize, top: bool) {
        let mut heap: Vec<(f64, u32)> = Vec::with_capacity(k.min(members.len()));
        if k == 0 {
            return;
        }
        // The heap's root is the sample that goes first: NaN, then the least wanted.
        let less = |a: &(f64, u32), b: &(f64, u32)| a.0.is_nan() || (if top { a.0 < b.0 } else { a.0 > b.0 });
        for member in members {
            let value = match self.rows[*member as usize].cell(step) {
                Cell::Float(value) => value,
                Cell::Absent | Cell::Histogram(_) => continue,
            };
            let entry = (value, *member);
            if heap.len() < k {
                heap.push(entry);
                sift_up(&mut heap, less);
            } else if (if top { heap[0].0 < value } else { heap[0].0 > value })
                || (heap[0].0.is_nan() && !value.is_nan())
            {
                heap[0] = entry;
                sift_down(&mut heap, less);
            }
        }
        debug_assert!(heap.iter().all(|(value, _)| !is_absent(*value)));
        // Most wanted first, NaN last.
        heap.sort_by(|a, b| match (less(b, a), less(a, b)) {
            (true, false) => std::cmp::Ordering::Less,
            (false, true) => std::cmp::Ordering::Greater,
            _ => std::cmp::Ordering::Equal,
        });
        for (_, member) in heap {
            self.pick(member as usize, step);
        }
    }
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

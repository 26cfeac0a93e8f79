//! Aggregations that fold any number of rows into one: `sum`, `avg`, `count`, `group`, `min`, `max`, `stddev`,
//! `stdvar`, `quantile`.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Group;
use super::state::Fold;
use crate::annotations::Level;
use crate::error::Result;
use crate::eval::context::{Context, Rows, Scratch};
use crate::eval::keys::{KeyIndex, KeySpec};
use crate::eval::limits::Charge;
use crate::eval::notes::Notes;
use crate::eval::pipeline::Pipeline;
use crate::eval::row::Row;
use crate::folded::{FoldedGroup, FoldedNode};
use crate::functions::window::StepValues;
use crate::parse::ast::AggregateOp;
use crate::plan::Aggregate;
use crate::plan::grid::Grid;

/// Runs a folding aggregation, over the input and what others have folded of it.
pub(super) fn fold<'c>(
    context: &'c Context<'_>,
    node: &Aggregate,
    spec: &KeySpec,
    param: Option<&StepValues>,
    input: Pipeline<'c>,
    grid: &Grid,
) -> Result<Rows<'c>> {
    let mut total = folded(context, node, spec, input, grid)?;
    let others = context.take_folded(node);
    if !others.is_empty() {
        for other in others {
            total.merge(Groups::of_others(context, node.op, spec, grid.count, other)?)?;
        }
        total.restore_order();
    }
    total.finish(context, node, param)
}

/// Folds the input alone, for whoever merges it with what others have folded.
pub(super) fn fold_part<'c>(
    context: &'c Context<'_>,
    node: &Aggregate,
    spec: &KeySpec,
    input: Pipeline<'c>,
    grid: &Grid,
) -> Result<FoldedNode> {
    Ok(folded(context, node, spec, input, grid)?.into_node())
}

fn folded<'a>(
    context: &'a Context<'_>,
    node: &Aggregate,
    spec: &'a KeySpec,
    input: Pipeline<'a>,
    grid: &Grid,
) -> Result<Groups<'a>> {
    let ignored = AtomicBool::new(false);
    let new = || Groups::new(context, node.op, spec, grid.count);
    let mut total = new()?;
    input.fold(
        context,
        new,
        |groups, row, scratch| groups.add(row, scratch, &ignored),
        |part| total.merge(part),
    )?;
    if ignored.load(Ordering::Relaxed) {
        let text = format!("ignored histogram in {} aggregation", node.op.name());
        context.annotate(Level::Info, &text, node.span);
    }
    Ok(total)
}

/// The groups of one task, and in the end of all of them.
struct Groups<'a> {
    context: &'a Context<'a>,
    /// Whether names that are gone must be seen to be: where groups are told by what goes with them.
    settles: bool,
    op: AggregateOp,
    steps: usize,
    index: KeyIndex<'a>,
    spec: &'a KeySpec,
    groups: Vec<Group>,
    folds: Vec<Fold>,
    charge: Charge<'a>,
    notes: Notes,
}

impl<'a> Groups<'a> {
    fn new(context: &'a Context<'_>, op: AggregateOp, spec: &'a KeySpec, steps: usize) -> Result<Self> {
        Ok(Self {
            context,
            settles: spec.looks_at_metadata(),
            op,
            steps,
            index: KeyIndex::new(spec),
            spec,
            groups: Vec::new(),
            folds: Vec::new(),
            charge: context.budget.charge(0, "groups")?,
            notes: Notes::default(),
        })
    }

    fn add(&mut self, mut row: Row, scratch: &mut Scratch, ignored: &AtomicBool) -> Result<()> {
        if !self.context.delays_name_removal {
            if self.settles {
                self.context.settle(&mut row);
            }
            // Else the group has none of what would go.
            row.drop_name = false;
        }
        let group = self.index.number(&row.labels);
        if group == self.groups.len() {
            self.charge.grow(Fold::size_bytes(self.op, self.steps) + self.index.newest_bytes())?;
            let (labels, first) = (self.spec.labels(&row.labels), row.labels.clone());
            self.groups.push(Group { labels, first, drop_name: false });
            self.folds.push(Fold::new(self.op, self.steps));
        }
        self.groups[group].drop_name |= row.drop_name;
        if !row.histograms.is_empty() && !self.folds[group].takes_histograms() {
            ignored.store(true, Ordering::Relaxed);
        }
        if let Fold::Quantile(_) = self.folds[group] {
            self.charge.grow(row.values.capacity() * size_of::<f64>())?;
        }
        if let Some(values) = self.folds[group].add(row, &mut self.notes) {
            scratch.spare = values;
        }
        Ok(())
    }

    fn merge(&mut self, later: Self) -> Result<()> {
        let Self { groups, folds, charge, notes, .. } = later;
        self.notes.merge(notes);
        for (group, fold) in groups.into_iter().zip(folds) {
            // The key of a group's own labels is the group's.
            let number = self.index.number(&group.labels);
            if number == self.groups.len() {
                self.charge.grow(fold.held_bytes(self.steps) + self.index.newest_bytes())?;
                self.groups.push(group);
                self.folds.push(fold);
            } else {
                let own = &mut self.groups[number];
                own.drop_name |= group.drop_name;
                if group.first < own.first {
                    own.first = group.first;
                }
                self.folds[number].merge(fold, &mut self.notes);
            }
        }
        drop(charge);
        Ok(())
    }

    /// What somebody else has folded.
    fn of_others(
        context: &'a Context<'_>,
        op: AggregateOp,
        spec: &'a KeySpec,
        steps: usize,
        node: FoldedNode,
    ) -> Result<Self> {
        let mut all = Self::new(context, op, spec, steps)?;
        all.notes = node.notes;
        for FoldedGroup { labels, first, drop_name, columns, histograms } in node.groups {
            let fold = Fold::of_columns(op, columns, histograms, steps);
            all.charge.grow(fold.held_bytes(steps))?;
            all.groups.push(Group { labels, first, drop_name });
            all.folds.push(fold);
        }
        Ok(all)
    }

    fn into_node(self) -> FoldedNode {
        let group = |(Group { labels, first, drop_name }, fold): (Group, Fold)| {
            let (columns, histograms) = fold.into_columns();
            FoldedGroup { labels, first, drop_name, columns, histograms }
        };
        let groups = self.groups.into_iter().zip(self.folds).map(group).collect();
        FoldedNode { groups, notes: self.notes, series: 0 }
    }

    /// Puts groups into the order in which they would have come up had all series been here.
    fn restore_order(&mut self) {
        let mut both: Vec<_> = self.groups.drain(..).zip(self.folds.drain(..)).collect();
        both.sort_by(|(a, _), (b, _)| a.first.cmp(&b.first));
        (self.groups, self.folds) = both.into_iter().unzip();
    }

    fn finish<'c>(
        self,
        context: &'c Context<'_>,
        node: &Aggregate,
        param: Option<&StepValues>,
    ) -> Result<Rows<'c>> {
        let mut notes = self.notes;
        let mut rows = Vec::with_capacity(self.groups.len());
        let mut mixed = false;
        let mut charge = context.budget.charge(0, "rows")?;
        for (group, fold) in self.groups.into_iter().zip(self.folds) {
            // Its groups aren't given back before all have become rows.
            charge.grow(self.steps * size_of::<f64>())?;
            let mut row = Row::absent(group.labels, self.steps);
            row.drop_name = group.drop_name;
            fold.finish(node.op, param, &mut row, &mut mixed, &mut notes);
            if row.has_any() {
                rows.push(row);
            }
        }
        if mixed {
            let text = "encountered a mix of histograms and floats for aggregation";
            context.annotate(Level::Warning, text, node.span);
        }
        context.tell(notes, "", node.span);
        drop((self.charge, charge));
        context.rows(rows)
    }
}

//! What makes a match ambiguous.

use tsdb::model::Labels;

use super::Join;
use crate::error::{Error, Result};
use crate::eval::binary;
use crate::eval::row::{Cell, Row};
use crate::parse::ast::Fill;

impl Join<'_> {
    /// Two series of one key on the side that may have but one.
    pub(super) fn refuse_duplicates(&self, many: &[Row]) -> Result<()> {
        let fills = self.node.matching.fill != Fill::default();
        for rows in self.ones.iter().filter(|rows| rows.len() > 1) {
            let steps = self.one[rows[0]].values.len();
            for step in 0..steps {
                let mut present = rows.iter().filter(|row| self.one[**row].has(step));
                // Where the other side is empty, and isn't filled, Prometheus doesn't look.
                if let (Some(first), Some(second)) = (present.next(), present.next())
                    && (fills || many.iter().any(|row| row.has(step)))
                {
                    return Err(self.duplicate(&self.one[*first].labels, &self.one[*second].labels));
                }
            }
        }
        Ok(())
    }

    fn duplicate(&self, first: &Labels, second: &Labels) -> Error {
        let side = if self.swapped { "left" } else { "right" };
        let group = shown(&self.spec.labels(second));
        // In order of labels: the text doesn't depend on which node's series came first.
        let (first, second) = if second < first { (second, first) } else { (first, second) };
        Error::Execution(format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: \
             [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            shown(first),
            shown(second),
        ))
    }

    /// Two series of one key on the other side, where none was allowed.
    pub(super) fn refuse_many(&self, keys: &[Option<usize>], many: &[Row]) -> Result<()> {
        let mut first_of: Vec<Option<usize>> = vec![None; self.ones.len()];
        let mut matched: Vec<Option<Vec<bool>>> = vec![None; self.ones.len()];
        for (i, key) in keys.iter().enumerate() {
            let Some(key) = *key else { continue };
            let Some(first) = first_of[key] else {
                first_of[key] = Some(i);
                continue;
            };
            let meets = |row: &Row, step| self.is_match(row, key, step);
            let steps = many[i].values.len();
            let taken = matched[key]
                .get_or_insert_with(|| (0..steps).map(|step| meets(&many[first], step)).collect());
            for (step, taken) in taken.iter_mut().enumerate() {
                let here = meets(&many[i], step);
                if here && *taken {
                    return Err(Error::Execution(
                        "multiple matches for labels: many-to-one matching must be explicit \
                         (group_left/group_right)"
                            .to_owned(),
                    ));
                }
                *taken |= here;
            }
        }
        Ok(())
    }
}

impl Join<'_> {
    /// Whether a row has a partner at a step, and one that its sample can be combined with: what can't isn't a match.
    fn is_match(&self, row: &Row, key: usize, step: usize) -> bool {
        let mine = match row.cell(step) {
            Cell::Absent => return false,
            Cell::Float(_) => false,
            Cell::Histogram(_) => true,
        };
        let partner = self.ones[key].iter().map(|one| &self.one[*one]).find(|one| one.has(step));
        let theirs = match partner {
            Some(partner) => partner.histogram(step).is_some(),
            None if self.node.matching.fill.right.is_some() => false,
            None => return false,
        };
        let (left, right) = if self.swapped { (theirs, mine) } else { (mine, theirs) };
        binary::go_together(self.node.op, left, right)
    }
}

/// Labels as Prometheus's errors write them: the name is a label like any other.
fn shown(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

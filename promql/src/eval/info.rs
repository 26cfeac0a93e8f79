//! `info`: series get the labels of info metrics that stand for the same thing, which their identifying labels tell.
//!
//! 1. Info series are looked up at each step as any series is; their samples' times tell which is the newest.
//! 2. At each step a series meets, of every info metric by name, the newest sample with its identifying labels. Steps
//!    at which it meets the same ones make one output row.
//! 3. Labels that the series has already stay as they are. Where it meets none, it stays what it is, unless a label was
//!    asked for that must not be empty.

use std::collections::{BTreeMap, BTreeSet};

use tsdb::model::{Labels, METRIC_NAME};

use super::Evaluator;
use super::context::Rows;
use super::leaf::Wanted;
use super::row::Row;
use super::same;
use crate::error::{Error, Result};
use crate::plan::Info;
use crate::plan::grid::Grid;

/// Labels that tell what a series is about.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Values of the identifying labels; empty where there is none.
type Identity<'a> = [&'a str; IDENTIFYING.len()];

fn identity(labels: &Labels) -> Identity<'_> {
    IDENTIFYING.map(|name| labels.value(name))
}

impl<'c> Evaluator<'c, '_> {
    pub(super) fn info(&self, node: &Info, grid: &Grid) -> Result<Rows<'c>> {
        let base = self.rows(&node.input, grid)?;
        let look = |wanted| self.instant(&node.info, wanted, grid).collect(self.context);
        let stays = |labels: &Labels| {
            let name = labels.metric_name();
            !node.names.is_empty() && node.names.iter().all(|m| m.matches(name))
        };
        let (stay, enriched): (Vec<Row>, Vec<Row>) =
            base.into_rows().into_iter().partition(|row| stays(&row.labels));
        let (samples, times) = (look(Wanted::Samples)?, look(Wanted::Times)?);
        let infos = Infos::new(&samples.rows, &times.rows, &enriched, grid.count)?;
        let mut out = stay;
        for row in &enriched {
            self.context.limits.check()?;
            infos.enrich(row, node, &mut out)?;
        }
        let mut out = self.context.rows(out)?;
        same::unite(&mut out)?;
        Ok(out)
    }
}

/// Info series, by what they are about and by their metrics' names.
struct Infos<'a> {
    /// Sample times in seconds.
    rows: &'a [Row],
    /// At each step the newest of the series of one name, if there is any.
    newest: BTreeMap<Identity<'a>, BTreeMap<&'a str, Vec<Option<usize>>>>,
}

impl<'a> Infos<'a> {
    fn new(samples: &[Row], times: &'a [Row], base: &[Row], steps: usize) -> Result<Self> {
        let mut wanted: [BTreeSet<&str>; IDENTIFYING.len()] = Default::default();
        for row in base {
            for (values, value) in wanted.iter_mut().zip(identity(&row.labels)) {
                values.extend(Some(value).filter(|v| !v.is_empty()));
            }
        }
        let mut infos = Self { rows: times, newest: BTreeMap::new() };
        if wanted.iter().all(BTreeSet::is_empty) {
            return Ok(infos);
        }
        for (i, row) in times.iter().enumerate() {
            let identity = identity(&row.labels);
            if wanted.iter().zip(identity).any(|(values, v)| !values.is_empty() && !values.contains(v)) {
                continue;
            }
            if samples[i].histograms.iter().any(Option::is_some) {
                return Err(Error::Execution("info sample should be float".to_owned()));
            }
            let by_name = infos.newest.entry(identity).or_default();
            let newest = by_name.entry(row.labels.metric_name()).or_insert_with(|| vec![None; steps]);
            for (step, newest) in newest.iter_mut().enumerate().filter(|(step, _)| row.has(*step)) {
                let time = row.values[step];
                match newest.map(|other| (other, times[other].values[step])) {
                    Some((_, other_time)) if other_time > time => {}
                    Some((other, other_time)) if other_time.to_bits() == time.to_bits() => {
                        return Err(duplicate(&times[other].labels, &row.labels, time));
                    }
                    _ => *newest = Some(i),
                }
            }
        }
        Ok(infos)
    }

    /// Adds the rows that come of a series.
    fn enrich(&self, row: &Row, node: &Info, out: &mut Vec<Row>) -> Result<()> {
        let may_be_alone = node.data.iter().all(|m| m.matches(""));
        let candidates: Vec<&Vec<Option<usize>>> =
            self.newest.get(&identity(&row.labels)).into_iter().flat_map(BTreeMap::values).collect();
        let mut rows: BTreeMap<Vec<usize>, Row> = BTreeMap::new();
        for step in (0..row.values.len()).filter(|step| row.has(*step)) {
            let met: Vec<usize> = candidates.iter().filter_map(|newest| newest[step]).collect();
            if met.is_empty() && !may_be_alone {
                continue;
            }
            if !rows.contains_key(&met) {
                let mut made = Row::absent(self.labels(&row.labels, &met, node)?, row.values.len());
                made.drop_name = row.drop_name;
                rows.insert(met.clone(), made);
            }
            rows.get_mut(&met).expect("it was just put there").take_from(row, step);
        }
        out.extend(rows.into_values());
        Ok(())
    }

    fn labels(&self, base: &Labels, met: &[usize], node: &Info) -> Result<Labels> {
        let mut added: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in met.iter().flat_map(|info| self.rows[*info].labels.iter()) {
            let asked_for = node.data.is_empty() || node.data.iter().any(|m| m.name() == name);
            if name == METRIC_NAME || !asked_for || base.get(name).is_some() {
                continue;
            }
            if added.insert(name, value).is_some_and(|other| other != value) {
                return Err(Error::Execution(format!("conflicting label: {name}")));
            }
        }
        let mut labels = base.to_builder();
        for (name, value) in added {
            labels.set(name, value);
        }
        Ok(labels.labels())
    }
}

fn duplicate(existing: &Labels, new: &Labels, seconds: f64) -> Error {
    #[allow(clippy::cast_possible_truncation, reason = "a sample's time was an i64")]
    let at_ms = (seconds * 1000.0).round() as i64;
    Error::Execution(format!(
        "found duplicate series for info metric: existing {existing} @ {at_ms}, new {new} @ {at_ms}"
    ))
}

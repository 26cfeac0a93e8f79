//! Questions for digests, and for what aggregations come to.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use promql::folded::{FoldedGroup, FoldedHistogram, FoldedNode, HistogramSum, Notes};
use promql::parse::Span;
use promql::{Annotations, Folded, Level, QueryRange};
use proto::peer::read as pb;
use tsdb::model::{CounterReset, Labels};

use super::{
    DigestsAsk, FoldAsk, FoldPart, Malformed, Opening, SelectAsk, stores_from, stores_to, tenant_from,
};

/// What plans and states mean. Raised when the same text makes another plan, or a state's numbers mean something else:
/// then nodes of both versions fetch series from each other.
const MEANING: u32 = 2;
/// Most steps of a query, as it comes from another node.
const STEPS_MAX: usize = 1 << 20;

impl DigestsAsk {
    /// As a message.
    pub fn to_message(&self) -> pb::DigestsRequest {
        let list = |(i, buckets): (usize, &BTreeSet<u32>)| pb::Listed {
            selection: i as u32,
            buckets: buckets.iter().copied().collect(),
        };
        pb::DigestsRequest {
            select: Some(self.select.to_message()),
            listed: self.listed.iter().flatten().enumerate().map(list).collect(),
            sketched: self.is_sketched,
        }
    }

    /// From a message.
    ///
    /// # Errors
    /// Where it isn't a question.
    pub fn from_message(request: pb::DigestsRequest) -> Result<Self, Malformed> {
        let select = request.select.ok_or_else(|| Malformed::new("digests of nothing are asked for"))?;
        let select = SelectAsk::from_message(select)?;
        let mut listed = (!request.listed.is_empty()).then(|| vec![BTreeSet::new(); select.selects.len()]);
        for list in request.listed {
            let into = listed.as_mut().and_then(|listed| listed.get_mut(list.selection as usize));
            let into = into.ok_or_else(|| Malformed::new("there is no such selection"))?;
            into.extend(list.buckets);
        }
        Ok(Self { select, listed, is_sketched: request.sketched })
    }
}

impl FoldAsk {
    /// As a message.
    pub fn to_message(&self) -> pb::FoldRequest {
        let except = |(i, series): (usize, &BTreeSet<u64>)| pb::Except {
            selection: i as u32,
            series: series.iter().copied().collect(),
        };
        let QueryRange { start_ms, end_ms, step_ms, lookback_ms } = self.range;
        pb::FoldRequest {
            tenant: self.tenant.as_str().to_owned(),
            asked: stores_to(&self.asked),
            catalog_version: self.catalog_version,
            meaning: MEANING,
            query: self.query.clone(),
            start_ms,
            end_ms,
            step_ms,
            lookback_ms,
            experimental: self.experimental,
            delayed_name_removal: self.delayed_name_removal,
            except: self.except.iter().enumerate().map(except).collect(),
        }
    }

    /// From a message.
    ///
    /// # Errors
    /// Where it isn't a question, or one of a version that means something else.
    pub fn from_message(request: pb::FoldRequest) -> Result<Self, Malformed> {
        if request.meaning != MEANING {
            return Err(Malformed::new("folding means something else in that version"));
        }
        let pb::FoldRequest { start_ms, end_ms, step_ms, lookback_ms, .. } = request;
        let range = QueryRange { start_ms, end_ms, step_ms, lookback_ms };
        if step_ms < 0
            || end_ms < start_ms
            || lookback_ms <= 0
            || !(1..=STEPS_MAX).contains(&range.grid().count)
        {
            return Err(Malformed::new("the steps can't be right"));
        }
        let mut except = vec![BTreeSet::new(); request.except.len()];
        for list in request.except {
            let into = except.get_mut(list.selection as usize);
            into.ok_or_else(|| Malformed::new("there is no such selection"))?.extend(list.series);
        }
        Ok(Self {
            tenant: tenant_from(&request.tenant)?,
            asked: stores_from(&request.asked)?,
            catalog_version: request.catalog_version,
            query: request.query,
            range,
            experimental: request.experimental,
            delayed_name_removal: request.delayed_name_removal,
            except,
        })
    }
}

impl FoldPart {
    /// As a frame.
    pub fn into_message(self) -> pb::FoldFrame {
        let group = |(node, group): (usize, FoldedGroup)| pb::Group {
            node: node as u32,
            labels: Bytes::copy_from_slice(group.labels.as_bytes()),
            first: Bytes::copy_from_slice(group.first.as_bytes()),
            drop_name: group.drop_name,
            columns: group.columns.iter().map(|column| column_to(column)).collect(),
            histograms: group.histograms.into_iter().map(histogram_to).collect(),
        };
        let mut frame = pb::FoldFrame {
            opening: self.opening.as_ref().map(Opening::to_message),
            groups: self.groups.into_iter().map(group).collect(),
            ..pb::FoldFrame::default()
        };
        let Some(Folded { nodes, annotations, stats, per_step }) = self.rest else { return frame };
        frame.is_last = true;
        let node = |node: FoldedNode| pb::FoldedNode { notes: node.notes.bits(), series: node.series };
        frame.nodes = nodes.into_iter().map(node).collect();
        frame.annotations = [Level::Warning, Level::Info]
            .into_iter()
            .flat_map(|level| {
                let is_info = level == Level::Info;
                annotations.of(level).map(move |(text, Span { start, end })| pb::Annotation {
                    is_info,
                    text: text.to_owned(),
                    start,
                    end,
                })
            })
            .collect();
        (frame.series, frame.samples, frame.per_step) = (stats.series, stats.samples, per_step);
        frame
    }

    /// From a frame, of an answer over `steps` steps.
    ///
    /// # Errors
    /// Where it isn't a part of an answer.
    pub fn from_message(frame: pb::FoldFrame, steps: usize) -> Result<Self, Malformed> {
        let group = |group: pb::Group| {
            let columns = group.columns.iter().map(|column| column_from(column, steps));
            let labels = |bytes: &[u8]| Labels::from_bytes(bytes).map_err(|e| Malformed::new(e.to_string()));
            let folded = FoldedGroup {
                labels: labels(&group.labels)?,
                first: labels(&group.first)?,
                drop_name: group.drop_name,
                columns: columns.collect::<Result<_, _>>()?,
                histograms: group.histograms.into_iter().map(histogram_from).collect::<Result<_, _>>()?,
            };
            Ok((group.node as usize, folded))
        };
        let rest = frame.is_last.then(|| {
            let node = |node: &pb::FoldedNode| FoldedNode {
                groups: Vec::new(),
                notes: Notes::from_bits(node.notes),
                series: node.series,
            };
            let mut annotations = Annotations::default();
            for pb::Annotation { is_info, text, start, end } in frame.annotations {
                let level = if is_info { Level::Info } else { Level::Warning };
                annotations.add_whole(level, text, Span { start, end });
            }
            let stats = promql::value::Stats { series: frame.series, samples: frame.samples, peak_bytes: 0 };
            let nodes = frame.nodes.iter().map(node).collect();
            Folded { nodes, annotations, stats, per_step: frame.per_step }
        });
        Ok(Self {
            opening: frame.opening.map(Opening::from_message),
            groups: frame.groups.into_iter().map(group).collect::<Result<_, Malformed>>()?,
            rest,
        })
    }
}

/// About the bytes of a group, as it travels.
pub fn group_bytes(group: &FoldedGroup) -> usize {
    let columns = group.columns.iter().map(|column| size_of_val(column.as_slice())).sum::<usize>();
    let histogram = |histogram: &FoldedHistogram| match &histogram.sum {
        Some(sum) => {
            let buckets = sum.positive.len() + sum.negative.len();
            (buckets * 3 + sum.bounds.as_ref().map_or(0, |bounds| bounds.len()) + 8) * size_of::<f64>()
        }
        None => size_of::<u64>(),
    };
    let histograms = group.histograms.iter().map(histogram).sum::<usize>();
    group.labels.as_bytes().len() + group.first.as_bytes().len() + columns + histograms
}

fn column_to(column: &[f64]) -> Bytes {
    if column.iter().all(|value| value.to_bits() == 0) {
        return Bytes::new();
    }
    column.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn column_from(bytes: &[u8], steps: usize) -> Result<Vec<f64>, Malformed> {
    if bytes.is_empty() {
        return Ok(vec![0.0; steps]);
    }
    let (values, rest) = bytes.as_chunks::<{ size_of::<f64>() }>();
    if values.len() != steps || !rest.is_empty() {
        return Err(Malformed::new("a column has a value for each step"));
    }
    Ok(values.iter().map(|value| f64::from_le_bytes(*value)).collect())
}

fn histogram_to(histogram: FoldedHistogram) -> pb::FoldedHistogram {
    let FoldedHistogram { step, count, reset, not_reset, sum } = histogram;
    let sum = sum.map(|sum| {
        let indices = |buckets: &[(i32, [f64; 2])]| buckets.iter().map(|(index, _)| *index).collect();
        let counts = |buckets: &[(i32, [f64; 2])]| buckets.iter().flat_map(|(_, count)| *count).collect();
        pb::HistogramSum {
            counter_reset: sum.counter_reset as u32,
            schema: sum.schema,
            zero_threshold: sum.zero_threshold,
            numbers: [sum.zero_count, sum.count, sum.sum].concat(),
            positive: indices(&sum.positive),
            positive_counts: counts(&sum.positive),
            negative: indices(&sum.negative),
            negative_counts: counts(&sum.negative),
            bounds: sum.bounds.as_deref().unwrap_or_default().to_vec(),
            has_bounds: sum.bounds.is_some(),
        }
    });
    pb::FoldedHistogram { step, count, reset, not_reset, sum }
}

fn histogram_from(histogram: pb::FoldedHistogram) -> Result<FoldedHistogram, Malformed> {
    let pb::FoldedHistogram { step, count, reset, not_reset, sum } = histogram;
    let buckets = |indices: Vec<i32>, counts: &[f64]| {
        let (counts, rest) = counts.as_chunks::<2>();
        if counts.len() != indices.len() || !rest.is_empty() {
            return Err(Malformed::new("a bucket has one count"));
        }
        Ok(indices.into_iter().zip(counts.iter().copied()).collect())
    };
    let sum = sum.map(|sum| {
        let &[zero, zero_lo, count, count_lo, total, total_lo] = &sum.numbers[..] else {
            return Err(Malformed::new("a histogram has three numbers"));
        };
        Ok(HistogramSum {
            counter_reset: match sum.counter_reset {
                1 => CounterReset::Reset,
                2 => CounterReset::NotReset,
                3 => CounterReset::Gauge,
                _ => CounterReset::Unknown,
            },
            schema: sum.schema,
            zero_threshold: sum.zero_threshold,
            zero_count: [zero, zero_lo],
            count: [count, count_lo],
            sum: [total, total_lo],
            positive: buckets(sum.positive, &sum.positive_counts)?,
            negative: buckets(sum.negative, &sum.negative_counts)?,
            bounds: sum.has_bounds.then(|| Arc::from(sum.bounds)),
        })
    });
    Ok(FoldedHistogram { step, count, reset, not_reset, sum: sum.transpose()? })
}

#[cfg(test)]
mod tests {
    use ring::StoreId;
    use tsdb::model::TenantId;
    use tsdb::select::Select;

    use super::*;

    fn ask() -> FoldAsk {
        FoldAsk {
            tenant: TenantId::new("t").unwrap(),
            asked: vec![StoreId(1)],
            catalog_version: Some(3),
            query: "sum(m)".to_owned(),
            range: QueryRange { start_ms: -5, end_ms: 100, step_ms: 10, lookback_ms: 7 },
            experimental: true,
            delayed_name_removal: true,
            except: vec![BTreeSet::from([1, u64::MAX]), BTreeSet::new()],
        }
    }

    #[test]
    fn questions_read_back_and_broken_ones_are_refused() {
        assert_eq!(FoldAsk::from_message(ask().to_message()).unwrap(), ask());
        let broken: [fn(&mut pb::FoldRequest); 6] = [
            |r| r.tenant = "../x".to_owned(),
            |r| r.meaning += 1,
            |r| r.step_ms = -1,
            |r| r.end_ms = i64::MAX,
            |r| r.lookback_ms = 0,
            |r| r.except[1].selection = 2,
        ];
        for (i, damage) in broken.iter().enumerate() {
            let mut request = ask().to_message();
            damage(&mut request);
            assert!(FoldAsk::from_message(request).is_err(), "{i}");
        }
        let select = SelectAsk {
            tenant: TenantId::new("t").unwrap(),
            selects: vec![Select { matchers: Vec::new(), range_ms: 0..=1, shard: None }; 2],
            asked: vec![StoreId(1)],
            catalog_version: None,
            wanted: None,
        };
        let some = Some(vec![BTreeSet::from([3, 700]), BTreeSet::new()]);
        for (listed, is_sketched) in [(None, false), (some.clone(), false), (some, true)] {
            let ask = DigestsAsk { select: select.clone(), listed, is_sketched };
            assert_eq!(DigestsAsk::from_message(ask.to_message()).unwrap(), ask);
        }
        assert!(DigestsAsk::from_message(pb::DigestsRequest::default()).is_err());
    }

    fn part() -> FoldPart {
        let sum = HistogramSum {
            counter_reset: CounterReset::NotReset,
            schema: -3,
            zero_threshold: 0.5,
            zero_count: [1.0, 0.1],
            count: [2.0, 0.2],
            sum: [3.0, 0.3],
            positive: vec![(-1, [1.0, 0.0]), (5, [2.0, 0.5])],
            negative: vec![(2, [4.0, 0.0])],
            bounds: Some(Arc::from([1.0, 2.0])),
        };
        let histogram = FoldedHistogram { step: 1, count: 2, reset: true, not_reset: false, sum: Some(sum) };
        let group = FoldedGroup {
            labels: Labels::from_sorted([("job", "a")]),
            first: Labels::from_sorted([("__name__", "m"), ("job", "a")]),
            drop_name: true,
            columns: vec![vec![0.0, -0.0, 3.0], vec![0.0; 3]],
            histograms: vec![histogram],
        };
        let mut annotations = Annotations::default();
        annotations.add(Level::Info, "what", Span { start: 1, end: 3 });
        let node = FoldedNode { groups: Vec::new(), notes: Notes::from_bits(5), series: 9 };
        let stats = promql::value::Stats { series: 9, samples: 20, peak_bytes: 0 };
        let rest = Folded { nodes: vec![node], annotations, stats, per_step: vec![1, 2] };
        FoldPart {
            opening: Some(Opening { epoch: 4, ..Opening::default() }),
            groups: vec![(0, group)],
            rest: Some(rest),
        }
    }

    #[test]
    fn answers_read_back_and_broken_ones_are_refused() {
        assert_eq!(FoldPart::from_message(part().into_message(), 3).unwrap(), part());
        let broken: [fn(&mut pb::FoldFrame); 5] = [
            |f| f.groups[0].labels = Bytes::from_static(b"\x05abc"),
            |f| f.groups[0].first = Bytes::from_static(b"\x05abc"),
            |f| f.groups[0].columns[0] = Bytes::from_static(b"short"),
            |f| f.groups[0].histograms[0].sum.as_mut().unwrap().numbers.truncate(5),
            |f| f.groups[0].histograms[0].sum.as_mut().unwrap().positive_counts.truncate(3),
        ];
        for (i, damage) in broken.iter().enumerate() {
            let mut frame = part().into_message();
            damage(&mut frame);
            assert!(FoldPart::from_message(frame, 3).is_err(), "{i}");
        }
    }
}

//! Questions for series.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::peer::read as pb;
use tsdb::chunk::Encoding;
use tsdb::digest::Digest;
use tsdb::model::Labels;
use tsdb::select::{Chunk, Select, Series, Shard};

use super::{
    Malformed, Mark, Opening, SELECTIONS_MAX, SelectAsk, SelectPart, matchers_from, matchers_to, stores_from,
    stores_to, tenant_from,
};
use crate::query::Sketch;

/// Bytes of a series in a list of marks, or of those that are wanted.
const ENTRY_BYTES: usize = 24;

impl SelectAsk {
    /// As a message.
    pub fn to_message(&self) -> pb::SelectRequest {
        let selection = |select: &Select| pb::Selection {
            matchers: matchers_to(&select.matchers),
            start_ms: *select.range_ms.start(),
            end_ms: *select.range_ms.end(),
            shard_index: select.shard.map_or(0, |shard| shard.index),
            shard_count: select.shard.map_or(0, |shard| shard.count),
        };
        let wanted = |(i, series): (usize, &BTreeMap<u64, Option<Digest>>)| {
            let entry = |(hash, digest): (&u64, &Option<Digest>)| {
                entry_to(*hash, u128::from_le_bytes(digest.unwrap_or_default().to_bytes()))
            };
            pb::Wanted { selection: i as u32, series: series.iter().flat_map(entry).collect() }
        };
        // A list that is there, and empty, would look like none.
        debug_assert!(self.wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|w| !w.is_empty())));
        pb::SelectRequest {
            tenant: self.tenant.as_str().to_owned(),
            selections: self.selects.iter().map(selection).collect(),
            asked: stores_to(&self.asked),
            catalog_version: self.catalog_version,
            wanted: self.wanted.iter().flatten().enumerate().map(wanted).collect(),
        }
    }

    /// From a message.
    ///
    /// # Errors
    /// Where it isn't a question.
    pub fn from_message(request: pb::SelectRequest) -> Result<Self, Malformed> {
        if request.selections.len() > SELECTIONS_MAX {
            return Err(Malformed::new("too many selections"));
        }
        let select = |selection: pb::Selection| {
            let shard = match (selection.shard_index, selection.shard_count) {
                (_, 0) => None,
                (index, count) if index < count => Some(Shard { index, count }),
                _ => return Err(Malformed::new("a shard's index is below their count")),
            };
            Ok(Select {
                matchers: matchers_from(selection.matchers)?,
                range_ms: selection.start_ms..=selection.end_ms,
                shard,
            })
        };
        let selects: Vec<_> = request.selections.into_iter().map(select).collect::<Result<_, _>>()?;
        let mut wanted = (!request.wanted.is_empty()).then(|| vec![BTreeMap::new(); selects.len()]);
        for list in request.wanted {
            let series = wanted.as_mut().and_then(|wanted| wanted.get_mut(list.selection as usize));
            let series = series.ok_or_else(|| Malformed::new("there is no such selection"))?;
            for (hash, digest) in entries_from(&list.series)? {
                let digest = Digest::from_bytes(digest.to_le_bytes());
                series.insert(hash, (digest != Digest::default()).then_some(digest));
            }
        }
        Ok(Self {
            tenant: tenant_from(&request.tenant)?,
            selects,
            asked: stores_from(&request.asked)?,
            catalog_version: request.catalog_version,
            wanted,
        })
    }
}

impl SelectPart {
    /// As a frame.
    pub fn into_message(self) -> pb::SelectFrame {
        let series = |(selection, series): (usize, Series)| pb::Series {
            selection: selection as u32,
            labels: Bytes::copy_from_slice(series.labels.as_bytes()),
            chunks: series.chunks.into_iter().map(chunk_to).collect(),
            deleted: series
                .deleted_ms
                .iter()
                .map(|range| pb::Deleted { start_ms: *range.start(), end_ms: *range.end() })
                .collect(),
        };
        let marks = |(selection, marks): (usize, Vec<Mark>)| pb::Marks {
            selection: selection as u32,
            series: marks.iter().flat_map(|mark| entry_to(mark.hash, mark.fingerprint)).collect(),
        };
        let sketch = |(selection, owners, sketch): (usize, u32, Sketch)| pb::Sketch {
            selection: selection as u32,
            owners,
            cells: sketch.to_bytes().into(),
        };
        pb::SelectFrame {
            opening: self.opening.as_ref().map(Opening::to_message),
            series: self.series.into_iter().map(series).collect(),
            marks: self.marks.into_iter().map(marks).collect(),
            is_last: self.is_last,
            sketches: self.sketches.into_iter().map(sketch).collect(),
        }
    }

    /// From a frame; `selections` are how many were asked for.
    ///
    /// # Errors
    /// Where it isn't a part of an answer.
    pub fn from_message(frame: pb::SelectFrame, selections: usize) -> Result<Self, Malformed> {
        let known = |selection: u32| match selection as usize {
            i if i < selections => Ok(i),
            _ => Err(Malformed::new("a selection that wasn't asked for")),
        };
        let series = |series: pb::Series| {
            let labels = Labels::from_bytes(&series.labels).map_err(|e| Malformed::new(e.to_string()))?;
            let chunks = series.chunks.into_iter().map(chunk_from).collect::<Result<_, _>>()?;
            let deleted_ms = series.deleted.iter().map(|d| d.start_ms..=d.end_ms).collect();
            Ok((known(series.selection)?, Series { labels, chunks, deleted_ms, newest: None }))
        };
        let marks = |marks: pb::Marks| {
            let entries = entries_from(&marks.series)?;
            let marks_of = entries.map(|(hash, fingerprint)| Mark { hash, fingerprint }).collect();
            Ok((known(marks.selection)?, marks_of))
        };
        let sketch = |sketch: pb::Sketch| {
            let cells = Sketch::from_bytes(&sketch.cells);
            let cells = cells.ok_or_else(|| Malformed::new("a sketch isn't made of whole rows"))?;
            Ok((known(sketch.selection)?, sketch.owners, cells))
        };
        Ok(Self {
            opening: frame.opening.map(Opening::from_message),
            series: frame.series.into_iter().map(series).collect::<Result<_, _>>()?,
            marks: frame.marks.into_iter().map(marks).collect::<Result<_, Malformed>>()?,
            sketches: frame.sketches.into_iter().map(sketch).collect::<Result<_, Malformed>>()?,
            is_last: frame.is_last,
        })
    }
}

fn chunk_to(chunk: Chunk) -> pb::Chunk {
    pb::Chunk {
        min_ms: chunk.min_ms,
        max_ms: chunk.max_ms,
        encoding: u32::from(chunk.encoding as u8),
        data: chunk.data,
    }
}

fn chunk_from(chunk: pb::Chunk) -> Result<Chunk, Malformed> {
    let encoding = u8::try_from(chunk.encoding).ok().and_then(Encoding::from_byte);
    let encoding = encoding.ok_or_else(|| Malformed::new("an encoding that nobody knows"))?;
    if chunk.max_ms < chunk.min_ms {
        return Err(Malformed::new("a chunk ends before it begins"));
    }
    Ok(Chunk { min_ms: chunk.min_ms, max_ms: chunk.max_ms, encoding, data: chunk.data })
}

fn entry_to(hash: u64, wide: u128) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..8].copy_from_slice(&hash.to_le_bytes());
    entry[8..].copy_from_slice(&wide.to_le_bytes());
    entry
}

fn entries_from(bytes: &[u8]) -> Result<impl Iterator<Item = (u64, u128)> + '_, Malformed> {
    let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return Err(Malformed::new("a list of series is cut short"));
    }
    Ok(entries.iter().map(|entry| {
        let (hash, wide) = entry.split_at(8);
        let hash = u64::from_le_bytes(hash.try_into().expect("eight bytes"));
        (hash, u128::from_le_bytes(wide.try_into().expect("sixteen bytes")))
    }))
}

#[cfg(test)]
mod tests {
    use ring::StoreId;
    use tsdb::model::{MatchOp, Matcher, Sample, TenantId};

    use super::*;

    fn ask() -> SelectAsk {
        let matchers = vec![
            Matcher::equal("job", "a"),
            Matcher::new(MatchOp::NotRegex, "zone", "x|y").unwrap(),
            Matcher::new(MatchOp::NotEqual, "zone", "z").unwrap(),
        ];
        let select = Select { matchers, range_ms: -5..=i64::MAX, shard: Some(Shard { index: 1, count: 3 }) };
        let digest = Digest::from_bytes([7; 16]);
        SelectAsk {
            tenant: TenantId::new("t").unwrap(),
            selects: vec![select.clone(), Select { shard: None, ..select }],
            asked: vec![StoreId(1), StoreId(u128::MAX)],
            catalog_version: Some(9),
            wanted: Some(vec![BTreeMap::from([(3, None), (4, Some(digest))]), BTreeMap::new()]),
        }
    }

    #[test]
    fn a_question_reads_back() {
        for ask in [ask(), SelectAsk { wanted: None, catalog_version: None, ..ask() }] {
            assert_eq!(SelectAsk::from_message(ask.to_message()).unwrap(), ask);
        }
    }

    #[test]
    fn broken_questions_are_refused() {
        let broken: [fn(&mut pb::SelectRequest); 6] = [
            |r| r.tenant = "../x".to_owned(),
            |r| r.selections[0].matchers[0].op = 4,
            |r| r.selections[0].matchers[1].value = "(".to_owned(),
            |r| r.selections[0].shard_index = 3,
            |r| r.asked[0] = Bytes::from_static(b"short"),
            |r| r.wanted[0].series = Bytes::from_static(b"short"),
        ];
        for (i, damage) in broken.iter().enumerate() {
            let mut request = ask().to_message();
            damage(&mut request);
            assert!(SelectAsk::from_message(request).is_err(), "{i}");
        }
    }

    #[test]
    fn an_answer_reads_back_and_broken_ones_are_refused() {
        let labels = Labels::from_sorted([("a", "b")]);
        let mut series = Series::from_samples(labels, &[Sample::float(1, 2.0), Sample::float(2, 3.0)]);
        series.deleted_ms.push(5..=7);
        let mut sketch = Sketch::sized(1, 256);
        sketch.add(Mark { hash: 1, fingerprint: 2 });
        let part = SelectPart {
            opening: Some(Opening { epoch: 4, disclaimed: vec![2], stale_catalog: Some(8) }),
            series: vec![(1, series.clone())],
            marks: vec![(
                0,
                vec![Mark { hash: 1, fingerprint: 2 }, Mark { hash: 3, fingerprint: u128::MAX }],
            )],
            sketches: vec![(1, 7, sketch)],
            is_last: true,
        };
        let back = SelectPart::from_message(part.clone().into_message(), 2).unwrap();
        assert_eq!((&back.opening, &back.marks, back.is_last), (&part.opening, &part.marks, true));
        assert_eq!(back.sketches, part.sketches);
        assert_eq!(back.series[0].0, 1);
        assert_eq!((&back.series[0].1.labels, &back.series[0].1.chunks), (&series.labels, &series.chunks));
        assert_eq!(back.series[0].1.deleted_ms, series.deleted_ms);
        let broken: [fn(&mut pb::SelectFrame); 7] = [
            |f| f.sketches[0].selection = 2,
            |f| f.sketches[0].cells = Bytes::from_static(b"short"),
            |f| f.series[0].selection = 2,
            |f| f.series[0].labels = Bytes::from_static(b"\x05abc"),
            |f| f.series[0].chunks[0].encoding = 99,
            |f| f.series[0].chunks[0].max_ms = 0,
            |f| f.marks[0].series = Bytes::from_static(b"short"),
        ];
        for (i, damage) in broken.iter().enumerate() {
            let mut frame = part.clone().into_message();
            damage(&mut frame);
            assert!(SelectPart::from_message(frame, 2).is_err(), "{i}");
        }
    }
}

//! Questions for names, metadata, exemplars and counts.

use bytes::Bytes;
use proto::peer::read as pb;
use tsdb::db::{Exemplar, Metadata, SeriesExemplars};
use tsdb::model::Labels;
use tsdb::weight::Weight;

use super::{
    Malformed, NamesAsk, NamesPart, Opening, SELECTIONS_MAX, matchers_from, matchers_to, stores_from,
    stores_to, tenant_from,
};
use crate::query::names::{Cost, Found, Pair, Question, Scope};

impl NamesAsk {
    /// As a message.
    pub fn to_message(&self) -> pb::NamesRequest {
        let (kind, name, scope, limit) = match &self.question {
            Question::Names(scope, limit) => (pb::Kind::LabelNames, "", Some(scope), *limit),
            Question::Values(name, scope, limit) => {
                (pb::Kind::LabelValues, name.as_str(), Some(scope), *limit)
            }
            Question::Series(scope, limit) => (pb::Kind::Series, "", Some(scope), *limit),
            Question::Metadata(family, limit) => {
                (pb::Kind::Metadata, family.as_deref().unwrap_or_default(), None, *limit)
            }
            Question::Exemplars(scope) => (pb::Kind::Exemplars, "", Some(scope), 0),
            Question::Counts => (pb::Kind::Counts, "", None, 0),
            Question::Cost(scope) => (pb::Kind::Cost, "", Some(scope), 0),
        };
        let selectors = scope.map_or(&[][..], |scope| &scope.selectors);
        pb::NamesRequest {
            tenant: self.tenant.as_str().to_owned(),
            kind: kind.into(),
            name: name.to_owned(),
            selectors: selectors.iter().map(|s| pb::Matchers { matchers: matchers_to(s) }).collect(),
            start_ms: scope.map_or(0, |scope| *scope.range_ms.start()),
            end_ms: scope.map_or(0, |scope| *scope.range_ms.end()),
            limit: limit as u64,
            catalog_version: self.catalog_version,
            asked: stores_to(&self.asked),
        }
    }

    /// From a message.
    ///
    /// # Errors
    /// Where it isn't a question.
    pub fn from_message(request: pb::NamesRequest) -> Result<Self, Malformed> {
        if request.selectors.len() > SELECTIONS_MAX {
            return Err(Malformed::new("too many selectors"));
        }
        let selectors = request.selectors.into_iter().map(|s| matchers_from(s.matchers));
        let selectors = selectors.collect::<Result<_, _>>()?;
        let scope = Scope { selectors, range_ms: request.start_ms..=request.end_ms };
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let kind =
            pb::Kind::try_from(request.kind).map_err(|_| Malformed::new("a kind that nobody knows"))?;
        let question = match kind {
            pb::Kind::LabelNames => Question::Names(scope, limit),
            pb::Kind::LabelValues => Question::Values(request.name, scope, limit),
            pb::Kind::Series => Question::Series(scope, limit),
            pb::Kind::Metadata => {
                Question::Metadata((!request.name.is_empty()).then_some(request.name), limit)
            }
            pb::Kind::Exemplars => Question::Exemplars(scope),
            pb::Kind::Counts => Question::Counts,
            pb::Kind::Cost => Question::Cost(scope),
        };
        Ok(Self {
            tenant: tenant_from(&request.tenant)?,
            question,
            asked: stores_from(&request.asked)?,
            catalog_version: request.catalog_version,
        })
    }
}

impl NamesPart {
    /// As a frame.
    pub fn into_message(self) -> pb::NamesFrame {
        let mut frame = pb::NamesFrame {
            opening: self.opening.as_ref().map(Opening::to_message),
            is_last: self.is_last,
            ..Default::default()
        };
        match self.found {
            Found::Texts(texts) => frame.texts = texts,
            Found::Series(series) => frame.series = series.iter().map(labels_to).collect(),
            Found::Metadata(metadata) => {
                let one =
                    |m: Metadata| pb::Metadata { family: m.family, kind: m.kind, help: m.help, unit: m.unit };
                frame.metadata = metadata.into_iter().map(one).collect();
            }
            Found::Exemplars(exemplars) => {
                frame.exemplars = exemplars.iter().map(exemplars_to).collect();
            }
            Found::Counts(counts) => {
                let one = |(pair, series): (Pair, u64)| pb::Count { name: pair.0, value: pair.1, series };
                frame.counts = counts.into_iter().map(one).collect();
            }
            Found::Cost(Cost { nodes: Weight { series, chunks, samples, bytes }, .. }) => {
                frame.cost = Some(pb::Weight { series, chunks, samples, bytes });
            }
        }
        frame
    }

    /// From a frame of an answer to `question`.
    ///
    /// # Errors
    /// Where it isn't a part of such an answer.
    pub fn from_message(frame: pb::NamesFrame, question: &Question) -> Result<Self, Malformed> {
        let found = match question {
            Question::Names(..) | Question::Values(..) => Found::Texts(frame.texts),
            Question::Series(..) => {
                Found::Series(frame.series.iter().map(|bytes| labels_from(bytes)).collect::<Result<_, _>>()?)
            }
            Question::Metadata(..) => {
                let one =
                    |m: pb::Metadata| Metadata { family: m.family, kind: m.kind, help: m.help, unit: m.unit };
                Found::Metadata(frame.metadata.into_iter().map(one).collect())
            }
            Question::Exemplars(..) => {
                Found::Exemplars(frame.exemplars.iter().map(exemplars_from).collect::<Result<_, _>>()?)
            }
            Question::Counts => {
                Found::Counts(frame.counts.into_iter().map(|c| ((c.name, c.value), c.series)).collect())
            }
            Question::Cost(_) => {
                let pb::Weight { series, chunks, samples, bytes } = frame.cost.unwrap_or_default();
                Found::Cost(Cost { nodes: Weight { series, chunks, samples, bytes }, ..Cost::default() })
            }
        };
        Ok(Self { opening: frame.opening.map(Opening::from_message), found, is_last: frame.is_last })
    }
}

fn labels_to(labels: &Labels) -> Bytes {
    Bytes::copy_from_slice(labels.as_bytes())
}

fn labels_from(bytes: &[u8]) -> Result<Labels, Malformed> {
    Labels::from_bytes(bytes).map_err(|e| Malformed::new(e.to_string()))
}

fn exemplars_to(series: &SeriesExemplars) -> pb::Exemplars {
    let one = |exemplar: &Exemplar| pb::Exemplar {
        timestamp_ms: exemplar.timestamp_ms,
        value: exemplar.value,
        labels: labels_to(&exemplar.labels),
    };
    pb::Exemplars { labels: labels_to(&series.labels), exemplars: series.exemplars.iter().map(one).collect() }
}

fn exemplars_from(series: &pb::Exemplars) -> Result<SeriesExemplars, Malformed> {
    let one = |exemplar: &pb::Exemplar| {
        Ok(Exemplar {
            timestamp_ms: exemplar.timestamp_ms,
            value: exemplar.value,
            labels: labels_from(&exemplar.labels)?,
        })
    };
    Ok(SeriesExemplars {
        labels: labels_from(&series.labels)?,
        exemplars: series.exemplars.iter().map(one).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use tsdb::model::{Matcher, TenantId};

    use super::*;

    #[test]
    fn questions_and_answers_read_back() {
        let labels = |value| Labels::from_sorted([("a", value)]);
        let scope = Scope { selectors: vec![vec![Matcher::equal("a", "b")], Vec::new()], range_ms: -1..=7 };
        let exemplar = Exemplar { timestamp_ms: 4, value: 0.5, labels: labels("t") };
        let metadata = Metadata { family: "f".into(), kind: "counter".into(), ..Default::default() };
        for (question, found) in [
            (Question::Names(scope.clone(), 3), Found::Texts(vec!["a".into()])),
            (Question::Values("a".into(), scope.clone(), 0), Found::Texts(vec!["b".into(), "c".into()])),
            (Question::Series(scope.clone(), 1), Found::Series(vec![labels("b")])),
            (Question::Metadata(Some("f".into()), 0), Found::Metadata(vec![metadata.clone()])),
            (Question::Metadata(None, 2), Found::Metadata(vec![metadata])),
            (
                Question::Cost(scope.clone()),
                Found::Cost(Cost {
                    nodes: Weight { series: 1, chunks: 2, samples: 3, bytes: 4 },
                    ..Cost::default()
                }),
            ),
            (
                Question::Exemplars(scope),
                Found::Exemplars(vec![SeriesExemplars { labels: labels("b"), exemplars: vec![exemplar] }]),
            ),
            (Question::Counts, Found::Counts([(("a".to_owned(), "b".to_owned()), 5)].into())),
        ] {
            let tenant = TenantId::new("t").unwrap();
            let ask = NamesAsk { tenant, question, asked: Vec::new(), catalog_version: Some(2) };
            assert_eq!(NamesAsk::from_message(ask.to_message()).unwrap(), ask);
            let part = NamesPart { opening: None, found: found.clone(), is_last: true };
            let back = NamesPart::from_message(part.into_message(), &ask.question).unwrap();
            assert_eq!((back.found, back.is_last), (found, true));
        }
    }

    #[test]
    fn broken_labels_are_refused() {
        let frame = pb::NamesFrame { series: vec![Bytes::from_static(b"\x09x")], ..Default::default() };
        let question = Question::Series(Scope { selectors: Vec::new(), range_ms: 0..=1 }, 0);
        assert!(NamesPart::from_message(frame, &question).is_err());
    }
}

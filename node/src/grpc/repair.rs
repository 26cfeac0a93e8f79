//! Series as repair sends them.

use proto::peer::repair as pb;
use tsdb::chunk::Encoding;
use tsdb::model::Labels;
use tsdb::select::{Chunk, Series};

/// As a message. Deletions don't travel: whoever sends has applied them.
pub fn series_to_proto(series: &Series) -> pb::Series {
    let chunk = |chunk: &Chunk| pb::Chunk {
        min_ms: chunk.min_ms,
        max_ms: chunk.max_ms,
        encoding: chunk.encoding as u32,
        data: chunk.data.clone(),
    };
    pb::Series {
        labels: series.labels.as_bytes().to_vec().into(),
        chunks: series.chunks.iter().map(chunk).collect(),
    }
}

/// From a message.
///
/// # Errors
/// [`tsdb::Error::Corrupt`] for labels that are none and for an encoding that nobody knows. Chunks are as they come:
/// whoever decodes them finds out.
pub fn series_from_proto(series: pb::Series) -> tsdb::Result<Series> {
    let chunk = |chunk: pb::Chunk| {
        let encoding = u8::try_from(chunk.encoding).ok().and_then(Encoding::from_byte);
        let encoding =
            encoding.ok_or_else(|| tsdb::Error::corrupt("a peer's chunk", 0, "its encoding is unknown"))?;
        Ok(Chunk { min_ms: chunk.min_ms, max_ms: chunk.max_ms, encoding, data: chunk.data })
    };
    Ok(Series {
        labels: Labels::from_bytes(&series.labels)?,
        chunks: series.chunks.into_iter().map(chunk).collect::<tsdb::Result<_>>()?,
        deleted_ms: Vec::new(),
        newest: None,
    })
}

#[cfg(test)]
mod tests {
    use tsdb::model::Sample;

    use super::*;

    #[test]
    fn series_travel_and_nonsense_is_refused() {
        let labels = Labels::from_pairs([("__name__", "m"), ("a", "b")]).unwrap();
        let series = Series::from_samples(labels, &[Sample::float(1, 2.0), Sample::float(2, 3.0)]);
        let sent = series_to_proto(&series);
        let back = series_from_proto(sent.clone()).unwrap();
        assert_eq!((back.labels, back.chunks), (series.labels, series.chunks));
        let mut unknown = sent.clone();
        unknown.chunks[0].encoding = 300;
        assert!(series_from_proto(unknown).is_err());
        assert!(series_from_proto(pb::Series { labels: vec![9].into(), ..sent }).is_err());
    }
}

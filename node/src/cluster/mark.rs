//! What stands in a bucket in the place of the ring document while the bucket moves, and where it was afterwards.
//!
//! ```json
//! { "bucket": "filling", "from": "/var/lib/carillon/bucket", "cluster": "…32 hex digits…" }
//! { "bucket": "moved", "to": "s3://metrics/prod", "document": { …the last ring document… } }
//! ```
//!
//! Both take the document's own place, and come and go by compare-and-swap: while one stands there no node can take
//! the bucket for a cluster's, whatever it has read before, so two buckets are never both led from.

use ring::{ClusterId, Document};
use serde::{Deserialize, Serialize};

/// What stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "bucket", rename_all = "snake_case")]
pub(super) enum Mark {
    /// All of another bucket is on its way here.
    Filling {
        /// That bucket, as it was named.
        from: String,
        /// Whose it is.
        cluster: ClusterId,
    },
    /// All of it is elsewhere, or will be when the move is finished.
    Moved {
        /// That bucket, as it was named.
        to: String,
        /// The last ring document that stood here.
        document: Document,
    },
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a mark is JSON")
    }

    /// `None` for what is no mark, as ring documents are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mark = serde_json::from_slice(bytes).ok()?;
        match &mark {
            // What isn't a document that could be taken isn't one that could be moved.
            Self::Moved { document, .. } => Document::decode(&document.encode()).ok().map(|_| mark),
            Self::Filling { .. } => Some(mark),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ring::StoreId;
    use ring::epoch::NewMember;

    use super::*;

    #[test]
    fn marks_are_no_documents_and_documents_are_no_marks() {
        let member = |text: &str| NewMember {
            name: text.to_owned(),
            zone: text.to_owned(),
            peer_address: "a:1".to_owned(),
            http_address: "a:2".to_owned(),
        };
        let document =
            Document::found(ClusterId(7), 9, 3, &BTreeMap::from([(StoreId(1), member("a"))])).unwrap();
        assert_eq!(Mark::decode(&document.encode()), None);
        let marks = [
            Mark::Filling { from: "/a".to_owned(), cluster: ClusterId(7) },
            Mark::Moved { to: "s3://b".to_owned(), document },
        ];
        for mark in marks {
            let bytes = mark.encode();
            assert!(Document::decode(&bytes).is_err());
            assert_eq!(Mark::decode(&bytes), Some(mark));
        }
        assert_eq!(Mark::decode(br#"{"bucket":"moved","to":"x","document":{}}"#), None);
    }
}

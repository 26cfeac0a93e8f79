//! Blocks that others made: what their `meta.json` says beside range and statistics, and whether they are taken.
//!
//! ```json
//! "thanos": { "labels": { "cluster": "eu1", "replica": "a" }, "downsample": { "resolution": 0 } }
//! ```
//! External labels hold for every series of the block, as in Thanos: two servers' series are the same without them. Those
//! that name a tenant, an ingester or a shard are bookkeeping of Mimir, Cortex or ours, and are left out.
//!
//! A block is judged by what its `meta.json` says before any of its files is read: one whose time is absurd would stay for
//! ever, or be gone at once, and none is let in to move what is decided by time.

use serde_json::{Value, json};
use tsdb::block::BlockMeta;
use tsdb::db::WINDOW_MS;
use tsdb::model::{Labels, METRIC_NAME, TenantId};
use ulid::Ulid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::thanos::{OURS, REPLICA_LABEL, SECTION, TENANT_LABEL};
use crate::config::{Bound, Duration, Limits};
use crate::time::format_rfc3339;

/// External labels that Mimir and Cortex give to blocks for their own use.
const BOOKKEEPING: [&str; 4] = ["__org_id__", "__ingester_id__", "__shard_id__", "__compactor_shard_id__"];

/// Where a block that was written anew remembers what it was uploaded as.
const UPLOADED: &str = "uploaded";

/// What blocks are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The node's wall clock, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// How long blocks are kept.
    pub retention: Bound<Duration>,
    /// What holds for the tenant's series.
    pub limits: &'a Limits,
}

impl Terms<'_> {
    /// The external labels of a block that may be taken, which are to become labels of its series; mostly none.
    ///
    /// # Errors
    /// Why it isn't taken, with its name, for whoever sent it.
    pub fn judge(&self, meta: &BlockMeta) -> Result<Labels, String> {
        self.judge_range(meta)
            .and_then(|()| judge_resolution(meta))
            .and_then(|()| self.external_labels(meta))
            .map_err(|why| format!("block {}: {why}", meta.ulid))
    }

    /// Judges the time of a block's newest sample, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`Terms::judge`].
    pub fn judge_newest(&self, meta: &BlockMeta, newest_ms: i64) -> Result<(), String> {
        match self.ahead(newest_ms) {
            Some(allowed) => Err(format!("block {}: its newest sample is of {allowed}", meta.ulid)),
            None => Ok(()),
        }
    }

    fn judge_range(&self, meta: &BlockMeta) -> Result<(), String> {
        if meta.min_ms < 0 {
            return Err(format!("its range begins {} ms before 1970", meta.min_ms.unsigned_abs()));
        }
        // Where a block ends is aligned: its samples may end up to a range before.
        if let Some(allowed) = self.ahead(meta.max_ms.saturating_sub(WINDOW_MS)) {
            return Err(format!(
                "its range ends on {}: two hours before that is {allowed}",
                shown(meta.max_ms)
            ));
        }
        if let Some(allowed) = self.ahead(i64::try_from(meta.ulid.timestamp_ms()).unwrap_or(i64::MAX)) {
            return Err(format!("its ULID is of {allowed}"));
        }
        let kept_ms = self.retention.max().map(|kept| kept.ms);
        if kept_ms.is_some_and(|kept_ms| meta.max_ms <= self.now_ms.saturating_sub(kept_ms)) {
            return Err(format!(
                "it ends on {}, which is longer ago than storage.retention allows ({})",
                shown(meta.max_ms),
                self.retention
            ));
        }
        Ok(())
    }

    /// Says that a time is further ahead than samples may be.
    fn ahead(&self, at_ms: i64) -> Option<String> {
        let Bound::Max(ahead) = self.limits.max_future else { return None };
        (at_ms > self.now_ms.saturating_add(ahead.ms))
            .then(|| format!("{}, further ahead than limits.max_future allows ({ahead})", shown(at_ms)))
    }

    fn external_labels(&self, meta: &BlockMeta) -> Result<Labels, String> {
        let Some(found) = section(meta)?.and_then(|section| section.get("labels")) else {
            return Ok(Labels::default());
        };
        let wrong = || format!("its external labels aren't names and values: {found}");
        let found = match found {
            Value::Object(found) => found,
            Value::Null => return Ok(Labels::default()),
            _ => return Err(wrong()),
        };
        let is_ours = found.contains_key(REPLICA_LABEL);
        let mut pairs = Vec::new();
        for (name, value) in found {
            let value = value.as_str().ok_or_else(wrong)?;
            if BOOKKEEPING.contains(&&**name) || (is_ours && [TENANT_LABEL, REPLICA_LABEL].contains(&&**name))
            {
                continue;
            }
            if name.is_empty() || name == METRIC_NAME {
                return Err(format!("{name:?} can't be an external label"));
            }
            for (what, length, most) in [
                ("name", name.len(), self.limits.max_label_name_length),
                ("value", value.len(), self.limits.max_label_value_length),
            ] {
                if length as u64 > most {
                    return Err(format!(
                        "the {what} of an external label has {length} bytes, more than {most}"
                    ));
                }
            }
            pairs.push((name.as_str(), value));
        }
        Labels::from_pairs(pairs).map_err(|e| e.to_string())
    }
}

fn shown(at_ms: i64) -> String {
    format_rfc3339(at_ms)
}

fn section(meta: &BlockMeta) -> Result<Option<&serde_json::Map<String, Value>>, String> {
    match meta.other.get(SECTION) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(section)) => Ok(Some(section)),
        Some(_) => Err(format!("its field {SECTION:?} is no object")),
    }
}

/// Whether a block is raw. Samples of a downsampled one are aggregates: taken for what was measured they give wrong answers.
///
/// # Errors
/// Says that it isn't, without its name.
pub fn judge_resolution(meta: &BlockMeta) -> Result<(), String> {
    let resolution = section(meta)?.and_then(|s| s.get("downsample")).and_then(|d| d.get("resolution"));
    match resolution {
        None | Some(Value::Null) => Ok(()),
        Some(resolution) if resolution.as_i64() == Some(0) => Ok(()),
        Some(resolution) => Err(format!(
            "it is downsampled (resolution {resolution} ms): import the raw block that it was made from"
        )),
    }
}

/// The `meta.json` of a block whose external labels have become labels of its series, to be written anew.
pub fn extended_meta(old: &BlockMeta) -> BlockMeta {
    let mut other = old.other.clone();
    if let Some(Value::Object(section)) = other.get_mut(SECTION) {
        section.insert("labels".to_owned(), json!({}));
    }
    let ours = other.entry(OURS).or_insert_with(|| json!({}));
    if let Value::Object(ours) = ours {
        ours.insert(UPLOADED.to_owned(), json!(identity(old)));
    }
    BlockMeta {
        compaction: old.compaction.clone(),
        other,
        ..BlockMeta::new(old.ulid, old.min_ms, old.max_ms)
    }
}

/// Whether two blocks of one name are the same: names of two clusters may be equal, and a block that isn't the one we
/// have must not be taken for it.
pub fn is_same(stored: &BlockMeta, offered: &BlockMeta) -> bool {
    let uploaded = stored.other.get(OURS).and_then(|ours| ours.get(UPLOADED)).and_then(Value::as_str);
    let offered = identity(offered);
    uploaded == Some(&*offered) || identity(stored) == offered
}

/// The name of a tenant's block in a bucket of many: the same for the same block, and another for another one. Names that
/// come from outside may be equal, of two tenants or of two servers, and one block must never overwrite another.
pub fn name_in_bucket(tenant: &TenantId, meta: &BlockMeta) -> Ulid {
    let name = xxh3_128(format!("{tenant}\n{}", document(meta)).as_bytes());
    Ulid::from_parts(meta.ulid.timestamp_ms(), name)
}

/// [`document`], shortened.
fn identity(meta: &BlockMeta) -> String {
    format!("{:016x}", xxh3_64(document(meta).as_bytes()))
}

/// What tells blocks of one name apart: range, statistics, sources and external labels. Files and times of uploads may
/// differ.
fn document(meta: &BlockMeta) -> String {
    let labels = section(meta).ok().flatten().and_then(|s| s.get("labels")).cloned().unwrap_or(json!({}));
    let sources: Vec<_> = meta.compaction.sources.iter().map(ToString::to_string).collect();
    let stats = &meta.stats;
    json!([
        meta.ulid.to_string(),
        [meta.min_ms, meta.max_ms],
        [stats.num_samples, stats.num_series, stats.num_chunks],
        sources,
        labels,
    ])
    .to_string()
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    const NOW_MS: i64 = 1_767_225_600_000;
    const DAY_MS: i64 = 86_400_000;

    fn meta(min_ms: i64, max_ms: i64) -> BlockMeta {
        BlockMeta::new(Ulid::from_parts(1_700_000_000_000, 5), min_ms, max_ms)
    }

    fn with_section(section: Value) -> BlockMeta {
        let mut meta = meta(NOW_MS - DAY_MS, NOW_MS);
        meta.other.insert(SECTION.to_owned(), section);
        meta
    }

    fn judged(meta: &BlockMeta, retention: Bound<Duration>) -> Result<Labels, String> {
        Terms { now_ms: NOW_MS, retention, limits: &Limits::default() }.judge(meta)
    }

    #[test]
    fn a_block_of_an_absurd_time_is_refused_by_name_and_reason() {
        let month = Bound::Max(Duration { ms: 30 * DAY_MS });
        let year_2098_ms = 4_039_000_000_000;
        let future_name = |ms| BlockMeta { ulid: Ulid::from_parts(ms, 5), ..meta(NOW_MS - DAY_MS, NOW_MS) };
        for (meta, wanted) in [
            (meta(NOW_MS, year_2098_ms), "further ahead than limits.max_future allows (10m)"),
            (meta(NOW_MS, NOW_MS + 3 * 3_600_000), "limits.max_future"),
            (meta(-1, NOW_MS), "before 1970"),
            (meta(0, 17_000), "longer ago than storage.retention allows (30d)"),
            (meta(NOW_MS - 31 * DAY_MS, NOW_MS - 30 * DAY_MS), "storage.retention"),
            (future_name(year_2098_ms.unsigned_abs()), "its ULID is of 2097-"),
            (future_name((1 << 48) - 1), "its ULID is of"),
        ] {
            let refused = judged(&meta, month).unwrap_err();
            assert!(refused.contains(wanted) && refused.contains(&meta.ulid.to_string()), "{refused}");
        }
        for meta in [
            meta(NOW_MS - DAY_MS, NOW_MS + 7_200_000),
            meta(0, NOW_MS - 30 * DAY_MS + 1),
            future_name(NOW_MS.unsigned_abs()),
        ] {
            assert!(judged(&meta, month).is_ok(), "{meta:?}");
        }
        assert!(judged(&meta(0, 17_000), Bound::Unlimited).is_ok());
    }

    #[test]
    fn a_downsampled_block_is_not_taken_for_a_raw_one() {
        for resolution in [json!(300_000), json!(3_600_000), json!(-1), json!("5m"), json!(0.5)] {
            let meta = with_section(json!({"labels": {}, "downsample": {"resolution": resolution}}));
            assert!(judged(&meta, Bound::Unlimited).unwrap_err().contains("downsampled"), "{resolution}");
        }
        for section in
            [json!({}), json!(null), json!({"downsample": {}}), json!({"downsample": {"resolution": 0}})]
        {
            assert_eq!(judged(&with_section(section), Bound::Unlimited).unwrap(), Labels::default());
        }
        assert!(judged(&with_section(json!([])), Bound::Unlimited).is_err());
    }

    #[test]
    fn external_labels_are_those_that_tell_servers_apart() {
        let long = "x".repeat(9000);
        for (found, expected) in [
            (json!({"cluster": "eu1", "replica": "r0"}), Some(vec![("cluster", "eu1"), ("replica", "r0")])),
            (json!({"cluster": "", "__compactor_shard_id__": "1_of_4", "__org_id__": "a"}), Some(vec![])),
            // A Thanos receiver's, and then those that we gave.
            (
                json!({"tenant_id": "team", "replica": "0"}),
                Some(vec![("replica", "0"), ("tenant_id", "team")]),
            ),
            (json!({"tenant_id": "team", "carillon_replica": "0a"}), Some(vec![])),
            (json!(null), Some(vec![])),
            (json!({"a": 1}), None),
            (json!(["a"]), None),
            (json!({"__name__": "up"}), None),
            (json!({"": "up"}), None),
            (json!({"a": long}), None),
        ] {
            let labels = judged(&with_section(json!({"labels": found})), Bound::Unlimited);
            assert_eq!(labels.ok(), expected.map(|pairs| Labels::from_pairs(pairs).unwrap()), "{found}");
        }
    }

    #[test]
    fn a_block_of_the_same_name_is_the_same_where_it_holds_the_same() {
        let uploaded = with_section(json!({"labels": {"cluster": "eu1"}, "upload_time": "then"}));
        let again = with_section(json!({"labels": {"cluster": "eu1"}, "upload_time": "now", "files": []}));
        let stored = BlockMeta { stats: Default::default(), ..extended_meta(&uploaded) };
        assert!(is_same(&uploaded, &again) && is_same(&stored, &again) && is_same(&stored, &stored.clone()));
        assert_eq!(stored.other[SECTION]["labels"], json!({}));
        let mut other = again.clone();
        other.stats.num_samples += 1;
        assert!(!is_same(&uploaded, &other) && !is_same(&stored, &other));
        let others = with_section(json!({"labels": {"cluster": "us1"}}));
        assert!(!is_same(&uploaded, &others) && !is_same(&stored, &others));
    }
}

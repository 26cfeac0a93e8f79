//! Whether an answer is complete.
//!
//! It is when, for each range of tokens of each open placement, as many owners have answered and vouch as the placement's
//! read quorum says: one of them has what a write quorum has. Nothing else counts: no majority of nodes, no gossip, no
//! time. A range for which owners are missing that could still answer makes the answer *incomplete*; one for which all
//! have answered that ever will, and too few vouch (disks were lost), makes it *lossy*: asking again won't help.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use ring::epoch::Epoch;
use ring::{StoreId, StoreIndex, View};

/// How a store stands to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It answered, and vouches for the placement.
    Counted,
    /// It answered with what it has.
    Disclaimed,
    /// It didn't answer.
    Silent,
}

/// Ranges of one placement that too few owners answered for.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// The epoch that opened the placement.
    pub placement: Epoch,
    /// How many ranges.
    pub ranges: usize,
    /// One of them.
    pub example: RangeInclusive<u64>,
    /// Which share of all series they hold, 0 to 1.
    pub share: f64,
    /// Owners of them that didn't answer, or don't vouch.
    pub stores: BTreeSet<StoreId>,
}

/// Who answered for what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    /// The ring document by which it is judged; 0 for a node that is asked alone.
    pub epoch: Epoch,
    /// Stores asked.
    pub asked: usize,
    /// Stores that answered.
    pub answered: usize,
    /// Ranges, in all open placements.
    pub ranges: usize,
    /// For which too few answered.
    pub missing: Vec<Gap>,
    /// For which all answered that are left, and too few vouch.
    pub lossy: Vec<Gap>,
    /// Why blocks in the bucket couldn't be read.
    pub unread: Option<String>,
    /// By store, why it didn't answer.
    pub silent: BTreeMap<StoreId, Silence>,
}

/// A store that didn't answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The node's name.
    pub name: String,
    /// What went wrong.
    pub why: String,
}

impl Coverage {
    /// Of a node that keeps everything itself.
    pub fn alone() -> Self {
        Self { asked: 1, answered: 1, ..Self::default() }
    }

    /// Whether enough owners answered and vouch for every range.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.lossy.is_empty() && self.unread.is_none()
    }

    /// Whether more might have come: then asking again may help.
    pub fn is_incomplete(&self) -> bool {
        !self.missing.is_empty() || self.unread.is_some()
    }

    /// What a header says: `complete` or what else it is, and the numbers.
    pub fn header(&self) -> String {
        let state = match (self.is_incomplete(), self.lossy.is_empty()) {
            (true, _) => "incomplete",
            (false, false) => "lossy",
            (false, true) => "complete",
        };
        let short: usize = self.missing.iter().chain(&self.lossy).map(|gap| gap.ranges).sum();
        format!(
            "{state}; nodes={}/{}; ranges={}/{}; epoch={}",
            self.answered,
            self.asked,
            self.ranges.saturating_sub(short),
            self.ranges,
            self.epoch
        )
    }

    /// For `stats`.
    pub fn json(&self) -> serde_json::Value {
        let gap = |gap: &Gap| {
            serde_json::json!({
                "placement": gap.placement,
                "ranges": gap.ranges,
                "example": [format!("{:016x}", gap.example.start()), format!("{:016x}", gap.example.end())],
                "share": gap.share,
                "stores": gap.stores.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        };
        let silence = |(store, silence): (&StoreId, &Silence)| serde_json::json!({"store": store.to_string(), "name": silence.name, "why": silence.why});
        serde_json::json!({
            "complete": self.is_complete(),
            "epoch": self.epoch,
            "asked": self.asked,
            "answered": self.answered,
            "ranges": self.ranges,
            "missing": self.missing.iter().map(gap).collect::<Vec<_>>(),
            "unread": self.unread,
            "lossy": self.lossy.iter().map(gap).collect::<Vec<_>>(),
            "silent": self.silent.iter().map(silence).collect::<Vec<_>>(),
        })
    }

    /// What is missing, in words: ranges, and who didn't answer for them.
    pub fn gaps(&self) -> String {
        let unread = self.unread.iter().map(|why| format!("blocks in the bucket can't be read: {why}"));
        let gaps = (!self.missing.is_empty()).then(|| self.words(&self.missing));
        gaps.into_iter().chain(unread).collect::<Vec<_>>().join("; ")
    }

    /// What is lost, in words.
    pub fn losses(&self) -> String {
        self.words(&self.lossy)
    }

    fn words(&self, gaps: &[Gap]) -> String {
        let words: Vec<_> = gaps.iter().map(|gap| Words(self, gap).to_string()).collect();
        words.join("; ")
    }
}

/// A gap in words.
struct Words<'a>(&'a Coverage, &'a Gap);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(coverage, gap) = self;
        let (start, end) = (gap.example.start(), gap.example.end());
        write!(f, "{} ranges of placement {}", gap.ranges, gap.placement)?;
        write!(f, " ({:.1}% of the series; {start:016x}-{end:016x} is one)", gap.share * 100.0)?;
        for (i, store) in gap.stores.iter().enumerate() {
            f.write_str(if i == 0 { ": " } else { ", " })?;
            match coverage.silent.get(store) {
                Some(silence) => write!(f, "{} ({store}) didn't answer: {}", silence.name, silence.why)?,
                None => write!(f, "store {store} is lost or doesn't vouch")?,
            }
        }
        Ok(())
    }
}

/// Judges an answer. `standing` says how a store stands for a placement.
pub fn judge(view: &View, standing: &dyn Fn(StoreId, Epoch) -> Standing) -> (Vec<Gap>, Vec<Gap>) {
    let (mut missing, mut lossy) = (Vec::new(), Vec::new());
    for table in view.read_sets() {
        let mut standings: BTreeMap<StoreIndex, Standing> = BTreeMap::new();
        let mut lost: BTreeSet<StoreIndex> = BTreeSet::new();
        for member in table.members() {
            let store = view.store(*member);
            if view.document().members[&store].state.is_lost() {
                lost.insert(*member);
            } else {
                standings.insert(*member, standing(store, table.id()));
            }
        }
        if lost.is_empty() && standings.values().all(|standing| *standing == Standing::Counted) {
            continue;
        }
        let is = |owner: &StoreIndex, wanted| standings.get(owner) == Some(&wanted);
        for range in table.ranges() {
            let counted = range.owners.iter().filter(|owner| is(owner, Standing::Counted)).count();
            if counted >= range.read_quorum || planted::is(planted::Bug::OneAnswer) && counted > 0 {
                continue;
            }
            let is_silent = range.owners.iter().any(|owner| is(owner, Standing::Silent));
            let gaps = if is_silent { &mut missing } else { &mut lossy };
            let others = range.owners.iter().filter(|owner| {
                if is_silent { is(owner, Standing::Silent) } else { !is(owner, Standing::Counted) }
            });
            add(gaps, table.id(), range.keys(), others.map(|owner| view.store(*owner)));
        }
    }
    (missing, lossy)
}

/// Adds a range to the gap of its placement.
#[allow(clippy::cast_precision_loss, reason = "a share in words")]
fn add(
    gaps: &mut Vec<Gap>,
    placement: Epoch,
    keys: RangeInclusive<u64>,
    stores: impl Iterator<Item = StoreId>,
) {
    let share = (keys.end() - keys.start()) as f64 / 2f64.powi(64);
    if gaps.last().is_none_or(|gap| gap.placement != placement) {
        let stores = BTreeSet::new();
        gaps.push(Gap { placement, ranges: 0, example: keys, share: 0.0, stores });
    }
    let gap = gaps.last_mut().expect("one was just added");
    gap.ranges += 1;
    gap.share += share;
    gap.stores.extend(stores);
}

#[cfg(test)]
mod tests {
    use ring::epoch::{Change, NewMember};
    use ring::{ClusterId, Document};

    use super::*;

    fn member(name: &str) -> NewMember {
        NewMember {
            name: name.to_owned(),
            zone: name.to_owned(),
            peer_address: format!("{name}:1"),
            http_address: format!("{name}:2"),
        }
    }

    fn document(stores: u128, rf: u32) -> Document {
        let members = (1..=stores).map(|i| (StoreId(i), member(&format!("n{i}")))).collect();
        Document::found(ClusterId(9), 7, rf, &members).unwrap()
    }

    fn judged(document: &Document, standing: impl Fn(u128) -> Standing) -> (Vec<Gap>, Vec<Gap>) {
        judge(&View::new(document.clone()).unwrap(), &|store, _| standing(store.0))
    }

    use Standing::{Counted, Disclaimed, Silent};

    #[test]
    fn a_read_quorum_of_each_range_is_enough() {
        let three = document(3, 3);
        for (standings, missing) in [
            ([Counted, Counted, Counted], false),
            ([Silent, Counted, Counted], false),
            ([Counted, Silent, Silent], true),
            ([Silent, Disclaimed, Counted], true),
        ] {
            let (gaps, lossy) = judged(&three, |store| standings[store as usize - 1]);
            assert_eq!((!gaps.is_empty(), lossy.is_empty()), (missing, true), "{standings:?}");
        }
    }

    #[test]
    fn ranges_are_counted_and_not_nodes() {
        let ten = document(10, 3);
        // Any one may be away; two are missed where they keep the same ranges.
        assert!(judged(&ten, |store| if store == 4 { Silent } else { Counted }).0.is_empty());
        let view = View::new(ten.clone()).unwrap();
        let range = view.current().ranges().next().unwrap();
        let away: BTreeSet<_> = range.owners[..2].iter().map(|owner| view.store(*owner)).collect();
        let (gaps, _) = judged(&ten, |store| if away.contains(&StoreId(store)) { Silent } else { Counted });
        assert_eq!(gaps.len(), 1);
        assert!(gaps[0].share > 0.0 && gaps[0].share < 0.5, "{gaps:?}");
        assert_eq!(gaps[0].stores, away);
    }

    #[test]
    fn what_nobody_can_answer_any_more_is_a_loss() {
        let three = document(3, 3);
        let (missing, lossy) = judged(&three, |store| if store == 1 { Counted } else { Disclaimed });
        assert!(missing.is_empty());
        assert_eq!(lossy[0].stores, [StoreId(2), StoreId(3)].into());
    }

    #[test]
    fn every_open_placement_needs_its_quorum() {
        // From one node to three: what the first took alone is asked of it alone.
        let one = document(1, 3);
        let joins = (2..=3).map(|i| (StoreId(i), member(&format!("n{i}")))).collect();
        let joint = one.change(&Change { joins, ..Change::default() }).unwrap();
        assert_eq!(joint.placements.len(), 2);
        let (gaps, _) = judged(&joint, |store| if store == 1 { Silent } else { Counted });
        assert_eq!(gaps.iter().map(|gap| gap.placement).collect::<Vec<_>>(), [1]);
        assert!(judged(&joint, |store| if store == 3 { Silent } else { Counted }).0.is_empty());
    }

    #[test]
    fn words_name_ranges_and_nodes() {
        let (missing, _) = judged(&document(3, 3), |store| if store == 1 { Counted } else { Silent });
        let silence = |name: &str| Silence { name: name.to_owned(), why: "timed out".to_owned() };
        let silent = [(StoreId(2), silence("n2")), (StoreId(3), silence("n3"))].into();
        let coverage =
            Coverage { epoch: 1, asked: 3, answered: 1, ranges: 5, missing, silent, ..Default::default() };
        let words = coverage.gaps();
        assert!(words.contains("100.0%") && words.contains("n2") && words.contains("timed out"), "{words}");
        assert!(coverage.header().starts_with("incomplete; nodes=1/3; "), "{}", coverage.header());
        assert_eq!(Coverage::alone().header(), "complete; nodes=1/1; ranges=0/0; epoch=0");
    }
}

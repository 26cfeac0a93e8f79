//! Who has what of one write, and whether that is enough: counted for each sample, never for a request (Thanos 5784).

use super::route::{Hops, Quorums};
use crate::grpc::frame::Verdict;

/// What is known of one sample, exemplar or family.
#[derive(Clone, Copy, Debug, Default)]
struct Item {
    /// Who has it, safe on disk.
    acked: Hops,
    /// Who will never take it.
    refused: Hops,
    /// Who hasn't answered, and won't in time.
    missed: Hops,
    /// Whether it was new to somebody.
    is_new: bool,
    /// Why it was refused, by the first who did.
    why: Option<Verdict>,
    is_decided: bool,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has its quorum, and was new to somebody or known to all.
    Safe {
        /// Whether it was new to somebody.
        is_new: bool,
    },
    /// So many replicas refused it that it never can have its quorum.
    Refused(Verdict),
    /// It has no quorum (yet).
    Open,
}

/// One replica's word on an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// An answer.
    Verdict(Verdict),
    /// None.
    Missed,
}

/// The items of one write.
pub struct Tally {
    items: Vec<Item>,
    undecided: usize,
}

impl Tally {
    /// Nobody has said anything.
    pub fn new(items: usize) -> Self {
        Self { items: vec![Item::default(); items], undecided: items }
    }

    /// Whether more waiting can't change anything for any item.
    pub fn is_decided(&self) -> bool {
        self.undecided == 0
    }

    /// An item that is refused before anybody is asked.
    pub fn refuse(&mut self, item: usize, why: Verdict) {
        let item = &mut self.items[item];
        (item.refused, item.why) = (Hops::MAX, Some(why));
        if !std::mem::replace(&mut item.is_decided, true) {
            self.undecided -= 1;
        }
    }

    /// Hop `hop` said `word` of an item with `quorums`.
    #[inline]
    pub fn hear(&mut self, item: usize, hop: u8, word: Word, quorums: &Quorums) {
        let item = &mut self.items[item];
        let bit = 1 << hop;
        match word {
            Word::Verdict(verdict) if verdict.is_ack() => {
                item.acked |= bit;
                item.is_new |= verdict == Verdict::Stored;
            }
            Word::Verdict(verdict) if !verdict.is_retry() => {
                item.refused |= bit;
                item.why.get_or_insert(verdict);
            }
            _ => item.missed |= bit,
        }
        if item.is_decided {
            return;
        }
        let hopeless = |gone: Hops| !quorums.met(!gone | item.acked);
        if quorums.met(item.acked) || hopeless(item.refused | item.missed) {
            item.is_decided = true;
            self.undecided -= 1;
        }
    }

    /// What became of an item with `quorums`.
    pub fn fate(&self, item: usize, quorums: &Quorums) -> Fate {
        let by_anybody = || self.items.iter().fold(0, |all, item| all | item.acked);
        if planted::is(planted::Bug::QuorumOfRequest) && quorums.met(by_anybody()) {
            return Fate::Safe { is_new: true };
        }
        let item = &self.items[item];
        match item.why {
            _ if quorums.met(item.acked) => Fate::Safe { is_new: item.is_new },
            Some(why) if !quorums.met(!item.refused) => Fate::Refused(why),
            _ => Fate::Open,
        }
    }

    /// Who of `all` hasn't acked an item.
    pub fn lacking(&self, item: usize, all: Hops) -> Hops {
        all & !self.items[item].acked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: Word = Word::Verdict(Verdict::Stored);
    const OLD: Word = Word::Verdict(Verdict::TooOld);

    /// Replicas 0 to 2, two of which must have it.
    const THREE: Quorums = Quorums::of([(0b111, 2), (0, 0)]);
    /// The same, and two of 1 to 3 as well.
    const JOINT: Quorums = Quorums::of([(0b0111, 2), (0b1110, 2)]);

    fn heard(quorums: &Quorums, words: &[(u8, Word)]) -> (bool, Fate) {
        let mut tally = Tally::new(1);
        words.iter().for_each(|(hop, word)| tally.hear(0, *hop, *word, quorums));
        (tally.is_decided(), tally.fate(0, quorums))
    }

    #[test]
    fn a_quorum_decides_and_so_does_its_impossibility() {
        let safe = Fate::Safe { is_new: true };
        for (words, decided, fate) in [
            (&[(0, ACK)][..], false, Fate::Open),
            (&[(0, ACK), (0, ACK)], false, Fate::Open),
            (&[(0, ACK), (2, ACK)], true, safe),
            (&[(0, Word::Missed), (1, Word::Missed)], true, Fate::Open),
            (&[(0, Word::Missed), (1, Word::Missed), (1, ACK), (2, ACK)], true, safe),
            (&[(0, OLD), (1, OLD)], true, Fate::Refused(Verdict::TooOld)),
            // One refuses, one is away: nobody knows whether it could be stored.
            (&[(0, OLD), (1, Word::Missed)], true, Fate::Open),
            (&[(0, OLD), (1, ACK), (2, ACK)], true, safe),
            (&[(0, ACK), (1, Word::Verdict(Verdict::NotOwner)), (2, Word::Missed)], true, Fate::Open),
        ] {
            assert_eq!(heard(&THREE, words), (decided, fate), "{words:?}");
        }
        let known = Word::Verdict(Verdict::Duplicate);
        assert_eq!(heard(&THREE, &[(0, known), (1, known)]), (true, Fate::Safe { is_new: false }));
    }

    #[test]
    fn while_placements_change_both_need_their_quorum() {
        for (words, decided, fate) in [
            (&[(0, ACK), (1, ACK)][..], false, Fate::Open),
            (&[(1, ACK), (2, ACK)], true, Fate::Safe { is_new: true }),
            (&[(0, ACK), (1, ACK), (3, ACK)], true, Fate::Safe { is_new: true }),
            (&[(0, ACK), (1, ACK), (2, Word::Missed), (3, Word::Missed)], true, Fate::Open),
        ] {
            assert_eq!(heard(&JOINT, words), (decided, fate), "{words:?}");
        }
    }

    #[test]
    fn items_are_decided_one_by_one() {
        let mut tally = Tally::new(3);
        tally.refuse(2, Verdict::Invalid);
        for hop in 0..2 {
            tally.hear(0, hop, ACK, &THREE);
        }
        assert!(!tally.is_decided());
        tally.hear(1, 0, ACK, &THREE);
        tally.hear(1, 1, Word::Missed, &THREE);
        tally.hear(1, 2, Word::Missed, &THREE);
        assert!(tally.is_decided());
        assert_eq!(tally.fate(1, &THREE), Fate::Open);
        assert_eq!(tally.lacking(1, 0b111), 0b110);
        assert_eq!(tally.fate(2, &THREE), Fate::Refused(Verdict::Invalid));
    }
}

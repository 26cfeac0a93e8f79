//! Whether this node's wall clock agrees with the others'.
//!
//! A node judges the ages of samples that it takes by its own clock, and takes its own as the time of a question that
//! names none. One that is wrong refuses good samples and answers for another moment: that has to be said, on the node
//! that is wrong. Nothing that must hold rests on clocks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use promql::parse::duration;
use ring::StoreId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calls::ask_all;
use super::{Cluster, belongs};

/// Time between comparisons.
const COMPARE_EVERY: Duration = Duration::from_secs(60);
/// Until the first: others have to be heard of.
const FIRST_AFTER: Duration = Duration::from_secs(5);
/// Most nodes that are asked each time.
const ASKED_MAX: usize = 5;
/// A clock that is further off than this is a problem.
const OFF_MAX_MS: i64 = 30_000;
/// What is told of how far it is off is rounded to this: it is told again when it changes.
const ROUNDED_TO_MS: i64 = 10_000;

impl Cluster {
    /// Compares this node's clock to others', again and again.
    pub(super) async fn compare_clocks(self: Arc<Self>, stop: CancellationToken) {
        let mut wait = FIRST_AFTER;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ahead = self.ahead_by_ms() => {
                    *self.clock_ahead_ms.lock() = ahead;
                    self.note_problem("clock", ahead.and_then(problem));
                }
            }
            wait = COMPARE_EVERY;
        }
    }

    /// How far this node's clock is ahead of most of the others'; `None` where nobody tells.
    async fn ahead_by_ms(&self) -> Option<i64> {
        let asked = self.others_after_me();
        let answers = ask_all(asked, |store| {
            let (calls, clock, me) = (self.calls.clone(), self.clock.clone(), self.me());
            let (before, address) = (self.age_before(), self.address(store));
            async move {
                let address =
                    address.ok_or_else(|| tonic::Status::unavailable("nobody knows its address"))?;
                let (asked, asked_ms) = (Instant::now(), clock.now_ms());
                let hello = calls.hello(&address, me, before).await?;
                // Half of the way there and back.
                let on_the_way_ms = asked.elapsed().as_millis() as i64 / 2;
                let ahead_ms = |theirs_ms| asked_ms.saturating_add(on_the_way_ms).saturating_sub(theirs_ms);
                Ok((hello, hello.now_ms.map(ahead_ms)))
            }
        });
        let answers = answers.await;
        self.hear_of_own_age(answers.values().map(|(hello, _)| *hello)).await;
        median(answers.into_values().filter_map(|(_, ahead_ms)| ahead_ms).collect())
    }

    /// Members that are there, beginning behind this one: so that each node asks others than its neighbour does.
    fn others_after_me(&self) -> Vec<StoreId> {
        let view = self.view();
        let there: BTreeSet<StoreId> = view
            .document()
            .members
            .iter()
            .filter(|(store, member)| **store != self.me() && belongs(member) && self.is_alive(**store))
            .map(|(store, _)| *store)
            .collect();
        there.range(self.me()..).chain(there.range(..self.me())).copied().take(ASKED_MAX).collect()
    }
}

/// The middle one; of two middle ones that which is nearer to nought, so that of two nodes that disagree with each other
/// a third that agrees with this one decides.
fn median(mut all: Vec<i64>) -> Option<i64> {
    all.sort_unstable();
    let middle = all.len() / 2;
    let upper = *all.get(middle)?;
    let is_even = all.len().is_multiple_of(2);
    let lower = if is_even { all[middle - 1] } else { upper };
    Some(if lower.unsigned_abs() < upper.unsigned_abs() { lower } else { upper })
}

/// What is to be said of a clock that is this far ahead.
fn problem(ahead_ms: i64) -> Option<String> {
    if ahead_ms.unsigned_abs() <= OFF_MAX_MS.unsigned_abs() {
        return None;
    }
    let rounded_ms = (ahead_ms.saturating_abs() / ROUNDED_TO_MS).saturating_mul(ROUNDED_TO_MS);
    let off = duration::format(rounded_ms);
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    Some(format!(
        "this node's clock is about {off} {side} the other nodes': ages of samples that come here and times of questions \
         are judged wrongly; set it, by NTP for example"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_differs_from_most_is_wrong() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![300_000, 299_990]), Some(299_990));
        // Of the two others one is wrong: this one isn't.
        assert_eq!(median(vec![300_000, 2]), Some(2));
        assert_eq!(median(vec![-1, 2, -300_000]), Some(-1));
    }

    #[test]
    fn how_far_it_is_off_is_told_in_steps() {
        assert_eq!(problem(30_000), None);
        assert_eq!(problem(-30_000), None);
        assert!(problem(39_999).unwrap().contains("about 30s ahead of"));
        assert_eq!(problem(-3_600_000), problem(-3_609_999));
        assert!(problem(i64::MIN).is_some() && problem(i64::MAX).is_some());
    }
}

//! What isn't as it should be: for `status`, for the page and for `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use ring::epoch::MemberState;
use ring::member::Members;
use ring::{Document, StoreId, View, rules};

use super::describe::{state_name, under_replicated};
use super::{Cluster, belongs, drive};
use crate::metrics::at_scrape;

/// Subject of the problem that a change of the ring was taken back.
pub(super) const TAKEN_BACK: &str = "taken back";

/// How many owners of the ranges are there, over all open placements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Copies {
    /// Ranges of all open placements.
    pub(super) ranges: usize,
    /// Those with an owner that isn't there.
    pub(super) under_replicated: usize,
    /// Those with fewer owners there than a quorum has: they take no writes, or have no complete answers.
    pub(super) without_quorum: usize,
    /// Owners that aren't there.
    pub(super) away: BTreeSet<StoreId>,
}

impl Copies {
    /// Counts owners that `is_there` holds for.
    fn count(view: &View, is_there: impl Fn(StoreId) -> bool) -> Self {
        let there: Vec<bool> = view.stores().map(|(_, store)| is_there(store)).collect();
        let writing: Vec<_> = view.write_tables().iter().map(ring::PlacementTable::id).collect();
        let mut copies = Self::default();
        for table in view.read_sets() {
            let takes_writes = writing.contains(&table.id());
            for range in table.ranges() {
                let alive = range.owners.iter().filter(|owner| there[usize::from(owner.0)]).count();
                let quorum = match takes_writes {
                    true => range.write_quorum.max(range.read_quorum),
                    false => range.read_quorum,
                };
                copies.ranges += 1;
                copies.under_replicated += usize::from(alive < range.owners.len());
                copies.without_quorum += usize::from(alive < quorum);
            }
        }
        let owners = view.read_sets().iter().flat_map(ring::PlacementTable::members);
        copies.away =
            owners.filter(|owner| !there[usize::from(owner.0)]).map(|owner| view.store(*owner)).collect();
        copies
    }
}

impl Cluster {
    fn copies(&self, view: &View) -> Copies {
        Copies::count(view, |store| self.is_alive(store))
    }

    /// What isn't well with the cluster as a whole, in sentences.
    pub(super) fn ring_problems(&self, view: &View) -> Vec<String> {
        let (document, copies) = (view.document(), self.copies(view));
        let mut found: Vec<String> = Vec::new();
        let names = |stores: &BTreeSet<StoreId>| {
            let names: Vec<_> = stores.iter().map(|store| self.name(*store)).collect();
            names.join(", ")
        };
        let Copies { ranges, .. } = copies;
        if copies.without_quorum > 0 {
            found.push(format!(
                "no quorum: {} of {ranges} ranges have too few owners there, and writes and queries of their series \
                 are answered 503 (away: {})",
                copies.without_quorum,
                names(&copies.away)
            ));
        } else if copies.under_replicated > 0 {
            found.push(format!(
                "too few copies: {} of {ranges} ranges have an owner that is away ({})",
                copies.under_replicated,
                names(&copies.away)
            ));
        }
        found.extend(self.blocked(view));
        let (wanted, kept) = (document.replication_factor, document.current().rf);
        // A node that was always alone keeps one copy, and nobody asked it for more.
        if kept < wanted && document.members.len() > 1 {
            found.push(format!(
                "too few copies: {wanted} of each sample are wanted and {kept} kept, until {} more nodes join or \
                 `carillon ring replication-factor` asks for fewer",
                wanted - kept
            ));
        }
        found.extend(self.members().troubles.iter().map(ToString::to_string));
        if under_replicated(document) {
            found.push(format!(
                "under-replicated: {wanted} copies are wanted, and samples written before the last change have fewer \
                 until they lie in the bucket"
            ));
        }
        for missing in rules::losses(view) {
            found.push(format!(
                "placement {}: {} ranges have lost more copies than a quorum leaves out ({}); `carillon node \
                 accept-loss NAME --yes` accepts that",
                missing.placement,
                missing.ranges,
                names(&missing.waiting_for)
            ));
        }
        found
    }

    /// What keeps the ring from changing, as far as this node can see: whose word it needs, and what to do.
    pub(crate) fn blocked(&self, view: &View) -> Option<String> {
        let there = view.stores().map(|(_, store)| store).filter(|store| self.is_alive(*store)).collect();
        let missing = rules::adoption(view, &there);
        let ranges: usize = missing.iter().map(|missing| missing.ranges).sum();
        let silent: Vec<StoreId> = missing
            .iter()
            .flat_map(|m| &m.waiting_for)
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        if missing.is_empty() {
            return None;
        }
        let document = view.document();
        let (what, end) = match (document.is_joint(), document.revert().is_ok()) {
            (false, _) => ("the ring can't change", String::new()),
            (true, true) => {
                let timeout = self.settings.load().transition_timeout;
                (
                    "the change of the ring that is under way can't end",
                    format!("; it is taken back after {timeout}"),
                )
            }
            (true, false) => (
                "the change of the ring that is under way can't end",
                "; it isn't taken back, since a loss was accepted".to_owned(),
            ),
        };
        // Where a node came back with an empty disk, two have the same name.
        let named = |store: &StoreId| {
            let name = self.name(*store);
            match document.members.values().filter(|member| member.name == name).count() {
                0 | 1 => name,
                _ => store.to_string(),
            }
        };
        let names: Vec<String> = silent.iter().map(named).collect();
        Some(format!(
            "{what}: too few owners of {ranges} ranges are there (silent: {}). Start them, or, if they are gone for \
             good, go on without them by `carillon node lost {} --yes`{end}",
            names.join(", "),
            names.join(" ")
        ))
    }

    /// Takes note of a change of the ring that was taken back, until another succeeds.
    pub(super) fn note_reversal(&self, before: &Document, after: &Document) {
        let (tried, current) = (before.current().id, after.current().id);
        let is_over = before.is_joint() && !after.is_joint();
        if is_over && current < tried {
            let what = self.transition_in_words(before);
            let text = format!(
                "the change of the ring of epoch {tried} ({what}) was taken back, since too few owners agreed to it in \
                 time or an operator said so: have it made again when they are there"
            );
            self.note_problem(TAKEN_BACK, Some(text));
        } else if !after.is_joint() && (current > tried || is_over) {
            self.note_problem(TAKEN_BACK, None);
        }
    }

    /// What is told of a change that was taken back, if anything is.
    pub(super) fn reversal(&self) -> Option<String> {
        self.noted.lock().get(TAKEN_BACK).cloned()
    }

    /// What a joint document is on the way to.
    fn transition_in_words(&self, document: &Document) -> String {
        let Some(transition) = &document.transition else { return "nothing".to_owned() };
        let names = |stores: &BTreeSet<StoreId>| {
            let name =
                |store| document.members.get(store).map_or_else(|| self.name(*store), |m| m.name.clone());
            stores.iter().map(name).collect::<Vec<_>>().join(", ")
        };
        let (from, to) = (transition.replication_factor_before, document.replication_factor);
        let factor = (from != to).then(|| format!("replication factor {from} to {to}"));
        let comes = (!transition.joins.is_empty()).then(|| format!("{} come", names(&transition.joins)));
        let goes = (!transition.leaves.is_empty()).then(|| format!("{} go", names(&transition.leaves)));
        [factor, comes, goes].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// What isn't well with this node, in sentences.
    pub(crate) fn own_problems(&self) -> Vec<String> {
        let mut found: Vec<String> = self.noted.lock().values().cloned().collect();
        let health = self.bucket.health();
        if let Some((_, why)) = health.last_failure.filter(|_| health.failures > 0)
            && !found.contains(&why)
        {
            found.push(format!("the bucket is away: {why}"));
        }
        if !self.is_sound() {
            found.push(
                "this store may have lost samples that it acked (its log was damaged, or it ended out of order under \
                 `wal.sync: interval`): it doesn't count for the placements that were open then; `carillon node \
                 accept-loss` accepts that"
                    .to_owned(),
            );
        }
        found
    }

    /// Logs who is away, once, and who is back.
    ///
    /// `is_fresh` holds while this node has only just started: it hasn't heard of everybody yet.
    pub(super) fn note_away(&self, view: &View, members: &Members, is_fresh: bool) {
        let is_seen = |store: StoreId| store == self.me() || drive::is_alive(members, store);
        let mut watched = self.watched.lock();
        for (store, _) in view.document().members.iter().filter(|(_, member)| belongs(member)) {
            if is_seen(*store) {
                if watched.insert(*store, true) == Some(false) {
                    tracing::info!(name = self.name(*store), %store, "a node is back");
                }
            } else if watched.get(store).copied().unwrap_or(!is_fresh) {
                watched.insert(*store, false);
                tracing::warn!(name = self.name(*store), %store, "a node is away: nobody hears from it");
            }
        }
        watched.retain(|store, _| view.document().members.get(store).is_some_and(belongs));
    }

    /// What `/metrics` tells of the cluster.
    pub(crate) fn collector(self: &Arc<Self>) -> Box<dyn Collector> {
        let cluster = self.clone();
        at_scrape(move |out| {
            let view = cluster.view();
            let (document, copies) = (view.document(), cluster.copies(&view));
            let mut states: BTreeMap<&'static str, f64> =
                ["active", "joining", "leaving", "lost"].map(|state| (state, 0.0)).into();
            let known = document.members.values().filter(|member| member.state != MemberState::Left);
            for member in known {
                *states.entry(state_name(member.state)).or_default() += 1.0;
            }
            let seen = cluster.members();
            let is_new = |(store, seen): &(&StoreId, &ring::member::Seen)| {
                seen.alive && !document.members.contains_key(store)
            };
            *states.entry("joining").or_default() += seen.seen.iter().filter(is_new).count() as f64;
            let belonging = document.members.iter().filter(|(_, member)| belongs(member));
            let away = belonging.filter(|(store, _)| !cluster.is_alive(**store)).count();
            out.gauges("carillon_cluster_members", "Members of the cluster by state", "state", states)?;
            out.gauge(
                "carillon_cluster_members_away",
                "Members with a place in the ring that nobody hears from",
                away as f64,
            )?;
            out.gauge(
                "carillon_ring_epoch",
                "Epoch of the ring document that holds here",
                document.epoch as f64,
            )?;
            out.gauge(
                "carillon_ring_changing",
                "1 while a change of the ring is under way",
                flag(document.is_joint()),
            )?;
            out.gauge(
                "carillon_ring_placements",
                "Placements that are open, earlier ones that aren't in the bucket yet among them",
                document.placements.len() as f64,
            )?;
            out.gauge(
                "carillon_ring_replication_factor",
                "Copies of each sample that are kept",
                f64::from(document.current().rf),
            )?;
            out.gauge(
                "carillon_ring_replication_factor_wanted",
                "Copies of each sample that are kept where there are as many nodes",
                f64::from(document.replication_factor),
            )?;
            out.gauge(
                "carillon_ring_ranges",
                "Ranges of the ring, of all open placements",
                copies.ranges as f64,
            )?;
            out.gauge(
                "carillon_ring_ranges_under_replicated",
                "Ranges with an owner that is away",
                copies.under_replicated as f64,
            )?;
            out.gauge(
                "carillon_ring_ranges_without_quorum",
                "Ranges with fewer owners there than a quorum",
                copies.without_quorum as f64,
            )?;
            let ahead_ms = *cluster.clock_ahead_ms.lock();
            out.known_gauge(
                "carillon_clock_offset_seconds",
                "How far this node's clock is ahead of most of the others'",
                ahead_ms.map(|ms| ms as f64 / 1000.0),
            )?;
            out.gauge("carillon_ready", "1 while this node is part of its cluster", flag(cluster.is_ready()))
        })
    }
}

/// What a ring of this size can't bear, in sentences: nothing is wrong, but who runs it should know.
pub(super) fn notes(view: &View) -> Vec<String> {
    let document = view.document();
    let (wanted, kept) = (document.replication_factor, document.current().rf);
    let nodes = document.current().members.len();
    let note = match (nodes, kept) {
        (1, 1) if wanted > 1 => format!(
            "this node keeps 1 of {wanted} copies: what its disk loses is lost, until further nodes join"
        ),
        (1, _) => return Vec::new(),
        (_, 1) => "of each sample 1 copy is kept: writes and queries of a node's series stop while it is away, and what \
                   its disk loses is lost; `carillon ring replication-factor 3` asks for more copies"
            .to_owned(),
        (_, 2) => "of each sample 2 copies are kept, and a write needs both: writes stop while one node is away, and \
                   queries go on; with 3 nodes and 3 copies both go on"
            .to_owned(),
        _ => return Vec::new(),
    };
    vec![note]
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::replicate::tests::view;

    #[test]
    fn small_rings_say_what_they_cannot_bear() {
        for (nodes, copies, said) in [
            (1, 3, Some("1 of 3 copies")),
            (1, 1, None),
            (2, 3, Some("writes stop while one node is away")),
            (5, 2, Some("writes stop while one node is away")),
            (3, 1, Some("of each sample 1 copy")),
            (3, 3, None),
        ] {
            let notes = notes(&view(nodes, copies, 1));
            match said {
                Some(words) => assert!(notes.len() == 1 && notes[0].contains(words), "{notes:?}"),
                None => assert!(notes.is_empty(), "{notes:?}"),
            }
        }
    }

    #[test]
    fn copies_are_counted_by_owners_that_are_there() {
        let view = view(3, 3, 1);
        let count = |there: &[u128]| Copies::count(&view, |store| there.contains(&store.0));
        let all = count(&[1, 2, 3]);
        assert_eq!((all.under_replicated, all.without_quorum, all.away.len()), (0, 0, 0));
        assert!(all.ranges > 0);
        let two = count(&[1, 2]);
        assert_eq!((two.under_replicated, two.without_quorum), (all.ranges, 0));
        assert_eq!(two.away, [StoreId(3)].into());
        let one = count(&[2]);
        assert_eq!((one.under_replicated, one.without_quorum), (all.ranges, all.ranges));
    }
}

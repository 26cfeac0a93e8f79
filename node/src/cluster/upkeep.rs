//! What a node does for the others and for itself again and again: bringing into the bucket what they wait for, telling
//! the ring where it is, and asking whether it is reached there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ring::Document;
use ring::epoch::MemberInfo;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calls::ask_all;
use super::keeper::NotYet;
use super::{Cluster, belongs};

/// Time between tries to bring into the bucket what others wait for.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Time between tries to learn whether others reach this node, at first and later.
const REACH_FIRST: Duration = Duration::from_secs(1);
const REACH_EVERY: Duration = Duration::from_secs(10);
/// How long others may fail to reach this node before it is said: nodes that start together don't listen all at once,
/// and one that refused a connection isn't called again for a while.
const REACH_PATIENCE: Duration = Duration::from_secs(10);

impl Cluster {
    /// Brings into the bucket what others wait for, and tells the ring where this node is.
    pub(super) async fn keep_on(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let round = async {
                let keeper = self.keeper.get()?;
                let worked = keeper.work().await;
                self.note_problem("keeper", worked.err().map(|error: NotYet| error.to_string()));
                let open = self.view().document().placements.iter().map(|p| p.id).collect();
                if let Err(error) = keeper.reclaim(&self.documents, &open).await {
                    tracing::error!(%error, "the ledger can't be written");
                }
                self.introduce().await;
                self.hand_over().await;
                Some(())
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = round => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(KEEP_EVERY) => {}
            }
        }
    }

    /// Corrects what the ring document says of this node's name and addresses.
    async fn introduce(self: &Arc<Self>) {
        let (me, info) = (self.me(), &self.info);
        let is_right = |member: &MemberInfo| {
            member.name == info.name
                && member.peer_address == info.peer_address
                && member.http_address == info.http_address
        };
        if self.view().document().members.get(&me).is_none_or(|member| !belongs(member) || is_right(member)) {
            return;
        }
        let change = |document: &Document| match document.members.get(&me) {
            Some(member) if belongs(member) && !is_right(member) => {
                document.set_addresses(me, &info.name, &info.peer_address, &info.http_address).map(Some)
            }
            _ => Ok(None),
        };
        if let Err(error) = self.change(change).await {
            tracing::warn!(%error, "the ring doesn't know this node's new address yet; peers hear of it by gossip");
        }
    }

    /// Asks others whether they reach this node, until one does; says loudly when none can. After the first round all
    /// who answer know that it is there.
    pub(super) async fn ask_whether_reached(self: Arc<Self>, stop: CancellationToken) {
        let began = Instant::now();
        loop {
            let is_patient = began.elapsed() < REACH_PATIENCE;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                is_reached = self.is_reached(is_patient) => if is_reached { return },
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(if is_patient { REACH_FIRST } else { REACH_EVERY }) => {}
            }
        }
    }

    /// Whether anybody reaches this node; where nobody does, that is said unless `is_patient`.
    async fn is_reached(self: &Arc<Self>, is_patient: bool) -> bool {
        let (view, seen) = (self.view(), self.members());
        let members = view.document().members.iter().filter(|(_, m)| belongs(m)).map(|(store, _)| *store);
        let alive = seen.seen.iter().filter(|(_, seen)| seen.alive).map(|(store, _)| *store);
        let others: BTreeSet<_> = members.chain(alive).filter(|store| *store != self.me()).collect();
        let answers = ask_all(others, |store| {
            let (calls, address, me) = (self.calls.clone(), self.info.peer_address.clone(), self.me());
            async move { calls.reach(store, address, me).await }
        });
        let answers = answers.await;
        self.is_announced.store(true, Ordering::Relaxed);
        if answers.values().any(Option::is_none) {
            self.note_problem("reach", None);
            return true;
        }
        if let Some((store, Some(problem))) = answers.first_key_value() {
            let text = format!(
                "{} can't reach this node at {}: {problem}; correct --advertise-address, or let peers through to \
                 that port",
                self.name(*store),
                self.info.peer_address
            );
            if is_patient {
                tracing::debug!("{text}");
            } else {
                tracing::error!("{text}");
                self.note_problem("reach", Some(text));
            }
        }
        false
    }
}

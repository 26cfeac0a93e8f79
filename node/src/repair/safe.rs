//! Whether the next node may be taken: restarted, moved, or given an empty disk.
//!
//! Being ready says that a node serves, and a node with an empty disk does so at once. Until what its former disk had lies in
//! the bucket, another disk must not be lost: a sample that was acked by two of three owners may be on that one alone. So
//! whoever takes one node after the other asks for this instead, of any node: of the ring document that holds here, and of
//! every member for what it has yet to do itself (`Unsettled`). A member that doesn't answer is away.
//!
//! A single node's own part ([`of_node`]) is for orchestrators that look at one node only, and send clients by the same
//! answer: it mustn't be false because of *another* node, or one that is away would take all of them from their clients.

use std::sync::Arc;
use std::time::Duration;

use proto::peer::repair as pb;
use proto::peer::repair::repair_client::RepairClient;
use ring::epoch::MemberState;
use ring::{StoreId, View};
use tonic::Status;

use crate::grpc::Lane;
use crate::node::App;

/// How long a member may take to tell of itself.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the next node may be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Safety {
    /// What speaks against it, in words; nothing where it is safe.
    pub(crate) reasons: Vec<String>,
}

impl Safety {
    /// Whether nothing speaks against it.
    pub(crate) fn is_safe(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Judges the whole cluster: asks each member.
pub(crate) async fn of_cluster(app: &Arc<App>) -> Safety {
    let view = app.cluster.view();
    let mut reasons = of_own(app);
    reasons.extend(of_ring(app, &view));
    let others = view.document().members.iter().filter(|(store, member)| {
        **store != app.cluster.me() && matches!(member.state, MemberState::Active | MemberState::Leaving)
    });
    let epoch = view.epoch();
    let asking = others.map(|(store, member)| async move {
        let told = match ask(app, *store).await {
            Err(status) => vec![format!("it is away ({})", status.message())],
            Ok(told) if told.epoch != epoch => vec!["it goes by another ring document".to_owned()],
            Ok(told) => told.reasons,
        };
        told.into_iter().map(|reason| format!("{}: {reason}", member.name)).collect::<Vec<_>>()
    });
    reasons.extend(futures_util::future::join_all(asking).await.into_iter().flatten());
    Safety { reasons }
}

/// Judges this node alone: whether it serves, and has made good for a lost store whose name it bears.
pub(crate) fn of_node(app: &App) -> Safety {
    let mut reasons = Vec::new();
    reasons.extend(unready(app));
    let view = app.cluster.view();
    let name = app.cluster.own_name();
    reasons.extend(lost_owners(&view, |store| view.document().members[&store].name == name));
    Safety { reasons }
}

/// What this node has yet to do itself.
pub(super) fn of_own(app: &App) -> Vec<String> {
    let mut reasons: Vec<String> = unready(app).into_iter().collect();
    if !app.cluster.is_sound() {
        reasons.push("it may lack samples that it acked".to_owned());
    }
    if app.cluster.bucket().health().failures > 0 {
        reasons.push("the bucket is away: what a disk had couldn't be brought there".to_owned());
    }
    let (repair, epoch) = (app.repair.progress(), app.cluster.view().epoch());
    if repair.lacking > 0 {
        reasons.push(format!("repair: {} windows differ from others'", repair.lacking));
    } else if repair.whole != Some(epoch) {
        let why = match repair.unasked {
            0 => String::new(),
            unasked => format!(": {unasked} can't be asked"),
        };
        reasons.push(format!("repair hasn't compared with all others yet, as the ring is now{why}"));
    }
    let waiting = app.replicator.hints().pending().stores;
    if !waiting.is_empty() {
        let names: Vec<_> = waiting.into_iter().map(|store| app.cluster.name(store)).collect();
        reasons.push(format!("hints wait for {}", names.join(", ")));
    }
    reasons
}

fn unready(app: &App) -> Option<String> {
    (!app.is_ready()).then(|| format!("it isn't ready: {}", app.doing()))
}

/// What the ring has yet to do.
fn of_ring(app: &App, view: &View) -> Vec<String> {
    let document = view.document();
    let mut reasons = lost_owners(view, |_| true);
    if document.is_joint() {
        reasons.push("the ring is changing".to_owned());
    }
    let copies = document.current().rf;
    if document.earlier().iter().any(|placement| placement.rf < copies) {
        reasons.push(
            "samples of before the last change have fewer copies until they lie in the bucket".to_owned(),
        );
    }
    for member in document.members.values().filter(|member| member.state == MemberState::Leaving) {
        reasons.push(format!("{} is leaving", member.name));
    }
    let members = app.cluster.members();
    let new = members.seen.iter().filter(|(store, seen)| seen.alive && !document.members.contains_key(store));
    reasons.extend(new.map(|(_, seen)| format!("{} is joining", seen.profile.name)));
    reasons
}

/// Open placements that lost stores kept, of those that `counts`.
fn lost_owners(view: &View, counts: impl Fn(StoreId) -> bool) -> Vec<String> {
    let members = &view.document().members;
    let mut reasons = Vec::new();
    for placement in &view.document().placements {
        let lost = placement.members.keys().filter(|store| {
            members.get(store).is_some_and(|member| member.state.is_lost()) && counts(**store)
        });
        let names: Vec<_> = lost.map(|store| members[store].name.as_str()).collect();
        if !names.is_empty() {
            reasons.push(format!(
                "placement {}: what the lost store of {} had isn't in the bucket yet",
                placement.id,
                names.join(", ")
            ));
        }
    }
    reasons
}

async fn ask(app: &App, store: StoreId) -> Result<pb::UnsettledAnswer, Status> {
    let channel = app.cluster.peers().to_store(store, Lane::Gossip)?.timeout(ASK_TIMEOUT);
    Ok(RepairClient::new(channel).unsettled(pb::UnsettledRequest {}).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use ring::epoch::Change;

    use super::*;
    use crate::repair::tests::ring_of;

    #[test]
    fn a_placement_that_a_lost_store_kept_speaks_against_it_until_it_is_closed() {
        let settled = ring_of(4, 3);
        assert_eq!(lost_owners(&settled, |_| true), Vec::<String>::new());
        let lost = *settled.document().members.keys().next().unwrap();
        let document = settled.document().change(&Change::lose(lost)).unwrap();
        for document in [document.clone(), document.finish().unwrap()] {
            let view = View::new(document).unwrap();
            let reasons = lost_owners(&view, |_| true);
            assert!(reasons.len() == 1 && reasons[0].contains("node0"), "{reasons:?}");
            assert_eq!(
                lost_owners(&view, |store| store == lost),
                reasons,
                "it stands in the way of its successor"
            );
            assert_eq!(lost_owners(&view, |store| store != lost), Vec::<String>::new(), "and of nobody else");
        }
    }
}

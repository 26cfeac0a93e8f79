//! What the cluster looks like from here, as JSON for the command line and the UI.

use ring::StoreId;
use ring::epoch::{Document, MemberInfo, MemberState};
use ring::hash::series_token;
use serde_json::{Value, json};

use super::Cluster;
use super::health::notes;

impl Cluster {
    /// The members, and who is about to be one: `/api/v1/cluster/members`.
    pub fn describe_members(&self) -> Value {
        let (view, seen) = (self.view(), self.members());
        let document = view.document();
        let shares = view.current().ownership();
        let total: f64 = shares.values().sum();
        let share = |store: StoreId| {
            let own = view.index(store).and_then(|index| shares.get(&index)).copied().unwrap_or(0.0);
            if total > 0.0 { own / total } else { 0.0 }
        };
        let member = |store: StoreId, info: Option<&MemberInfo>| {
            let profile = seen.seen.get(&store).map(|seen| seen.profile.clone()).unwrap_or_default();
            let text = |known: Option<&String>, said: String| known.cloned().unwrap_or(said);
            json!({
                "store": store.to_string(),
                "name": text(info.map(|i| &i.name), profile.name),
                "zone": text(info.map(|i| &i.zone), profile.zone),
                "peer_address": text(info.map(|i| &i.peer_address), profile.peer_address),
                "http_address": text(info.map(|i| &i.http_address), profile.http_address),
                "state": info.map_or("joining", |info| state_name(info.state)),
                "alive": self.is_alive(store),
                "ready": if store == self.me() { self.is_ready() } else { profile.ready && self.is_alive(store) },
                "epoch": if store == self.me() { view.epoch() } else { profile.ring_epoch },
                "ownership": share(store),
                "version": profile.version,
                "me": store == self.me(),
            })
        };
        let shown = |(store, info): &(&StoreId, &MemberInfo)| {
            info.state != MemberState::Left || self.is_alive(**store) || document.is_owner(**store)
        };
        let mut all: Vec<Value> =
            document.members.iter().filter(shown).map(|(store, info)| member(*store, Some(info))).collect();
        let joining =
            seen.seen.iter().filter(|(store, seen)| seen.alive && !document.members.contains_key(store));
        all.extend(joining.map(|(store, _)| member(*store, None)));
        all.sort_by_key(|member| (member["name"].to_string(), member["store"].to_string()));
        Value::Array(all)
    }

    /// The ring: `/api/v1/cluster/ring`.
    pub fn describe_ring(&self) -> Value {
        let view = self.view();
        let document = view.document();
        let count = document.placements.len();
        let placements: Vec<Value> = document
            .placements
            .iter()
            .enumerate()
            .map(|(at, placement)| {
                let members: Vec<Value> = placement.members.iter().map(|(store, tokens)| {
                    json!({"store": store.to_string(), "name": self.name(*store), "tokens": tokens.0.len()})
                }).collect();
                let writes = at + 1 == count || (document.is_joint() && at + 2 == count);
                json!({
                    "id": placement.id,
                    "open_since": placement.id,
                    "replication_factor": placement.rf,
                    "state": if writes { "takes writes" } else { "closing" },
                    "members": members,
                })
            })
            .collect();
        let health = self.bucket.health();
        let problem = health.last_failure.filter(|_| health.failures > 0).map(|(_, why)| why);
        let problems = [self.ring_problems(&view), self.own_problems()].concat();
        json!({
            "cluster": document.cluster.to_string(),
            "epoch": document.epoch,
            "joint": document.is_joint(),
            "replication_factor": document.replication_factor,
            "effective_rf": document.current().rf,
            "under_replicated": under_replicated(document),
            "placements": placements,
            "digest": format!("{:016x}", document.digest()),
            "bucket": {"url": self.bucket.location().to_string(), "problem": problem},
            "problems": problems,
            "notes": notes(&view),
        })
    }

    /// What this node does for the ring now, in words; `None` where the ring is settled.
    pub fn doing(&self) -> Option<String> {
        let leaving = self.leaving();
        if leaving.done {
            return Some(leaving.progress);
        }
        if !leaving.progress.is_empty() {
            return Some(format!("draining: {}", leaving.progress));
        }
        if let Some(reason) = self.fail_stop.get().and_then(|fail_stop| fail_stop.reason()) {
            return Some(reason.to_owned());
        }
        if self.is_given_up() {
            return Some("handing over what it has, since the others gave it up".to_owned());
        }
        if !self.is_member() {
            return Some("joining".to_owned());
        }
        if !self.is_ready() {
            return Some("telling the others that it is back".to_owned());
        }
        let view = self.view();
        if view.document().is_joint() {
            return Some("changing the ring".to_owned());
        }
        let (me, vouched) = (self.me(), self.vouches().placements);
        let mine = view.document().earlier().iter().filter(|p| p.members.contains_key(&me));
        let open = mine.filter(|p| !vouched.contains(&p.id)).count();
        (open > 0).then(|| format!("uploading what it has of {open} earlier placements"))
    }

    /// Who keeps series: `/api/v1/cluster/owners`. `series` is a list of label sets, as `/api/v1/series` gives them.
    pub fn describe_owners(&self, tenant: &str, series: &[serde_json::Map<String, Value>]) -> Value {
        let view = self.view();
        let owners = |labels: &serde_json::Map<String, Value>| {
            // A JSON map is sorted by name, as labels are.
            let pairs =
                labels.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()));
            let token = series_token(tenant, pairs);
            let stores = view.current().replicas(token).iter().map(|index| view.store(*index));
            let names: Vec<String> = stores.map(|store| self.name(store)).collect();
            json!({"series": labels, "token": format!("{token:016x}"), "owners": names})
        };
        Value::Array(series.iter().map(owners).collect())
    }
}

/// Whether older placements have fewer copies than the current one.
pub(super) fn under_replicated(document: &Document) -> bool {
    let current = document.current().rf;
    document.placements.iter().any(|placement| placement.rf < current)
}

pub(super) fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Active => "active",
        MemberState::Leaving => "leaving",
        MemberState::Left => "left",
        MemberState::Lost => "lost",
        MemberState::LossAccepted => "lost, accepted",
    }
}

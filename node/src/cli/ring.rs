//! `carillon status`, `ring` and `ring owners`: the cluster as a node sees it.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failure;
use super::api::{Api, Connection};
use super::output::{Output, Rows};

/// Most series that `ring owners` asks about at once.
const OWNERS_SERIES_MAX: usize = 1000;

/// How long another member than the one that was asked may take to tell of itself.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(3);

/// The cluster at a glance.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    connection: Connection,
}

/// The ring.
#[derive(Debug, Args)]
pub struct Ring {
    #[command(subcommand)]
    verb: Option<RingVerb>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum RingVerb {
    /// Show which stores keep the series that a selector matches
    Owners(Owners),
    /// Change how many stores keep each sample
    ReplicationFactor(ReplicationFactor),
}

#[derive(Debug, Args)]
struct Owners {
    /// A selector, such as `up{job="node"}`
    selector: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
struct ReplicationFactor {
    /// How many
    copies: u32,
    /// Do it, instead of showing what would be done
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(super) async fn run(self, output: &Output) -> Result<(), Failure> {
        let api = Api::new(&self.connection)?;
        let ring = api.get("/api/v1/cluster/ring", &[]).await?.data;
        let members = api.get("/api/v1/cluster/members", &[]).await?.data;
        let asking = list(&members).iter().map(|member| ask_member(&api, member));
        let nodes: Vec<Value> = futures_util::future::join_all(asking).await;
        if output.is_table() {
            output.text(&summary(&ring, &members))?;
        }
        let json = json!({"ring": ring, "members": members, "nodes": nodes});
        output.show(&json, || glance(&members, &nodes))?;
        for problem in ring["problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            output.note(problem);
        }
        Ok(())
    }
}

impl Ring {
    pub(super) async fn run(self, output: &Output) -> Result<(), Failure> {
        match self.verb {
            None => placements(&self.connection, output).await,
            Some(RingVerb::Owners(owners)) => owners.run(output).await,
            Some(RingVerb::ReplicationFactor(change)) => change.run(output).await,
        }
    }
}

/// What a member tells of itself: the one that was asked, or another where its own address for HTTP can be reached from
/// here. `null` where it can't.
async fn ask_member(api: &Api, member: &Value) -> Value {
    let asked = match (member["me"] == true, member["alive"] == true) {
        (true, _) => Some(api.clone()),
        (false, true) => api.at(&text(&member["http_address"])),
        (false, false) => None,
    };
    let Some(api) = asked else { return Value::Null };
    let answer = tokio::time::timeout(MEMBER_TIMEOUT, api.get("/api/v1/cluster/node", &[])).await;
    match answer {
        // Somebody else may be at that address, seen from here.
        Ok(Ok(answer)) if answer.data["store"] == member["store"] => answer.data,
        _ => Value::Null,
    }
}

/// A row for each member: what it is, and what it does.
fn glance(members: &Value, nodes: &[Value]) -> Rows {
    let mut rows =
        Rows::new(&["name", "zone", "state", "#share", "#free", "#lacking", "#hints", "bucket", "doing"]);
    for (member, node) in list(members).iter().zip(nodes) {
        let told = |value: String| if node.is_null() { "?".to_owned() } else { value };
        let share = member["ownership"].as_f64().unwrap_or_default();
        let doing = match (node.is_null(), member["alive"] == true) {
            (false, _) => text(&node["doing"]),
            (true, true) => format!("there; {} can't be asked from here", text(&member["http_address"])),
            (true, false) => "away".to_owned(),
        };
        let bucket = if node["bucket"]["failures"].as_u64() > Some(0) { "away" } else { "fine" };
        rows.push(vec![
            text(&member["name"]),
            text(&member["zone"]),
            text(&member["state"]),
            format!("{:.1} %", share * 100.0),
            told(gib(&node["disk"]["free_bytes"])),
            told(node["repair"]["windows_lacking"].to_string()),
            told(gib(&node["hints"]["bytes"])),
            told(bucket.to_owned()),
            doing,
        ]);
    }
    rows
}

/// Bytes in GiB, with two digits behind the point.
fn gib(bytes: &Value) -> String {
    format!("{:.2} GiB", bytes.as_f64().unwrap_or_default() / f64::from(1 << 30))
}

async fn placements(connection: &Connection, output: &Output) -> Result<(), Failure> {
    let api = Api::new(connection)?;
    let ring = api.get("/api/v1/cluster/ring", &[]).await?.data;
    if output.is_table() {
        let members = api.get("/api/v1/cluster/members", &[]).await?.data;
        output.text(&summary(&ring, &members))?;
    }
    output.show(&ring, || {
        let mut rows = Rows::new(&["#placement", "#copies", "state", "members"]);
        for placement in list(&ring["placements"]) {
            let members: Vec<_> = list(&placement["members"]).iter().map(|m| text(&m["name"])).collect();
            rows.push(vec![
                placement["id"].to_string(),
                placement["replication_factor"].to_string(),
                text(&placement["state"]),
                members.join(" "),
            ]);
        }
        rows
    })
}

impl Owners {
    async fn run(self, output: &Output) -> Result<(), Failure> {
        let api = Api::new(&self.connection)?;
        let asked = [("match[]", self.selector), ("limit", OWNERS_SERIES_MAX.to_string())];
        let series = api.ask("/api/v1/series", &asked).await?.data;
        let found = api.ask("/api/v1/cluster/owners", &[("series", series.to_string())]).await?.data;
        output.show(&found, || {
            let mut rows = Rows::new(&["series", "#token", "owners"]);
            for one in list(&found) {
                let owners: Vec<_> = list(&one["owners"]).iter().map(text).collect();
                rows.push(vec![one["series"].to_string(), text(&one["token"]), owners.join(" ")]);
            }
            rows
        })
    }
}

impl ReplicationFactor {
    async fn run(self, output: &Output) -> Result<(), Failure> {
        let api = Api::new(&self.connection)?;
        let ring = api.get("/api/v1/cluster/ring", &[]).await?.data;
        let members = api.get("/api/v1/cluster/members", &[]).await?.data;
        let now = ring["replication_factor"].as_u64().unwrap_or_default();
        // Lowering is confirmed by --yes like the rest; the dry run says what it would come to.
        let asked = [("value", self.copies.to_string()), ("lower", true.to_string())];
        let done = api.change("/api/v1/cluster/replication_factor", &asked, !self.yes).await?.data;
        if !self.yes {
            let wanted = u64::from(self.copies);
            let active = list(&members).iter().filter(|member| member["state"] == "active").count() as u64;
            let wait = match wanted.saturating_sub(active) {
                0 => String::new(),
                1 => format!(", {active} of them now, and one once another node has joined"),
                more => format!(", {active} of them now, and {more} once as many nodes have joined"),
            };
            output.note(&format!(
                "{wanted} copies of each sample would be kept instead of {now}{wait}\nwith --yes it is done"
            ));
            return Ok(());
        }
        output.show(&done, || {
            let mut rows = Rows::new(&["#replication factor"]);
            rows.push(vec![done["replication_factor"].to_string()]);
            rows
        })
    }
}

/// A few lines on the whole cluster.
fn summary(ring: &Value, members: &Value) -> String {
    let all = list(members);
    let alive = all.iter().filter(|m| m["alive"] == true).count();
    let open = list(&ring["placements"]).len();
    let state = match (ring["joint"] == true, open) {
        (true, _) => "changing".to_owned(),
        (false, 1) => "settled".to_owned(),
        (false, _) => format!("settled, {} older placements still hold samples of their own", open - 1),
    };
    let under = if ring["under_replicated"] == true { ", under-replicated" } else { "" };
    let bucket = &ring["bucket"];
    let bucket_state = match bucket["problem"].as_str() {
        Some(problem) => format!("away: {problem}"),
        None => "fine".to_owned(),
    };
    format!(
        "cluster   {}\nmembers   {} ({alive} alive)\nring      epoch {}, {state}\ncopies    {} of {} wanted{under}\nbucket    {} ({bucket_state})\n",
        text(&ring["cluster"]),
        all.len(),
        ring["epoch"],
        ring["effective_rf"],
        ring["replication_factor"],
        text(&bucket["url"]),
    )
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A string without its quotes; anything else as JSON.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_asked_is_shown_all_the_same() {
        let members = json!([{"name": "a", "alive": true}, {"name": "b", "alive": false}]);
        let node = json!({
            "doing": "draining: sending hints", "disk": {"free_bytes": 1u64 << 31}, "hints": {"bytes": 0},
            "repair": {"windows_lacking": 3}, "bucket": {"failures": 1},
        });
        assert_eq!(glance(&members, &[node, Value::Null]).len(), 2);
        assert_eq!(gib(&json!(3u64 << 29)), "1.50 GiB");
    }

    #[test]
    fn the_summary_says_what_is_wrong() {
        let ring = json!({
            "cluster": "c", "epoch": 7, "joint": false, "replication_factor": 3, "effective_rf": 2,
            "under_replicated": true, "placements": [{}, {}], "bucket": {"url": "s3://b", "problem": "timed out"},
        });
        let text = summary(&ring, &json!([{"alive": true}, {"alive": false}]));
        for part in [
            "2 (1 alive)",
            "epoch 7",
            "1 older placements",
            "2 of 3 wanted, under-replicated",
            "away: timed out",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}

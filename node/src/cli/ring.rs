//! `carillon status`, `ring` and its verbs: the cluster as a node sees it.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failure;
use super::api::{Api, Connection};
use super::node::{member, note_blocked};
use super::output::{Output, Rows};
use crate::glance::{self, list, text};

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
    /// Take back a change of the ring that is under way
    Revert(Revert),
    /// Put the ring document back into a bucket that has lost it, or holds an older one
    Restore(Restore),
}

/// The newest document of all members is written, where the bucket holds none or an older one of the same history.
#[derive(Debug, Args)]
struct Restore {
    /// A member that is gone for good and can't answer: its name, or the beginning of its store's id; may be given several
    /// times
    #[arg(long, value_name = "NAME")]
    gone: Vec<String>,
    /// Do it, instead of showing what would be done
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
struct Revert {
    /// Do it, instead of showing what would be done
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connection: Connection,
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
        let safety = safety(&api).await;
        let asking = list(&members).iter().map(|member| ask_member(&api, member));
        let nodes: Vec<Value> = futures_util::future::join_all(asking).await;
        let problems = glance::problems(&ring, &members, &nodes);
        if output.is_table() {
            output.text(&summary(&ring, &safety, &members, problems.len()))?;
        }
        let json = json!({
            "well": problems.is_empty(), "problems": problems, "safety": safety, "ring": ring, "members": members, "nodes": nodes,
        });
        output.show(&json, || glance_rows(&members, &nodes))?;
        if problems.is_empty() {
            return Ok(());
        }
        Err(Failure::failed(format!("the cluster isn't well:\n  {}", problems.join("\n  "))))
    }
}

impl Ring {
    pub(super) async fn run(self, output: &Output) -> Result<(), Failure> {
        match self.verb {
            None => placements(&self.connection, output).await,
            Some(RingVerb::Owners(owners)) => owners.run(output).await,
            Some(RingVerb::ReplicationFactor(change)) => change.run(output).await,
            Some(RingVerb::Revert(revert)) => revert.run(output).await,
            Some(RingVerb::Restore(restore)) => restore.run(output).await,
        }
    }
}

/// Whether the next node may be taken; `null` where an older node doesn't say.
pub(super) async fn safety(api: &Api) -> Value {
    api.get("/api/v1/cluster/safe", &[]).await.map_or(Value::Null, |answer| answer.data)
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

async fn placements(connection: &Connection, output: &Output) -> Result<(), Failure> {
    let api = Api::new(connection)?;
    let ring = api.get("/api/v1/cluster/ring", &[]).await?.data;
    if output.is_table() {
        let members = api.get("/api/v1/cluster/members", &[]).await?.data;
        let problems = list(&ring["problems"]).len();
        output.text(&summary(&ring, &safety(&api).await, &members, problems))?;
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
        note_blocked(&done, output);
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

impl Revert {
    async fn run(self, output: &Output) -> Result<(), Failure> {
        let api = Api::new(&self.connection)?;
        let done = api.change("/api/v1/cluster/revert", &[], !self.yes).await?.data;
        note_blocked(&done, output);
        if !self.yes {
            output.note("who was to come or to go doesn't, and the number of copies is as before\nwith --yes it is done");
            return Ok(());
        }
        output.show(&done, || {
            let mut rows = Rows::new(&["change"]);
            rows.push(vec![text(&done["state"])]);
            rows
        })
    }
}

impl Restore {
    async fn run(self, output: &Output) -> Result<(), Failure> {
        let api = Api::new(&self.connection)?;
        let mut asked = Vec::new();
        if !self.gone.is_empty() {
            let members = api.get("/api/v1/cluster/members", &[]).await?.data;
            let gone = self.gone.iter().map(|name| member(&members, Some(name), true));
            let stores: Vec<String> =
                gone.map(|found| Ok(text(&found?["store"]))).collect::<Result<_, Failure>>()?;
            asked.push(("gone", stores.join(",")));
        }
        let done = api.change("/api/v1/cluster/restore", &asked, !self.yes).await?.data;
        let silent: Vec<String> = list(&done["silent"]).iter().map(text).collect();
        if !silent.is_empty() {
            output.note(&format!("{} didn't answer; enough others did", silent.join(", ")));
        }
        if !self.yes && !done["instead_of"].is_null() {
            output.note("with --yes it is done");
        }
        output.show(&done, || {
            let mut rows = Rows::new(&["epoch", "instead of", "members asked"]);
            let instead_of = match &done["instead_of"] {
                Value::Null => "it was there already".to_owned(),
                other => text(other),
            };
            rows.push(vec![text(&done["epoch"]), instead_of, text(&done["asked"])]);
            rows
        })
    }
}

/// A few lines on the whole cluster.
fn summary(ring: &Value, safety: &Value, members: &Value, problems: usize) -> String {
    let lines = glance::summary(ring, safety, members, problems).into_iter();
    lines.map(|(name, text)| format!("{name:<9} {text}\n")).collect()
}

/// A row for each member.
fn glance_rows(members: &Value, nodes: &[Value]) -> Rows {
    let mut rows = Rows::new(&glance::HEADINGS);
    glance::rows(members, nodes).into_iter().for_each(|row| rows.push(row));
    rows
}

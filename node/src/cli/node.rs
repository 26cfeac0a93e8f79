//! `carillon node {ls,drain,decommission,forget,lost,accept-loss}`: members of the cluster come and go.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Failure;
use super::api::{Api, Connection};
use super::output::{Output, Rows};
use super::ring::safety;
use crate::glance::{list, text};

/// Time between looks at how far a drain is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How long a node that drains may be out of reach before the command gives up looking; the drain goes on.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What to do with members.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// List the members
    Ls(Ls),
    /// Hand a node's samples and its part of the ring to the others, and wipe it; the process goes on
    Drain(Leave),
    /// As drain; the process ends afterwards
    Decommission(Leave),
    /// Give up a node that is gone for good: its part of the ring goes to the others
    Forget(Gone),
    /// Go on without nodes that are gone for good, and without what only they had: the way out of a lost quorum
    Lost(Lost),
    /// Accept that what only lost stores had is lost: answers no longer warn of it
    AcceptLoss(Gone),
}

/// The members.
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    connection: Connection,
}

/// Which node leaves.
#[derive(Debug, Args)]
pub struct Leave {
    /// Its name, or the beginning of its store's id; the node that is asked where absent
    name: Option<String>,
    /// Do it, instead of showing what would be done
    #[arg(long)]
    yes: bool,
    /// Don't wait until it is done
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Which node is gone.
#[derive(Debug, Args)]
pub struct Gone {
    /// Its name, or the beginning of its store's id
    name: String,
    /// Do it, instead of showing what would be done
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Which nodes are gone.
#[derive(Debug, Args)]
pub struct Lost {
    /// Their names, or the beginnings of their stores' ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Do it, instead of showing what would be done
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Node {
    pub(super) async fn run(self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Ls(ls) => {
                let members = Api::new(&ls.connection)?.get("/api/v1/cluster/members", &[]).await?.data;
                output.show(&members, || rows(&members))
            }
            Self::Drain(leave) => leave.run(false, output).await,
            Self::Decommission(leave) => leave.run(true, output).await,
            Self::Forget(gone) => {
                let what = "its part of the ring goes to the others; samples that only it has are lost";
                gone.run("forget", what, output).await
            }
            Self::Lost(lost) => lost.run(output).await,
            Self::AcceptLoss(gone) => {
                let what = "answers no longer warn that samples may be missing that only it had";
                gone.run("accept_loss", what, output).await
            }
        }
    }
}

impl Leave {
    async fn run(self, stop: bool, output: &Output) -> Result<(), Failure> {
        let api = Api::new(&self.connection)?;
        let members = api.get("/api/v1/cluster/members", &[]).await?.data;
        let member = member(&members, self.name.as_deref(), false)?;
        let (name, store) = (text(&member["name"]), text(&member["store"]));
        let asked = [("store", store.clone()), ("stop", stop.to_string())];
        api.change("/api/v1/cluster/drain", &asked, !self.yes).await?;
        if !self.yes {
            let end = if stop { ", and its process ends" } else { "" };
            let others =
                "its samples go to the bucket and its part of the ring to the others; then it is wiped";
            output.note(&format!(
                "{name} (store {store}): {others}{end}{}\nwith --yes it is done",
                not_safe(&safety(&api).await)
            ));
            return Ok(());
        }
        if self.no_wait {
            return Ok(());
        }
        follow(&api, &name, &store, stop, output).await
    }
}

/// Says what speaks against taking a node now; nothing where nothing does.
fn not_safe(safety: &Value) -> String {
    let reasons: Vec<_> = list(&safety["reasons"]).iter().map(text).collect();
    match reasons.is_empty() {
        true => String::new(),
        false => format!("\nthe cluster isn't settled, so better wait:\n  {}", reasons.join("\n  ")),
    }
}

/// Shows how far a drain is until it is done.
async fn follow(api: &Api, name: &str, store: &str, stop: bool, output: &Output) -> Result<(), Failure> {
    let (mut shown, mut silent) = (String::new(), Duration::ZERO);
    loop {
        match api.get("/api/v1/cluster/drain", &[("store", store.to_owned())]).await {
            Ok(answer) => {
                silent = Duration::ZERO;
                let progress = text(&answer.data["progress"]);
                if progress != shown {
                    output.note(&format!("{name}: {progress}"));
                    shown = progress;
                }
                if answer.data["done"] == true {
                    let mut rows = Rows::new(&["node", "state"]);
                    rows.push(vec![name.to_owned(), "left".to_owned()]);
                    return output.show(&answer.data, || rows);
                }
            }
            // It may be the asked node itself that has ended, which is the last thing that it does.
            Err(_) if stop && shown.starts_with(crate::cluster::LEFT) => return Ok(()),
            Err(failure) if silent >= SILENCE_MAX => return Err(failure),
            Err(_) => silent += PROGRESS_EVERY,
        }
        tokio::time::sleep(PROGRESS_EVERY).await;
    }
}

impl Gone {
    async fn run(self, path: &str, what: &str, output: &Output) -> Result<(), Failure> {
        let api = Api::new(&self.connection)?;
        let members = api.get("/api/v1/cluster/members", &[]).await?.data;
        let member = member(&members, Some(&self.name), true)?;
        let (name, store) = (text(&member["name"]), text(&member["store"]));
        let asked = [("store", store.clone())];
        let done = api.change(&format!("/api/v1/cluster/{path}"), &asked, !self.yes).await?.data;
        note_blocked(&done, output);
        if !self.yes {
            output.note(&format!("{name} (store {store}): {what}\nwith --yes it is done"));
            return Ok(());
        }
        let mut rows = Rows::new(&["node", "state"]);
        rows.push(vec![name, text(&done["state"])]);
        output.show(&done, || rows)
    }
}

impl Lost {
    async fn run(self, output: &Output) -> Result<(), Failure> {
        let api = Api::new(&self.connection)?;
        let members = api.get("/api/v1/cluster/members", &[]).await?.data;
        let gone: Vec<Value> =
            self.names.iter().map(|name| member(&members, Some(name), true)).collect::<Result<_, _>>()?;
        let stores: Vec<String> = gone.iter().map(|member| text(&member["store"])).collect();
        let asked = [("store", stores.join(","))];
        let done = api.change("/api/v1/cluster/lost", &asked, !self.yes).await?.data;
        note_blocked(&done, output);
        if !self.yes {
            for member in &gone {
                output.note(&format!("{} (store {})", text(&member["name"]), text(&member["store"])));
            }
            output.note(
                "their parts of the ring go to the others, and fewer copies are kept where fewer nodes are left; samples \
                 that only they have are lost, and answers don't warn of it; they never come back as themselves\n\
                 with --yes it is done",
            );
            return Ok(());
        }
        let mut rows = Rows::new(&["node", "state"]);
        for member in gone {
            rows.push(vec![text(&member["name"]), text(&done["state"])]);
        }
        output.show(&done, || rows)
    }
}

/// Says what keeps a change of the ring from ending, if anything does.
pub(super) fn note_blocked(done: &Value, output: &Output) {
    if let Some(blocked) = done["blocked"].as_str() {
        output.note(&format!("not done yet: {blocked}"));
    }
}

/// The member of this name or id; without a name the one that is asked. A node that came back with an empty disk bears
/// the name of its old store: with `gone`, the one that is meant is the one that isn't there.
pub(super) fn member(members: &Value, name: Option<&str>, gone: bool) -> Result<Value, Failure> {
    let fits = |member: &&Value| match name {
        None => member["me"] == true,
        Some(name) => {
            member["name"] == name || member["store"].as_str().is_some_and(|id| id.starts_with(name))
        }
    };
    let mut found: Vec<_> = list(members).iter().filter(fits).collect();
    if gone && found.len() > 1 {
        found.retain(|member| {
            member["alive"] != true && member["state"] != "left" && member["state"] != "lost, accepted"
        });
    }
    match (found.as_slice(), name) {
        ([one], _) => Ok((*one).clone()),
        ([], Some(name)) => {
            Err(Failure::usage(format!("there is no member {name:?}; `carillon node ls` lists them")))
        }
        ([], None) => Err(Failure::failed("the node that was asked is no member of its cluster")),
        (several, _) => {
            let ids: Vec<_> = several.iter().map(|m| text(&m["store"])).collect();
            Err(Failure::usage(format!("several members fit; name one by its store: {}", ids.join(", "))))
        }
    }
}

/// Members as rows.
pub(super) fn rows(members: &Value) -> Rows {
    let mut rows =
        Rows::new(&["name", "zone", "state", "alive", "ready", "#epoch", "#share", "http", "store"]);
    let yes_no = |value: &Value| if value == true { "yes" } else { "no" }.to_owned();
    for member in list(members) {
        let share = member["ownership"].as_f64().unwrap_or_default();
        rows.push(vec![
            text(&member["name"]),
            text(&member["zone"]),
            text(&member["state"]),
            yes_no(&member["alive"]),
            yes_no(&member["ready"]),
            member["epoch"].to_string(),
            format!("{:.1} %", share * 100.0),
            text(&member["http_address"]),
            text(&member["store"]),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_two_with_one_name_the_one_that_is_gone_is_meant() {
        let members = json!([
            {"name": "a", "store": "1f", "state": "lost", "alive": false},
            {"name": "a", "store": "2e", "state": "lost, accepted", "alive": false},
            {"name": "a", "store": "3d", "state": "active", "alive": true},
            {"name": "b", "store": "4c", "state": "active", "alive": true},
        ]);
        assert_eq!(member(&members, Some("a"), true).unwrap()["store"], "1f");
        assert_eq!(member(&members, Some("b"), true).unwrap()["store"], "4c");
        assert_eq!(member(&members, Some("3d"), true).unwrap()["store"], "3d");
        assert!(member(&members, Some("a"), false).is_err() && member(&members, Some("c"), true).is_err());
    }

    #[test]
    fn what_speaks_against_a_drain_is_told_and_nothing_else() {
        assert_eq!(not_safe(&json!({"safe": true, "reasons": []})), "");
        assert_eq!(not_safe(&Value::Null), "");
        let told = not_safe(&json!({"safe": false, "reasons": ["b: it is away", "hints wait for b"]}));
        assert!(told.ends_with("better wait:\n  b: it is away\n  hints wait for b"), "{told}");
    }

    #[test]
    fn a_member_has_a_row() {
        let members = json!([{"name": "a", "zone": "z", "state": "active", "alive": true, "ownership": 0.5}]);
        assert_eq!(rows(&members).len(), 1);
    }
}

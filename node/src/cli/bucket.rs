//! `carillon bucket move`: brings all that a node on its own has in its bucket into one that others can share.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Failure;
use super::output::{Output, Rows};
use super::run::{Settings, wrong_configuration};
use crate::Env;
use crate::cluster::{RelocateError, Relocation};
use crate::env::SledLedger;

/// What to do with a bucket.
#[derive(Debug, Subcommand)]
pub enum Bucket {
    /// Move the bucket of a stopped node to where other nodes see it too
    ///
    /// The node is stopped first, and named by the options that it ran with (`--config`, or `--data-dir` and
    /// `--bucket`). All objects are copied and read back, then the old bucket is closed with the new one's name, and
    /// kept. Interrupted, it is run again. Afterwards the node is started with `--bucket TO`, and others beside it.
    Move(Move),
}

/// From where, to where.
#[derive(Debug, Args)]
pub struct Move {
    /// The new bucket: a folder, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`
    to: String,
    /// Do it, instead of showing what would be done
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Bucket {
    pub(super) async fn run(self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Move(verb) => verb.run(output).await,
        }
    }
}

impl Move {
    async fn run(self, output: &Output) -> Result<(), Failure> {
        let config = self.settings.load().map_err(|problems| wrong_configuration(&problems))?;
        let data_dir = &config.data_dir.0;
        let shown = data_dir.display();
        // Opening a folder makes one, which a mistyped name shouldn't.
        if !data_dir.join(SledLedger::FOLDER).is_dir() {
            return Err(Failure::usage(format!("{shown} is no node's data folder; name it by --data-dir")));
        }
        let env = Env::production(data_dir, 1)
            .map_err(|e| Failure::failed(format!("{e}; the node must be stopped while its bucket moves")))?;
        let plan = Relocation::plan(&config, &env, &self.to).await.map_err(|e| failed(&e))?;
        let (from, to) = (plan.from().to_owned(), plan.to().to_owned());
        let (objects, bytes) = (plan.objects(), plan.bytes());
        let mut result = json!({
            "cluster": plan.cluster().to_string(), "from": from, "to": to, "objects": objects, "bytes": bytes,
            "state": if plan.is_finished() { "moved" } else { "planned" }, "written": 0,
        });
        if plan.is_finished() {
            output.note(&format!("{from} has been moved already: start the node with --bucket {to}"));
        } else if !self.yes {
            output.note(&format!(
                "{objects} objects ({bytes} bytes) of cluster {} would be copied and read back, and {from} closed in \
                 favour of {to}\nwith --yes it is done",
                plan.cluster()
            ));
        } else {
            let bar = output.progress(bytes, "bytes");
            let copied = plan.carry_out(&|bytes| bar.inc(bytes)).await.map_err(|e| failed(&e))?;
            bar.finish_and_clear();
            result["state"] = "moved".into();
            result["written"] = copied.written.into();
            output.note(&format!(
                "start the node with --bucket {to}, and further ones beside it; {from} isn't used any more, and may be \
                 removed once they run"
            ));
        }
        output.show(&result, || {
            let mut rows = Rows::new(&["state", "from", "to", "#objects", "#bytes", "#written"]);
            let (state, written) = (crate::glance::text(&result["state"]), result["written"].to_string());
            rows.push(vec![state, from, to, objects.to_string(), bytes.to_string(), written]);
            rows
        })
    }
}

fn failed(error: &RelocateError) -> Failure {
    match error {
        RelocateError::Bucket(crate::bucket::Error::Invalid(_))
        | RelocateError::SamePlace { .. }
        | RelocateError::NotShared(_) => Failure::usage(error.to_string()),
        RelocateError::Bucket(error) if error.is_transient() => {
            Failure::failed(format!("{error}; run this again: it goes on where it was"))
        }
        _ => Failure::failed(error.to_string()),
    }
}

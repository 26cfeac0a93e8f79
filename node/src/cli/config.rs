//! `carillon config {check,print,schema}`: what a node would run with.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Failure;
use super::output::{Output, Rows};
use super::run::{Settings, wrong_configuration};
use crate::config::{self, Config};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Find every mistake in file, environment and flags at once
    Check(Check),
    /// Print the configuration that results from file, environment and flags, as a YAML file
    Print(Print),
    /// Print the JSON Schema of the YAML file, for editors
    Schema,
}

/// What to check.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    settings: Settings,
}

/// What to print.
#[derive(Debug, Args)]
pub struct Print {
    /// Only what differs from the defaults
    #[arg(long)]
    diff: bool,
    #[command(flatten)]
    settings: Settings,
}

impl ConfigVerb {
    pub(super) fn run(&self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Check(verb) => verb.run(output),
            Self::Print(verb) => verb.run(output),
            Self::Schema => output.text(&format!("{:#}\n", config::schema())),
        }
    }
}

impl Check {
    fn run(&self, output: &Output) -> Result<(), Failure> {
        match self.settings.load() {
            Ok(_) => output.show(&json!({"valid": true, "problems": []}), || {
                let mut rows = Rows::new(&["configuration"]);
                rows.push(vec!["valid".to_owned()]);
                rows
            }),
            Err(problems) => {
                if output.is_json() {
                    let listed: Vec<_> =
                        problems.0.iter().map(|p| json!({"place": p.place, "message": p.message})).collect();
                    output.show(&json!({"valid": false, "problems": listed}), Rows::default)?;
                }
                Err(wrong_configuration(&problems))
            }
        }
    }
}

impl Print {
    fn run(&self, output: &Output) -> Result<(), Failure> {
        let config = self.settings.load().map_err(|p| wrong_configuration(&p))?;
        let text = if self.diff {
            let defaults = Config::default();
            config::to_yaml(&config, |key, text| {
                let default = match key.strip_prefix("limits.") {
                    Some(key) => defaults.limits.show(key),
                    None => defaults.show(key),
                };
                default.as_deref() != Some(text)
            })
        } else {
            config::to_yaml(&config, |_, _| true)
        };
        if output.is_json() { output.show(&json!({"yaml": text}), Rows::default) } else { output.text(&text) }
    }
}

//! `carillon run`: one node, until SIGINT or SIGTERM. SIGHUP reads the configuration again.
//!
//! Its options are those that `node::config` declares, and `--config` for the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::signals::{Signal, Signals, follow_parent};
use super::{Failure, Output};
use crate::config::{self, Config, LogFormat, Problems, Sources};
use crate::env::SystemClock;
use crate::grpc::Protocol;
use crate::log::LogControl;
use crate::node::{Hooks, Reload};
use crate::{Env, Node, log};

/// Where to look for the configuration, and what was set on the command line.
#[derive(Clone, Debug)]
pub struct Run {
    settings: Settings,
    /// Versions of the peer protocol that the node pretends to be ahead, or behind.
    protocol_shift: i32,
}

/// For tests of mixed versions: nobody else should lie about what a node speaks.
const PROTOCOL_SHIFT: &str = "test-protocol-shift";

/// The parts of a configuration that a command line names.
#[derive(Clone, Debug)]
pub struct Settings {
    file: Option<PathBuf>,
    /// YAML key and text.
    flags: Vec<(String, String)>,
}

impl Settings {
    /// Reads file, environment and flags.
    ///
    /// # Errors
    /// Every mistake in them; a file that can't be read is one.
    pub fn load(&self) -> Result<Config, Problems> {
        let text = self.file.as_deref().map(read_file).transpose()?;
        let name = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let variables = |name: &str| std::env::var(name).ok();
        config::load(&Sources {
            file: text.as_deref().map(|text| (name.as_str(), text)),
            env: Some(&variables),
            flags: self.flags.clone(),
        })
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the configuration lies outside of the data folder, and is read first"
)]
fn read_file(path: &Path) -> Result<String, Problems> {
    std::fs::read_to_string(path).map_err(|e| {
        Problems(vec![config::Problem {
            place: path.display().to_string(),
            message: format!("can't be read: {e}"),
        }])
    })
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_hint(clap::ValueHint::FilePath)
            .help("YAML file with options; flags and CARILLON_* variables win over it [env: CARILLON_CONFIG]")
            .env("CARILLON_CONFIG")
            .hide_env(true)
            .value_parser(clap::value_parser!(PathBuf));
        command.next_help_heading("Configuration").arg(file).args(config::arguments())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |arg: Arg| {
            let key = arg.get_id().as_str().to_owned();
            let texts: Vec<_> = matches.get_many::<String>(&key)?.map(String::as_str).collect();
            Some((key, texts.join(",")))
        };
        Ok(Self {
            file: matches.get_one("config").cloned(),
            flags: config::arguments().into_iter().filter_map(given).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Run {
    fn augment_args(command: Command) -> Command {
        let shift = Arg::new(PROTOCOL_SHIFT)
            .long(PROTOCOL_SHIFT)
            .hide(true)
            .allow_negative_numbers(true)
            .value_parser(clap::value_parser!(i32));
        Settings::augment_args(command).arg(shift)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Run {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let protocol_shift = matches.get_one(PROTOCOL_SHIFT).copied().unwrap_or(0);
        Ok(Self { settings: Settings::from_arg_matches(matches)?, protocol_shift })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Run {
    pub(super) async fn run(self, output: &Output) -> Result<(), Failure> {
        follow_parent();
        let config = self.settings.load().map_err(|p| wrong_configuration(&p))?;
        let control = log::start(config.log_format, config.log_level, Arc::new(SystemClock));
        let is_json = config.log_format == LogFormat::Json;
        self.attend(config, control, output).await.map_err(|failure| match (failure, is_json) {
            (Failure::Failed(why), true) => {
                tracing::error!(why, "the node ends");
                Failure::Logged(why)
            }
            (failure, _) => failure,
        })
    }

    /// Runs the node until it is told to stop, or has left its cluster.
    async fn attend(self, config: Config, control: LogControl, output: &Output) -> Result<(), Failure> {
        let data_dir = config.data_dir.0.clone();
        let threads = usize::try_from(config.query_threads).unwrap_or(usize::MAX);
        let env = Env::production(&data_dir, threads).map_err(|e| {
            Failure::failed(format!(
                "can't open the data folder {}: {e}; name another by --data-dir",
                data_dir.display()
            ))
        })?;

        // Before the node answers: a signal that comes while it starts stops it in order too.
        let mut signals = Signals::new()?;
        let protocol = Protocol::shifted(self.protocol_shift);
        loop {
            let settings = self.settings.clone();
            let reload: Reload = Box::new(move || settings.load());
            let hooks = Hooks { reload: Some(reload), log: Some(control.clone()), protocol };
            let node = tokio::select! {
                biased;
                () = signals.stop() => return Ok(()),
                started = Node::start_with(config.clone(), env.clone(), hooks) => {
                    started.map_err(|e| Failure::failed(e.to_string()))?
                }
            };
            announce(&node, &data_dir, output)?;
            let end = until_the_end(&node, &mut signals).await;
            if let End::Failed(reason) = end {
                node.abandon().await;
                return Err(Failure::failed(format!("{reason}; start it again, it reads what the disk has")));
            }
            tracing::info!("stopping");
            node.stop().await.map_err(|e| Failure::failed(format!("the storage couldn't be sealed: {e}")))?;
            if let End::Stopped = end {
                return Ok(());
            }
            tracing::warn!("this node was given up and has handed over what it had: it begins anew");
        }
    }
}

/// How a node's run ends.
enum End {
    /// It was told to stop, or has left its cluster.
    Stopped,
    /// It was given up by the others: it starts again, as a new store.
    BeginsAnew,
    /// Its store has stopped for good.
    Failed(String),
}

/// Attends to signals until the run ends.
async fn until_the_end(node: &Node, signals: &mut Signals) -> End {
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::Stop => return End::Stopped,
                Signal::Reload => if let Err(error) = node.reload() {
                    tracing::error!(%error, "the configuration wasn't reloaded");
                },
            },
            () = node.cluster().ended().cancelled() => return End::Stopped,
            () = node.cluster().begins_anew().cancelled() => return End::BeginsAnew,
            reason = node.failed() => return End::Failed(reason),
        }
    }
}

/// A configuration with mistakes is wrong usage.
pub(super) fn wrong_configuration(problems: &Problems) -> Failure {
    Failure::usage(format!("the configuration has mistakes\n{problems}"))
}

/// Says where everything is: the first thing that someone who just typed `carillon` sees.
fn announce(node: &Node, data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let url = format!("http://{}", node.http_address());
    output.text(&format!(
        "Carillon {} is ready, its data in {}\n  status        {url}/\n  remote write  {url}/api/v1/write\n  PromQL        \
         {url}  (as a Prometheus data source)\nCtrl-C stops it\n",
        env!("CARGO_PKG_VERSION"),
        data_dir.display(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Settings {
        let matches = Settings::augment_args(Command::new("run")).try_get_matches_from(args).unwrap();
        Settings::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn options_are_those_that_the_configuration_declares() {
        let settings = settings(&[
            "run",
            "--http-address",
            "127.0.0.1:0",
            "--limits-max-series",
            "5",
            "--seed",
            "a:1",
            "--seed",
            "b:2",
        ]);
        let config = config::load(&Sources { flags: settings.flags, ..Sources::default() }).unwrap();
        assert_eq!(config.http_address.to_string(), "127.0.0.1:0");
        assert_eq!(config.limits.max_series.max(), Some(5));
        assert_eq!(config.seeds.to_string(), "a:1,b:2");
    }

    #[test]
    fn a_file_that_isnt_there_is_named() {
        let problems = settings(&["run", "--config", "/nowhere/carillon.yaml"]).load().unwrap_err();
        assert!(problems.to_string().starts_with("/nowhere/carillon.yaml: can't be read"), "{problems}");
    }
}

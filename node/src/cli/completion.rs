//! `carillon completion SHELL`.

use clap::Args;
use clap_complete::Shell;

use super::{Failure, Output};

/// Which shell.
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell, such as `bash`: `source <(carillon completion bash)`
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(super) fn run(&self, mut command: clap::Command, output: &Output) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "carillon", &mut script);
        output.text(&String::from_utf8_lossy(&script))
    }
}

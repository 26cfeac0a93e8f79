//! The `carillon` binary: parses the command line and does what it says (`node::cli`).

use std::process::ExitCode;

fn main() -> ExitCode {
    node::cli::main(std::env::args_os().collect())
}

//! The `carillon` binary: parses the command line and does what it says (`node::cli`).

use std::process::ExitCode;

/// Decoding and evaluation allocate much in small pieces; with the system's allocator they take twice the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    node::cli::main(std::env::args_os().collect())
}

//! The program as it is called from a shell.
//!
//! Because of these tests cargo builds `carillon` whenever it tests the workspace, with the same features: the tests
//! that drive processes (`tests/src/binary.rs`) find it there.

use std::process::{Command, Output};

fn carillon(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_carillon")).args(arguments).output().expect("cargo has built it")
}

#[test]
fn wrong_usage_ends_with_2_and_every_mistake_named() {
    let output = carillon(&["run", "--wal-sync-interval", "3x", "--http-max-body", "huge"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("--wal-sync-interval") && told.contains("--http-max-body"), "{told}");
    assert_eq!(carillon(&["query", "nonsense"]).status.code(), Some(2));
}

#[test]
fn a_configuration_without_mistakes_ends_with_0() {
    assert_eq!(carillon(&["config", "check"]).status.code(), Some(0));
}

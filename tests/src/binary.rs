//! The program under test, and the runner of PromQL scripts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `carillon` binary: `CARILLON_BIN` where it is set, else built beside this test's executable, in its profile.
/// Cargo doesn't build another package's binaries for a test; what is fresh costs it half a second.
pub fn carillon() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(named) = std::env::var_os("CARILLON_BIN") {
            let named = PathBuf::from(named);
            assert!(named.exists(), "CARILLON_BIN names {}, which isn't there", named.display());
            return named;
        }
        build("node", ["--bin", "carillon"], "carillon")
    })
}

/// The runner of Prometheus's PromQL scripts, an example of `promql`; built in the same way.
pub fn promqltest() -> PathBuf {
    build("promql", ["--example", "promqltest"], "examples/promqltest")
}

/// Builds a target of a package; `path` is where it then is in its profile's folder.
fn build(package: &str, target: [&str; 2], path: &str) -> PathBuf {
    // target/PROFILE/deps/nodes-HASH
    let me = std::env::current_exe().unwrap();
    let profile_dir = me.ancestors().nth(2).expect("a test lies in target/PROFILE/deps").to_owned();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", package]).args(target).current_dir(crate::workspace());
    command.arg("--target-dir").arg(profile_dir.parent().expect("a profile lies in the target folder"));
    if profile_dir.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().unwrap();
    assert!(status.success(), "{path} couldn't be built");
    profile_dir.join(path)
}

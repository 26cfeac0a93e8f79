//! The program under test, and the runner of PromQL scripts.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `carillon` binary: `CARILLON_BIN` where it is set, else the one that lies in the profile's folder of this test.
pub fn carillon() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("CARILLON_BIN") {
        Some(named) => {
            let named = PathBuf::from(named);
            assert!(named.exists(), "CARILLON_BIN names {}, which isn't there", named.display());
            named
        }
        None => built().join("carillon"),
    })
}

/// The runner of Prometheus's PromQL scripts, an example of `promql`.
pub fn promqltest() -> PathBuf {
    built().join("examples/promqltest")
}

/// The profile's folder of this test, in which both programs are fresh.
///
/// `cargo test --workspace` has built them: there, cargo looks at what is fresh for half a second. Where only this
/// package is tested, or what it runs was changed since, they are built here. The whole workspace is named, and an
/// example, so that cargo gives dependencies the features that it gives them there (development dependencies count as
/// soon as an example is built): with other features, hundreds of packages would be compiled a second time.
fn built() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // target/PROFILE/deps/nodes-HASH
        let me = std::env::current_exe().unwrap();
        let folder = me.ancestors().nth(2).expect("a test lies in target/PROFILE/deps").to_owned();
        let profile = match folder.file_name().and_then(OsStr::to_str).expect("profiles have plain names") {
            "debug" => "dev",
            named => named,
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--locked", "--workspace", "--profile", profile]);
        command.args(["--bin", "carillon", "--example", "promqltest", "--target-dir"]);
        command.arg(folder.parent().expect("a profile lies in the target folder"));
        let status = command.current_dir(crate::workspace()).status().unwrap();
        assert!(status.success(), "the programs under test couldn't be built");
        folder
    })
}

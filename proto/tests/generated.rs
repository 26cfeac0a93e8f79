//! The committed code is what the `.proto` files give.

use std::path::Path;

const FILES: [&str; 1] = ["prometheus/remote_write.proto"];
const MODULES: [&str; 1] = ["prometheus.rs"];

#[test]
#[allow(clippy::disallowed_methods, reason = "a test of source files")]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(FILES, [root.join("proto")]).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    prost_build::Config::new().out_dir(fresh.path()).compile_fds(descriptors).unwrap();
    for module in MODULES {
        let made = std::fs::read_to_string(fresh.path().join(module)).unwrap();
        let committed = root.join("src/generated").join(module);
        if std::env::var_os("CARILLON_REGENERATE").is_some() {
            std::fs::write(&committed, &made).unwrap();
        }
        let old = std::fs::read_to_string(&committed).unwrap_or_default();
        assert!(old == made, "{module} is out of date: CARILLON_REGENERATE=1 cargo test -p proto writes it");
    }
}

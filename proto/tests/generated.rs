//! The committed code is what the `.proto` files give.

use std::path::Path;

/// Below `proto/`. A further file is named here and its module in `src/lib.rs`.
const FILES: [&str; 6] = [
    "prometheus/remote_write.proto",
    "prometheus/remote_write_v2.proto",
    "peer/membership.proto",
    "peer/read.proto",
    "peer/repair.proto",
    "peer/write.proto",
];
/// One a package, below `src/generated/`.
const MODULES: [&str; 6] = [
    "prometheus.rs",
    "io.prometheus.write.v2.rs",
    "carillon.peer.membership.v1.rs",
    "carillon.peer.read.v1.rs",
    "carillon.peer.repair.v1.rs",
    "carillon.peer.write.v1.rs",
];

#[test]
#[allow(clippy::disallowed_methods, reason = "a test of source files")]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(FILES, [root.join("proto")]).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        // Connections come from the node's network seam, so the clients need no way to connect.
        .build_transport(false)
        // A body is a slice of what came in, not a copy.
        .bytes(".carillon.peer")
        .out_dir(fresh.path())
        .compile_fds(descriptors)
        .unwrap();
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

//! What we build on: licences, advisories and withdrawn releases, as far as they can be told without the network.

use std::path::PathBuf;

use serde_json::Value;

use super::house::metadata;

/// Licences that ask for nothing but their notice; any one of a crate's alternatives is enough.
const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Advisories of crates that are, or could come to be, below us: name, first release with the mend, advisory. A release
/// of the same name at or above the mend is fine.
const ADVISORIES: [(&str, [u64; 3], &str); 13] = [
    ("crossbeam-channel", [0, 5, 15], "RUSTSEC-2025-0024: double free on drop"),
    ("crossbeam-deque", [0, 8, 1], "RUSTSEC-2021-0093: data race"),
    ("h2", [0, 4, 4], "RUSTSEC-2024-0332: flood of CONTINUATION frames"),
    ("hyper", [0, 14, 10], "RUSTSEC-2021-0078 and 0079: request smuggling"),
    ("idna", [1, 0, 0], "RUSTSEC-2024-0421: Punycode labels that hide ASCII"),
    ("memoffset", [0, 6, 2], "RUSTSEC-2023-0045: reads of uninitialised memory"),
    ("prost-types", [0, 8, 0], "RUSTSEC-2021-0073: panic on a huge timestamp"),
    ("ring", [0, 17, 12], "RUSTSEC-2025-0009: panic on overflow checks"),
    ("rustls", [0, 23, 18], "RUSTSEC-2024-0399: panic on a broken ClientHello"),
    ("slab", [0, 4, 11], "RUSTSEC-2025-0047: out-of-bounds access"),
    ("smallvec", [1, 6, 1], "RUSTSEC-2021-0003: overflow in insert_many"),
    ("tokio", [1, 44, 2], "RUSTSEC-2025-0023: broadcast clones without Sync"),
    ("tracing-subscriber", [0, 3, 20], "RUSTSEC-2025-0055: escape sequences in logs"),
];

/// Crates that nothing here may pull in, and why.
const REFUSED: [(&str, &str); 3] = [
    ("openssl-sys", "TLS is rustls with ring: a fresh machine needs no OpenSSL"),
    ("aws-lc-sys", "TLS is rustls with ring: a fresh machine needs no cmake"),
    ("ahash", "its RandomState draws from the system behind the simulator's back"),
];

fn packages() -> Vec<Value> {
    let metadata = metadata(&["--filter-platform", &host()]);
    let all = metadata["packages"].as_array().unwrap().iter();
    all.filter(|package| package["source"].is_string()).cloned().collect()
}

/// What is built here: the lock file also names crates for other systems, which cargo hasn't fetched.
pub(super) fn host() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// Major, minor and patch; what follows them doesn't order releases here.
fn version(package: &Value) -> [u64; 3] {
    let text = package["version"].as_str().unwrap();
    let mut parts = text.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// Whether a licence expression can be met by [`LICENCES`].
fn permitted(expression: &str) -> bool {
    // `/` is the old way to write OR. Parentheses bind an OR inside an AND; there is no deeper nesting in practice.
    let expression = expression.replace('/', " OR ");
    split_outside(&expression, " AND ").into_iter().all(|part| {
        let part = part.trim().trim_start_matches('(').trim_end_matches(')');
        part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim()))
    }) || expression.split(" OR ").any(|licence| LICENCES.contains(&licence.trim()))
}

/// Splits at a separator that stands outside of parentheses.
fn split_outside<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ if depth == 0 && text[at..].starts_with(separator) => {
                parts.push(&text[start..at]);
                start = at + separator.len();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    assert!(permitted("MIT OR Apache-2.0"));
    assert!(permitted("MIT/Unlicense"));
    assert!(permitted("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(permitted("Apache-2.0 AND ISC"));
    assert!(permitted("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"));
    assert!(!permitted("GPL-3.0"));
    assert!(!permitted("(MIT OR Apache-2.0) AND GPL-2.0"));
    assert!(!permitted("Apache-2.0 AND LGPL-2.1"));
}

#[test]
fn every_dependency_has_a_permissive_licence() {
    let packages = packages();
    assert!(packages.len() > 50);
    let wrong: Vec<_> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(permitted))
        .map(|package| format!("{} {}: {}", name(package), package["version"], package["license"]))
        .collect();
    assert!(wrong.is_empty(), "licences that aren't permitted:\n{}", wrong.join("\n"));
}

#[test]
fn no_dependency_has_an_advisory_that_we_know() {
    for package in packages() {
        for (advised, mended, advisory) in ADVISORIES {
            assert!(
                name(&package) != advised || version(&package) >= mended,
                "{advised} {} has {advisory}",
                package["version"]
            );
        }
    }
}

#[test]
fn no_dependency_is_refused() {
    let metadata = metadata(&["--filter-platform", &host()]);
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    for (refused, why) in REFUSED {
        let found = nodes
            .iter()
            .any(|node| node["id"].as_str().is_some_and(|id| id.contains(&format!("#{refused}@"))));
        assert!(!found, "{refused}: {why}");
    }
}

#[test]
fn no_dependency_was_withdrawn() {
    let Some(index) = registry_index() else {
        tests::skip("cargo has no copy of the registry's index here");
        return;
    };
    for package in packages() {
        let Ok(entry) = std::fs::read(index.join(index_path(name(&package)))) else { continue };
        // A cached entry: a header, then a JSON line for each release, separated by zero bytes.
        let releases =
            entry.split(|byte| *byte == 0).filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let yanked = releases
            .into_iter()
            .any(|release| release["vers"] == package["version"] && release["yanked"] == true);
        assert!(!yanked, "{} {} was withdrawn", name(&package), package["version"]);
    }
}

/// Cargo's copy of what it has seen of crates.io's index.
fn registry_index() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let all = std::fs::read_dir(home.join("registry/index")).ok()?;
    all.filter_map(|entry| Some(entry.ok()?.path().join(".cache"))).find(|cache| cache.is_dir())
}

/// Where the index keeps a crate: `se/rd/serde`, and shorter for short names.
fn index_path(name: &str) -> PathBuf {
    let name = name.to_lowercase();
    match name.len() {
        1 | 2 => format!("{}/{name}", name.len()).into(),
        3 => format!("3/{}/{name}", &name[..1]).into(),
        _ => format!("{}/{}/{name}", &name[..2], &name[2..4]).into(),
    }
}

//! The house: which package may lean on which, and which of `tsdb`'s rooms `promql` may enter.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::workspace;

use super::dependencies::host;

/// DESIGN's directions: a package and what it may depend on. Nothing points back.
const DIRECTIONS: [(&str, &[&str]); 10] = [
    ("fuzz", &[]),
    ("planted", &[]),
    ("proto", &[]),
    ("ring", &["planted"]),
    ("tsdb", &["fuzz", "planted"]),
    ("promql", &["fuzz", "tsdb"]),
    ("reference", &["promql", "tsdb"]),
    ("node", &["fuzz", "planted", "proto", "ring", "tsdb", "promql"]),
    ("sim", &["node", "planted", "promql", "reference", "ring", "tsdb"]),
    ("tests", &["node", "promql", "tsdb"]),
];

/// What `promql` may name of `tsdb`: the model, the shape of an answer, its decoded columns, and the seam to threads.
const ROOMS_OF_PROMQL: [&str; 5] = ["model", "select", "chunk", "workers", "Error"];

/// `cargo metadata` of the workspace, without the network.
pub fn metadata(args: &[&str]) -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(args)
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn packages_depend_in_one_direction() {
    let metadata = metadata(&["--no-deps"]);
    let allowed: BTreeMap<_, _> = DIRECTIONS.into_iter().collect();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let may =
            allowed.get(name).unwrap_or_else(|| panic!("package {name} has no place in the directions"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let inside = dependency["path"].is_string();
            assert!(!inside || may.contains(&on), "{name} mustn't depend on {on}");
        }
    }
}

#[test]
fn nothing_but_a_command_line_plants_bugs() {
    // As cargo builds the workspace where nobody asks for a feature, those of all its packages united.
    let metadata = metadata(&["--filter-platform", &host()]);
    let packages = metadata["packages"].as_array().unwrap();
    let planted = packages.iter().find(|package| package["name"] == "planted").unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let built = nodes.iter().find(|node| node["id"] == planted["id"]).unwrap();
    assert_eq!(built["features"], serde_json::json!([]));
    assert!(planted["features"].get("planted").is_some(), "it has another name by now: {planted}");
}

#[test]
fn promql_sees_only_the_model_and_the_shape_of_answers() {
    let mut looked_at = 0;
    each_source(&workspace().join("promql/src"), &mut |path, text| {
        looked_at += 1;
        for (line, at) in text.lines().zip(1..) {
            for (found, _) in line.match_indices("tsdb::") {
                let rest = &line[found + "tsdb::".len()..];
                let rooms: Vec<_> = match rest.strip_prefix('{') {
                    Some(list) => list.split([',', '}']).map(str::trim).collect(),
                    None => vec![rest],
                };
                for room in rooms.into_iter().filter(|room| !room.is_empty() && !room.starts_with(';')) {
                    assert!(
                        ROOMS_OF_PROMQL.iter().any(|may| room.starts_with(may)),
                        "{}:{at}: promql mustn't name tsdb::{room}",
                        path.display()
                    );
                }
            }
        }
    });
    assert!(looked_at > 3);
}

/// Calls `look` with each Rust file below a folder.
fn each_source(dir: &Path, look: &mut dyn FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_source(&path, look);
        } else if path.extension().is_some_and(|e| e == "rs") {
            look(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}

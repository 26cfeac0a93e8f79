//! What is in `deploy/`: it says only what this version understands, and the tools that will read it have no complaint.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use node::config::{Config, values};
use tests::{skip, workspace};

/// How exposed systemd may find the unit, times ten: 20 is "OK", 96 is a unit without any hardening.
const EXPOSURE_MAX: u32 = 20;

fn deploy() -> PathBuf {
    workspace().join("deploy")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

/// A tool of the system, or `None` with a message.
fn tool(name: &str) -> Option<Command> {
    if Command::new(name).arg("--help").output().is_ok() {
        return Some(Command::new(name));
    }
    let why = format!("{name} isn't installed; .ci/setup does that");
    assert!(std::env::var_os("CARILLON_REQUIRE_PEERS").is_none(), "{why}");
    skip(&why);
    None
}

fn succeeded(what: &str, output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}:\n{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn every_variable_that_is_set_is_an_options() {
    let known: BTreeSet<String> = values(&Config::default())
        .into_iter()
        .map(|(flag, _)| format!("CARILLON_{}", flag.replace('-', "_").to_uppercase()))
        .collect();
    let mut seen = BTreeSet::new();
    for file in files(&deploy()) {
        let text = std::fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("CARILLON_") {
            let name: String =
                text[at..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            assert!(known.contains(&name), "{}: {name} is no option's variable", file.display());
            seen.insert(name);
        }
    }
    for needed in ["CARILLON_SEED", "CARILLON_ZONE", "CARILLON_BUCKET", "CARILLON_ADVERTISE_ADDRESS"] {
        assert!(seen.contains(needed), "{needed}");
    }
}

#[test]
fn the_units_configuration_is_understood() {
    let file = deploy().join("systemd/carillon.yaml");
    let checked =
        Command::new(tests::carillon()).args(["config", "check", "--config"]).arg(&file).output().unwrap();
    succeeded("config check", &checked);
}

#[test]
fn systemd_verifies_the_unit_and_finds_it_hardened() {
    let Some(mut verify) = tool("systemd-analyze") else { return };
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("carillon.service");
    let text = std::fs::read_to_string(deploy().join("systemd/carillon.service")).unwrap();
    // systemd looks whether the program is there.
    let built = tests::carillon().display().to_string();
    let text = text.replace("/usr/bin/carillon", &built);
    assert!(text.contains(&format!("ExecStart={built} run --config")), "{text}");
    std::fs::write(&unit, text).unwrap();
    succeeded("verify", &verify.args(["verify", "--man=no"]).arg(&unit).output().unwrap());
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", &format!("--threshold={EXPOSURE_MAX}")]).arg(&unit);
    succeeded("security", &security.output().unwrap());
}

#[test]
fn kubernetes_takes_what_kustomize_makes() {
    let (Some(mut kubectl), Some(validate)) = (tool("kubectl"), tests::python_peer("kubernetes-validate"))
    else {
        return;
    };
    let rendered = kubectl.arg("kustomize").arg(deploy().join("kubernetes")).output().unwrap();
    succeeded("kustomize", &rendered);
    let text = String::from_utf8(rendered.stdout).unwrap();
    for kind in ["StatefulSet", "Service", "PodDisruptionBudget", "ServiceAccount", "ConfigMap"] {
        assert!(text.contains(&format!("kind: {kind}")), "{kind} is missing");
    }
    // Whatever selects pods selects these: a budget or a service without a selector is valid, and does nothing.
    let selecting = text.split("---").filter(|part| {
        ["kind: StatefulSet", "kind: Service\n", "kind: PodDisruptionBudget"]
            .iter()
            .any(|kind| part.contains(kind))
    });
    for part in selecting {
        assert!(part.contains("  selector:\n"), "no selector:\n{part}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("carillon.yaml");
    std::fs::write(&file, text).unwrap();
    succeeded("validate", &Command::new(validate).args(["--strict", "--quiet"]).arg(&file).output().unwrap());
}

#[test]
fn compose_describes_three_nodes_that_name_each_other() {
    let Some(python) = tests::python_peer("python") else { return };
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let file = deploy().join("compose/compose.yaml");
    let parsed = Command::new(python).args(["-c", script]).arg(&file).output().unwrap();
    succeeded("compose.yaml", &parsed);
    let compose: serde_json::Value = serde_json::from_slice(&parsed.stdout).unwrap();
    let mut zones = BTreeSet::new();
    for name in ["node-1", "node-2", "node-3"] {
        let node = &compose["services"][name];
        let variable = |name: &str| node["environment"][name].as_str().unwrap().to_owned();
        assert_eq!((variable("CARILLON_NAME"), &node["image"]), (name.to_owned(), &"carillon".into()));
        let own = variable("CARILLON_ADVERTISE_ADDRESS");
        assert!(variable("CARILLON_SEED").split(',').any(|seed| seed == own), "{own}");
        node::bucket::Location::parse(&variable("CARILLON_BUCKET")).unwrap();
        zones.insert(variable("CARILLON_ZONE"));
        let volume = node["volumes"][0].as_str().unwrap().split(':').next().unwrap();
        assert!(compose["volumes"].as_object().unwrap().contains_key(volume), "{volume}");
    }
    assert_eq!(zones.len(), 3);
}

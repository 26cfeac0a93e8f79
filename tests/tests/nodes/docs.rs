//! Pages that follow from the code, and pages that name files: both must be current.
//!
//! `UPDATE_DOCS=1 cargo test -p tests docs` writes the generated ones anew.

use std::fmt::Write as _;

use tests::workspace;

fn current(path: &str, wanted: &str) {
    let file = workspace().join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(found == wanted, "{path} isn't current: run UPDATE_DOCS=1 cargo test -p tests docs");
}

#[test]
fn the_reference_of_options_is_current() {
    current("docs/configuration.md", &node::config::reference());
}

#[test]
fn the_reference_of_the_command_line_is_current() {
    let mut page = String::from(
        "# Command line\n\nGenerated from the declarations in `node/src/cli/`. The bare binary does what \
         `carillon run` does.\nExit codes: 0 well, 1 not well, 2 wrong usage.\n\n",
    );
    let mut command = node::cli::command();
    command.build();
    chapters(&mut page, &command, "");
    current("docs/cli.md", &page);
}

fn chapters(page: &mut String, command: &clap::Command, above: &str) {
    let name = format!("{above}{}", command.get_name());
    let help = command.clone().bin_name(&name).term_width(110).render_help().to_string();
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    writeln!(page, "## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim_end()).unwrap();
    let verbs = command.get_subcommands().filter(|verb| verb.get_name() != "help");
    verbs.for_each(|verb| chapters(page, verb, &format!("{name} ")));
}

#[test]
fn every_file_that_the_architecture_page_names_exists() {
    let page = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let named: Vec<_> = page.split('`').skip(1).step_by(2).filter(|word| word.contains('/')).collect();
    let paths =
        named.into_iter().filter(|word| !word.contains([' ', '<', '{', '*', ':']) && !word.starts_with('/'));
    let mut seen = 0;
    for path in paths {
        seen += 1;
        assert!(workspace().join(path).exists(), "ARCHITECTURE.md names {path}, which isn't there");
    }
    assert!(seen >= 20, "the page shows a sample's way and a question's way: {seen} paths");
}

#[test]
fn both_ways_stand_on_the_architecture_pages_first_screen() {
    const SCREEN_LINES: usize = 50;
    let page = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let screen: String = page.lines().take(SCREEN_LINES).collect::<Vec<_>>().join("\n");
    assert!(screen.contains("A sample's way") && screen.contains("A question's way"));
}

#[test]
fn the_readmes_first_screen_starts_a_node_and_its_tests() {
    const SCREEN_LINES: usize = 40;
    let page = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let screen: String = page.lines().take(SCREEN_LINES).collect::<Vec<_>>().join("\n");
    assert!(screen.contains("cargo run --release") && screen.contains("cargo test --workspace"));
}

#[test]
fn commands_on_the_benchmarks_page_are_of_this_command_line() {
    let page = std::fs::read_to_string(workspace().join("docs/benchmarks.md")).unwrap();
    let lines = page.lines().map(str::trim).filter(|line| line.starts_with("carillon "));
    for line in lines.map(|line| line.split(" #").next().unwrap_or(line)) {
        let words = line.split_whitespace().filter(|word| !word.ends_with('\\'));
        let parsed = node::cli::command().try_get_matches_from(words);
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

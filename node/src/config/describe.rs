//! What follows from the declarations: command-line arguments, the reference page, the JSON Schema, and the
//! configuration written back as YAML.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{Config, Declared, Kind, Limits};

/// One clap argument per option; its id is the YAML key, for [`super::Sources::flags`].
pub fn arguments() -> Vec<clap::Arg> {
    keyed().map(|(key, option)| argument(key, &option)).collect()
}

fn argument(key: String, option: &Declared) -> clap::Arg {
    let default = default_of(&key);
    let help = format!("{} [default: {default}] [env: {}]", one_line(option.help), env_name(&key));
    let flag = flag_name(&key);
    let value_name = match option.kind {
        Kind::Text => "TEXT",
        Kind::Switch => "true|false",
        Kind::Number => "N",
        Kind::Duration => "DURATION",
        Kind::Size => "SIZE",
        Kind::DurationOrUnlimited => "DURATION|unlimited",
        Kind::NumberOrUnlimited => "N|unlimited",
        Kind::Addresses => "HOST:PORT",
        Kind::LabelNames => "LABEL",
        Kind::OneOf(_) => "WORD",
    };
    let argument = clap::Arg::new(key).long(flag).help(help).value_name(value_name).num_args(1);
    match option.kind {
        // `config check` and `run` name all mistakes at once; clap would stop at the first, so it only completes.
        Kind::OneOf(words) => argument.value_parser(clap::builder::PossibleValuesParser::new(words)),
        Kind::Addresses | Kind::LabelNames => argument.action(clap::ArgAction::Append),
        Kind::Text => argument.value_hint(clap::ValueHint::AnyPath),
        _ => argument,
    }
}

/// The reference page, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Configuration\n\nEach option can be a flag, a variable or a key of the YAML file; a flag wins over a \
         variable, a variable over the file.\n`limits.*` hold for every tenant; `tenants.NAME.*` are exceptions \
         for one, with the same keys.\n\n",
    );
    for (key, option) in keyed() {
        let change = if option.reload { "on reload" } else { "on restart" };
        let _ = write!(
            page,
            "## `{key}`\n\n{}\n\n| flag | variable | takes | default | changes |\n|---|---|---|---|---|\n\
             | `--{}` | `{}` | {} | `{}` | {change} |\n\n",
            one_line(option.help),
            flag_name(&key),
            env_name(&key),
            takes(option.kind),
            default_of(&key),
        );
    }
    page
}

/// The JSON Schema (draft 2020-12) of the YAML file, for editors.
pub fn schema() -> Value {
    let mut root = object();
    for (key, option) in Config::DECLARED.iter().map(|o| (o.key, o)) {
        insert(&mut root, key, property(&option_with_default(option, key)));
    }
    let mut limits = object();
    for option in Limits::DECLARED {
        insert(
            &mut limits,
            option.key,
            property(&option_with_default(option, &format!("limits.{}", option.key))),
        );
    }
    let properties = root["properties"].as_object_mut().expect("an object was made");
    properties.insert(
        "tenants".to_owned(),
        json!({"type": "object", "description": "Exceptions by tenant.", "additionalProperties": limits}),
    );
    properties.insert("limits".to_owned(), limits);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("Carillon's configuration");
    root
}

/// The configuration as a file that sets all of it, or only what `keep` wants.
pub fn to_yaml(config: &Config, keep: impl Fn(&str, &str) -> bool) -> String {
    let mut tree = Map::new();
    for (key, _) in keyed() {
        let text = value_of(config, &key);
        if keep(&key, &text) {
            insert_text(&mut tree, &key, &text);
        }
    }
    let mut page = String::new();
    write_yaml(&mut page, &tree, 0);
    // A tenant's name may hold dots, so tenants aren't keys of the tree.
    let mut tenants = String::new();
    for (tenant, limits) in &config.tenants {
        let own: Vec<_> = Limits::DECLARED
            .iter()
            .filter(|o| limits.show(o.key) != config.limits.show(o.key))
            .filter_map(|o| limits.show(o.key).map(|text| format!("    {}: {}\n", o.key, quoted(&text))))
            .collect();
        let _ = if own.is_empty() {
            writeln!(tenants, "  {tenant:?}: {{}}")
        } else {
            write!(tenants, "  {tenant:?}:\n{}", own.concat())
        };
    }
    if !tenants.is_empty() {
        let _ = write!(page, "tenants:\n{tenants}");
    }
    page
}

/// All options as flag and value.
pub fn values(config: &Config) -> Vec<(String, String)> {
    keyed().map(|(key, _)| (flag_name(&key), value_of(config, &key))).collect()
}

/// The flag without its dashes: `wal-sync`.
pub(super) fn flag_name(key: &str) -> String {
    key.replace(['.', '_'], "-")
}

/// The environment variable: `CARILLON_WAL_SYNC`.
pub(super) fn env_name(key: &str) -> String {
    format!("CARILLON_{}", key.replace('.', "_").to_uppercase())
}

/// All options by their full key.
fn keyed() -> impl Iterator<Item = (String, Declared)> {
    let limits = Limits::DECLARED.iter().map(|o| (format!("limits.{}", o.key), *o));
    Config::DECLARED.iter().map(|o| (o.key.to_owned(), *o)).chain(limits)
}

fn value_of(config: &Config, key: &str) -> String {
    let text = match key.strip_prefix("limits.") {
        Some(key) => config.limits.show(key),
        None => config.show(key),
    };
    text.expect("the key is a declared one")
}

fn default_of(key: &str) -> String {
    value_of(&Config::default(), key)
}

fn one_line(help: &str) -> String {
    help.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn takes(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Switch => "`true` or `false`".to_owned(),
        Kind::Number => "a whole number".to_owned(),
        Kind::Duration => "a duration".to_owned(),
        Kind::Size => "a size".to_owned(),
        Kind::DurationOrUnlimited => "a duration or `unlimited`".to_owned(),
        Kind::NumberOrUnlimited => "a whole number or `unlimited`".to_owned(),
        Kind::Addresses => "addresses".to_owned(),
        Kind::LabelNames => "names of labels".to_owned(),
        Kind::OneOf(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" or "),
    }
}

fn option_with_default(option: &Declared, key: &str) -> (Declared, String) {
    (*option, default_of(key))
}

fn object() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {}})
}

fn insert(root: &mut Value, key: &str, property: Value) {
    let mut at = root;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        let properties = at["properties"].as_object_mut().expect("levels are objects");
        if parts.peek().is_none() {
            properties.insert(part.to_owned(), property);
            return;
        }
        at = properties.entry(part).or_insert_with(object);
    }
}

fn property((option, default): &(Declared, String)) -> Value {
    const DURATION: &str = "^(0|([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$";
    const SIZE: &str = "^[0-9]+ ?(B|[kKMGT]i?B)?$";
    let mut property = match option.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Switch => json!({"type": "boolean"}),
        Kind::Number => json!({"type": "integer", "minimum": 0}),
        Kind::Duration => json!({"type": "string", "pattern": DURATION}),
        Kind::Size => json!({"type": ["string", "integer"], "pattern": SIZE, "minimum": 0}),
        Kind::DurationOrUnlimited => {
            json!({"anyOf": [{"const": "unlimited"}, {"type": "string", "pattern": DURATION}]})
        }
        Kind::NumberOrUnlimited => {
            json!({"anyOf": [{"const": "unlimited"}, {"type": "integer", "minimum": 0}]})
        }
        Kind::Addresses | Kind::LabelNames => {
            json!({"type": ["string", "array"], "items": {"type": "string"}})
        }
        Kind::OneOf(words) => json!({"enum": words}),
    };
    property["description"] = json!(one_line(option.help));
    property["default"] = match option.kind {
        Kind::Switch | Kind::Number | Kind::NumberOrUnlimited => {
            serde_json::from_str(default).unwrap_or_else(|_| json!(default))
        }
        _ => json!(default),
    };
    property
}

fn insert_text(tree: &mut Map<String, Value>, key: &str, text: &str) {
    match key.split_once('.') {
        None => drop(tree.insert(key.to_owned(), json!(text))),
        Some((first, rest)) => {
            let level = tree.entry(first).or_insert_with(|| json!({}));
            insert_text(level.as_object_mut().expect("levels are objects"), rest, text);
        }
    }
}

fn write_yaml(page: &mut String, tree: &Map<String, Value>, depth: usize) {
    for (key, value) in tree {
        let indent = "  ".repeat(depth);
        match value {
            Value::Object(level) => {
                let _ = writeln!(page, "{indent}{key}:");
                write_yaml(page, level, depth + 1);
            }
            Value::String(text) => drop(writeln!(page, "{indent}{key}: {}", quoted(text))),
            _ => unreachable!("the tree holds text and levels"),
        }
    }
}

/// Text that YAML would read as something else, or cut, in quotes; JSON's quoting is YAML's.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "./-_".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { json!(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load};
    use super::*;

    #[test]
    fn what_is_written_loads_again() {
        let text =
            "http: {address: 'localhost:1'}\ntenants: {a.b: {max_series: 3}}\nlimits: {max_future: 0s}\n";
        let config = load(&Sources { file: Some(("a", text)), ..Sources::default() }).unwrap();
        let written = to_yaml(&config, |_, _| true);
        assert_eq!(
            load(&Sources { file: Some(("b", &written)), ..Sources::default() }).unwrap(),
            config,
            "{written}"
        );
    }

    #[test]
    fn only_what_differs_can_be_written() {
        let config = Config { query_threads: 3, ..Config::default() };
        assert_eq!(to_yaml(&config, |key, text| text != default_of(key)), "query:\n  threads: 3\n");
    }

    #[test]
    fn every_option_is_an_argument_a_property_and_a_chapter() {
        let (page, schema) = (reference(), schema());
        for (key, _) in keyed() {
            assert!(page.contains(&format!("## `{key}`")));
            let pointer = format!("/properties/{}", key.replace('.', "/properties/"));
            assert!(schema.pointer(&pointer).is_some_and(|p| p["description"].is_string()), "{pointer}");
        }
        let command = clap::Command::new("c").args(arguments());
        let matches = command.try_get_matches_from(["c", "--wal-sync", "interval"]).unwrap();
        assert_eq!(matches.get_one::<String>("wal.sync").map(String::as_str), Some("interval"));
    }
}

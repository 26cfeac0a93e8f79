//! Reading the configuration: flag over environment over file over default, all mistakes named at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Config, Kind, Limits, yaml};

/// An environment: a variable's value by its name.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where settings come from.
#[derive(Default)]
pub struct Sources<'a> {
    /// The file's name, for messages, and its text.
    pub file: Option<(&'a str, &'a str)>,
    /// The environment; asked for `CARILLON_*` names and for those in `${…}`.
    pub env: Option<Variables<'a>>,
    /// Options given on the command line: YAML key and text.
    pub flags: Vec<(String, String)>,
}

/// One mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `carillon.yaml:12`, `CARILLON_WAL_SYNC`, `--wal-sync`.
    pub place: String,
    /// What, and what would be right.
    pub message: String,
}

/// All mistakes in a configuration; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Problem { place, message }) in self.0.iter().enumerate() {
            write!(f, "{}{place}: {message}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Reads the configuration.
///
/// # Errors
/// Every mistake in the file, the environment and the flags.
pub fn load(sources: &Sources<'_>) -> Result<Config, Problems> {
    let mut problems = Vec::new();
    let mut given = BTreeSet::new();
    let mut config = Config::default();
    // A tenant's exceptions are laid over the final `limits`, wherever in the file those stand.
    let mut exceptions: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();

    let nothing = |_: &str| None;
    let env = sources.env.unwrap_or(&nothing);
    if let Some((name, text)) = sources.file {
        match yaml::entries(text) {
            Err(message) => problems.push(Problem { place: name.to_owned(), message }),
            Ok(entries) => {
                for entry in entries {
                    let applied = interpolate(&entry.text, env).and_then(|text| {
                        match entry.key.strip_prefix("tenants.").and_then(|rest| rest.rsplit_once('.')) {
                            Some((tenant, key)) => {
                                check_tenant(tenant)?;
                                set(&mut Overlay(&mut Limits::default()), key, &text)?;
                                let own = exceptions.entry(tenant.to_owned()).or_default();
                                own.push((key.to_owned(), text));
                                Ok(())
                            }
                            None => {
                                given.insert(entry.key.clone());
                                match entry.list && !takes_lists(&entry.key) {
                                    true => Err(format!("{} can't be a list", entry.key)),
                                    false => set(&mut config, &entry.key, &text),
                                }
                            }
                        }
                    });
                    if let Err(message) = applied {
                        problems.push(Problem { place: format!("{name}:{}", entry.line), message });
                    }
                }
            }
        }
    }
    for option in all_keys() {
        let variable = super::describe::env_name(&option);
        if let Some(text) = env(&variable) {
            if let Err(message) = set(&mut config, &option, &text) {
                problems.push(Problem { place: variable, message });
            }
            given.insert(option);
        }
    }
    for (key, text) in &sources.flags {
        given.insert(key.clone());
        if let Err(message) = set(&mut config, key, text) {
            problems.push(Problem { place: format!("--{}", super::describe::flag_name(key)), message });
        }
    }
    for (tenant, own) in exceptions {
        let mut limits = config.limits.clone();
        for (key, text) in own {
            limits.set(&key, &text).expect("the key was checked").expect("the text was checked");
        }
        config.tenants.insert(tenant, limits);
    }
    config.open_ports(|key| given.contains(key));
    if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
}

/// All keys but those of `tenants`.
pub(super) fn all_keys() -> impl Iterator<Item = String> {
    let limits = Limits::DECLARED.iter().map(|o| format!("limits.{}", o.key));
    Config::DECLARED.iter().map(|o| o.key.to_owned()).chain(limits)
}

fn takes_lists(key: &str) -> bool {
    let declared = match key.strip_prefix("limits.") {
        Some(key) => Limits::DECLARED.iter().find(|o| o.key == key),
        None => Config::DECLARED.iter().find(|o| o.key == key),
    };
    declared.is_some_and(|o| matches!(o.kind, Kind::Addresses | Kind::LabelNames))
}

trait Settable {
    fn set_key(&mut self, key: &str, text: &str) -> Option<Result<(), String>>;
    fn keys(&self) -> Vec<String>;
}

impl Settable for Config {
    fn set_key(&mut self, key: &str, text: &str) -> Option<Result<(), String>> {
        match key.strip_prefix("limits.") {
            Some(key) => self.limits.set(key, text),
            None => self.set(key, text),
        }
    }

    fn keys(&self) -> Vec<String> {
        all_keys().collect()
    }
}

/// A tenant's exceptions.
struct Overlay<'a>(&'a mut Limits);

impl Settable for Overlay<'_> {
    fn set_key(&mut self, key: &str, text: &str) -> Option<Result<(), String>> {
        self.0.set(key, text)
    }

    fn keys(&self) -> Vec<String> {
        Limits::DECLARED.iter().map(|o| o.key.to_owned()).collect()
    }
}

fn set(target: &mut impl Settable, key: &str, text: &str) -> Result<(), String> {
    match target.set_key(key, text) {
        Some(set) => set.map_err(|message| format!("{key}: {message}")),
        None => Err(match nearest(key, target.keys()) {
            Some(known) => format!("unknown option {key:?}; did you mean {known:?}?"),
            None => format!("unknown option {key:?}"),
        }),
    }
}

fn check_tenant(tenant: &str) -> Result<(), String> {
    match tsdb::model::TenantId::new(tenant) {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("tenants.{tenant}: {e}")),
    }
}

/// Replaces `${VAR}` and `${VAR:-default}`; `$$` is a dollar sign, and any other `$` stands for itself.
fn interpolate(text: &str, env: Variables<'_>) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some(inner) = tail.strip_prefix('{') {
            let end = inner.find('}').ok_or_else(|| format!("\"${{\" without \"}}\" in {text:?}"))?;
            let (name, default) = match inner[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&inner[..end], None),
            };
            let value = env(name).filter(|v| !v.is_empty()).or_else(|| default.map(str::to_owned));
            result.push_str(&value.ok_or_else(|| format!("variable {name} isn't set and has no default"))?);
            rest = &inner[end + 1..];
        } else {
            result.push('$');
            rest = tail;
        }
    }
    result.push_str(rest);
    Ok(result)
}

/// A key further away than this is no likely slip of the hand.
const NEAREST_DISTANCE_MAX: usize = 4;

fn nearest(key: &str, known: Vec<String>) -> Option<String> {
    // A key at the wrong level (`sync` for `wal.sync`) is a slip too.
    let last = |k: &str| k.rsplit('.').next().unwrap_or_default().to_owned();
    let distance_to = |k: &String| edit_distance(key, k).min(edit_distance(&last(key), &last(k)) + 1);
    known
        .into_iter()
        .map(|k| (distance_to(&k), k))
        .min()
        .filter(|(d, _)| *d <= NEAREST_DISTANCE_MAX)
        .map(|(_, k)| k)
}

/// Levenshtein's distance, by rows.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::{Bound, Duration, WalSync};
    use super::*;

    fn from_file(text: &str) -> Result<Config, Problems> {
        load(&Sources { file: Some(("c.yaml", text)), ..Sources::default() })
    }

    #[test]
    fn without_any_source_defaults_stand() {
        assert_eq!(load(&Sources::default()).unwrap(), Config::default());
    }

    #[test]
    fn flag_wins_over_environment_over_file() {
        let env = |name: &str| match name {
            "CARILLON_DATA_DIR" => Some("/env".to_owned()),
            "CARILLON_WAL_SYNC" => Some("interval".to_owned()),
            _ => None,
        };
        let config = load(&Sources {
            file: Some(("c.yaml", "data_dir: /file\nlog: {level: debug}\n")),
            env: Some(&env),
            flags: vec![("data_dir".to_owned(), "/flag".to_owned())],
        })
        .unwrap();
        assert_eq!(config.data_dir.to_string(), "/flag");
        assert_eq!(config.wal_sync, WalSync::Interval);
        assert_eq!(config.log_level.to_string(), "debug");
    }

    #[test]
    fn every_mistake_is_named_with_its_line_and_the_nearest_key() {
        let problems =
            from_file("data_dirr: /d\nwal:\n  sync: sometimes\nsync: group\nzebra: 1\n").unwrap_err();
        let text = problems.to_string();
        assert_eq!(problems.0.len(), 4, "{text}");
        assert!(
            text.contains("c.yaml:1: unknown option \"data_dirr\"; did you mean \"data_dir\"?"),
            "{text}"
        );
        assert!(text.contains("c.yaml:3: wal.sync: \"sometimes\" isn't one of group, interval"), "{text}");
        assert!(text.contains("c.yaml:4: unknown option \"sync\"; did you mean \"wal.sync\"?"), "{text}");
        assert!(text.contains("c.yaml:5: unknown option \"zebra\""), "{text}");
    }

    #[test]
    fn tenants_are_exceptions_to_the_limits() {
        let config = from_file(
            "tenants:\n  team.a: {max_backfill: unlimited, max_series: 7}\nlimits: {max_future: 1m}\n",
        )
        .unwrap();
        let limits = config.limits_of("team.a");
        assert_eq!((limits.max_backfill, limits.max_series), (Bound::Unlimited, Bound::Max(7)));
        assert_eq!(limits.max_future, Bound::Max(Duration::from_min(1)));
        assert_eq!(config.limits_of("other").max_series, Bound::Unlimited);
        let wrong =
            from_file("tenants: {a/b: {max_series: 1}, ok: {max_serie: 1}}\n").unwrap_err().to_string();
        assert!(wrong.contains("tenants.a/b") && wrong.contains("did you mean \"max_series\"?"), "{wrong}");
    }

    #[test]
    fn seeds_open_the_ports_that_nobody_set() {
        let ports = |text: &str| {
            let config = from_file(text).unwrap();
            (config.http_address.0, config.peer_address.0)
        };
        let pair = |http: &str, peer: &str| (http.to_owned(), peer.to_owned());
        assert_eq!(ports(""), pair("127.0.0.1:9480", "127.0.0.1:9481"));
        assert_eq!(ports("seed: [a:9481, b:9481]\n"), pair("0.0.0.0:9480", "0.0.0.0:9481"));
        let set = "seed: a:9481\npeer: {address: '127.0.0.1:9481'}\n";
        assert_eq!(ports(set), pair("0.0.0.0:9480", "127.0.0.1:9481"));
        assert!(from_file("zone: [a]\n").unwrap_err().to_string().contains("c.yaml:1: zone can't be a list"));
    }

    #[test]
    fn variables_are_filled_in_with_defaults() {
        let env = |name: &str| (name == "HOME_OF_DATA").then(|| "/srv".to_owned());
        let of = |text: &str| interpolate(text, &env);
        assert_eq!(of("${HOME_OF_DATA}/x").unwrap(), "/srv/x");
        assert_eq!(of("${NONE:-/d}").unwrap(), "/d");
        assert_eq!(of("a$$b$c").unwrap(), "a$b$c");
        assert!(of("${NONE}").is_err() && of("${HOME").is_err());
    }

    #[test]
    fn a_reload_keeps_what_needs_a_restart() {
        let old = Config::default();
        let new = from_file("data_dir: /else\nquery: {timeout: 5s}\n").unwrap();
        assert_eq!(old.needs_restart(&new), ["data_dir"]);
        let now = old.reloaded(&new);
        assert_eq!((now.data_dir, now.query_timeout), (old.data_dir, Duration::from_s(5)));
    }
}

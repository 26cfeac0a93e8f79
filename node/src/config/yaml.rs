//! The YAML file as a flat list of `(dotted key, text, line)`, so that it is judged by the same rules as flags.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// One scalar of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Keys from the outermost in, joined by dots.
    pub key: String,
    /// The scalar's text; of a list its scalars', with commas between them.
    pub text: String,
    /// Whether it was a list.
    pub list: bool,
    /// Line of the key, from 1.
    pub line: u64,
}

/// Reads a file: nested maps of scalars and lists of scalars. An empty file has no entries.
///
/// # Errors
/// The parser's message, with the line, when it isn't YAML or holds something else.
pub fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let tree: Tree = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    match tree {
        Tree::Map(pairs) => flatten("", pairs, &mut found)?,
        Tree::Null => {}
        Tree::Scalar(_) | Tree::List(_) => return Err("the file must be a map of options".to_owned()),
    }
    Ok(found)
}

fn flatten(prefix: &str, pairs: Vec<(Spanned<String>, Tree)>, found: &mut Vec<Entry>) -> Result<(), String> {
    for (name, value) in pairs {
        let line = name.referenced.line();
        let key = if prefix.is_empty() { name.value } else { format!("{prefix}.{}", name.value) };
        match value {
            Tree::Map(pairs) => flatten(&key, pairs, found)?,
            Tree::Scalar(text) => found.push(Entry { key, text, list: false, line }),
            Tree::Null => {}
            Tree::List(items) => {
                let scalar = |item| match item {
                    Tree::Scalar(text) => Ok(text),
                    _ => Err(format!("line {line}: {key} can only list plain values")),
                };
                let texts: Vec<_> = items.into_iter().map(scalar).collect::<Result<_, _>>()?;
                found.push(Entry { key, text: texts.join(","), list: true, line });
            }
        }
    }
    Ok(())
}

enum Tree {
    Null,
    Scalar(String),
    List(Vec<Tree>),
    Map(Vec<(Spanned<String>, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

macro_rules! scalars {
    ($($method:ident: $type:ty),+) => {
        $(fn $method<E>(self, value: $type) -> Result<Tree, E> {
            Ok(Tree::Scalar(value.to_string()))
        })+
    };
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of options")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Tree::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_keys_are_joined_and_know_their_line() {
        let found = entries("data_dir: /d\n\nwal:\n  sync: interval\nhttp: {max_connections: 7}\n").unwrap();
        let flat: Vec<_> = found.iter().map(|e| (e.key.as_str(), e.text.as_str(), e.line)).collect();
        assert_eq!(
            flat,
            [("data_dir", "/d", 1), ("wal.sync", "interval", 4), ("http.max_connections", "7", 5)]
        );
    }

    #[test]
    fn lists_of_scalars_have_commas() {
        let list =
            |key: &str, text: &str, line| Entry { key: key.into(), text: text.into(), list: true, line };
        assert_eq!(
            entries("seed: [a, b]\nx:\n  - 1\n").unwrap(),
            [list("seed", "a,b", 1), list("x", "1", 2)]
        );
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        assert_eq!(entries("").unwrap(), []);
        assert_eq!(entries("# nothing\n").unwrap(), []);
    }

    #[test]
    fn what_is_not_a_map_is_refused() {
        assert!(entries("- a\n").is_err());
        assert!(entries("wal: [{a: 1}]\n").unwrap_err().contains("line 1: wal can only list plain values"));
        assert!(entries("wal: {\n").is_err());
        assert!(entries("a: 1\na: 2\n").is_err());
    }
}

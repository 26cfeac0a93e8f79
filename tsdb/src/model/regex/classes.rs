//! Sets of characters that patterns name.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// Adds the other cases of its characters.
pub(super) fn fold(class: &mut ClassUnicode) {
    class.try_case_fold_simple().expect("case tables are built in (feature unicode-case)");
}

/// From first and last characters.
pub(super) fn ranges(pairs: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(pairs.iter().map(|&(low, high)| ClassUnicodeRange::new(low, high)))
}

/// POSIX classes, which are ASCII in RE2.
pub(super) fn named_class(name: &str) -> Option<ClassUnicode> {
    let pairs: &[(char, char)] = match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => &[('0', '9'), ('A', 'Z'), ('a', 'z'), ('_', '_')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return None,
    };
    Some(ranges(pairs))
}

/// General categories and scripts, and `Any`; the crate knows many more properties, which RE2 doesn't.
pub(super) fn unicode_property(name: &str) -> Option<ClassUnicode> {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !plain {
        return None;
    }
    if name == "Any" {
        return Some(ranges(&[('\0', char::MAX)]));
    }
    ["gc", "sc"].into_iter().find_map(|kind| {
        let hir = regex_syntax::parse(&format!("\\p{{{kind}={name}}}")).ok()?;
        match hir.into_kind() {
            HirKind::Class(Class::Unicode(class)) => Some(class),
            _ => None,
        }
    })
}

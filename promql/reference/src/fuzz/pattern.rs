//! Random patterns in RE2's syntax, some of them wrong, and texts that they may match.

use super::Random;

/// What stands for one character, for none, or for a few.
const ATOMS: [&str; 68] = [
    "a",
    "b",
    "A",
    "é",
    "k",
    "s",
    "K",
    "\u{212a}",
    "\u{17f}",
    "0",
    "-",
    "_",
    " ",
    ".",
    "σ",
    "ς",
    "ß",
    "^",
    "$",
    "(?i)",
    "(?-i)",
    "(?s)",
    "(?-s)",
    "(?m)",
    "(?U)",
    "(?-U)",
    r"\d",
    r"\w",
    r"\s",
    r"\D",
    r"\W",
    r"\S",
    r"\b",
    r"\B",
    r"\A",
    r"\z",
    r"\.",
    r"\-",
    r"\n",
    r"\x41",
    r"\x{e9}",
    r"\101",
    r"\pL",
    r"\PN",
    r"\pZ",
    r"\p{Lu}",
    r"\p{^Lu}",
    r"\P{^Lu}",
    r"\p{Greek}",
    r"\Qa.b\E",
    r"\Qb*\E",
    "[a-c]",
    "[^a]",
    "[]a]",
    "[^]a]",
    "[a-]",
    "[é-ü]",
    r"[\d_]",
    r"[^\w]",
    r"[\pL-]",
    r"[\x00-a]",
    "[[:alpha:]]",
    "[[:^digit:]]",
    "(?i:k)",
    "(?i:[a-k])",
    r"(?i:\w)",
    r"(?i:\p{Lu})",
    "(?i:[^k])",
];
const REPETITIONS: [&str; 18] = [
    "*", "+", "?", "*?", "+?", "??", "{2}", "{0,1}", "{1,2}", "{2,}", "{0}", "{,2}", "{1,2}?", "{0,1}?", "{",
    "{2", "{a}", "{0}?",
];
/// What is refused, or is text after all.
const WRONG: [&str; 14] = [
    "**",
    "|*",
    "{1,0}",
    "{1001}",
    "(?x)",
    "(?=a)",
    "[b-a]",
    "[[:b:]]",
    r"\8",
    r"\C",
    r"\p{No such}",
    "[",
    "(",
    r"\x{110000}",
];
const GROUPS: [&str; 10] = ["(", "(", "(", "(?:", "(?:", "(?i:", "(?-s:", "(?U:", "(?m:", "(?s-i:"];
const CHARACTERS: [char; 36] = [
    'a', 'b', 'A', 'B', 'c', 'k', 'K', '\u{212a}', 's', 'S', '\u{17f}', 'é', 'É', '0', '9', '-', '_', ' ',
    '.', '\n', '\t', '\u{b}', '\u{a0}', '\u{2028}', 'σ', 'ς', 'Σ', 'ß', '\u{1e9e}', 'ü', '\u{661}', 'ǅ',
    '\u{345}', 'µ', '漢', '😀',
];
/// What is between literals of patterns as people write them.
const GAPS: [&str; 6] = [".*", ".+", ".?", "", "(?:.*)", "[^-]*"];

/// A random pattern without quotes of any kind.
pub fn pattern(random: &mut Random) -> String {
    if random.one_in(3) { usual(random) } else { Maker { random, groups: 0 }.choice(3) }
}

/// A random text, often empty or short.
pub fn text(random: &mut Random) -> String {
    (0..random.pick(&[0, 1, 1, 2, 2, 3, 5])).map(|_| random.pick(&CHARACTERS)).collect()
}

/// Literals with gaps, as in `prod-(web|db)-.*`: what needs no engine.
fn usual(random: &mut Random) -> String {
    let mut choices = Vec::new();
    for _ in 0..=random.below(4) {
        let parts = (0..=random.below(3)).map(|_| {
            format!(
                "{}{}",
                random.pick(&["a", "b", "k", "ab", "-", "é", "[ab]", "s", "(?:a|b)"]),
                random.pick(&GAPS)
            )
        });
        choices.push(parts.collect::<String>());
    }
    let choices = choices.join("|");
    match random.below(5) {
        0 => format!("(?i){choices}"),
        1 => format!("(?i:{choices}){}", random.pick(&GAPS)),
        2 => format!("^(?:{choices})$"),
        3 => format!("{}({choices}){}", random.pick(&GAPS), random.pick(&GAPS)),
        _ => choices,
    }
}

struct Maker<'a> {
    random: &'a mut Random,
    /// Named groups so far.
    groups: usize,
}

impl Maker<'_> {
    fn choice(&mut self, depth: usize) -> String {
        let count = self.random.pick(&[1, 1, 1, 2, 3]);
        (0..count).map(|_| self.sequence(depth)).collect::<Vec<_>>().join("|")
    }

    fn sequence(&mut self, depth: usize) -> String {
        let count = self.random.pick(&[0, 1, 1, 2, 2, 3]);
        (0..count).map(|_| self.item(depth)).collect()
    }

    fn item(&mut self, depth: usize) -> String {
        let item = if depth > 0 && self.random.one_in(3) {
            let open = self.open();
            format!("{open}{})", self.choice(depth - 1))
        } else if self.random.one_in(60) {
            self.random.pick(&WRONG).to_owned()
        } else {
            self.random.pick(&ATOMS).to_owned()
        };
        let repetition = if self.random.one_in(3) { self.random.pick(&REPETITIONS) } else { "" };
        item + repetition
    }

    fn open(&mut self) -> String {
        if self.random.one_in(8) {
            self.groups += 1;
            return format!("(?P<n{}>", self.groups);
        }
        self.random.pick(&GROUPS).to_owned()
    }
}

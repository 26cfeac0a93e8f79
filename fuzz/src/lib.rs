//! What fuzz targets share: a committed corpus, and inputs made of it.
//!
//! A target is an ordinary test beside the code that it attacks. It takes each seed of its corpus as it stands, and then
//! lets `bolero` give it bytes: at random under `cargo test`, by coverage under `cargo bolero`. Random bytes seldom get
//! past a parser's first token, so they aren't the input but a script: which seed to take, and what to change in it.
//! Every finding's input becomes a seed.

/// Longest input, in bytes: above it a script's edits are cut off.
pub const INPUT_BYTES_MAX: usize = 4096;

/// Longest script, in bytes: about a dozen edits. More would leave nothing of the seed.
pub const SCRIPT_BYTES_MAX: usize = 64;

/// Scripts that a target takes under `cargo test`. To go on for a time instead, set `BOLERO_RANDOM_TEST_TIME_MS`, and
/// `BOLERO_RANDOM_ITERATIONS` to more than that time allows.
pub const SCRIPTS: usize = 5_000;

/// Bytes at which decoders change their mind: ends of varints, of UTF-8, of text.
const TELLING: [u8; 12] = [0x00, 0x01, 0x0a, 0x0f, 0x22, 0x5c, 0x7f, 0x80, 0xc3, 0xe2, 0xf0, 0xff];

/// Most bytes that one edit removes, repeats or takes from another seed.
const RUN_BYTES_MAX: usize = 32;

/// Inputs that are known to lead somewhere.
#[derive(Clone, Debug)]
pub struct Corpus(Vec<Vec<u8>>);

impl Corpus {
    /// A seed a line, `\n` standing for a line end inside one.
    ///
    /// # Panics
    /// When there is no line.
    pub fn lines(text: &str) -> Self {
        Self::of(text.lines().map(|line| line.replace("\\n", "\n").into_bytes()).collect())
    }

    /// A seed a line, in hexadecimal digits; `#` begins a line that isn't one.
    ///
    /// # Panics
    /// When a line has anything else in it, and when there is none.
    pub fn hex(text: &str) -> Self {
        let byte = |pair: &[u8]| {
            let digits = std::str::from_utf8(pair).expect("a corpus is text");
            u8::from_str_radix(digits, 16).expect("two hexadecimal digits a byte")
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self::of(lines.map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect())
    }

    fn of(seeds: Vec<Vec<u8>>) -> Self {
        assert!(!seeds.is_empty(), "a corpus has seeds");
        Self(seeds)
    }

    /// The seeds as they stand.
    pub fn seeds(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// What a script makes of a seed: up to [`INPUT_BYTES_MAX`] bytes.
    pub fn input(&self, script: &[u8]) -> Vec<u8> {
        let mut script = Script(script);
        let mut input = self.seed(&mut script).to_vec();
        while let Some(edit) = script.byte() {
            let at = script.below(input.len() + 1);
            let run = at..(at + 1 + script.below(RUN_BYTES_MAX)).min(input.len()).max(at);
            match edit % 7 {
                0 if !run.is_empty() => input[at] = script.byte().unwrap_or_default(),
                1 if !run.is_empty() => input[at] ^= 1 << (edit / 7 % 8),
                2 => input.insert(at, TELLING[script.below(TELLING.len())]),
                3 => drop(input.drain(run)),
                4 => {
                    let repeated = input[run].to_vec();
                    input.splice(at..at, repeated);
                }
                5 => {
                    let other = self.seed(&mut script);
                    let from = script.below(other.len() + 1);
                    let taken = &other[from..(from + run.len().max(1)).min(other.len())];
                    input.splice(at..at, taken.iter().copied());
                }
                6 => input.splice(run, self.seed(&mut script).iter().copied()).for_each(drop),
                _ => {}
            }
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn seed(&self, script: &mut Script<'_>) -> &[u8] {
        &self.0[script.below(self.0.len())]
    }
}

/// Bytes that choices are made by; 0 once they are used up.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number below `count`, which is above 0; the first ones a little oftener than the last.
    fn below(&mut self, count: usize) -> usize {
        let high = if count > usize::from(u8::MAX) { self.byte().unwrap_or_default() } else { 0 };
        usize::from(u16::from_be_bytes([high, self.byte().unwrap_or_default()])) % count
    }
}

/// Prints the input that is being tried when its target panics: the script that made it tells little.
#[derive(Debug)]
pub struct Tried<'a>(pub &'a [u8]);

impl Drop for Tried<'_> {
    #[allow(clippy::print_stderr, reason = "this is how a failing test tells what it tried")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("the input: {:?}\nin hexadecimal digits: {hex}", String::from_utf8_lossy(self.0));
        }
    }
}

/// A fuzz target: the seeds of a corpus as they stand, then what random scripts make of them.
///
/// A macro, since `bolero` names a target after the test that it stands in.
#[macro_export]
macro_rules! target {
    ($corpus:expr, $attack:expr) => {{
        let (corpus, attack) = ($corpus, $attack);
        let try_one = |input: &[u8]| {
            let _tried = $crate::Tried(input);
            attack(input);
        };
        corpus.seeds().for_each(try_one);
        bolero::check!()
            .with_iterations($crate::SCRIPTS)
            .with_max_len($crate::SCRIPT_BYTES_MAX)
            .for_each(|script: &[u8]| try_one(&corpus.input(script)));
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_without_edits_gives_a_seed() {
        let corpus = Corpus::lines("one\\ntwo\nthree");
        assert_eq!(corpus.input(&[0]), b"one\ntwo");
        assert_eq!(corpus.input(&[1]), b"three");
        assert_eq!(Corpus::hex("# no seed\n0aff").input(&[]), [0x0a, 0xff]);
    }

    #[test]
    fn scripts_change_seeds_within_the_limit() {
        let corpus = Corpus::lines("sum(rate(a[5m]))\nb");
        let mut inputs = std::collections::BTreeSet::new();
        for first in 0..=u8::MAX {
            inputs.insert(corpus.input(&[0, first, 3, first, 1, first, 7, 9]));
        }
        assert!(inputs.len() > 50, "{} inputs", inputs.len());
        // Taking another seed in again and again: longer than any input may be.
        let long = Corpus::lines(&"x".repeat(INPUT_BYTES_MAX));
        assert_eq!(long.input(&[0, 5, 0, 0, 0, 0, 0, 0]).len(), INPUT_BYTES_MAX);
    }
}

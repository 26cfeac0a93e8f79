//! Reads scripts in Prometheus's test language into commands.
//!
//! A script is read command by command, and a command that can't be read becomes [`Action::Broken`], so that one bad
//! case never hides the others.

use tsdb::model::Labels;

use crate::expect::{Annotation, Expectation, Pattern};
use crate::load::Load;
use crate::scan::Scanner;
use crate::values::Item;

/// One command of a script.
pub struct Command {
    /// Its first line, from 1.
    pub line: usize,
    pub action: Action,
}

pub enum Action {
    Clear,
    Load(Load),
    Eval(Box<Eval>),
    /// An `eval` that can't be read: a failed case.
    BrokenEval(String),
    /// Anything else that can't be read.
    Broken(String),
}

/// A case: a query, when to ask it, and what to expect.
pub struct Eval {
    pub query: String,
    pub when: When,
    pub expected: Expectation,
}

/// When a query is asked, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Instant(i64),
    Range { start_ms: i64, end_ms: i64, step_ms: i64 },
}

/// A file's commands.
pub fn parse(text: &str) -> Vec<Command> {
    let lines: Vec<&str> = text.lines().map(str::trim).map(without_comment).collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let first = at;
        at += 1;
        if lines[first].is_empty() {
            continue;
        }
        let body_end = lines[at..].iter().position(|line| line.is_empty()).map_or(lines.len(), |n| at + n);
        let body = &lines[at..body_end];
        let head = lines[first];
        let word = head.split_whitespace().next().unwrap_or("");
        let action = match word {
            "clear" => Ok(Action::Clear),
            "load" | "load_with_nhcb" => Load::parse(head, body).map(Action::Load),
            _ if word.starts_with("eval") => parse_eval(head, body).map(|eval| Action::Eval(Box::new(eval))),
            _ => Err(format!("unknown command {head:?}")),
        };
        let action = action.unwrap_or_else(|message| {
            if word.starts_with("eval") { Action::BrokenEval(message) } else { Action::Broken(message) }
        });
        if word != "clear" {
            at = body_end;
        }
        commands.push(Command { line: first + 1, action });
    }
    commands
}

/// A line that is a comment ends a command, as an empty one does.
fn without_comment(line: &str) -> &str {
    if line.starts_with('#') { "" } else { line }
}

fn parse_eval(head: &str, body: &[&str]) -> Result<Eval, String> {
    let mut scanner = Scanner::new(head);
    let mut expected = Expectation::default();
    match scanner.word() {
        "eval" => {}
        "eval_fail" => expected.fails = Some(Pattern::Any),
        "eval_warn" => expected.annotations.push(Annotation::Warning(Pattern::Any)),
        "eval_info" => expected.annotations.push(Annotation::Info(Pattern::Any)),
        "eval_ordered" => expected.is_ordered = true,
        other => return Err(format!("unknown command {other:?}")),
    }
    let when = match scanner.word() {
        "instant" => {
            scanner.expect_word("at")?;
            When::Instant(scanner.time()?)
        }
        "range" => parse_range(&mut scanner)?,
        other => return Err(format!("expected `instant` or `range`, found {other:?}")),
    };
    let query = scanner.rest().trim().to_owned();
    for line in body {
        parse_expectation(line, &mut expected, when).map_err(|message| format!("{line:?}: {message}"))?;
    }
    Ok(Eval { query, when, expected })
}

/// `from 0 to 10m step 1m`.
fn parse_range(scanner: &mut Scanner<'_>) -> Result<When, String> {
    scanner.expect_word("from")?;
    let start_ms = scanner.time()?;
    scanner.expect_word("to")?;
    let end_ms = scanner.time()?;
    scanner.expect_word("step")?;
    let step_ms = scanner.time()?;
    if end_ms < start_ms || step_ms <= 0 {
        return Err("the range is empty".to_owned());
    }
    Ok(When::Range { start_ms, end_ms, step_ms })
}

fn parse_expectation(line: &str, expected: &mut Expectation, when: When) -> Result<(), String> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match word {
        "expect" => return parse_expect(rest, expected),
        "expected_fail_message" => expected.fails = Some(Pattern::Text(rest.to_owned())),
        "expected_fail_regexp" => expected.fails = Some(Pattern::regex(rest)?),
        _ => {
            if let Ok(value) = Scanner::new(line).whole_float() {
                expected.scalar = Some(value);
                return Ok(());
            }
            let (labels, items) = parse_series(line)?;
            if matches!(when, When::Instant(_)) && !expected.is_matrix() && items.len() != 1 {
                return Err("an instant has one value for each series".to_owned());
            }
            if expected.series.iter().any(|(l, _)| *l == labels) {
                return Err(format!("{labels} is expected twice"));
            }
            expected.series.push((labels, items));
        }
    }
    Ok(())
}

/// What follows `expect`.
fn parse_expect(text: &str, expected: &mut Expectation) -> Result<(), String> {
    if let Some(literal) = text.strip_prefix("string") {
        let quoted = literal.trim();
        expected.string = Some(crate::scan::unquote(quoted)?);
        return Ok(());
    }
    if let Some(range) = text.strip_prefix("range vector") {
        let mut scanner = Scanner::new(range);
        expected.matrix_at = Some(parse_range(&mut scanner)?);
        return Ok(());
    }
    let (kind, pattern) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let pattern = pattern.trim();
    let pattern = if let Some(text) = pattern.strip_prefix("msg:") {
        Pattern::Text(text.trim().to_owned())
    } else if let Some(regex) = pattern.strip_prefix("regex:") {
        Pattern::regex(regex.trim())?
    } else if pattern.is_empty() {
        Pattern::Any
    } else {
        return Err(format!("expected `msg:` or `regex:`, found {pattern:?}"));
    };
    match kind {
        "fail" => expected.fails = Some(pattern),
        "warn" => expected.annotations.push(Annotation::Warning(pattern)),
        "info" => expected.annotations.push(Annotation::Info(pattern)),
        "no_warn" => expected.no_warnings = true,
        "no_info" => expected.no_infos = true,
        "ordered" => expected.is_ordered = true,
        other => return Err(format!("unknown expectation {other:?}")),
    }
    Ok(())
}

/// Labels and points.
pub fn parse_series(line: &str) -> Result<(Labels, Vec<Item>), String> {
    let mut scanner = Scanner::new(line);
    let labels = scanner.labels()?;
    Ok((labels, crate::values::parse(&mut scanner)?))
}

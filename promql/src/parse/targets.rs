//! Fuzz targets: the lexer, and the parser with what it shows.

use fuzz::Corpus;

use super::lexer::{Kind, Lexer};
use super::tests::without_spans;
use super::{Syntax, parse_with};

fn corpus() -> Corpus {
    Corpus::lines(include_str!("../../corpus/queries.txt"))
}

/// Tokens stand one behind another, each takes at least a character, and the end stays the end.
fn lex(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lexer = Lexer::new(&text);
    let mut last = 0;
    loop {
        let token = match lexer.next() {
            Ok(token) => token,
            Err(error) => return assert!(!error.to_string().is_empty()),
        };
        let (start, end) = (token.span.start as usize, token.span.end as usize);
        assert!(last <= start && text.is_char_boundary(start) && text.is_char_boundary(end));
        if token.kind == Kind::End {
            assert_eq!(lexer.next().map(|token| token.kind), Ok(Kind::End));
            return;
        }
        assert!(start < end);
        last = end;
    }
}

/// What is parsed is shown as a query that parses to the same tree, in one line and in several.
fn parse_and_show(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for experimental in [false, true] {
        let parse = |text: &str| parse_with(text, Syntax { experimental });
        let Ok(expr) = parse(&text) else { continue };
        let shown = expr.to_string();
        let again = parse(&shown).unwrap_or_else(|e| panic!("shown as {shown}: {e}"));
        // Matchers are shown in order, so one more round compares whole trees.
        assert_eq!(again.to_string(), shown);
        let pretty = again.pretty();
        let third = parse(&pretty).unwrap_or_else(|e| panic!("written over lines as {pretty}: {e}"));
        assert_eq!(without_spans(&third), without_spans(&again));
        let json = expr.to_json();
        serde_json::from_str::<serde_json::Value>(&json).unwrap_or_else(|e| panic!("{json}: {e}"));
    }
}

#[test]
fn tokens_stand_one_behind_another_whatever_the_text() {
    fuzz::target!(corpus(), lex);
}

#[test]
fn whatever_is_parsed_is_shown_as_a_query_that_parses_to_it() {
    fuzz::target!(corpus(), parse_and_show);
}

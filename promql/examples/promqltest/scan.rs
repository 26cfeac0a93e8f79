//! The scanner under every line of a script.

use promql::parse::ast::Node;
use promql::parse::duration;
use tsdb::model::{Labels, METRIC_NAME};

pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// What hasn't been read yet.
    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes `text` if it comes next.
    pub fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    pub fn take_while(&mut self, mut belongs: impl FnMut(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !belongs(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    pub fn skip_spaces(&mut self) {
        self.take_while(char::is_whitespace);
    }

    /// Everything up to the next space.
    pub fn word(&mut self) -> &'a str {
        self.skip_spaces();
        self.take_while(|c| !c.is_whitespace())
    }

    pub fn expect_word(&mut self, word: &str) -> Result<(), String> {
        match self.word() {
            found if found == word => Ok(()),
            found => Err(format!("expected {word:?}, found {found:?}")),
        }
    }

    /// A duration or a number of seconds, in milliseconds.
    pub fn time(&mut self) -> Result<i64, String> {
        let word = self.word();
        time_ms(word).ok_or_else(|| format!("{word:?} is no time"))
    }

    /// A float: digits with dot and exponent, `Inf` or `NaN`, with a sign or none.
    pub fn float(&mut self) -> Result<f64, String> {
        let start = self.at;
        let negative = self.take("-");
        if !negative {
            self.take("+");
        }
        let sign = if negative { -1.0 } else { 1.0 };
        if self.peek().is_some_and(char::is_alphabetic) {
            let word = self.take_while(|c| c.is_ascii_alphabetic() && c != 'x');
            return match word.to_ascii_lowercase().as_str() {
                "inf" => Ok(sign * f64::INFINITY),
                "nan" => Ok(f64::NAN),
                _ => Err(format!("{word:?} is no number")),
            };
        }
        self.take_while(|c| c.is_ascii_digit() || c == '.');
        let exponent = self.rest().strip_prefix(['e', 'E']).unwrap_or("");
        if exponent.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit()) {
            self.at += 2;
            self.take_while(|c| c.is_ascii_digit());
        }
        let text = &self.text[start..self.at];
        text.parse().map_err(|_| format!("{text:?} is no number"))
    }

    /// A float, and nothing else.
    pub fn whole_float(mut self) -> Result<f64, String> {
        let value = self.float()?;
        if self.rest().is_empty() { Ok(value) } else { Err(format!("{:?} follows a number", self.rest())) }
    }

    pub fn integer(&mut self) -> Result<usize, String> {
        let digits = self.take_while(|c| c.is_ascii_digit());
        digits.parse().map_err(|_| format!("{digits:?} is no whole number"))
    }

    /// A duration with an optional sign, in milliseconds; `x` ends it.
    pub fn signed_duration(&mut self) -> Result<i64, String> {
        let sign = if self.take("-") {
            -1
        } else {
            self.take("+");
            1
        };
        let text = self.take_while(|c| c.is_ascii_alphanumeric() && c != 'x');
        let ms = time_ms(text).ok_or_else(|| format!("{text:?} is no duration"))?;
        Ok(sign * ms)
    }

    /// `name{a="b", "c.d"="e"}`, `{"name", a="b"}`.
    pub fn labels(&mut self) -> Result<Labels, String> {
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
        let mut pairs = Vec::new();
        if !name.is_empty() {
            pairs.push((METRIC_NAME.to_owned(), name.to_owned()));
        }
        if self.take("{") {
            loop {
                self.skip_spaces();
                if self.take("}") {
                    break;
                }
                pairs.push(self.label()?);
                self.skip_spaces();
                if !self.take(",") && self.peek() != Some('}') {
                    return Err(format!("expected `,` or `}}`, found {:?}", self.rest()));
                }
            }
        } else if name.is_empty() {
            return Err(format!("expected a series, found {:?}", self.rest()));
        }
        Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))).map_err(|e| e.to_string())
    }

    fn label(&mut self) -> Result<(String, String), String> {
        let name = if self.peek() == Some('"') {
            self.string()?
        } else {
            self.take_while(|c| c.is_ascii_alphanumeric() || c == '_').to_owned()
        };
        self.skip_spaces();
        if !self.take("=") {
            return Ok((METRIC_NAME.to_owned(), name));
        }
        self.skip_spaces();
        Ok((name, self.string()?))
    }

    /// A quoted string.
    fn string(&mut self) -> Result<String, String> {
        let start = self.at;
        let quote = self.peek().filter(|c| matches!(c, '"' | '\'' | '`'));
        let quote = quote.ok_or_else(|| format!("expected a string, found {:?}", self.rest()))?;
        self.at += 1;
        let mut escaped = false;
        self.take_while(|c| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped && quote != '`';
            !ends
        });
        if self.peek() != Some(quote) {
            return Err("unterminated string".to_owned());
        }
        self.at += 1;
        unquote(&self.text[start..self.at])
    }
}

/// The value of a string literal.
pub fn unquote(literal: &str) -> Result<String, String> {
    match promql::parse(literal).map_err(|e| e.to_string())?.node {
        Node::String(value) => Ok(value.to_string_lossy().into_owned()),
        _ => Err(format!("{literal} is no string")),
    }
}

fn time_ms(text: &str) -> Option<i64> {
    if let Ok(ms) = duration::parse(text) {
        return Some(ms);
    }
    let seconds: f64 = text.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, reason = "times in scripts are small")]
    seconds.is_finite().then_some((seconds * 1000.0).round() as i64)
}

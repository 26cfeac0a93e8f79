//! Origins of pages that may read what the API answers.

use std::fmt;

use regex::Regex;

use super::Setting;
use super::values::Kind;

/// Matches every origin: Prometheus's default.
const ANY: &str = ".*";

/// A regular expression that matches whole origins, such as `https?://(a|b)\.example`.
#[derive(Clone, Debug)]
pub struct CorsOrigin {
    text: String,
    anchored: Regex,
}

impl CorsOrigin {
    /// Whether every origin matches.
    pub fn is_any(&self) -> bool {
        self.text == ANY
    }

    /// Whether pages of this origin may read.
    pub fn matches(&self, origin: &str) -> bool {
        self.anchored.is_match(origin)
    }
}

impl Default for CorsOrigin {
    fn default() -> Self {
        Self::parse(ANY).expect("it is a regular expression")
    }
}

impl PartialEq for CorsOrigin {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for CorsOrigin {}

impl fmt::Display for CorsOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Setting for CorsOrigin {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let anchored = Regex::new(&format!("^(?:{text})$"))
            .map_err(|e| format!("{text:?} isn't a regular expression: {e}"))?;
        Ok(Self { text: text.to_owned(), anchored })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_matches_whole_or_not_at_all() {
        assert!(CorsOrigin::default().is_any());
        let two = CorsOrigin::parse(r"https?://(a|b)\.example").unwrap();
        assert!(two.matches("https://a.example") && two.matches("http://b.example"));
        assert!(!two.matches("https://a.example.evil") && !two.matches("xhttps://a.example"));
        assert!(CorsOrigin::parse("(").unwrap_err().contains("regular expression"));
    }
}

//! The formats in which `/metrics` answers: OpenMetrics, which the registry writes, and Prometheus's text, which is made
//! of it.

use std::fmt::Write as _;

/// A format that a scraper can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The best of what a header `Accept` asks for, as Prometheus's own servers choose; text where it asks for neither.
    pub fn accepted(accept: &str) -> Self {
        let mut best = (0.0, Self::Text);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0, "");
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => version = value.trim().trim_matches('"'),
                    _ => {}
                }
            }
            let format = match (kind.as_str(), version) {
                ("application/openmetrics-text", "" | "0.0.1" | "1.0.0") => Self::OpenMetrics,
                ("text/plain", "" | "0.0.4") => Self::Text,
                _ => continue,
            };
            // Of equal ones the first.
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    /// The content type of an answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Writes what the registry wrote.
    pub fn write(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics => openmetrics,
            Self::Text => text(&openmetrics),
        }
    }
}

/// OpenMetrics as text 0.0.4, which names counters and infos whole where their type and help stand, knows no units, and
/// has no end mark.
fn text(openmetrics: &str) -> String {
    let lines: Vec<&str> = openmetrics.lines().collect();
    let mut out = String::with_capacity(openmetrics.len());
    for (at, line) in lines.iter().enumerate() {
        let Some(about) = line.strip_prefix("# ") else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let mut words = about.splitn(3, ' ');
        let (what, family, rest) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let kind = match what {
            "TYPE" => rest,
            // The type stands on the next line.
            "HELP" => lines[at + 1..].iter().find_map(|line| type_of(line, family)).unwrap_or_default(),
            _ => continue,
        };
        let (suffix, plain) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "untyped"),
            kind => ("", kind),
        };
        // OpenMetrics escapes quotes in help texts, too.
        let rest = if what == "TYPE" { plain.to_owned() } else { rest.replace("\\\"", "\"") };
        let _ = writeln!(out, "# {what} {family}{suffix} {rest}");
    }
    out
}

fn type_of<'a>(line: &'a str, family: &str) -> Option<&'a str> {
    line.strip_prefix("# TYPE ")?.strip_prefix(family)?.strip_prefix(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_asks_for_and_text_where_it_asks_for_nothing() {
        for (accept, wanted) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html", Format::Text),
            ("text/plain", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            // Prometheus 3's, and 2's.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;\
                 version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;\
                 q=0.3,*/*;q=0.2",
                Format::OpenMetrics,
            ),
            (
                "text/plain;version=0.0.4;q=0.5, application/openmetrics-text; version=1.0.0; q=0.3",
                Format::Text,
            ),
            ("application/openmetrics-text; version=9.9.9", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), wanted, "{accept}");
        }
    }

    #[test]
    fn text_names_counters_and_infos_whole_and_has_no_end_mark() {
        let openmetrics = "# HELP a_b Says \\\"x\\\".\n# TYPE a_b counter\na_b_total{c=\"d\"} 1\n# HELP build The \
                           version.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n# HELP s Seconds.\n# TYPE s \
                           gauge\n# UNIT s seconds\ns 1.5\n# EOF\n";
        let wanted = "# HELP a_b_total Says \"x\".\n# TYPE a_b_total counter\na_b_total{c=\"d\"} 1\n# HELP build_info \
                      The version.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n# HELP s Seconds.\n# TYPE s \
                      gauge\ns 1.5\n";
        assert_eq!(Format::Text.write(openmetrics.to_owned()), wanted);
        assert_eq!(Format::OpenMetrics.write(openmetrics.to_owned()), openmetrics);
    }
}

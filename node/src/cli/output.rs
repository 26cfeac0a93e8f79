//! Where verbs write: results to stdout in the format asked for, progress and errors to stderr.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use super::Failure;

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// With aligned columns and a heading
    Table,
    /// Tab-separated lines without a heading
    Plain,
    /// One JSON document
    Json,
}

/// The streams of a verb.
#[derive(Debug)]
pub struct Output {
    format: Format,
}

/// A result in rows.
#[derive(Debug, Default)]
pub struct Rows {
    headings: Vec<&'static str>,
    numeric: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    /// With these columns; a heading that begins with `#` is a column of numbers.
    pub fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.iter().map(|h| h.trim_start_matches('#')).collect(),
            numeric: headings.iter().map(|h| h.starts_with('#')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds the row, if there is one.
    pub fn extend(&mut self, row: Option<Vec<String>>) {
        if let Some(row) = row {
            self.push(row);
        }
    }

    /// Adds a row with a cell for each column.
    pub fn push(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.headings.len(), "a row has a cell for each column");
        self.rows.push(row);
    }

    /// Number of rows.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY).set_header(&self.headings);
        for (column, numeric) in table.column_iter_mut().zip(&self.numeric) {
            column.set_cell_alignment(if *numeric { CellAlignment::Right } else { CellAlignment::Left });
        }
        table.add_rows(&self.rows);
        table.to_string()
    }

    fn plain(&self) -> String {
        self.rows.iter().map(|row| row.join("\t") + "\n").collect()
    }
}

impl Output {
    /// In the format asked for, or the one that suits stdout.
    pub fn new(asked: Option<Format>) -> Self {
        let suited = if io::stdout().is_terminal() { Format::Table } else { Format::Plain };
        Self { format: asked.unwrap_or(suited) }
    }

    /// Whether results are for eyes.
    pub fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// Whether results are for programs.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Shows a result: `rows` are asked for only where they are shown.
    ///
    /// # Errors
    /// When stdout can't be written.
    pub fn show(&self, json: &impl Serialize, rows: impl FnOnce() -> Rows) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.text(&(rows().table() + "\n")),
            Format::Plain => self.text(&rows().plain()),
            Format::Json => {
                let text = serde_json::to_string_pretty(json).expect("results have string keys");
                self.text(&(text + "\n"))
            }
        }
    }

    /// Writes text as it is.
    ///
    /// # Errors
    /// When stdout can't be written; a reader that has left, as `head` does, is no error.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::failed(format!("can't write the result: {e}")))
            }
            _ => Ok(()),
        }
    }

    /// A remark on stderr.
    pub fn note(&self, text: &str) {
        // Nobody is left to tell where stderr can't be written.
        drop(writeln!(io::stderr(), "{text}"));
    }

    /// A failure on stderr.
    pub fn error(&self, failure: &Failure) {
        if self.is_json() {
            self.note(&serde_json::json!({"error": failure.to_string()}).to_string());
        } else {
            self.note(&format!("error: {failure}"));
        }
    }

    /// A progress bar over `total` steps; hidden unless stderr is a terminal.
    pub fn progress(&self, total: u64, unit: &str) -> ProgressBar {
        let bar = ProgressBar::new(total);
        let template = format!(
            "{{elapsed:>4}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}, {{rate}}, {{msg}} {{eta}} left"
        );
        let style = ProgressStyle::with_template(&template).expect("the template names known keys");
        bar.set_style(style.with_key("rate", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            // A line that is drawn in part is drawn again.
            let _ = text.write_str(&rate(state.per_sec()));
        }));
        bar
    }
}

/// A rate in whole steps a second, or with one digit where that would say little.
fn rate(per_s: f64) -> String {
    if per_s < 10.0 { format!("{per_s:.1}/s") } else { format!("{}/s", HumanCount(per_s as u64)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_told_as_exactly_as_they_are_known() {
        for (per_s, told) in [(0.0, "0.0/s"), (1.26, "1.3/s"), (12.9, "12/s"), (92_866.092_3, "92,866/s")] {
            assert_eq!(rate(per_s), told);
        }
    }

    fn rows() -> Rows {
        let mut rows = Rows::new(&["series", "#value"]);
        rows.push(vec!["up".to_owned(), "1".to_owned()]);
        rows
    }

    #[test]
    fn plain_is_for_pipes() {
        assert_eq!(rows().plain(), "up\t1\n");
    }

    #[test]
    fn a_table_has_headings() {
        let table = rows().table();
        assert!(table.contains("series") && table.contains("value") && table.contains("up"), "{table}");
    }
}

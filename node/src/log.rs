//! Log lines on stderr: logfmt (`ts=… level=… msg=… key=value`) or one JSON object a line. What goes wrong the same way
//! again and again is told now and then ([`Repeats`]).

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{LogFormat, LogLevel};
use crate::env::Clock;
use crate::time::format_rfc3339;

/// Changes the level while the node runs.
#[derive(Clone)]
pub struct LogControl(Handle<LevelFilter, Registry>);

impl LogControl {
    /// Sets the least important lines that are logged.
    pub fn set_level(&self, level: LogLevel) {
        // The subscriber lives as long as the process: there is nothing to do when it is gone.
        let _ = self.0.reload(filter(level));
    }
}

/// What is told again only after this time, as long as it stays the same.
const REPEAT_EVERY: Duration = Duration::from_secs(60);
/// Different things that are remembered; beyond it the one told longest ago is forgotten.
const REPEATS_MAX: usize = 64;

/// Keeps what happens many times in a second from filling the log: what is new is told at once, the same again after a
/// minute, with how often it came in between.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<BTreeMap<String, Told>>);

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    untold: u64,
}

impl Repeats {
    /// How often `what` came since it was last told, where it is to be told now.
    pub fn due(&self, what: &str) -> Option<u64> {
        let (mut known, now) = (self.0.lock(), Instant::now());
        match known.get_mut(what) {
            Some(told) if now - told.at < REPEAT_EVERY => {
                told.untold += 1;
                return None;
            }
            Some(told) => return Some(std::mem::replace(told, Told { at: now, untold: 0 }).untold),
            None => {}
        }
        if known.len() >= REPEATS_MAX
            && let Some(oldest) = known.iter().min_by_key(|(_, told)| told.at).map(|(what, _)| what.clone())
        {
            known.remove(&oldest);
        }
        known.insert(what.to_owned(), Told { at: now, untold: 0 });
        Some(0)
    }
}

/// Starts logging for the process. A second call (tests) leaves the first in place.
pub fn start(format: LogFormat, level: LogLevel, clock: std::sync::Arc<dyn Clock>) -> LogControl {
    let (filter, control) = reload::Layer::new(filter(level));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(Lines { format, clock });
    // An error means that logging was started before.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    LogControl(control)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

struct Lines {
    format: LogFormat,
    clock: std::sync::Arc<dyn Clock>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N>
    for Lines
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line { format: self.format, text: String::with_capacity(256) };
        line.pair("ts", &format_rfc3339(self.clock.now_ms()));
        line.pair("level", &event.metadata().level().as_str().to_lowercase());
        event.record(&mut Message(&mut line));
        event.record(&mut line);
        line.end();
        writer.write_str(&line.text)
    }
}

struct Line {
    format: LogFormat,
    text: String,
}

impl Line {
    /// A number or a truth value, which JSON has of its own.
    fn plain(&mut self, key: &str, value: &serde_json::Value) {
        match self.format {
            LogFormat::Logfmt => self.pair(key, &value.to_string()),
            LogFormat::Json => self.json(key, value),
        }
    }

    fn json(&mut self, key: &str, value: &serde_json::Value) {
        let key = serde_json::Value::from(key);
        let gap = if self.text.is_empty() { '{' } else { ',' };
        let _ = write!(self.text, "{gap}{key}:{value}");
    }

    fn pair(&mut self, key: &str, value: &str) {
        match self.format {
            LogFormat::Logfmt => {
                let gap = if self.text.is_empty() { "" } else { " " };
                let _ = write!(self.text, "{gap}{key}=");
                let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '=';
                if !value.is_empty() && value.chars().all(plain) {
                    self.text.push_str(value);
                } else {
                    self.text.push_str(&serde_json::Value::from(value).to_string());
                }
            }
            LogFormat::Json => self.json(key, &value.into()),
        }
    }

    fn end(&mut self) {
        self.text.push_str(match self.format {
            LogFormat::Logfmt => "\n",
            LogFormat::Json => "}\n",
        });
    }
}

const MESSAGE: &str = "message";

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != MESSAGE {
            self.pair(field.name(), value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), &value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), &value.into());
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            Err(_) => self.pair(field.name(), &value.to_string()),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.record_u64(field, value),
            Err(_) => self.pair(field.name(), &value.to_string()),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities.
        match value.is_finite() {
            true => self.plain(field.name(), &value.into()),
            false => self.pair(field.name(), &value.to_string()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), &value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != MESSAGE {
            self.pair(field.name(), &format!("{value:?}"));
        }
    }
}

/// Takes the message alone, so that it stands first.
struct Message<'a>(&'a mut Line);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.0.pair("msg", &format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat) -> String {
        let mut line = Line { format, text: String::new() };
        line.pair("level", "info");
        line.pair("msg", "a \"b\"\nc");
        line.plain("count", &3.into());
        line.plain("done", &true.into());
        line.end();
        line.text
    }

    #[test]
    fn a_line_stays_one_line_and_numbers_are_numbers() {
        assert_eq!(line(LogFormat::Logfmt), "level=info msg=\"a \\\"b\\\"\\nc\" count=3 done=true\n");
        assert_eq!(
            line(LogFormat::Json),
            "{\"level\":\"info\",\"msg\":\"a \\\"b\\\"\\nc\",\"count\":3,\"done\":true}\n"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_is_told_once_a_minute_with_how_often_it_came_and_what_is_new_at_once() {
        let repeats = Repeats::default();
        assert_eq!(repeats.due("a"), Some(0));
        assert_eq!((repeats.due("a"), repeats.due("a"), repeats.due("b")), (None, None, Some(0)));
        tokio::time::advance(REPEAT_EVERY).await;
        assert_eq!((repeats.due("a"), repeats.due("a"), repeats.due("b")), (Some(2), None, Some(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_different_things_are_remembered() {
        let repeats = Repeats::default();
        for i in 0..=REPEATS_MAX {
            assert_eq!(repeats.due(&i.to_string()), Some(0));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(repeats.0.lock().len(), REPEATS_MAX);
        assert_eq!((repeats.due("1"), repeats.due("0")), (None, Some(0)), "the oldest made room");
    }
}

//! The log of the proxy: one line for each event on standard error. No line has a token, a header, a body or a query.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bursar::text::json;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::args::LogFormat;
use crate::output;

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Sets the form of the log. Without it, a terminal gets text.
pub(super) fn install(format: Option<LogFormat>) {
    let format = format.unwrap_or_else(|| {
        if io::stderr().is_terminal() {
            LogFormat::Text
        } else {
            LogFormat::Json
        }
    });
    // The command sets it once.
    FORMAT.get_or_init(|| format);
    crate::diagnostics::redirect(|message, fields| {
        let mut line = Line::warning(message);
        for field in fields {
            let name = match field.name {
                // The line has one already.
                "event" => "kind",
                name => name,
            };
            line = line.with(name, field.text.as_str());
        }
        line.write();
    });
}

/// One line.
pub(super) struct Line {
    event: &'static str,
    fields: Vec<(&'static str, Value)>,
}

impl Line {
    pub(super) const fn new(event: &'static str) -> Self {
        Self {
            event,
            fields: Vec::new(),
        }
    }

    pub(super) fn warning(message: impl Into<Value>) -> Self {
        Self::new("warning").with("message", message)
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if !value.is_null() {
            self.fields.push((name, value));
        }
        self
    }

    pub(super) fn write(self) {
        let time = jiff::Timestamp::now();
        let time = format!("{time:.3}");
        match FORMAT.get() {
            Some(LogFormat::Json) => {
                if let Ok(line) = json(&Timed {
                    time: &time,
                    line: &self,
                }) {
                    output::note(line);
                }
            }
            _ => {
                let mut text = format!("{time} {}", self.event);
                for (name, value) in &self.fields {
                    text.push_str(&format!(" {name}={}", word(value)));
                }
                output::note(text);
            }
        }
    }
}

/// Returns a value for a line of text. Everything but a plain word is JSON, so a stranger's line break begins no line.
fn word(value: &Value) -> String {
    let is_plain = |text: &&str| {
        let mut bytes = text.bytes();
        !text.is_empty() && bytes.all(|byte| byte.is_ascii_graphic() && byte != b'"')
    };
    value
        .as_str()
        .filter(is_plain)
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// Allows a number of lines in each second.
pub(super) struct Rate {
    most: u32,
    /// The begin of a second, and the lines in it.
    second: Mutex<(Instant, u32)>,
}

impl Rate {
    pub(super) fn per_second(most: u32) -> Self {
        Self {
            most,
            second: Mutex::new((Instant::now(), 0)),
        }
    }

    pub(super) fn allows(&self) -> bool {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if second.0.elapsed() >= Duration::from_secs(1) {
            *second = (Instant::now(), 0);
        }
        second.1 = second.1.saturating_add(1);
        second.1 <= self.most
    }
}

struct Timed<'a> {
    time: &'a str,
    line: &'a Line,
}

impl Serialize for Timed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", self.time)?;
        map.serialize_entry("event", self.line.event)?;
        for (name, value) in &self.line.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_a_stranger_stays_within_its_line_and_its_field() {
        for (text, written) in [
            ("https://a.example/x?y=z", "https://a.example/x?y=z"),
            ("two words", "\"two words\""),
            ("", "\"\""),
            ("a\nlistening", "\"a\\nlistening\""),
            ("\"quoted\"", "\"\\\"quoted\\\"\""),
        ] {
            assert_eq!(word(&text.into()), written);
        }
        assert_eq!(word(&Value::from(7)), "7");
    }
}

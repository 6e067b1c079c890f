//! Warnings of the library on standard error, such as a ledger that cannot record a result.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::output;

/// Prints the warnings and errors of the library from now on.
pub(crate) fn install() {
    // No other code in this process sets a subscriber, so this cannot fail.
    drop(tracing::subscriber::set_global_default(Warnings));
}

/// Takes the message and the fields of a warning.
type Write = fn(&str, &[Detail]);

static OTHER: OnceLock<Write> = OnceLock::new();

/// Has warnings written elsewhere from now on.
#[cfg(feature = "proxy")]
pub(crate) fn redirect(write: Write) {
    // Only the first call counts, and there is one.
    OTHER.get_or_init(|| write);
}

struct Warnings;

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN && metadata.target().starts_with("bursar")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        // A script reads standard error as a problem. It can say --no-new-ledger.
        if event.metadata().target() == bursar::ledger::NEW_LEDGER && !io::stderr().is_terminal() {
            return;
        }
        match OTHER.get() {
            Some(write) => write(&line.message, &line.fields),
            // A limit that is nearly used. The message has everything.
            None if event.metadata().target() == "bursar::payment" => {
                output::note(format_args!("warning: {}", line.message));
            }
            None => output::note(format_args!("bursar: {line}")),
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A field of a warning.
pub(crate) struct Detail {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    /// Whether the text is the value of a string, which a sentence quotes.
    is_string: bool,
}

#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<Detail>,
}

impl Line {
    fn record(&mut self, field: &Field, text: String, is_string: bool) {
        match field.name() {
            "message" => self.message.push_str(&text),
            name => self.fields.push(Detail {
                name,
                text,
                is_string,
            }),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for Detail {
            name,
            text,
            is_string,
        } in &self.fields
        {
            match is_string {
                true => write!(f, "; {name}: {text:?}")?,
                false => write!(f, "; {name}: {text}")?,
            }
        }
        Ok(())
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value.to_owned(), true);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format!("{value:?}"), false);
    }
}

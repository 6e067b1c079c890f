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
type Write = fn(&str, &str);

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
            None => output::note(format_args!("bursar: {}{}", line.message, line.fields)),
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let (text, name) = match field.name() {
            "message" => (&mut self.message, String::new()),
            name => (&mut self.fields, format!("; {name}: ")),
        };
        text.push_str(&format!("{name}{value:?}"));
    }
}

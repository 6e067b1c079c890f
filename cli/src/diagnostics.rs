//! The library's warnings on standard error: above all, books that did not take an outcome.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::output;

/// Shows warnings and errors of bursar itself from now on.
pub(crate) fn install() {
    // Nothing else in this process installs one, so it cannot be refused.
    drop(tracing::subscriber::set_global_default(Warnings));
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
        output::say(format_args!("bursar: {}{}", line.message, line.fields));
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

//! Output: results on standard output, notes about payments on standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use bursar::text::{json, visible_lines};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde::Serialize;

use crate::exit::{Exit, Failure};

/// The text in place of a secret.
const HIDDEN: &str = "…";
/// The colours of results: done, open, and refused or failed. All of them are readable on light and dark grounds.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(crate) const OPEN: Style = AnsiColor::Yellow.on_default().bold();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// The first words of lines about payments, with their colours.
const LEADS: [(&str, Style); 6] = [
    ("paid", GOOD),
    ("may be paid", OPEN),
    ("warning:", OPEN),
    ("denied", BAD),
    ("bursar:", BAD),
    ("not paid", Style::new().bold()),
];

/// Whether a status line is on the terminal.
static STATUS: Mutex<bool> = Mutex::new(false);

/// Prints one line on standard error. If standard error is closed, the line is lost.
pub(crate) fn note(line: impl Display) {
    clear_status();
    let line = line.to_string();
    let line = visible_lines(&line);
    let lead = LEADS.iter().find(|(lead, _)| {
        let rest = line.strip_prefix(lead);
        rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    });
    let mut out = io::stderr().lock();
    drop(match lead.filter(|_| colours(&io::stderr())) {
        Some((lead, style)) => {
            let rest = line.strip_prefix(lead).unwrap_or_default();
            writeln!(out, "{style}{lead}{style:#}{rest}")
        }
        None => writeln!(out, "{line}"),
    });
}

/// Returns whether a stream takes colours: it is a terminal and `NO_COLOR`, `CLICOLOR` and `TERM` allow them, or
/// `CLICOLOR_FORCE` wants them.
pub(crate) fn colours(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// Returns text for standard output whose lines have colours there, with hidden characters escaped. `style` gets the
/// number of the line, from 0.
pub(crate) fn styled_lines(text: &str, style: impl Fn(usize) -> Option<Style>) -> String {
    let text = visible_lines(text);
    if !colours(&io::stdout()) {
        return text.into_owned();
    }
    let lines = text.lines().enumerate();
    let lines = lines.map(|(number, line)| {
        let style = style(number).unwrap_or_default();
        format!("{style}{line}{style:#}\n")
    });
    lines.collect()
}

/// Shows a line on the terminal of standard error, in place of the last one. Shows nothing elsewhere.
pub(crate) fn status(line: impl Display) {
    let err = io::stderr();
    if !err.is_terminal() || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return;
    }
    let columns =
        terminal_size::terminal_size_of(&err).map_or(80, |(width, _)| usize::from(width.0));
    let line = line.to_string();
    let line: String = visible_lines(&line)
        .chars()
        .take(columns.saturating_sub(1))
        .collect();
    let mut shown = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut out = err.lock();
    *shown = write!(out, "\r\u{1b}[2K{line}")
        .and_then(|()| out.flush())
        .is_ok();
}

/// Removes the line of [`status`].
pub(crate) fn clear_status() {
    let mut shown = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    if std::mem::take(&mut *shown) {
        drop(write!(io::stderr(), "\r\u{1b}[2K"));
    }
}

/// Has a panic printed as every other note.
pub(crate) fn note_panics() {
    std::panic::set_hook(Box::new(|fault| note(format_args!("bursar: {fault}"))));
}

/// Prints text on standard output. Hidden characters are escaped.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    let text = text.to_string();
    print_raw(visible_lines(&text).as_bytes())
}

/// Prints bytes that have no hidden characters of strangers.
pub(crate) fn print_raw(bytes: &[u8]) -> io::Result<()> {
    clear_status();
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints one JSON object on one line of standard output. Hidden characters are escaped as JSON escapes them.
pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    print(json(value)? + "\n")
}

/// Returns the exit code, or a failure if standard output cannot be written. A closed pipe is no failure: the reader
/// wants no more.
pub(crate) fn finish(printed: io::Result<()>, exit: Exit) -> Result<Exit, Failure> {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!(
            "standard output cannot be written: {error}"
        ))),
        _ => Ok(exit),
    }
}

/// Prints the help, the version, or a mistake in the arguments.
pub(crate) fn usage(mut message: clap::Error) -> ExitCode {
    for kind in [
        ContextKind::InvalidArg,
        ContextKind::InvalidSubcommand,
        ContextKind::InvalidValue,
    ] {
        if let Some(ContextValue::String(text)) = message.get(kind) {
            let shown = without_secrets(text);
            if shown == HIDDEN && message.kind() == ErrorKind::ValueValidation {
                // The reason can repeat the value.
                let option = message
                    .get(ContextKind::InvalidArg)
                    .map(ToString::to_string);
                let mistake = format!(
                    "invalid value {HIDDEN} for {}\n",
                    option.unwrap_or_default()
                );
                message = clap::Error::raw(ErrorKind::ValueValidation, mistake);
                break;
            }
            message.insert(kind, ContextValue::String(shown));
        }
    }
    drop(message.print());
    if message.use_stderr() {
        Exit::Usage.into()
    } else {
        Exit::Done.into()
    }
}

/// Returns an argument in the form in which a mistake repeats it. Its URLs end after the host, and it has no long words: a query,
/// the path of an endpoint, and a key in the wrong place are secrets.
fn without_secrets(argument: &str) -> String {
    const LONGEST: usize = 32;
    let mut shown = String::new();
    for (number, part) in argument.split("://").enumerate() {
        if number == 0 {
            shown.push_str(part);
            continue;
        }
        let end = part.find(['/', '?', '#']).unwrap_or(part.len());
        let (place, rest) = part.split_at(end);
        // A password can have an `@`, a slash or a question mark of its own.
        let place = if rest.contains('@') {
            ""
        } else {
            place.rsplit('@').next().unwrap_or_default()
        };
        shown.push_str("://");
        shown.push_str(place);
        if rest.len() > 1 || place.is_empty() {
            shown.push_str("/…");
        }
        break;
    }
    let is_word = |character: char| character.is_alphanumeric() || "+_-=".contains(character);
    let mut word = 0_usize;
    let has_long_word = shown.chars().any(|character| {
        word = if is_word(character) {
            word.saturating_add(1)
        } else {
            0
        };
        word >= LONGEST
    });
    if has_long_word {
        HIDDEN.to_owned()
    } else {
        visible_lines(&shown).into_owned()
    }
}

/// Prints the reason of a failure, and returns its exit code.
pub(crate) fn failed(failure: &Failure) -> ExitCode {
    note(format_args!("bursar: {}", failure.message));
    failure.exit.into()
}

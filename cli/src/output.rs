//! Output: results on standard output, notes about payments on standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use bursar::text::{json, visible_lines};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde::Serialize;

use crate::exit::{Exit, Failure};

/// The text in place of a secret.
const HIDDEN: &str = "…";

/// Prints one line on standard error. If standard error is closed, the line is lost.
pub(crate) fn note(line: impl Display) {
    let line = line.to_string();
    drop(writeln!(io::stderr().lock(), "{}", visible_lines(&line)));
}

/// Has a panic printed as every other note.
pub(crate) fn note_panics() {
    std::panic::set_hook(Box::new(|fault| note(format_args!("bursar: {fault}"))));
}

/// Prints text on standard output. Hidden characters are escaped.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    let text = text.to_string();
    let mut out = io::stdout().lock();
    out.write_all(visible_lines(&text).as_bytes())?;
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

//! Output: results on standard output, notes about payments on standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use bursar::text::{json, visible_lines};
use serde::Serialize;

use crate::exit::{Exit, Failure};

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
pub(crate) fn usage(message: &clap::Error) -> ExitCode {
    drop(message.print());
    if message.use_stderr() {
        Exit::Usage.into()
    } else {
        Exit::Done.into()
    }
}

/// Prints the reason of a failure, and returns its exit code.
pub(crate) fn failed(failure: &Failure) -> ExitCode {
    note(format_args!("bursar: {}", failure.message));
    failure.exit.into()
}

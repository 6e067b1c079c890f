//! Writing to the terminal: results on standard output, words about money on standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::exit::{Exit, Failure};

/// One line on standard error. Where that is closed, nobody wants it.
pub(crate) fn say(line: impl Display) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Text on standard output, as it is.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// One JSON object on a line of standard output.
pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    print(format_args!("{}\n", serde_json::to_string(value)?))
}

/// The exit code, unless what was printed did not arrive. A reader who has gone has seen enough.
pub(crate) fn finish(printed: io::Result<()>, exit: Exit) -> Result<Exit, Failure> {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!(
            "standard output cannot be written: {error}"
        ))),
        _ => Ok(exit),
    }
}

/// What clap has to say: help or version, or a mistake in the arguments.
pub(crate) fn usage(message: &clap::Error) -> ExitCode {
    drop(message.print());
    if message.use_stderr() {
        Exit::Usage.into()
    } else {
        Exit::Done.into()
    }
}

/// Why nothing was done.
pub(crate) fn failed(failure: &Failure) -> ExitCode {
    say(format_args!("bursar: {}", failure.message));
    failure.exit.into()
}

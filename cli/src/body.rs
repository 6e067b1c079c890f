//! The destination of the body: standard output, a file, or the JSON object.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use bursar::reqwest::{self, Response};
use bursar::text::visible_lines;

use crate::args::Pay;
use crate::exit::Failure;
use crate::output;

/// The largest part of a body that the JSON object contains, in bytes.
const SHOWN: usize = 64 * 1024;

/// The destination of all bodies of a run, one after the other.
pub(crate) struct Sink {
    file: Option<File>,
    captures: bool,
    started: bool,
    /// The beginning of a character that the terminal cannot show yet.
    begun: Vec<u8>,
    /// Whether the terminal shows an unfinished line.
    open_line: bool,
}

/// The part of a body that arrived.
#[derive(Default)]
pub(crate) struct Delivered {
    pub(crate) shown: String,
    pub(crate) interruption: Option<Interruption>,
}

/// The reason why a body is incomplete.
pub(crate) enum Interruption {
    /// The body broke off.
    Read(reqwest::Error),
    /// The destination cannot be written.
    Write(io::Error),
    /// The reader of standard output is gone.
    ReaderGone,
}

impl Sink {
    /// Opens the file before bursar pays, so that every paid body has a destination. The file keeps its content until a
    /// body replaces it.
    pub(crate) fn open(args: &Pay) -> Result<Self, Failure> {
        let file = args
            .output
            .as_deref()
            .filter(|path| *path != Path::new("-"))
            .map(|path| {
                let file = File::options()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(path);
                file.map_err(|error| {
                    Failure::usage(format!("{} cannot be written: {error}", path.display()))
                })
            });
        Ok(Self {
            file: file.transpose()?,
            captures: args.json,
            started: false,
            begun: Vec::new(),
            open_line: false,
        })
    }

    /// Writes the body piece by piece, as it arrives.
    pub(crate) async fn deliver(&mut self, mut response: Response) -> Delivered {
        output::clear_status();
        if let Err(error) = self.start() {
            return Delivered {
                shown: String::new(),
                interruption: Some(Interruption::Write(error)),
            };
        }
        let mut head = Vec::new();
        let interruption = loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break None,
                Err(error) => break Some(Interruption::Read(error.without_url())),
            };
            if self.captures {
                let room = SHOWN.saturating_sub(head.len());
                head.extend(chunk.iter().take(room));
            }
            match self.write(&chunk) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    break Some(Interruption::ReaderGone);
                }
                Err(error) => break Some(Interruption::Write(error)),
                Ok(()) => {}
            }
            if self.captures && self.file.is_none() && head.len() >= SHOWN {
                break None;
            }
        };
        Delivered {
            shown: text(&head),
            interruption,
        }
    }

    /// Ends the line of the body if standard output is a terminal, so that a note begins a new one.
    pub(crate) fn end_line(&mut self) {
        if std::mem::take(&mut self.open_line) && io::stdout().is_terminal() {
            drop(io::stdout().lock().write_all(b"\n"));
        }
    }

    /// Empties the file for the first body.
    fn start(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        match &self.file {
            Some(file) if file.metadata()?.is_file() => file.set_len(0),
            _ => Ok(()),
        }
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(chunk),
            None if self.captures => Ok(()),
            None => {
                let mut out = io::stdout().lock();
                self.open_line = chunk.last().map_or(self.open_line, |last| *last != b'\n');
                if out.is_terminal() {
                    out.write_all(on_terminal(&mut self.begun, chunk).as_bytes())?;
                } else {
                    out.write_all(chunk)?;
                }
                out.flush()
            }
        }
    }
}

/// Returns the next part of a body as a terminal shows it: hidden characters are escaped, so that a seller moves no cursor.
/// `begun` keeps the beginning of a character whose rest has not arrived.
fn on_terminal(begun: &mut Vec<u8>, chunk: &[u8]) -> String {
    begun.extend_from_slice(chunk);
    let whole = match std::str::from_utf8(begun) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => begun.len(),
    };
    let rest = begun.split_off(whole);
    let shown = visible_lines(&String::from_utf8_lossy(begun)).into_owned();
    *begun = rest;
    shown
}

/// Returns bytes as text that is not longer than the limit. Invalid UTF-8 is replaced, and an incomplete last
/// character is left out.
fn text(bytes: &[u8]) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    let mut text = String::from_utf8_lossy(bytes.get(..whole).unwrap_or(bytes)).into_owned();
    text.truncate(text.floor_char_boundary(SHOWN));
    text
}

#[cfg(test)]
mod tests {
    use super::on_terminal;

    #[test]
    fn a_body_on_a_terminal_has_no_hidden_character_and_no_cut_one() {
        let mut begun = Vec::new();
        let crab = "🦀\r\n".as_bytes();
        let parts = [&b"a\x1b[2J\x9b"[..], &crab[..2], &crab[2..], b"\tb\xff\r"];
        let shown: String = parts.map(|part| on_terminal(&mut begun, part)).concat();
        assert_eq!(shown, "a\\u{1b}[2J\u{fffd}🦀\r\n\tb\u{fffd}\\u{d}");
    }
}

//! Where the answer's body goes: standard output, a file, or the JSON object.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use bursar::reqwest::{self, Response};

use crate::args::Pay;
use crate::exit::Failure;

/// The most of a body that the JSON object shows.
const SHOWN: usize = 64 * 1024;

/// The place of all bodies of a run, one after the other.
pub(crate) struct Sink {
    file: Option<File>,
    captures: bool,
    begun: bool,
}

/// A body that was brought, as far as it came.
#[derive(Default)]
pub(crate) struct Delivered {
    pub(crate) shown: String,
    pub(crate) trouble: Option<Trouble>,
}

pub(crate) enum Trouble {
    /// It broke off.
    Read(reqwest::Error),
    /// It could not be written down.
    Write(io::Error),
    /// Nobody reads standard output any more.
    ReaderGone,
}

impl Sink {
    /// Opens the file before anything is paid, so that no bought body is without a place. What is
    /// in it stays until a body replaces it.
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
            begun: false,
        })
    }

    /// Brings the body piece by piece, as it comes.
    pub(crate) async fn deliver(&mut self, mut response: Response) -> Delivered {
        if let Err(error) = self.begin() {
            return Delivered {
                shown: String::new(),
                trouble: Some(Trouble::Write(error)),
            };
        }
        let mut head = Vec::new();
        let trouble = loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break None,
                Err(error) => break Some(Trouble::Read(error.without_url())),
            };
            if self.captures {
                let room = SHOWN.saturating_sub(head.len());
                head.extend(chunk.iter().take(room));
            }
            match self.write(&chunk) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    break Some(Trouble::ReaderGone);
                }
                Err(error) => break Some(Trouble::Write(error)),
                Ok(()) => {}
            }
            if self.captures && self.file.is_none() && head.len() >= SHOWN {
                break None;
            }
        };
        Delivered {
            shown: text(&head),
            trouble,
        }
    }

    /// The first body takes the place of what is in the file.
    fn begin(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.begun, true) {
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
                out.write_all(chunk)?;
                out.flush()
            }
        }
    }
}

/// Bytes as text of no more than they were: what is no UTF-8 is replaced, a character cut in two
/// left out.
fn text(bytes: &[u8]) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    let mut text = String::from_utf8_lossy(bytes.get(..whole).unwrap_or(bytes)).into_owned();
    text.truncate(text.floor_char_boundary(SHOWN));
    text
}

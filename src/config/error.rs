//! The mistakes of a configuration file, with their places.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};
use crate::text::closest;

/// An error that occurs when a configuration file is read.
///
/// `Display` writes one line for each mistake.
///
/// ```
/// use bursar::config::{Config, ConfigError};
///
/// let text = "version = 1\nnetwork = [\"base\"]\n[global]\nper_payment = 0.05";
/// let Err(ConfigError::Invalid { mistakes, .. }) = Config::from_toml(text) else {
///     panic!("the file has mistakes");
/// };
/// assert_eq!(mistakes.len(), 2);
/// assert_eq!((mistakes[1].line, mistakes[1].column), (4, 15));
/// println!("{}", mistakes[1]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// The file has mistakes.
    Invalid {
        /// The path of the file, or `None` if the text did not come from a file.
        path: Option<PathBuf>,
        /// All mistakes, in the order of their lines. There is at least one.
        mistakes: Vec<Mistake>,
    },
}

impl ConfigError {
    pub(super) fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Invalid { mistakes, .. } => Self::Invalid {
                path: Some(file.to_owned()),
                mistakes,
            },
            unreadable => unreadable,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, reason } => {
                write!(f, "cannot read {}: {reason}", path.display())?;
                if path.starts_with("~") {
                    f.write_str("; only a shell replaces ~, so write the whole path")?;
                }
                Ok(())
            }
            Self::Invalid { path, mistakes } => {
                for (position, mistake) in mistakes.iter().enumerate() {
                    if position > 0 {
                        f.write_str("\n")?;
                    }
                    if let Some(path) = path {
                        write!(f, "{}: ", path.display())?;
                    }
                    mistake.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorKind::Builder, error.to_string()).because(error)
    }
}

/// A mistake in a configuration file.
///
/// `Display` writes the place and the message: `line 4, column 15: …`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Mistake {
    /// The line, counted from 1.
    pub line: usize,
    /// The character in the line, counted from 1.
    pub column: usize,
    /// The error and the value that bursar expects. It never repeats a key's value.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            message,
        } = self;
        write!(f, "line {line}, column {column}: {message}")
    }
}

/// The mistakes that were found in a text so far.
pub(super) struct Mistakes<'t> {
    text: &'t str,
    /// The byte at which each line begins.
    lines: Vec<usize>,
    found: RefCell<Vec<Mistake>>,
}

impl<'t> Mistakes<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_newlines = text
            .match_indices('\n')
            .map(|(newline, _)| newline.saturating_add(1));
        Self {
            text,
            lines: std::iter::once(0).chain(after_newlines).collect(),
            found: RefCell::default(),
        }
    }

    /// Records a mistake at a byte of the text.
    pub(super) fn add(&self, at: usize, message: impl Into<String>) {
        let line = self.line(at);
        let start = line.checked_sub(1).and_then(|index| self.lines.get(index));
        let before = start.and_then(|start| self.text.get(*start..at));
        self.found.borrow_mut().push(Mistake {
            line,
            column: before
                .map_or(0, |before| before.chars().count())
                .saturating_add(1),
            message: message.into(),
        });
    }

    /// Returns the value, or records the error and returns `None`.
    pub(super) fn check<T>(
        &self,
        at: usize,
        key: &str,
        result: Result<T, impl fmt::Display>,
    ) -> Option<T> {
        result
            .map_err(|error| self.add(at, format!("`{key}`: {error}")))
            .ok()
    }

    /// Returns the line of a byte, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    /// Returns the header of the table whose span begins at a byte, as the file writes it.
    pub(super) fn header(&self, at: usize) -> Option<&'t str> {
        let rest = self.text.get(at..)?;
        let brackets = if rest.starts_with("[[") { "]]" } else { "]" };
        let end = rest.find(brackets)?.checked_add(brackets.len())?;
        rest.get(..end).filter(|header| header.starts_with('['))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// Returns the error that has all mistakes, in the order of their lines.
    pub(super) fn into_error(self) -> ConfigError {
        let mut mistakes = self.found.into_inner();
        mistakes.sort();
        mistakes.dedup();
        ConfigError::Invalid {
            path: None,
            mistakes,
        }
    }
}

/// Returns `; did you mean …?` if one of the names is close to the one that was written.
///
/// The text is empty if none is close.
pub(super) fn did_you_mean<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    closest(written, names).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        let text = "a\nnaïve = €x\n";
        let mistakes = Mistakes::new(text);
        for at in [0, 2, text.find('x').unwrap(), text.len(), text.len() + 9] {
            mistakes.add(at, "");
        }
        let places = mistakes.found.borrow();
        let places: Vec<_> = places.iter().map(|one| (one.line, one.column)).collect();
        assert_eq!(places, [(1, 1), (2, 1), (2, 10), (3, 1), (3, 1)]);
    }
}

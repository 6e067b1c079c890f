//! Sources of API keys. A client asks for the key at every call, so a change needs no restart.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

/// The length of the longest key file, in bytes.
const LONGEST: u64 = 64 * 1024;

/// A source of an API key, which the client asks at every call.
///
/// Implement it for a vault or a keyring:
///
/// ```
/// use bursar::secrecy::SecretString;
/// use bursar::credential::{KeySource, KeySourceError};
///
/// struct Vault;
///
/// impl KeySource for Vault {
///     async fn key(&self) -> Result<Option<SecretString>, KeySourceError> {
///         Ok(Some(SecretString::from("from the vault")))
///     }
/// }
/// ```
pub trait KeySource: Send + Sync + 'static {
    /// Returns the key, or `None` if there is none.
    ///
    /// # Errors
    /// Return an error if the source cannot be read. bursar then sends nothing.
    fn key(&self) -> impl Future<Output = Result<Option<SecretString>, KeySourceError>> + Send;

    /// Returns where the key is missing, for error messages. It must not contain the key.
    fn place(&self) -> String {
        "its source has none".to_owned()
    }

    /// Returns the environment variable that the key is in, if it is in one.
    fn variable(&self) -> Option<&str> {
        None
    }
}

/// The error of a key source that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeySourceError(String);

impl KeySourceError {
    /// Creates an error. The reason must not contain the key.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// A key in an environment variable.
///
/// White space around the key is removed. An empty variable holds no key.
#[derive(Clone, Debug)]
pub struct EnvKey {
    variable: String,
}

impl EnvKey {
    /// Uses the key in this variable.
    #[must_use]
    pub fn new(variable: impl Into<String>) -> Self {
        Self {
            variable: variable.into(),
        }
    }
}

impl KeySource for EnvKey {
    async fn key(&self) -> Result<Option<SecretString>, KeySourceError> {
        match std::env::var(&self.variable) {
            Ok(key) => Ok(trimmed(&key)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(KeySourceError::new(format!(
                "the environment variable {} is not UTF-8",
                self.variable
            ))),
        }
    }

    fn place(&self) -> String {
        format!("the environment variable {} is not set", self.variable)
    }

    fn variable(&self) -> Option<&str> {
        Some(&self.variable)
    }
}

/// A key in a file, which is read at every call.
///
/// White space around the key is removed. A missing or empty file holds no key. Write a new key to the
/// file to change it.
#[derive(Clone, Debug)]
pub struct FileKey {
    path: PathBuf,
}

impl FileKey {
    /// Uses the key in this file. The file may have at most 64 KiB. On Unix, it may not be writable for every
    /// user.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn read(&self) -> Result<Option<SecretString>, KeySourceError> {
        let failed = |error: std::io::Error| {
            KeySourceError::new(format!("{}: {error}", self.path.display()))
        };
        let file = match open_trusted(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        if file.metadata().map_err(failed)?.len() > LONGEST {
            return Err(KeySourceError::new(format!(
                "{} is longer than any key",
                self.path.display()
            )));
        }
        std::io::read_to_string(file)
            .map(|key| trimmed(&key))
            .map_err(failed)
    }
}

impl KeySource for FileKey {
    async fn key(&self) -> Result<Option<SecretString>, KeySourceError> {
        let file = self.clone();
        let read = tokio::task::spawn_blocking(move || file.read()).await;
        read.unwrap_or_else(|error| Err(KeySourceError::new(error.to_string())))
    }

    fn place(&self) -> String {
        format!("{} is not there or empty", self.path.display())
    }
}

/// A key that the program holds in memory.
impl KeySource for SecretString {
    async fn key(&self) -> Result<Option<Self>, KeySourceError> {
        Ok(Some(self.clone()))
    }
}

/// Opens a file to read it. On Unix, a file that every user can write is an error.
pub(crate) fn open_trusted(path: &Path) -> std::io::Result<File> {
    let file = File::open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        let found = file.metadata()?;
        let mode = found.permissions().mode() & 0o777;
        if found.is_file() && mode & 0o002 != 0 {
            let reason = format!("every user can write it (mode {mode:03o}); run chmod o-w on it");
            return Err(std::io::Error::new(ErrorKind::PermissionDenied, reason));
        }
    }
    Ok(file)
}

fn trimmed(key: &str) -> Option<SecretString> {
    let key = key.trim();
    (!key.is_empty()).then(|| SecretString::from(key.to_owned()))
}

type Read<'a> =
    Pin<Box<dyn Future<Output = Result<Option<SecretString>, KeySourceError>> + Send + 'a>>;

/// The object-safe form of [`KeySource`].
trait DynSource: Send + Sync {
    fn key(&self) -> Read<'_>;
    fn place(&self) -> String;
    fn variable(&self) -> Option<&str>;
}

impl<S: KeySource> DynSource for S {
    fn key(&self) -> Read<'_> {
        Box::pin(KeySource::key(self))
    }

    fn place(&self) -> String {
        KeySource::place(self)
    }

    fn variable(&self) -> Option<&str> {
        KeySource::variable(self)
    }
}

/// A shared key source of any type.
#[derive(Clone)]
pub(super) struct AnySource(Arc<dyn DynSource>);

impl AnySource {
    pub(super) fn new(source: impl KeySource) -> Self {
        Self(Arc::new(source))
    }

    pub(super) async fn key(&self) -> Result<Option<SecretString>, KeySourceError> {
        self.0.key().await
    }

    pub(super) fn place(&self) -> String {
        self.0.place()
    }

    /// Replaces a source in the environment by the value of its variable, if `values` has one.
    pub(super) fn supply(&mut self, values: &mut impl FnMut(&str) -> Option<SecretString>) {
        let value = self.0.variable().and_then(values);
        if let Some(value) = value.and_then(|value| trimmed(value.expose_secret())) {
            *self = Self::new(value);
        }
    }
}

impl fmt::Debug for AnySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySource")
    }
}

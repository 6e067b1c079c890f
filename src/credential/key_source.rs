//! Where keys come from: asked for every call, so that a key is changed without a restart.

use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use secrecy::SecretString;

/// The longest key that is read from a file.
const LONGEST: u64 = 64 * 1024;

/// Gives a key, anew for every call.
///
/// Implement it for a vault or a keyring:
///
/// ```
/// use bursar::secrecy::SecretString;
/// use bursar::{KeySource, KeySourceError};
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
    /// The key; `None` where there is none, which is no failure.
    fn key(&self) -> impl Future<Output = Result<Option<SecretString>, KeySourceError>> + Send;

    /// Where it is looked for, for messages; never the key itself.
    fn place(&self) -> String {
        "its source has none".to_owned()
    }
}

/// A key could not be looked for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeySourceError(String);

impl KeySourceError {
    /// With a reason that does not hold the key.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// A key in an environment variable, without the white space around it. Empty is none.
#[derive(Clone, Debug)]
pub struct EnvKey {
    variable: String,
}

impl EnvKey {
    /// The key in this variable.
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
}

/// A key in a file, without the white space around it. No file, or an empty one, is none. The file
/// is read for every call: who writes a new key there has changed it.
#[derive(Clone, Debug)]
pub struct FileKey {
    path: PathBuf,
}

impl FileKey {
    /// The key in this file, of at most 64 KiB.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn read(&self) -> Result<Option<SecretString>, KeySourceError> {
        let failed = |error: std::io::Error| {
            KeySourceError::new(format!("{}: {error}", self.path.display()))
        };
        match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(found) if found.len() > LONGEST => {
                return Err(KeySourceError::new(format!(
                    "{} is longer than any key",
                    self.path.display()
                )));
            }
            Ok(_) => {}
        }
        std::fs::read_to_string(&self.path)
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

/// A key that the program holds.
impl KeySource for SecretString {
    async fn key(&self) -> Result<Option<Self>, KeySourceError> {
        Ok(Some(self.clone()))
    }
}

fn trimmed(key: &str) -> Option<SecretString> {
    let key = key.trim();
    (!key.is_empty()).then(|| SecretString::from(key.to_owned()))
}

type Read<'a> =
    Pin<Box<dyn Future<Output = Result<Option<SecretString>, KeySourceError>> + Send + 'a>>;

/// The object-safe twin of [`KeySource`].
trait DynSource: Send + Sync {
    fn key(&self) -> Read<'_>;
    fn place(&self) -> String;
}

impl<S: KeySource> DynSource for S {
    fn key(&self) -> Read<'_> {
        Box::pin(KeySource::key(self))
    }

    fn place(&self) -> String {
        KeySource::place(self)
    }
}

/// Any source, shared.
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
}

impl fmt::Debug for AnySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySource")
    }
}

//! Opening a ledger at a place that is known when the program runs.

use std::path::Path;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use super::backend::Backend;
#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "sqlite")]
use super::sqlite;
use super::{Ledger, LedgerError};

/// Options for opening a ledger at a URL or a path.
///
/// [`Ledger::open`] and [`Ledger::open_existing`] are enough for most programs.
///
/// ```
/// use bursar::ledger::{LedgerError, OpenOptions};
///
/// let error = OpenOptions::new()
///     .must_exist()
///     .allow_shared_file_system()
///     .open("no-such-agent.db")
///     .unwrap_err();
/// assert!(matches!(error, LedgerError::Missing(_)));
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct OpenOptions {
    pub(super) must_exist: bool,
    pub(super) may_be_shared: bool,
}

impl OpenOptions {
    /// Returns the options of [`Ledger::open`].
    pub const fn new() -> Self {
        Self {
            must_exist: false,
            may_be_shared: false,
        }
    }

    /// Creates no ledger, like [`Ledger::open_existing`].
    pub const fn must_exist(mut self) -> Self {
        self.must_exist = true;
        self
    }

    /// Opens a file on a file system that other machines can use, such as NFS, SMB, 9p, virtiofs and most of FUSE.
    /// Without this, such a file is [`LedgerError::SharedFileSystem`].
    ///
    /// Set it only if a single machine, virtual machine or container uses the ledger at a time. The programs of two
    /// machines do not see the payments of each other, so that each has limits of its own and the file can break. bursar
    /// also cannot tell such a file from its copies. Only Linux tells bursar the kind of a file system.
    pub const fn allow_shared_file_system(mut self) -> Self {
        self.may_be_shared = true;
        self
    }

    /// Opens the ledger at a URL or a path, as [`Ledger::open`] takes them.
    ///
    /// # Errors
    /// Returns the errors of [`Ledger::open`], an error for another URL, and [`LedgerError::Missing`] if there is no ledger and it
    /// [must exist](Self::must_exist).
    pub fn open(&self, url_or_path: impl AsRef<Path>) -> Result<Ledger, LedgerError> {
        let path = url_or_path.as_ref();
        match path.to_str() {
            Some(":memory:") if self.must_exist => Err(LedgerError::Missing(path.to_owned())),
            Some(":memory:") => Ok(Ledger::memory()),
            Some(url) if is_postgres(url) => self.lazy_postgres(url),
            // It can hold a password, which an error about a missing file would show.
            Some(url) if url.contains("://") => Err(LedgerError::Store(
                "the place of the ledger is a URL that does not begin with `postgres://` or `postgresql://`; name a \
                 PostgreSQL database by such a URL, and a file by its path"
                    .into(),
            )),
            _ => self.at_path(path),
        }
    }

    #[cfg(feature = "postgres")]
    fn lazy_postgres(&self, url: &str) -> Result<Ledger, LedgerError> {
        let open = if self.must_exist {
            postgres::Postgres::open_existing
        } else {
            postgres::Postgres::new
        };
        open(url, postgres::SCHEMA).map(|postgres| Ledger::new(Backend::Postgres(postgres)))
    }

    #[cfg(not(feature = "postgres"))]
    fn lazy_postgres(&self, _: &str) -> Result<Ledger, LedgerError> {
        Err(LedgerError::MissingFeature {
            feature: "postgres",
        })
    }

    #[cfg(feature = "sqlite")]
    fn at_path(&self, path: &Path) -> Result<Ledger, LedgerError> {
        sqlite::Sqlite::open(path, self).map(|sqlite| Ledger::new(Backend::Sqlite(sqlite)))
    }

    #[cfg(not(feature = "sqlite"))]
    fn at_path(&self, _: &Path) -> Result<Ledger, LedgerError> {
        Err(LedgerError::MissingFeature { feature: "sqlite" })
    }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

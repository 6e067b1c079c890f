//! The connections to the server: addresses, TLS, the pool and errors.

use std::error::Error as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::{Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::link::Link;
use crate::ledger::{LedgerError, random_hex};

/// One connection writes. The others are for readers.
const CONNECTIONS: usize = 4;

/// The connections of a ledger. It connects when a connection is needed.
pub(super) struct Pool {
    config: Config,
    tls: MakeRustlsConnect,
    limit: Duration,
    permits: Semaphore,
    idle: Mutex<Vec<Link>>,
    /// Whether a connection keeps its session on the server, see [`Link`].
    keeps_sessions: AtomicBool,
}

/// A connection that returns to the pool when it is dropped, unless it is lost or in a transaction.
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    link: Option<Link>,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(url: &str, limit: Duration) -> Result<Self, LedgerError> {
        // The original error can quote a part of the URL, and that part can be the password.
        let config = url
            .parse()
            .map_err(|_| LedgerError::store("the PostgreSQL URL cannot be read"))?;
        Ok(Self {
            config: with_defaults(config, limit),
            tls: tls()?,
            limit,
            permits: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
            keeps_sessions: AtomicBool::new(true),
        })
    }

    /// Returns an idle connection, or a new one.
    pub(super) async fn get(&self) -> Result<Lease<'_>, Failure> {
        let permit = timeout(self.limit, self.permits.acquire()).await;
        let permit = permit
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| Failure::Lost(LedgerError::store("all connections are in use")))?;
        let mut idle = std::iter::from_fn(|| self.idle().pop());
        let link = match idle.find(Link::is_open) {
            Some(link) => link,
            None => timeout(self.limit, self.connect())
                .await
                .unwrap_or_else(|_| Err(Failure::late()))?,
        };
        Ok(Lease {
            pool: self,
            link: Some(link),
            _permit: permit,
        })
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(connection);
        if !self.keeps_sessions.load(Ordering::Relaxed) {
            return Ok(Link::without_session(client));
        }
        let session = random_hex().map_err(LedgerError::store)?;
        match Link::with_session(client, session).await? {
            link if link.keeps_session() => Ok(link),
            link => {
                self.keep_no_sessions();
                Ok(link)
            }
        }
    }

    /// Notes that a pooler gives the session of a connection to others between two transactions.
    fn keep_no_sessions(&self) {
        if self.keeps_sessions.swap(false, Ordering::Relaxed) {
            tracing::debug!("a pooler shares sessions, so statements are not kept prepared");
            self.idle().clear();
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease<'_> {
    /// Returns the connection.
    ///
    /// # Errors
    /// It was lost before.
    pub(super) fn link(&mut self) -> Result<&mut Link, Failure> {
        self.link.as_mut().ok_or_else(Failure::late)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        if link.lost_session() {
            self.pool.keep_no_sessions();
        } else if link.is_idle() {
            self.pool.idle().push(link);
        }
    }
}

/// Adds the settings that the URL leaves open: TLS for servers on other hosts, a server that accepts
/// writes, and timeouts.
pub(super) fn with_defaults(mut config: Config, timeout: Duration) -> Config {
    if config.get_ssl_mode() == SslMode::Prefer && !config.get_hosts().iter().all(is_local) {
        config.ssl_mode(SslMode::Require);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(timeout);
    }
    if config.get_application_name().is_none() {
        config.application_name("bursar");
    }
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    config.tcp_user_timeout(timeout);
    config
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse()
                    .is_ok_and(|address: IpAddr| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

/// Returns TLS that trusts the certificates of the operating system, as the HTTP client does.
fn tls() -> Result<MakeRustlsConnect, LedgerError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(LedgerError::store)?;
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

/// The reason why an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another transaction changed the same rows.
    Conflict(LedgerError),
    /// The server cannot be reached or does not answer in time.
    Lost(LedgerError),
    /// Another attempt would fail in the same way.
    Final(LedgerError),
}

impl Failure {
    pub(super) const fn is_lost<T>(answer: &Result<T, Self>) -> bool {
        matches!(answer, Err(Self::Lost(_)))
    }

    pub(super) fn late() -> Self {
        Self::Lost(LedgerError::store("PostgreSQL does not answer in time"))
    }

    pub(super) fn into_error(self) -> LedgerError {
        match self {
            Self::Conflict(error) | Self::Lost(error) | Self::Final(error) => error,
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::Final(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let converted = ledger_error(&error);
        match error.as_db_error() {
            Some(answer)
                if [
                    SqlState::T_R_SERIALIZATION_FAILURE,
                    SqlState::T_R_DEADLOCK_DETECTED,
                ]
                .contains(answer.code()) =>
            {
                Self::Conflict(converted)
            }
            Some(answer) if !is_of_the_connection(answer.code()) => Self::Final(converted),
            _ => Self::Lost(converted),
        }
    }
}

/// Returns whether the server reports that it rolled the transaction back.
///
/// Every other error of a COMMIT leaves the outcome open: a connection can break, or a server can
/// stop, after the transaction took effect.
pub(super) fn rolled_back(error: &Error) -> bool {
    error.as_db_error().is_some_and(|answer| {
        answer.parsed_severity() == Some(Severity::Error)
            && !is_of_the_connection(answer.code())
            && *answer.code() != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
            && !answer.code().code().starts_with("XX")
    })
}

/// Returns whether the error is about the connection: classes 08 (connection), 57 (operator
/// intervention) and 58 (system error), and the errors of a server that became a standby. Another
/// connection may reach the new primary server.
fn is_of_the_connection(code: &SqlState) -> bool {
    let standby = [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::FEATURE_NOT_SUPPORTED,
    ]
    .contains(code);
    let class = ["08", "57", "58"]
        .iter()
        .any(|class| code.code().starts_with(class));
    standby || (class && *code != SqlState::QUERY_CANCELED)
}

/// Converts an error of the server. Leaves out its details, which can quote payment headers.
fn ledger_error(error: &Error) -> LedgerError {
    let Some(answer) = error.as_db_error() else {
        let source = error
            .source()
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        return LedgerError::store(format!("PostgreSQL: {error}{source}"));
    };
    let text = format!(
        "PostgreSQL: {} (SQLSTATE {})",
        answer.message(),
        answer.code().code()
    );
    let code = answer.code();
    // bursar made its tables before it used them.
    let gone = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(code);
    if gone || code.code().starts_with("XX00") {
        LedgerError::Damaged(text)
    } else {
        LedgerError::store(text)
    }
}

//! The connections to the server: addresses, TLS, the pool and errors.

use std::error::Error as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::{Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::ledger::LedgerError;

/// Writers wait for each other, so one connection is enough for them. The others are for readers.
const CONNECTIONS: usize = 4;

/// Returns a pool, which connects when a connection is needed.
pub(super) fn new(url: &str, timeout: Duration) -> Result<Pool, LedgerError> {
    // The original error can quote a part of the URL, and that part can be the password.
    let config = url
        .parse()
        .map_err(|_| LedgerError::store("the PostgreSQL URL cannot be read"))?;
    let manager = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_config(with_defaults(config, timeout), tls()?, manager);
    let timeouts = Timeouts {
        wait: Some(timeout),
        create: Some(timeout),
        recycle: Some(timeout),
    };
    let pool = Pool::builder(manager)
        .max_size(CONNECTIONS)
        .timeouts(timeouts)
        .runtime(Runtime::Tokio1);
    pool.build().map_err(LedgerError::store)
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

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            other => Self::Lost(LedgerError::store(other.to_string())),
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

//! The way to the server: address, TLS, the pool, and what its errors mean.

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

/// Writers wait for each other anyway; the rest is for those who read.
const CONNECTIONS: usize = 4;

/// Connections are made when they are needed, and anew when they are lost.
pub(super) fn pool(url: &str, patience: Duration) -> Result<Pool, LedgerError> {
    // Its own error may quote a part of the URL, and that part may be the password.
    let config = url
        .parse()
        .map_err(|_| LedgerError::store("the PostgreSQL URL cannot be read"))?;
    let manager = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_config(with_care(config, patience), tls()?, manager);
    let timeouts = Timeouts {
        wait: Some(patience),
        create: Some(patience),
        recycle: Some(patience),
    };
    let pool = Pool::builder(manager)
        .max_size(CONNECTIONS)
        .timeouts(timeouts)
        .runtime(Runtime::Tokio1);
    pool.build().map_err(LedgerError::store)
}

/// Encrypted unless the server is on this host, or the URL says `sslmode=disable`; to a server that
/// can be written to; and never waiting on a dead one.
pub(super) fn with_care(mut config: Config, patience: Duration) -> Config {
    if config.get_ssl_mode() == SslMode::Prefer && !config.get_hosts().iter().all(is_here) {
        config.ssl_mode(SslMode::Require);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(patience);
    }
    if config.get_application_name().is_none() {
        config.application_name("bursar");
    }
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    config.tcp_user_timeout(patience);
    config
}

fn is_here(host: &Host) -> bool {
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

/// Trusts whom the operating system trusts, as the HTTP client does.
fn tls() -> Result<MakeRustlsConnect, LedgerError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(LedgerError::store)?;
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another writer was first, or two stood in each other's way.
    Conflict(LedgerError),
    /// The server cannot be reached or does not answer.
    Lost(LedgerError),
    /// Another attempt would end the same way.
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
        let told = classify(&error);
        match error.as_db_error() {
            Some(answer)
                if [
                    SqlState::T_R_SERIALIZATION_FAILURE,
                    SqlState::T_R_DEADLOCK_DETECTED,
                ]
                .contains(answer.code()) =>
            {
                Self::Conflict(told)
            }
            Some(answer) if !is_of_the_connection(answer.code()) => Self::Final(told),
            _ => Self::Lost(told),
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

/// Whether the server says that it rolled the transaction back. Everything else that is said at a
/// COMMIT leaves open what became of it: a connection can break, and a server be stopped, after the
/// transaction took effect.
pub(super) fn rolled_back(error: &Error) -> bool {
    error.as_db_error().is_some_and(|answer| {
        answer.parsed_severity() == Some(Severity::Error)
            && !is_of_the_connection(answer.code())
            && *answer.code() != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
            && !answer.code().code().starts_with("XX")
    })
}

/// Classes 08 (connection), 57 (an operator stepped in) and 58 (the system failed), and what a
/// server says that became a standby: another connection may find the one that took its place.
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

/// The server's own message without its details, which quote rows, payment headers included.
fn classify(error: &Error) -> LedgerError {
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
    if answer.code().code().starts_with("XX00") {
        LedgerError::Damaged(text)
    } else {
        LedgerError::store(text)
    }
}

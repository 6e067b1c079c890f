//! The end of the program: exit codes and failures.

use std::process::ExitCode;

use bursar::config::ConfigError;
use bursar::ledger::LedgerError;
use bursar::policy::PolicyError;
use bursar::report::UnknownZone;
use bursar::signer::KeyError;
use bursar::{Error, ErrorKind, PaymentStatus};

/// The exit codes. `--help` explains them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Denied = 3,
    Unknown = 4,
    PaidAndFailed = 5,
    PaidElsewhere = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The reason why bursar sent no request and signed nothing.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl Failure {
    /// The command line, the key or the policy cannot be used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            kind: "usage",
            message: message.into(),
        }
    }

    /// The command failed for another reason.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            kind: "failed",
            message: message.into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match (error.payment_status(), error.kind()) {
            (PaymentStatus::MaybePaid, _) => Exit::Unknown,
            (PaymentStatus::Paid, _) => Exit::PaidAndFailed,
            (_, ErrorKind::Builder) => Exit::Usage,
            (_, ErrorKind::Denied) => Exit::Denied,
            _ => Exit::Failed,
        };
        Self {
            exit,
            kind: error.kind().name(),
            message: crate::problem::message(&error),
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Error::from(error).into()
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<UnknownZone> for Failure {
    fn from(error: UnknownZone) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

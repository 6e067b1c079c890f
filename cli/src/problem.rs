//! The reason why a call failed, in the one form that every command prints.

use std::error::Error as StdError;

use bursar::policy::Quantity;
#[cfg(feature = "mcp-serve")]
use bursar::policy::Rule;
use bursar::reqwest::Response;
use bursar::{Denial, Error, ErrorKind, ResponseExt};
use serde::Serialize;

/// The reason why a call failed: `error` in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    /// The refusal, if the policy denied the payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) denial: Option<Box<Refusal>>,
    /// The recommended next step. Only `bursar mcp serve` sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<&'static str>,
}

/// A refusal of the policy with everything that the library reports: `denial` in JSON.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Refusal {
    #[serde(flatten)]
    denial: Denial,
    /// The remaining amount of the limit, which the library computes on request.
    left: Option<Quantity>,
}

impl Problem {
    pub(crate) const fn new(kind: &'static str, message: String) -> Self {
        Self {
            kind,
            message,
            denial: None,
            next: None,
        }
    }

    /// Describes an error of the library. The message can quote the seller.
    pub(crate) fn of(error: &Error) -> Self {
        Self {
            denial: error.denial().map(|denial| Box::new(denial.into())),
            ..Self::new(error.kind().name(), message(error))
        }
    }

    /// Describes an answer with an error status. Other answers are no problem.
    pub(crate) fn of_response(response: &Response) -> Option<Self> {
        response.status_error().map(|error| Self::of(&error))
    }
}

impl From<&Denial> for Refusal {
    fn from(denial: &Denial) -> Self {
        Self {
            denial: denial.clone(),
            left: denial.left(),
        }
    }
}

#[cfg(feature = "mcp-serve")]
impl Refusal {
    pub(crate) fn message(&self) -> &str {
        &self.denial.message
    }

    /// Replaces the one message that quotes the seller.
    pub(crate) fn without_seller_text(mut self) -> Self {
        if self.denial.rule == Rule::ResourceOrigin {
            "the seller claims to sell for another origin".clone_into(&mut self.denial.message);
        }
        self
    }
}

/// Returns the message of an error. It names the options of the command in place of the settings of the library.
pub(crate) fn message(error: &Error) -> String {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::Insecure => {
            message.replace("call allow_http_loopback", "add --allow-http-loopback")
        }
        ErrorKind::Timeout => message
            .replace(
                "`answer_timeout`, or the `timeout` of the request",
                "--timeout",
            )
            .replace("set `timeout`", "set --timeout"),
        _ => message,
    }
}

/// Returns the text of the innermost cause of an error, or of the error itself.
pub(crate) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

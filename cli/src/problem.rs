//! The reason why a call failed, in the one form that every command prints.

use std::error::Error as StdError;

use bursar::policy::Quantity;
#[cfg(feature = "mcp-serve")]
use bursar::policy::{Rule, Scope};
use bursar::reqwest::Response;
use bursar::{Denial, Error, ErrorKind, PaymentStatus, ResponseExt, Url};
use serde::Serialize;

use crate::payment::prefix;

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

    /// Replaces the payment status at the beginning of the message.
    pub(crate) fn after(mut self, payment: PaymentStatus) -> Self {
        let words = self
            .message
            .strip_prefix(prefix(PaymentStatus::NotPaid))
            .map_or(self.message.as_str(), |words| {
                words.trim_start_matches(": ")
            });
        self.message = format!("{}, but the redirect failed: {words}", prefix(payment));
        self
    }

    /// Describes an error of the library. The message can quote the seller.
    pub(crate) fn of(error: &Error) -> Self {
        Self {
            denial: error.denial().map(|denial| Box::new(denial.into())),
            ..Self::new(error.kind().name(), message(error))
        }
    }

    /// Describes an answer with an error status, or a redirect that bursar did not follow.
    pub(crate) fn of_response(response: &Response) -> Option<Self> {
        let (status, payment) = (response.status(), response.payment_status());
        let Some(target) = response.redirect_place() else {
            return response.status_error().map(|error| Self::of(&error));
        };
        let message = match payment {
            PaymentStatus::NotPaid => format!(
                "not paid: the answer is {status}, a redirect that bursar does not follow: GET {target}"
            ),
            _ => format!("{}, delivered elsewhere: GET {target}", prefix(payment)),
        };
        let message =
            format!("{message} (add --location to fetch it without any header of this request)");
        Some(Self::new(ErrorKind::Status.name(), message))
    }
}

/// Returns the target of a redirect that bursar did not follow. The answer to an API key can repeat the key in it.
pub(crate) fn redirect_target(response: &Response) -> Option<Url> {
    let mut target = response.redirect_target()?;
    if response.api_call().is_some() {
        target.set_query(None);
    }
    Some(target)
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

    /// Replaces the messages that quote the seller, who can choose the path with a redirect.
    pub(crate) fn without_seller_text(mut self) -> Self {
        let message = match self.denial.rule {
            Rule::ResourceOrigin => "the seller claims to sell for another origin",
            Rule::SignedOffer => "the payee did not sign the offer, and the policy requires it",
            Rule::Permission => "no permission of the policy covers this request",
            _ if matches!(self.denial.scope, Some(Scope::Resource(..))) => {
                self.denial.scope = None;
                "a limit on this resource has no room for the payment"
            }
            Rule::WalletEmpty => "sellers refused the last payments: the wallet has too few tokens",
            Rule::RefusedBefore => {
                "the seller refused the last payments, and will refuse others like them"
            }
            _ => return self,
        };
        message.clone_into(&mut self.denial.message);
        self
    }
}

/// Returns the message of an error. It names the options of the command in place of the settings of the library.
pub(crate) fn message(error: &Error) -> String {
    let message = error.to_string();
    let message = message.replace("`Ledger::reconcile`", "`bursar ledger reconcile`");
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

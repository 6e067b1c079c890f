//! What became of one request, for programs and for people.

use std::error::Error as StdError;

use bursar::reqwest::StatusCode;
use bursar::{Error, ErrorKind, Network, PaymentStatus, Purchase, Receipt, State};
use serde::Serialize;

use crate::exit::Failure;
use crate::quote::Shown;

/// One request as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) status: Option<u16>,
    #[serde(serialize_with = "name_of")]
    pub(crate) spend: PaymentStatus,
    pub(crate) paid: Option<Signed>,
    pub(crate) receipt: Option<Proof>,
    pub(crate) body: String,
    pub(crate) error: Option<Problem>,
    /// Of a call by key alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) called: Option<ApiCall>,
    /// Of a dry run alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quote: Option<Shown>,
}

fn name_of<S: serde::Serializer>(spend: &PaymentStatus, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(spend.name())
}

/// What was signed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Signed {
    amount: String,
    asset: String,
    network: String,
    pay_to: String,
    nonce: String,
    valid_before: u64,
    #[serde(skip)]
    words: String,
}

/// A receipt that matches what was signed.
#[derive(Debug, Serialize)]
pub(crate) struct Proof {
    success: bool,
    transaction: String,
    network: String,
    payer: String,
}

/// A call by key.
#[derive(Debug, Serialize)]
pub(crate) struct ApiCall {
    credential: String,
    /// Declared.
    usd: String,
}

impl From<&bursar::ApiCall> for ApiCall {
    fn from(called: &bursar::ApiCall) -> Self {
        Self {
            credential: called.credential().to_owned(),
            usd: called.cost().to_string(),
        }
    }
}

/// What went wrong.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

/// How a request ended, apart from its money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    Failed,
    Usage,
    Denied,
}

impl Verdict {
    pub(crate) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Builder => Self::Usage,
            _ => Self::Failed,
        }
    }
}

impl Report {
    /// A request that brought nothing.
    pub(crate) fn empty(spend: PaymentStatus) -> Self {
        Self {
            status: None,
            spend,
            paid: None,
            receipt: None,
            body: String::new(),
            error: None,
            called: None,
            quote: None,
        }
    }

    /// A request that was never sent, because the books or the machine would not have it.
    pub(crate) fn of_failure(failure: &Failure) -> Self {
        let message = format!(
            "{}: {}",
            lead(PaymentStatus::NotPaid),
            failure.message.trim_start_matches("not paid: ")
        );
        Self {
            error: Some(Problem {
                kind: failure.kind,
                message,
            }),
            ..Self::empty(PaymentStatus::NotPaid)
        }
    }

    /// A request that ended in an error; `entry` is what the books hold of its purchase.
    pub(crate) fn of_error(error: &Error, entry: Option<&Purchase>) -> Self {
        let spend = error.payment_status();
        let signed = entry.filter(|_| spend != PaymentStatus::NotPaid);
        let settled = error
            .receipt()
            .map(Proof::from)
            .or_else(|| signed.and_then(Proof::of_entry));
        Self {
            status: error.status().map(|status| status.as_u16()),
            paid: error
                .payment()
                .map(Signed::from)
                .or_else(|| signed.map(Signed::from)),
            receipt: settled.filter(|_| spend == PaymentStatus::Paid),
            error: Some(Problem {
                kind: error.kind().name(),
                message: words_of(error),
            }),
            ..Self::empty(spend)
        }
    }

    /// The line for people.
    pub(crate) fn line(&self) -> String {
        let bought = self.bought();
        match (&self.error, self.spend) {
            (Some(problem), PaymentStatus::NotPaid) if problem.kind == ErrorKind::Denied.name() => {
                problem
                    .message
                    .replacen(lead(PaymentStatus::NotPaid), "denied", 1)
            }
            (Some(problem), _) if bought.is_empty() => problem.message.clone(),
            (Some(problem), _) => format!("{}; {bought}", problem.message),
            (None, PaymentStatus::NotPaid) => match self.status {
                Some(status @ 300..=399) => {
                    format!("not paid: the answer is {status}, a redirect that is not followed")
                }
                _ => match &self.called {
                    Some(ApiCall { credential, usd }) => {
                        format!("not paid: by the key `{credential}`, {usd} USD declared")
                    }
                    None => "not paid: it is free".to_owned(),
                },
            },
            (None, PaymentStatus::MaybePaid) => {
                format!("may be paid: {bought}; the seller gave no receipt that matches")
            }
            (None, PaymentStatus::Paid) => format!("paid {bought}"),
        }
    }

    /// What was signed and what came of it, in words; empty if nothing was.
    fn bought(&self) -> String {
        let signed = self.paid.as_ref().map(|paid| paid.words.clone());
        let transaction = self
            .receipt
            .as_ref()
            .map(|receipt| format!("transaction {}", receipt.transaction));
        signed
            .into_iter()
            .chain(transaction)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// The error as it speaks, with the root of a failed connection.
pub(crate) fn words_of(error: &Error) -> String {
    let telling = matches!(
        error.kind(),
        ErrorKind::Transport | ErrorKind::Builder | ErrorKind::Timeout
    );
    let (words, root) = (error.to_string(), root_of(error));
    if telling && !words.contains(&root) {
        format!("{words}: {root}")
    } else {
        words
    }
}

/// The innermost cause of an error, or the error itself.
pub(crate) fn root_of(error: &(dyn StdError + 'static)) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

/// How a message begins: with the money.
pub(crate) const fn lead(spend: PaymentStatus) -> &'static str {
    match spend {
        PaymentStatus::NotPaid => "not paid",
        PaymentStatus::MaybePaid => "may be paid",
        PaymentStatus::Paid => "paid",
    }
}

/// An error status is a failure.
pub(crate) fn status_problem(status: StatusCode, spend: PaymentStatus) -> Option<Problem> {
    let failed = status.is_client_error() || status.is_server_error();
    failed.then(|| Problem {
        kind: ErrorKind::Status.name(),
        message: format!("{}: the answer is {status}", lead(spend)),
    })
}

impl From<&bursar::SignedPayment> for Signed {
    fn from(paid: &bursar::SignedPayment) -> Self {
        let asset = paid.amount.asset();
        Self {
            amount: paid.amount.units().to_string(),
            asset: asset.address().to_string(),
            network: paid.network().to_string(),
            pay_to: paid.pay_to.to_string(),
            nonce: paid.nonce.to_string(),
            valid_before: paid.valid_before,
            words: words(
                &paid.amount.to_string(),
                &paid.pay_to.to_string(),
                paid.network(),
            ),
        }
    }
}

impl From<&Purchase> for Signed {
    fn from(entry: &Purchase) -> Self {
        Self {
            amount: entry.value.to_string(),
            asset: entry.asset.to_string(),
            network: entry.network.to_string(),
            pay_to: entry.payee.to_string(),
            nonce: entry.nonce.to_string(),
            valid_before: entry.valid_before.unwrap_or(0),
            words: words(&amount(entry), &entry.payee.to_string(), entry.network),
        }
    }
}

impl From<&Receipt> for Proof {
    fn from(receipt: &Receipt) -> Self {
        Self {
            success: true,
            transaction: receipt.transaction().to_string(),
            network: receipt.network().to_string(),
            payer: receipt.payment().payer.to_string(),
        }
    }
}

impl Proof {
    pub(crate) fn of_entry(entry: &Purchase) -> Option<Self> {
        let transaction = entry
            .transaction
            .filter(|_| entry.state == State::Settled)?;
        Some(Self {
            success: true,
            transaction: transaction.to_string(),
            network: entry.network.to_string(),
            payer: entry.payer.to_string(),
        })
    }
}

fn words(amount: &str, payee: &str, network: Network) -> String {
    format!("{amount} to {payee} on {}", name(network))
}

/// `base`, or the CAIP-2 of a network without a name.
pub(crate) fn name(network: Network) -> String {
    network
        .name()
        .map_or_else(|| network.to_string(), ToOwned::to_owned)
}

/// `0.01 USDC`.
pub(crate) fn amount(entry: &Purchase) -> String {
    let decimals = usize::from(entry.decimals);
    let digits = format!(
        "{:0>width$}",
        entry.value.to_string(),
        width = decimals.saturating_add(1)
    );
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(decimals));
    match fraction.trim_end_matches('0') {
        "" => format!("{whole} {}", entry.symbol),
        fraction => format!("{whole}.{fraction} {}", entry.symbol),
    }
}

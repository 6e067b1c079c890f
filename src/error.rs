//! The error of a request: first the money, then the cause.

mod kind;
mod questions;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use url::Url;

pub use kind::ErrorKind;

use crate::ledger::{LedgerError, Purchase, PurchaseId, PurchaseIdError, State};
use crate::permit2::MissingAllowance;
use crate::policy::{Denial, PolicyError, PriceCheck};
use crate::request::PurchaseRequestError;
use crate::signer::{KeyError, SignerError};
use crate::text::{root_cause, shown_path};
use crate::x402::{Receipt, SignedPayment, Unpayable, WireError};

/// Whether money moved.
///
/// The enum is exhaustive on purpose: handle all three.
///
/// ```
/// use bursar::{Error, PaymentStatus};
///
/// fn advice(error: &Error) -> &'static str {
///     match error.payment_status() {
///         PaymentStatus::NotPaid => "nothing left this process: fix the cause and send it again",
///         PaymentStatus::MaybePaid => "send the same request again: bursar pays once",
///         PaymentStatus::Paid => "settled: ask the seller for the goods with error.receipt()",
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the money question has three answers"
)]
pub enum PaymentStatus {
    /// No signature left this process.
    NotPaid,
    /// bursar signed a payment and does not know the outcome. The amount counts as spent until the chain proves
    /// otherwise.
    MaybePaid,
    /// The seller named a transaction that matches the signed payment.
    Paid,
}

impl PaymentStatus {
    /// Returns the stable name: `not_paid`, `maybe_paid` or `paid`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotPaid => "not_paid",
            Self::MaybePaid => "maybe_paid",
            Self::Paid => "paid",
        }
    }

    /// The status of a purchase that the ledger holds.
    const fn of(purchase: &Purchase) -> Self {
        match purchase.state {
            State::Reserved | State::Voided | State::ReleasedByProof | State::ApiCall => {
                Self::NotPaid
            }
            State::Signed | State::Rejected | State::Unresolved => Self::MaybePaid,
            State::Settled => Self::Paid,
        }
    }
}

impl fmt::Display for PaymentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The error of a request that failed or was refused.
///
/// Look at [`payment_status`](Self::payment_status) first. The message begins with it: `not paid: …`,
/// `may be paid: …` or `paid: …`. It contains no key, no signature and no query string.
///
/// ```
/// use bursar::{Client, ErrorKind, PaymentStatus};
///
/// # async fn example(client: Client) {
/// if let Err(error) = client.get("https://api.example.com/report").send().await {
///     if error.payment_status() != PaymentStatus::NotPaid {
///         eprintln!("keep this id: {:?}", error.purchase_id());
///     }
///     match error.kind() {
///         ErrorKind::Denied => eprintln!("denied by {:?}", error.denial().map(|denial| denial.rule)),
///         kind => eprintln!("{kind}: {error}"),
///     }
/// }
/// # }
/// ```
pub struct Error {
    inner: Box<Inner>,
}

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

struct Inner {
    kind: ErrorKind,
    money: Money,
    message: String,
    url: Option<Url>,
    /// The URL for people.
    place: String,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    detail: Detail,
    source: Option<BoxError>,
}

/// The money that an error is about.
///
/// The status cannot be set. It follows from a signed payment, its receipt, or a purchase of the ledger, so an error
/// without one of them says `NotPaid`, and an error with one of them cannot.
#[derive(Clone)]
enum Money {
    /// No payment was signed. An id is the caller's.
    Unsigned(Option<PurchaseId>),
    /// The ledger holds this purchase.
    Stored(PurchaseId, PaymentStatus),
    Signed(Box<SignedPayment>),
    Settled(Box<Receipt>),
}

/// Facts that belong to one kind of error.
#[derive(Clone)]
enum Detail {
    Nothing,
    Denial(Box<Denial>),
    PriceCheck(Box<PriceCheck>),
    Unpayable(Vec<Unpayable>),
    Reason(String),
    /// With the seller's reason.
    Allowance(Box<MissingAllowance>, Option<String>),
}

/// The number of reasons in a message, without the last one.
const MOST_REASONS: usize = 31;

/// Making an error before a payment exists.
impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let inner = Inner {
            kind,
            money: Money::Unsigned(None),
            message: message.into(),
            url: None,
            place: String::new(),
            status: None,
            retry_after: None,
            detail: Detail::Nothing,
            source: None,
        };
        Self {
            inner: Box::new(inner),
        }
    }

    pub(crate) fn builder(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Builder, message)
    }

    pub(crate) fn denied(denial: Box<Denial>) -> Self {
        let message = denial.message.clone();
        Self::new(ErrorKind::Denied, message).detail(Detail::Denial(denial))
    }

    pub(crate) fn not_payable(reasons: Vec<Unpayable>) -> Self {
        let last = reasons.len().saturating_sub(1);
        let reasons_shown = reasons.iter().enumerate();
        let list: Vec<String> = reasons_shown
            .filter(|(place, _)| *place < MOST_REASONS || *place == last)
            .map(|(_, reason)| reason.to_string())
            .collect();
        let message = if list.is_empty() {
            "the seller makes no offer".to_owned()
        } else {
            format!("no offer can be signed for: {}", list.join("; "))
        };
        Self::new(ErrorKind::NotPayable, message).detail(Detail::Unpayable(reasons))
    }

    pub(crate) fn with_price_check(
        kind: ErrorKind,
        message: &str,
        price_check: PriceCheck,
    ) -> Self {
        Self::new(kind, message).detail(Detail::PriceCheck(Box::new(price_check)))
    }

    /// An error of the HTTP client. There is no public conversion, because an error while a paid body is read
    /// needs the payment.
    pub(crate) fn http(error: reqwest::Error) -> Self {
        let late = |limit: &str| (ErrorKind::Timeout, format!("{limit} of the HTTP client"));
        let failed = |kind, text: &str| (kind, format!("{text}: {}", root_cause(&error)));
        let (kind, message) = match error.is_timeout() {
            true if error.is_connect() => late("no connection within the `connect_timeout`"),
            true => late("no answer within the `timeout`"),
            false if error.is_builder() => {
                failed(ErrorKind::Builder, "the request cannot be built")
            }
            false if InsecureConnection::caused(&error) => {
                failed(ErrorKind::Insecure, "no connection")
            }
            false if error.is_connect() => failed(ErrorKind::Transport, "no connection"),
            false => failed(ErrorKind::Transport, "the connection failed"),
        };
        let url = error.url().cloned();
        let error = Self::new(kind, message).because(error.without_url());
        match url {
            Some(url) => error.at(&url),
            None => error,
        }
    }
}

/// The reason why a connection is not safe to use. [`Error::http`] finds it below reqwest's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InsecureConnection(String);

impl InsecureConnection {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    fn caused(error: &(dyn StdError + 'static)) -> bool {
        std::iter::successors(Some(error), |error| StdError::source(*error))
            .any(|error| error.is::<Self>())
    }
}

/// Attributing an error to money, which needs a proof that there is some.
impl Error {
    /// With a purchase that the ledger holds: the status follows from its state.
    pub(crate) fn of_purchase(mut self, purchase: &Purchase) -> Self {
        let status = PaymentStatus::of(purchase);
        self.inner.money = Money::Stored(purchase.id.clone(), status);
        self
    }

    /// With a payment that was signed, and its receipt if the seller gave one.
    pub(crate) fn of_payment(mut self, payment: &SignedPayment, receipt: Option<&Receipt>) -> Self {
        self.inner.money = match receipt {
            Some(receipt) => Money::Settled(Box::new(receipt.clone())),
            None => Money::Signed(Box::new(payment.clone())),
        };
        self
    }

    /// With the id of a purchase that this call did not sign for.
    pub(crate) fn naming(mut self, purchase: &PurchaseId) -> Self {
        if let Money::Unsigned(id) = &mut self.inner.money {
            *id = Some(purchase.clone());
        }
        self
    }
}

/// Adding facts.
impl Error {
    fn detail(mut self, detail: Detail) -> Self {
        self.inner.detail = detail;
        self
    }

    /// With the seller's reason, if it gave one.
    pub(crate) fn with_reason(self, reason: Option<String>) -> Self {
        match reason {
            Some(reason) => self.detail(Detail::Reason(reason)),
            None => self,
        }
    }

    /// With the approval that the payment needs, and the seller's reason.
    pub(crate) fn with_missing_allowance(
        self,
        missing: MissingAllowance,
        reason: Option<String>,
    ) -> Self {
        self.detail(Detail::Allowance(Box::new(missing), reason))
    }

    pub(crate) fn at(self, url: &Url) -> Self {
        match self.inner.url {
            Some(_) => self,
            None => self.instead_at(url),
        }
    }

    /// Replaces the URL that was sent, which may hold a key.
    pub(crate) fn instead_at(mut self, url: &Url) -> Self {
        self.inner.url = Some(url.clone());
        self.inner.place = without_secrets(url);
        self
    }

    /// With the status of an earlier answer, of `sender`.
    pub(crate) fn after(mut self, sender: &str, status: StatusCode) -> Self {
        self.inner.message = format!(
            "{}; before that, {sender} was answered {status}",
            self.inner.message
        );
        self.with_status(status)
    }

    /// With a further sentence.
    pub(crate) fn and(mut self, rest: &str) -> Self {
        self.inner.message.push_str("; ");
        self.inner.message.push_str(rest);
        self
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.inner.status = Some(status);
        self
    }

    pub(crate) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// The same error for another caller, without its source.
    #[cfg(feature = "mcp")]
    pub(crate) fn twin(&self) -> Self {
        let inner = Inner {
            money: self.inner.money.clone(),
            message: self.inner.message.clone(),
            url: self.inner.url.clone(),
            place: self.inner.place.clone(),
            detail: self.inner.detail.clone(),
            source: None,
            ..*self.inner
        };
        Self {
            inner: Box::new(inner),
        }
    }

    /// With the time after which the seller wants the request again.
    #[cfg(feature = "mcp")]
    pub(crate) fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.inner.retry_after = wait;
        self
    }

    #[cfg(feature = "middleware")]
    pub(crate) fn take_source(&mut self) -> Option<BoxError> {
        self.inner.source.take()
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// The cause alone, without the money and the URL.
    pub(crate) fn message(&self) -> &str {
        &self.inner.message
    }
}

impl Error {
    /// Returns whether money moved. Look at this first.
    #[must_use]
    pub fn payment_status(&self) -> PaymentStatus {
        match &self.inner.money {
            Money::Unsigned(_) => PaymentStatus::NotPaid,
            Money::Stored(_, status) => *status,
            Money::Signed(_) => PaymentStatus::MaybePaid,
            Money::Settled(_) => PaymentStatus::Paid,
        }
    }

    /// Returns the cause.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Returns the denial, for [`ErrorKind::Denied`].
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        match &self.inner.detail {
            Detail::Denial(denial) => Some(denial),
            _ => None,
        }
    }

    /// Returns the price and the answer of the policy to it, for [`ErrorKind::NotReplayable`] and
    /// [`ErrorKind::NoWallet`].
    #[must_use]
    pub fn price_check(&self) -> Option<&PriceCheck> {
        match &self.inner.detail {
            Detail::PriceCheck(price_check) => Some(price_check),
            _ => None,
        }
    }

    /// Returns why bursar cannot sign for each offer, in the seller's order, for [`ErrorKind::NotPayable`].
    #[must_use]
    pub fn unpayable(&self) -> &[Unpayable] {
        match &self.inner.detail {
            Detail::Unpayable(reasons) => reasons,
            _ => &[],
        }
    }

    /// Returns the signed payment, if the call signed or presented one.
    #[must_use]
    pub fn payment(&self) -> Option<&SignedPayment> {
        match &self.inner.money {
            Money::Unsigned(_) | Money::Stored(..) => None,
            Money::Signed(payment) => Some(payment),
            Money::Settled(receipt) => Some(receipt.payment()),
        }
    }

    /// Returns the receipt of a settled payment whose response failed.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        match &self.inner.money {
            Money::Settled(receipt) => Some(receipt),
            _ => None,
        }
    }

    /// Returns the seller's reason, such as `invalid_exact_evm_insufficient_balance`, or the body of a 402 whose terms
    /// cannot be read: untrusted text of at most 160 characters.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match &self.inner.detail {
            Detail::Reason(reason) => Some(reason),
            Detail::Allowance(_, reason) => reason.as_deref(),
            _ => None,
        }
    }

    /// Returns the approval of Permit2 that the payment needs: the seller refused the payment for lack of it, or a [chain
    /// reader](crate::ClientBuilder::chain) found that it is missing, and bursar signed nothing.
    ///
    /// Approve it, for example with `bursar wallet approve`, and send the same request again. If the payment is signed,
    /// bursar presents the same one.
    #[must_use]
    pub fn missing_allowance(&self) -> Option<&MissingAllowance> {
        match &self.inner.detail {
            Detail::Allowance(missing, _) => Some(missing),
            Detail::Denial(denial) => denial.missing_allowance.as_deref(),
            _ => None,
        }
    }

    /// Returns the id of the purchase, if there is one. Send the request again with this id to learn the outcome
    /// without paying twice.
    #[must_use]
    pub fn purchase_id(&self) -> Option<&PurchaseId> {
        match &self.inner.money {
            Money::Unsigned(id) => id.as_ref(),
            Money::Stored(id, _) => Some(id),
            Money::Signed(payment) => Some(&payment.purchase),
            Money::Settled(receipt) => Some(&receipt.payment().purchase),
        }
    }

    /// Returns the URL. It may hold secrets; the message leaves out its query.
    #[must_use]
    pub fn url(&self) -> Option<&Url> {
        self.inner.url.as_ref()
    }

    /// Returns the status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.inner.status
    }

    /// Returns bursar's error inside another error, if there is one: the error itself, or the first of its sources.
    ///
    /// An error of reqwest while the body of a paid response is read has one, so the payment is not lost. An error of
    /// `reqwest-middleware` needs `bursar::middleware::error`.
    ///
    /// ```
    /// use bursar::{Error, PaymentStatus};
    ///
    /// fn may_be_paid(error: &bursar::reqwest::Error) -> bool {
    ///     Error::find_in(error).is_some_and(|error| error.payment_status() != PaymentStatus::NotPaid)
    /// }
    /// ```
    #[must_use]
    pub fn find_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| StdError::source(*error))
            .find_map(|error| error.downcast_ref())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.payment_status() {
            PaymentStatus::NotPaid => "not paid: ",
            PaymentStatus::MaybePaid => "may be paid: ",
            PaymentStatus::Paid => "paid: ",
        })?;
        f.write_str(&self.inner.message)?;
        if let Some(purchase) = self.purchase_id() {
            write!(f, " (purchase {purchase})")?;
        }
        match self.inner.place.as_str() {
            "" => Ok(()),
            place => write!(f, " [{place}]"),
        }
    }
}

/// Origin and path. User, password, query and fragment may be secret.
pub(crate) fn without_secrets(url: &Url) -> String {
    let path = shown_path(url.path());
    format!("{}{path}", url.origin().ascii_serialization())
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("bursar::Error");
        out.field("kind", &self.inner.kind)
            .field("payment_status", &self.payment_status())
            .field("message", &self.inner.message);
        if let Some(purchase) = self.purchase_id() {
            out.field("purchase", &purchase.as_str());
        }
        if self.inner.url.is_some() {
            out.field("url", &self.inner.place);
        }
        if let Some(source) = &self.inner.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

/// Errors that happen before a signature, by kind.
macro_rules! from {
    ($($source:ty => $kind:ident),+ $(,)?) => {$(
        impl From<$source> for Error {
            fn from(source: $source) -> Self {
                Self::new(ErrorKind::$kind, source.to_string()).because(source)
            }
        }
    )+};
}

from! {
    PolicyError => Builder,
    KeyError => Builder,
    PurchaseIdError => Builder,
    PurchaseRequestError => Builder,
    LedgerError => Ledger,
    SignerError => Signer,
    WireError => Malformed,
}

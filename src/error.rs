//! The one error type: first what became of the money, then what went wrong.

use std::error::Error as StdError;
use std::fmt;

use reqwest::StatusCode;
use url::Url;

use crate::ledger::{LedgerError, PurchaseId, PurchaseIdError};
use crate::payer::PriceCheck;
use crate::policy::{Denial, PolicyError};
use crate::signer::{KeyError, SignerError};
use crate::x402::Unpayable;
use crate::x402::WireError;
use crate::x402::{Receipt, SignedPayment};

/// What became of the money.
///
/// Deliberately exhaustive: a caller must handle all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the money question has three answers"
)]
pub enum PaymentStatus {
    /// Nothing was signed.
    NotPaid,
    /// An authorization was signed and the outcome is not known. It counts as spent until proved
    /// otherwise.
    MaybePaid,
    /// The seller named the transaction, and it matches what was signed.
    Paid,
}

impl PaymentStatus {
    /// The stable name: `none`, `unknown` or `settled`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotPaid => "not_paid",
            Self::MaybePaid => "maybe_paid",
            Self::Paid => "paid",
        }
    }
}

impl fmt::Display for PaymentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The client, the policy or the request was built wrongly; nothing was sent.
    Builder,
    /// Plain http, a private address or another unsafe destination; nothing was sent.
    Insecure,
    /// A key is not there or cannot be read; nothing was sent.
    Credential,
    /// The network failed.
    Transport,
    /// The time was up.
    Timeout,
    /// The 402 claims to be x402 and cannot be read.
    Malformed,
    /// No offer can be signed for; see [`Error::unpayable`].
    NotPayable,
    /// Payment is required and the client has no wallet; see [`Error::quotation`].
    NoWallet,
    /// The body cannot be sent a second time; see [`Error::quotation`].
    NotReplayable,
    /// The policy refused; see [`Error::denial`].
    Denied,
    /// The signer gave no usable signature.
    Signer,
    /// The books cannot be used.
    Ledger,
    /// The purchase id belongs to another request, or another task is buying it now.
    Purchase,
    /// The seller answered the payment with 402 and terms; see [`Error::reason`].
    Rejected,
    /// The seller could not settle; see [`Error::reason`].
    SettlementFailed,
    /// The seller has sent the transaction and not yet seen it included.
    SettlementPending,
    /// An MCP server answered with an error of its own.
    Rpc,
    /// An error status; see [`ResponseExt::error_for_payment`](crate::ResponseExt::error_for_payment).
    Status,
}

impl ErrorKind {
    /// The stable name, such as `not_payable`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Builder => "builder",
            Self::Insecure => "insecure",
            Self::Credential => "credential",
            Self::Transport => "transport",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::NotPayable => "not_payable",
            Self::NoWallet => "no_wallet",
            Self::NotReplayable => "not_replayable",
            Self::Denied => "denied",
            Self::Signer => "signer",
            Self::Ledger => "ledger",
            Self::Purchase => "purchase",
            Self::Rejected => "rejected",
            Self::SettlementFailed => "settlement_failed",
            Self::SettlementPending => "settlement_pending",
            Self::Rpc => "rpc",
            Self::Status => "status",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A request failed, or was refused before it could cost anything.
///
/// The message begins with the money: `not paid: …`, `may be paid: …` or `paid: …`. It repeats no
/// key, no signature and no query string.
pub struct Error {
    inner: Box<Inner>,
}

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

struct Inner {
    kind: ErrorKind,
    spend: PaymentStatus,
    message: String,
    url: Option<Url>,
    purchase: Option<PurchaseId>,
    paid: Option<Box<SignedPayment>>,
    status: Option<StatusCode>,
    about: About,
    source: Option<BoxError>,
}

/// What an error carries besides words.
#[derive(Clone)]
enum About {
    Nothing,
    Denial(Box<Denial>),
    PriceCheck(Box<PriceCheck>),
    Unpayable(Vec<Unpayable>),
    Receipt(Box<Receipt>),
    Reason(String),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let inner = Inner {
            kind,
            spend: PaymentStatus::NotPaid,
            message: message.into(),
            url: None,
            purchase: None,
            paid: None,
            status: None,
            about: About::Nothing,
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
        Self::new(ErrorKind::Denied, message).about(About::Denial(denial))
    }

    pub(crate) fn not_payable(reasons: Vec<Unpayable>) -> Self {
        let list: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        let message = if list.is_empty() {
            "the seller makes no offer".to_owned()
        } else {
            format!("no offer can be signed for: {}", list.join("; "))
        };
        Self::new(ErrorKind::NotPayable, message).about(About::Unpayable(reasons))
    }

    pub(crate) fn with_price_check(
        kind: ErrorKind,
        message: &str,
        price_check: PriceCheck,
    ) -> Self {
        Self::new(kind, message).about(About::PriceCheck(Box::new(price_check)))
    }

    pub(crate) fn refused(kind: ErrorKind, message: String, reason: Option<String>) -> Self {
        let error = Self::new(kind, message).spent(PaymentStatus::MaybePaid);
        match reason {
            Some(reason) => error.about(About::Reason(reason)),
            None => error,
        }
    }

    pub(crate) fn with_receipt(self, receipt: Receipt) -> Self {
        self.about(About::Receipt(Box::new(receipt)))
    }

    fn about(mut self, about: About) -> Self {
        self.inner.about = about;
        self
    }

    pub(crate) fn spent(mut self, spend: PaymentStatus) -> Self {
        self.inner.spend = spend;
        self
    }

    pub(crate) fn at(mut self, url: &Url) -> Self {
        self.inner.url.get_or_insert_with(|| url.clone());
        self
    }

    /// Without the URL that was sent, which may hold a key.
    pub(crate) fn instead_at(mut self, url: &Url) -> Self {
        self.inner.url = Some(url.clone());
        self
    }

    /// With the status of an answer that came before.
    pub(crate) fn after(mut self, what: &str, status: StatusCode) -> Self {
        self.inner.message = format!(
            "{}; before that, {what} was answered {status}",
            self.inner.message
        );
        self.with_status(status)
    }

    /// The same for another caller, without its source.
    #[cfg(feature = "mcp")]
    pub(crate) fn twin(&self) -> Self {
        let inner = Inner {
            message: self.inner.message.clone(),
            url: self.inner.url.clone(),
            purchase: self.inner.purchase.clone(),
            paid: self.inner.paid.clone(),
            about: self.inner.about.clone(),
            source: None,
            ..*self.inner
        };
        Self {
            inner: Box::new(inner),
        }
    }

    pub(crate) fn of_purchase(mut self, purchase: &PurchaseId) -> Self {
        self.inner.purchase = Some(purchase.clone());
        self
    }

    pub(crate) fn of_payment(mut self, paid: &SignedPayment) -> Self {
        self.inner.paid = Some(Box::new(paid.clone()));
        self.of_purchase(&paid.purchase)
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.inner.status = Some(status);
        self
    }

    pub(crate) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// What went wrong, without the money and the place.
    pub(crate) fn message(&self) -> &str {
        &self.inner.message
    }

    /// What became of the money: ask this first.
    #[must_use]
    pub fn payment_status(&self) -> PaymentStatus {
        self.inner.spend
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The policy's refusal, for [`ErrorKind::Denied`].
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        match &self.inner.about {
            About::Denial(denial) => Some(denial),
            _ => None,
        }
    }

    /// The price and what the policy says of it, for [`ErrorKind::NotReplayable`] and
    /// [`ErrorKind::NoWallet`].
    #[must_use]
    pub fn price_check(&self) -> Option<&PriceCheck> {
        match &self.inner.about {
            About::PriceCheck(price_check) => Some(price_check),
            _ => None,
        }
    }

    /// Why each offer cannot be signed for, in the seller's order, for
    /// [`ErrorKind::NotPayable`].
    #[must_use]
    pub fn unpayable(&self) -> &[Unpayable] {
        match &self.inner.about {
            About::Unpayable(reasons) => reasons,
            _ => &[],
        }
    }

    /// What was signed, once something was.
    #[must_use]
    pub fn payment(&self) -> Option<&SignedPayment> {
        self.inner.paid.as_deref()
    }

    /// The receipt of a payment whose response failed.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        match &self.inner.about {
            About::Receipt(receipt) => Some(receipt),
            _ => None,
        }
    }

    /// The seller's machine-readable reason, such as `invalid_exact_evm_insufficient_balance`;
    /// untrusted text of at most 160 characters.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match &self.inner.about {
            About::Reason(reason) => Some(reason),
            _ => None,
        }
    }

    /// The purchase, once there is one: give its id to ask for the outcome again without paying
    /// again.
    #[must_use]
    pub fn purchase_id(&self) -> Option<&PurchaseId> {
        self.inner.purchase.as_ref()
    }

    /// The URL. It may hold secrets; the message leaves out its query.
    #[must_use]
    pub fn url(&self) -> Option<&Url> {
        self.inner.url.as_ref()
    }

    /// The status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.inner.status
    }

    /// Whether the policy refused.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.kind() == ErrorKind::Denied
    }

    /// Whether the time was up.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.kind() == ErrorKind::Timeout
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
        if let Some(purchase) = &self.inner.purchase {
            write!(f, " (purchase {purchase})")?;
        }
        match &self.inner.url {
            Some(url) => write!(f, " [{}]", without_secrets(url)),
            None => Ok(()),
        }
    }
}

/// Origin and path: user, password, query and fragment may be secret.
fn without_secrets(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("bursar::Error");
        out.field("kind", &self.inner.kind)
            .field("spend", &self.inner.spend)
            .field("message", &self.inner.message);
        if let Some(purchase) = &self.inner.purchase {
            out.field("purchase", &purchase.as_str());
        }
        if let Some(url) = &self.inner.url {
            out.field("url", &without_secrets(url));
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

impl Error {
    /// An error of the HTTP client before anything was signed. There is no public conversion: of an
    /// error while reading a paid body it would say "not paid".
    pub(crate) fn http(error: reqwest::Error) -> Self {
        let (kind, message) = if error.is_timeout() {
            (ErrorKind::Timeout, "no answer in time")
        } else if error.is_builder() {
            (ErrorKind::Builder, "the request cannot be built")
        } else if error.is_connect() {
            (ErrorKind::Transport, "no connection")
        } else {
            (ErrorKind::Transport, "the connection failed")
        };
        let url = error.url().cloned();
        let error = Self::new(kind, message).because(error.without_url());
        match url {
            Some(url) => error.at(&url),
            None => error,
        }
    }
}

/// Errors that happen before anything is signed, by kind.
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
    LedgerError => Ledger,
    SignerError => Signer,
    WireError => Malformed,
}

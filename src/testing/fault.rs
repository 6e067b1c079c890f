//! Ways in which a seller misbehaves.

use url::Url;

/// A way in which the seller misbehaves on a [`Route`](super::Route).
///
/// Each strikes on its own occasion: when terms are stated (any 402 with terms), or when a payment
/// came that is valid. What is settled is settled: ask
/// [`Paywall::settlements`](super::Paywall::settlements).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Settles, then closes the connection without an answer.
    DropAfterSettle,
    /// Settles, then never answers; ends when the client goes away.
    HangAfterSettle,
    /// Settles, then answers 502 without a receipt.
    ServerErrorAfterSettle,
    /// Settles and delivers, and breaks the connection in the middle of the body.
    BrokenBodyAfterSettle,
    /// Settles and delivers, without a receipt.
    NoReceipt,
    /// Settles and delivers, with a receipt header that is not base64.
    MalformedReceipt,
    /// Settles, and lies about it in the receipt.
    ForgedReceipt(Forgery),
    /// Settles, and answers 402 with `settlement_pending` and the transaction's hash.
    SettlementPending,
    /// Does not settle, and says so: 402 with a receipt of failure and no terms.
    SettlementFailure,
    /// Does not settle; doubles the price and answers 402 with the new terms.
    RejectAgain,
    /// Does not settle; redirects the payment to another place with 307.
    RedirectAfterPayment(Url),
    /// States terms with a body of so many bytes.
    HugeBody402(usize),
    /// States terms with a body that begins and never ends.
    HangingBody402,
    /// States terms with so many bytes of header: `PAYMENT-REQUIRED` padded in version 2,
    /// `X-Padding` in version 1.
    HugeHeader(usize),
}

/// What a receipt lies about. The payment was settled all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forgery {
    /// Names another payer.
    Payer,
    /// Names another network.
    Network,
    /// Names no transaction.
    NoTransaction,
    /// Says that settling failed, with a 402 and no terms, to be paid twice.
    Failure,
}

/// When a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// A 402 with terms is about to be answered.
    Terms,
    /// A valid payment has come.
    Payment,
}

impl Fault {
    pub(super) const fn occasion(&self) -> Occasion {
        match self {
            Self::HugeBody402(_) | Self::HangingBody402 | Self::HugeHeader(_) => Occasion::Terms,
            Self::DropAfterSettle
            | Self::HangAfterSettle
            | Self::ServerErrorAfterSettle
            | Self::BrokenBodyAfterSettle
            | Self::NoReceipt
            | Self::MalformedReceipt
            | Self::ForgedReceipt(_)
            | Self::SettlementPending
            | Self::SettlementFailure
            | Self::RejectAgain
            | Self::RedirectAfterPayment(_) => Occasion::Payment,
        }
    }
}

/// The faults of a route: those that strike once, in their order, then the one that always does.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) once: Vec<Fault>,
    pub(super) always: Vec<Fault>,
}

impl Faults {
    pub(super) fn strike(&mut self, occasion: Occasion) -> Option<Fault> {
        match self.once.iter().position(|fault| fault.occasion() == occasion) {
            Some(next) => Some(self.once.remove(next)),
            None => self.always.iter().find(|fault| fault.occasion() == occasion).cloned(),
        }
    }
}

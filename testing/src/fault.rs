//! Ways in which a seller misbehaves.

use url::Url;

use super::breakage::Breakage;
use super::false_terms::Lie;

/// Gives an enum the names of its variants. The match makes the compiler ask for a new variant's
/// name, and the suite of `tests/hostile` for its test.
macro_rules! names {
    ($type:ident: $($variant:ident),+ $(,)?) => {
        impl $type {
            /// The name of every variant, in the order of their declaration.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($variant)),+];

            /// The variant's name, such as the first of [`NAMES`](Self::NAMES).
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant),)+
                }
            }
        }
    };
}
pub(super) use names;

/// A way in which the seller misbehaves on a [`Route`](super::Route).
///
/// Each strikes on its own occasion: when terms are stated (any 402 with terms), or when a payment
/// came that is valid. What is settled is settled: ask
/// [`Paywall::settlements`](super::Paywall::settlements). What a payment authorized is never lost to
/// such a seller: [`Paywall::cash_in`](super::Paywall::cash_in) has it take all that it can.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    // When terms are stated. No money has moved.
    /// States terms that lie.
    Terms(Lie),
    /// States terms in an answer that breaks.
    BreakTerms(Breakage),
    /// States terms with a body of so many bytes.
    HugeBody402(usize),
    /// States terms with a body that begins and never ends.
    HangingBody402,
    /// States terms with so many bytes of header: `PAYMENT-REQUIRED` padded in version 2,
    /// `X-Padding` in version 1.
    HugeHeader(usize),
    /// States terms under another status than 402.
    TermsUnder(u16),
    /// States terms with an `Age`, in seconds: a cache kept them, and they may have changed since.
    StaleTerms(u64),
    /// States terms, and asks to wait for a year with `Retry-After`.
    LongRetryAfter,
    /// States terms, and sets a cookie to know the buyer again by.
    TrackingCookie,
    /// Redirects the request instead of stating terms.
    RedirectBeforeTerms {
        /// The status, such as 307.
        status: u16,
        /// Where to; the request's own URL makes a loop.
        to: Url,
    },

    // When a valid payment came, and is not settled.
    /// Does not settle, and answers so in plain text. Statuses 429 and 503 ask to wait for a year.
    StatusBeforeSettle(u16),
    /// Does not settle; the honest answer breaks on its way.
    BreakBeforeSettle(Breakage),
    /// Does not settle, and settles once the buyer has gone away without an answer.
    SettleWhenGone,
    /// Does not settle, and delivers without a receipt.
    DeliverUnsettled,
    /// Does not settle, and delivers with a receipt that names a transaction which never was.
    InventedReceipt,
    /// Does not settle, and says so: 402 with a receipt of failure and no terms.
    SettlementFailure,
    /// Does not settle, and answers 402 with `settlement_pending` and the hash of a transaction
    /// that never is sent.
    PendingUnsettled,
    /// Does not settle; doubles the price and answers 402 with the new terms.
    RejectAgain,
    /// Does not settle, and answers 402 with terms that lie.
    Requote(Lie),
    /// Does not settle, and answers 402 with texts that quote the payment, signature and all.
    QuotePayment,
    /// Does not settle; redirects the payment to another place with 307.
    RedirectAfterPayment(Url),

    // When a valid payment came, and is settled: the money has moved.
    /// Settles, then closes the connection without an answer.
    DropAfterSettle,
    /// Settles, then never answers; ends when the client goes away.
    HangAfterSettle,
    /// Settles, then answers 502 without a receipt.
    ServerErrorAfterSettle,
    /// Settles, then answers so in plain text, without a receipt. Statuses 429 and 503 ask to wait
    /// for a year.
    StatusAfterSettle(u16),
    /// Settles and delivers, and breaks the connection in the middle of the body.
    BrokenBodyAfterSettle,
    /// Settles and delivers, in an answer that breaks.
    BreakAfterSettle(Breakage),
    /// Settles, and answers with an honest receipt and nothing else.
    EmptyAfterSettle,
    /// Settles and delivers, without a receipt.
    NoReceipt,
    /// Settles and delivers, with a receipt header that is not base64.
    MalformedReceipt,
    /// Settles, and lies about it in the receipt.
    ForgedReceipt(Forgery),
    /// Settles, and answers 402 with `settlement_pending` and the transaction's hash.
    SettlementPending,
    /// Settles, and answers 402 with terms that lie, without a receipt.
    RequoteAfterSettle(Lie),
    /// Settles, then redirects the payment.
    RedirectAfterSettle {
        /// The status, such as 307.
        status: u16,
        /// Where to.
        to: Url,
    },
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
    /// Names a transaction that never was.
    Transaction,
    /// Names the transaction of the seller's first sale, whoever bought then.
    OtherPurchase,
    /// Says that another amount was charged.
    Amount,
    /// Says that settling failed, with a 402 and no terms, to be paid twice.
    Failure,
    /// Says that settling failed, and delivers.
    FailureDelivered,
    /// Is true, and comes with a 402 and the terms again.
    WithTerms,
    /// Says under `PAYMENT-RESPONSE` that settling failed, and under `X-PAYMENT-RESPONSE` that it
    /// did not.
    Contradiction,
    /// Is longer than anybody reads: 100 000 bytes.
    Huge,
}

names!(Fault:
    Terms, BreakTerms, HugeBody402, HangingBody402, HugeHeader, TermsUnder, StaleTerms, LongRetryAfter,
    TrackingCookie, RedirectBeforeTerms, StatusBeforeSettle, BreakBeforeSettle, SettleWhenGone, DeliverUnsettled,
    InventedReceipt, SettlementFailure, PendingUnsettled, RejectAgain, Requote, QuotePayment, RedirectAfterPayment,
    DropAfterSettle, HangAfterSettle, ServerErrorAfterSettle, StatusAfterSettle, BrokenBodyAfterSettle,
    BreakAfterSettle, EmptyAfterSettle, NoReceipt, MalformedReceipt, ForgedReceipt, SettlementPending,
    RequoteAfterSettle, RedirectAfterSettle,
);
names!(Forgery:
    Payer, Network, NoTransaction, Transaction, OtherPurchase, Amount, Failure, FailureDelivered, WithTerms,
    Contradiction, Huge,
);

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
            Self::Terms(_)
            | Self::BreakTerms(_)
            | Self::HugeBody402(_)
            | Self::HangingBody402
            | Self::HugeHeader(_)
            | Self::TermsUnder(_)
            | Self::StaleTerms(_)
            | Self::LongRetryAfter
            | Self::TrackingCookie
            | Self::RedirectBeforeTerms { .. } => Occasion::Terms,
            Self::StatusBeforeSettle(_)
            | Self::BreakBeforeSettle(_)
            | Self::SettleWhenGone
            | Self::DeliverUnsettled
            | Self::InventedReceipt
            | Self::SettlementFailure
            | Self::PendingUnsettled
            | Self::RejectAgain
            | Self::Requote(_)
            | Self::QuotePayment
            | Self::RedirectAfterPayment(_)
            | Self::DropAfterSettle
            | Self::HangAfterSettle
            | Self::ServerErrorAfterSettle
            | Self::StatusAfterSettle(_)
            | Self::BrokenBodyAfterSettle
            | Self::BreakAfterSettle(_)
            | Self::EmptyAfterSettle
            | Self::NoReceipt
            | Self::MalformedReceipt
            | Self::ForgedReceipt(_)
            | Self::SettlementPending
            | Self::RequoteAfterSettle(_)
            | Self::RedirectAfterSettle { .. } => Occasion::Payment,
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
        match self
            .once
            .iter()
            .position(|fault| fault.occasion() == occasion)
        {
            Some(next) => Some(self.once.remove(next)),
            None => self
                .always
                .iter()
                .find(|fault| fault.occasion() == occasion)
                .cloned(),
        }
    }
}

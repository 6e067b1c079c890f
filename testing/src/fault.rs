//! The ways in which a seller misbehaves.

use url::Url;

use crate::breakage::Breakage;
use crate::false_terms::FalseTerms;

/// Gives an enum the names of its variants. The match makes the compiler ask for the name of a new variant, and the
/// test `every_fault_has_a_trial` of bursar asks for its trial.
macro_rules! names {
    ($type:ident: $($variant:ident),+ $(,)?) => {
        impl $type {
            /// The names of all variants, in the order of their declaration.
            ///
            /// Use it to check that your tests cover every variant.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($variant)),+];

            /// Returns the name of the variant, as in [`NAMES`](Self::NAMES).
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant),)+
                }
            }
        }
    };
}
pub(crate) use names;

/// A way in which the seller misbehaves. Set it with [`Route::fault`](crate::Route::fault).
///
/// A fault strikes either when the seller states its terms, or when a valid payment has come. Every 402 answer with
/// terms is a statement. The documentation of each variant says whether the seller settles the payment: "settles" means
/// that the money has moved and is in [`Paywall::settlements`](crate::Paywall::settlements).
///
/// The seller keeps every valid payment. [`Paywall::settle_presented`](crate::Paywall::settle_presented) settles the
/// payments that it has not settled yet.
///
/// ```
/// use bursar::{Client, LocalSigner, Ledger, PaymentStatus, Policy, usd};
/// use bursar_testing::{Fault, Paywall, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // The seller takes the money and closes the connection.
/// let route = Route::get("/report").price(usd!("0.01")).fault(Fault::DropAfterSettle);
/// let seller = Paywall::builder().route(route).start().await?;
///
/// let client = Client::builder()
///     .signer(LocalSigner::random()?)
///     .policy(Policy::new().allow_network("base-sepolia"))
///     .ledger(Ledger::memory())
///     .allow_http_loopback(true)
///     .build()?;
/// let error = client.get(seller.url("/report")).send().await.unwrap_err();
///
/// assert_eq!(error.payment_status(), PaymentStatus::MaybePaid);
/// assert_eq!(seller.settlements().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    // These strike when terms are stated. No money has moved.
    /// States false terms.
    Terms(FalseTerms),
    /// States terms in an answer that breaks.
    BreakTerms(Breakage),
    /// States terms with a body of this many bytes.
    HugeBody402(usize),
    /// States terms with a body that begins and never ends.
    HangingBody402,
    /// States terms with a header of this many bytes: pads `PAYMENT-REQUIRED` in version 2, and adds `X-Padding` in
    /// version 1.
    HugeHeader(usize),
    /// States terms with this status instead of 402.
    TermsWithStatus(u16),
    /// States terms with an `Age` header, in seconds: a cache stored them, and they may be out of date.
    StaleTerms(u64),
    /// States terms, and asks to wait for a year with `Retry-After`.
    LongRetryAfter,
    /// States terms, and sets a cookie that identifies the buyer.
    TrackingCookie,
    /// Redirects the request instead of stating terms.
    RedirectBeforeTerms {
        /// The status, such as 307.
        status: u16,
        /// The target. The URL of the request itself makes a loop.
        to: Url,
    },

    // These strike when a valid payment has come. The seller does not settle it.
    /// Does not settle. Answers with this status in plain text. With 429 and 503, asks to wait for a year.
    StatusBeforeSettle(u16),
    /// Does not settle. Sends the content without a receipt, in an answer that breaks.
    BreakBeforeSettle(Breakage),
    /// Sends no answer, and settles when the buyer has disconnected.
    SettleAfterDisconnect,
    /// Does not settle. Makes the approval of Permit2 that came with the payment, and answers 502.
    ApproveUnsettled,
    /// Does not settle. Delivers without a receipt.
    DeliverUnsettled,
    /// Does not settle. Delivers with a receipt for a transaction that does not exist.
    InventedReceipt,
    /// Tries to settle one unit more than the buyer signed, which the chain refuses. Delivers with a receipt that claims this
    /// amount, for a transaction that does not exist.
    ChargeAboveCeiling,
    /// Does not settle. Answers 402 with a receipt of failure, without terms in version 2.
    SettlementFailure,
    /// Does not settle. Answers 402 with `settlement_pending` and the hash of a transaction that is never sent.
    PendingUnsettled,
    /// Does not settle. Doubles the price and answers 402 with the new terms.
    DoublePrice,
    /// Does not settle. Answers 402 with false terms.
    Requote(FalseTerms),
    /// Does not settle. Answers 402 with error texts that quote the payment, including its signature.
    QuotePayment,
    /// Does not settle. Redirects the payment to another URL with 307.
    RedirectAfterPayment(Url),
    /// Does not settle. Answers 402 with a receipt of failure that has this reason, such as `insufficient_funds`.
    FailureReason(String),
    /// Does not settle. Answers 402 with the terms again, and this reason as their error.
    RefusalInTerms(String),
    /// Does not settle. Answers 402 with this JSON text, without terms and without a receipt, as a gateway does.
    Foreign402(String),

    // These strike when a valid payment has come. The seller settles it: the money has moved.
    /// Settles, then closes the connection without an answer.
    DropAfterSettle,
    /// Settles, then never answers.
    HangAfterSettle,
    /// Settles, then answers 502 without a receipt.
    ServerErrorAfterSettle,
    /// Settles, then answers with this status in plain text, without a receipt. With 429 and 503, asks to wait for a
    /// year.
    StatusAfterSettle(u16),
    /// Settles and delivers, and breaks the connection in the middle of the body.
    BrokenBodyAfterSettle,
    /// Settles and delivers, in an answer that breaks.
    BreakAfterSettle(Breakage),
    /// Settles, and answers with an honest receipt and an empty body.
    EmptyAfterSettle,
    /// Settles and delivers, without a receipt.
    NoReceipt,
    /// Settles and delivers, with a receipt header that is not base64.
    MalformedReceipt,
    /// Settles, and answers with a false receipt.
    ForgedReceipt(Forgery),
    /// Settles, and answers 402 with `settlement_pending` and the hash of the transaction.
    SettlementPending,
    /// Settles, and answers with this status, an honest receipt, and an error in JSON instead of the content.
    StatusWithReceipt(u16),
    /// Settles and delivers, with a receipt that leaves out the network and the payer, or has empty strings.
    ShortReceipt {
        /// Whether the members are empty instead of absent.
        empty: bool,
    },
    /// Settles and delivers, with a receipt header that is JSON and not a receipt.
    ForeignReceipt,
    /// Settles and delivers, with a receipt whose `amount` is this JSON, such as `"12.5"` with its quotation marks, or
    /// `-1`. Text that is not JSON leaves out the amount.
    ReceiptAmount(String),
    /// Settles the ceiling of an `upto` payment and delivers, with a receipt that names the honest
    /// [charge](crate::Route::charge).
    ChargeCeiling,
    /// Settles and delivers with an honest receipt, and tries to settle the same payment once more. The chain refuses the
    /// second settlement.
    SettleTwice,
    /// Settles, and answers 402 with false terms and without a receipt.
    RequoteAfterSettle(FalseTerms),
    /// Settles, then redirects the payment.
    RedirectAfterSettle {
        /// The status, such as 307.
        status: u16,
        /// The target.
        to: Url,
    },
}

/// The false part of a receipt. The payment is settled in every case. Use it in [`Fault::ForgedReceipt`].
///
/// ```
/// use bursar::usd;
/// use bursar_testing::{Fault, Forgery, Route};
///
/// let forged = Fault::ForgedReceipt(Forgery::Payer);
/// let route = Route::get("/report").price(usd!("0.01")).fault(forged);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forgery {
    /// Names another payer.
    Payer,
    /// Names another network.
    Network,
    /// Names no transaction.
    NoTransaction,
    /// Names a transaction that does not exist.
    Transaction,
    /// Names the transaction of the seller's first sale, to any buyer.
    OtherPurchase,
    /// Names another amount: 1.
    Amount,
    /// Names an amount above the signed one.
    AboveCeiling,
    /// Names no amount, also of an `upto` payment.
    NoAmount,
    /// Says that settling failed, with a 402 that has no terms in version 2. The buyer is meant to pay twice.
    Failure,
    /// Says that settling failed, and comes with the content.
    FailureDelivered,
    /// Is true, but comes with a 402 and the terms.
    WithTerms,
    /// Says in `PAYMENT-RESPONSE` that settling failed, and in `X-PAYMENT-RESPONSE` that it succeeded.
    Contradiction,
    /// Is 100,000 bytes long.
    Huge,
}

names!(Fault:
    Terms, BreakTerms, HugeBody402, HangingBody402, HugeHeader, TermsWithStatus, StaleTerms, LongRetryAfter,
    TrackingCookie, RedirectBeforeTerms, StatusBeforeSettle, BreakBeforeSettle, SettleAfterDisconnect,
    ApproveUnsettled, DeliverUnsettled, InventedReceipt, ChargeAboveCeiling, SettlementFailure, PendingUnsettled, DoublePrice, Requote, QuotePayment,
    RedirectAfterPayment, FailureReason, RefusalInTerms, Foreign402, DropAfterSettle, HangAfterSettle,
    ServerErrorAfterSettle, StatusAfterSettle,
    BrokenBodyAfterSettle, BreakAfterSettle, EmptyAfterSettle, NoReceipt, MalformedReceipt, ForgedReceipt,
    SettlementPending, StatusWithReceipt, ShortReceipt, ForeignReceipt, ReceiptAmount, ChargeCeiling, SettleTwice,
    RequoteAfterSettle, RedirectAfterSettle,
);
names!(Forgery:
    Payer, Network, NoTransaction, Transaction, OtherPurchase, Amount, AboveCeiling, NoAmount, Failure, FailureDelivered, WithTerms,
    Contradiction, Huge,
);

/// The moment when a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The seller is about to answer 402 with terms.
    Terms,
    /// A valid payment has come.
    Payment,
}

impl Fault {
    pub(crate) const fn occasion(&self) -> Occasion {
        match self {
            Self::Terms(_)
            | Self::BreakTerms(_)
            | Self::HugeBody402(_)
            | Self::HangingBody402
            | Self::HugeHeader(_)
            | Self::TermsWithStatus(_)
            | Self::StaleTerms(_)
            | Self::LongRetryAfter
            | Self::TrackingCookie
            | Self::RedirectBeforeTerms { .. } => Occasion::Terms,
            Self::StatusBeforeSettle(_)
            | Self::BreakBeforeSettle(_)
            | Self::SettleAfterDisconnect
            | Self::ApproveUnsettled
            | Self::DeliverUnsettled
            | Self::InventedReceipt
            | Self::ChargeAboveCeiling
            | Self::SettlementFailure
            | Self::PendingUnsettled
            | Self::DoublePrice
            | Self::Requote(_)
            | Self::QuotePayment
            | Self::RedirectAfterPayment(_)
            | Self::FailureReason(_)
            | Self::RefusalInTerms(_)
            | Self::Foreign402(_)
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
            | Self::StatusWithReceipt(_)
            | Self::ShortReceipt { .. }
            | Self::ForeignReceipt
            | Self::ReceiptAmount(_)
            | Self::ChargeCeiling
            | Self::SettleTwice
            | Self::RequoteAfterSettle(_)
            | Self::RedirectAfterSettle { .. } => Occasion::Payment,
        }
    }
}

/// The faults of a route: the faults that strike once, in their order, and the faults that always strike.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) once: Vec<Fault>,
    pub(crate) always: Vec<Fault>,
}

impl Faults {
    /// Returns the fault that strikes now. Removes it if it strikes once.
    pub(crate) fn next(&mut self, occasion: Occasion) -> Option<Fault> {
        let due = |fault: &Fault| fault.occasion() == occasion;
        match self.once.iter().position(due) {
            Some(index) => Some(self.once.remove(index)),
            None => self.always.iter().find(|fault| due(fault)).cloned(),
        }
    }
}

//! Why the policy says no, as data.

use std::fmt;

use serde::Serialize;

use super::limit::{Quantity, Scope};
use crate::Timestamp;

/// A refusal by the policy. Nothing was signed.
///
/// `Display` is one line for people; the fields are for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Denial {
    /// The rule that refused.
    pub rule: Rule,
    /// The payments that a limit adds up; `None` for rules that are not limits.
    pub scope: Option<Scope>,
    /// The limit.
    pub limit: Option<Quantity>,
    /// How much of it is used, what is uncertain included.
    pub used: Option<Quantity>,
    /// What the payment asked for.
    pub asked: Option<Quantity>,
    /// When there will be room for this payment, if time alone makes it.
    pub room_returns: Option<Timestamp>,
    /// The refusal in words.
    pub message: String,
}

impl Denial {
    pub(crate) fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self {
            rule,
            scope: None,
            limit: None,
            used: None,
            asked: None,
            room_returns: None,
            message: message.into(),
        }
    }

    /// How much of the limit is left: the limit less what is used. `None` for rules that are not limits.
    #[must_use]
    pub fn left(&self) -> Option<Quantity> {
        match (self.limit.as_ref()?, self.used.as_ref()?) {
            (Quantity::Amount(limit), Quantity::Amount(used)) => Some(Quantity::Amount(
                limit.of_weight(limit.weight().saturating_sub(used.weight())),
            )),
            (Quantity::Payments(limit), Quantity::Payments(used)) => {
                Some(Quantity::Payments(limit.saturating_sub(*used)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The rules of a policy, by stable name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// Limit on one payment.
    PerPayment,
    /// Limit over a rolling window.
    Rolling,
    /// Limit over a calendar window.
    Calendar,
    /// Limit over the life of the ledger.
    Lifetime,
    /// Limit on what is signed and unresolved.
    Exposure,
    /// Limit on the number of payments in a window.
    Payments,
    /// Paying is stopped: by a file, by the program, or in the ledger.
    Stopped,
    /// The same request was bought too often.
    Repeats,
    /// The origin took payments and did not deliver.
    Breaker,
    /// The caller's `max_price` of this request.
    MaxPrice,
    /// Networks that may be paid on.
    Network,
    /// Tokens that may be paid with.
    Asset,
    /// A token without a dollar value, and no limit in its own units.
    UnpricedAsset,
    /// Requests that may be made at all.
    Permission,
    /// Hosts that may be paid.
    Host,
    /// Payees that may be paid.
    Payee,
    /// The payee differs from the one paid first.
    PayeeChanged,
    /// The payee is zero, the payer, the token or a precompiled contract.
    PayeeImpossible,
    /// The price rose by more than allowed since the last purchase.
    PriceRise,
    /// `resource.url` names another origin.
    ResourceOrigin,
    /// The URL carries a user name or password.
    Userinfo,
    /// The amount is zero.
    ZeroAmount,
    /// A person or program had to approve and did not.
    Approval,
}

impl Rule {
    /// The stable name, such as `per_payment`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PerPayment => "per_payment",
            Self::Rolling => "rolling",
            Self::Calendar => "calendar",
            Self::Lifetime => "lifetime",
            Self::Exposure => "exposure",
            Self::Payments => "payments",
            Self::Stopped => "stopped",
            Self::Repeats => "repeats",
            Self::Breaker => "breaker",
            Self::MaxPrice => "max_price",
            Self::Network => "network",
            Self::Asset => "asset",
            Self::UnpricedAsset => "unpriced_asset",
            Self::Permission => "permission",
            Self::Host => "host",
            Self::Payee => "payee",
            Self::PayeeChanged => "payee_changed",
            Self::PayeeImpossible => "payee_impossible",
            Self::PriceRise => "price_rise",
            Self::ResourceOrigin => "resource_origin",
            Self::Userinfo => "userinfo",
            Self::ZeroAmount => "zero_amount",
            Self::Approval => "approval",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

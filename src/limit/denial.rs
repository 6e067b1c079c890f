//! Denials: why a policy refuses a payment.

use std::fmt;

use alloy::primitives::{Address, U256};
use serde::{Deserialize, Serialize};

use super::{Limit, LimitKind, Quantity, Scope, ShortDuration, Shortfall};
use crate::clock::Timestamp;
use crate::money::{Asset, TokenAmount};
use crate::origin::Origin;
use crate::permit2::MissingAllowance;

/// A refusal by the policy. bursar signed nothing.
///
/// The `Display` text is one line for people. Programs should read the fields.
///
/// ```
/// use bursar::{Denial, Timestamp};
/// use bursar::policy::Rule;
///
/// /// Returns the time at which it makes sense to try again.
/// fn retry_at(denial: &Denial) -> Option<Timestamp> {
///     match denial.rule {
///         Rule::Frozen => None,
///         _ => denial.room_returns,
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Denial {
    /// The rule that refused the payment.
    pub rule: Rule,
    /// The payments that the limit adds up. `None` if the rule is not a limit.
    pub scope: Option<Scope>,
    /// The maximum of the limit.
    pub limit: Option<Quantity>,
    /// The part of the limit that is used. Payments with an unknown outcome count as used.
    pub used: Option<Quantity>,
    /// The quantity that the payment asked for.
    pub asked: Option<Quantity>,
    /// The part of `used` that calls of this process have in flight. `None` if the rule is not [`Rule::Exposure`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Quantity>,
    /// The rest of `used`: payments whose call ended without a final outcome, and payments of other processes. `None` if
    /// the rule is not [`Rule::Exposure`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<Quantity>,
    /// The time at which there will be room for this payment, if it only has to wait.
    ///
    /// It is never later than this process can know. If the calls in flight can give enough room back, it is the time of
    /// the denial: their room can return at any moment. To wait for it, use
    /// [`wait_for_room`](crate::PurchaseOptions::wait_for_room).
    pub room_returns: Option<Timestamp>,
    /// The wallet and its balance, for [`Rule::InsufficientBalance`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<Box<Shortfall>>,
    /// The approval of Permit2 that the wallet lacks, for [`Rule::Allowance`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_allowance: Option<Box<MissingAllowance>>,
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
            in_flight: None,
            unresolved: None,
            room_returns: None,
            shortfall: None,
            missing_allowance: None,
            message: message.into(),
        }
    }

    /// Returns the denial by a limit that has no room.
    pub(super) fn by_limit(
        limit: &Limit,
        used: U256,
        asked: U256,
        room_returns: Option<Timestamp>,
        in_flight: Option<U256>,
    ) -> Self {
        let kind = &limit.kind;
        let is_too_large = asked > kind.max();
        let unresolved = in_flight.map(|in_flight| used.saturating_sub(in_flight));
        let [max, used, asked] = [kind.max(), used, asked].map(|units| kind.quantity(units));
        let calls = in_flight.is_some_and(|in_flight| !in_flight.is_zero());
        let [in_flight, unresolved] =
            [in_flight, unresolved].map(|units| units.map(|units| kind.quantity(units)));
        let returns = room_returns
            .map(|at| format!("; room returns at {at}"))
            .unwrap_or_default();
        let message = match kind {
            LimitKind::LoopGuard(window, _) => format!(
                "the same request was bought {} within {}; this looks like a loop (`loop_guard` sets this limit){returns}",
                times(&used),
                ShortDuration(*window),
            ),
            LimitKind::CircuitBreaker(window, _) => format!(
                "bursar signed {used} within {} that the seller did not deliver for ({}; `circuit_breaker` sets this \
                 limit){returns}",
                ShortDuration(*window),
                limit.scope,
            ),
            _ if is_too_large => format!("{asked} is above the limit of {max} ({limit})"),
            // A payment leaves this limit when its outcome is final, often much earlier than room returns by time.
            LimitKind::Exposure(_) => {
                let shown = |part: &Option<Quantity>| part.as_ref().map(Quantity::to_string);
                let parts = shown(&in_flight).zip(shown(&unresolved));
                let (in_flight, unresolved) = parts.unwrap_or_default();
                let wait = if calls {
                    "wait for the calls in flight with `wait_for_room`"
                } else {
                    "wait until they settle"
                };
                format!(
                    "{asked} does not fit: {used} of {max} are in payments without a final outcome ({limit}), {in_flight} in \
                     flight in this process and {unresolved} unresolved; {wait}, or raise `exposure`{returns}"
                )
            }
            _ => format!("{asked} does not fit: {used} of {max} used ({limit}){returns}"),
        };
        Self {
            scope: Some(limit.scope.clone()),
            limit: Some(max),
            used: Some(used),
            asked: Some(asked),
            in_flight,
            unresolved,
            room_returns,
            ..Self::new(kind.rule(), message)
        }
    }

    /// Whether this limit denied the payment.
    pub(crate) fn is_by(&self, limit: &Limit) -> bool {
        self.rule == limit.kind.rule()
            && self.scope.as_ref() == Some(&limit.scope)
            && self.limit == Some(limit.kind.quantity(limit.kind.max()))
    }

    /// Whether the same limit denied both payments.
    pub(crate) fn is_by_limit_of(&self, other: &Self) -> bool {
        (self.rule, &self.scope, &self.limit) == (other.rule, &other.scope, &other.limit)
    }

    /// Whether the payment only lacks room, which can return. The brakes are not about room.
    pub(crate) fn is_about_room(&self) -> bool {
        let units = |quantity: &Option<Quantity>| match quantity {
            Some(Quantity::Amount(amount)) => Some(amount.units()),
            Some(Quantity::Payments(count)) => Some(U256::from(*count)),
            None => None,
        };
        let is_room = matches!(
            self.rule,
            Rule::Exposure | Rule::Rolling | Rule::Calendar | Rule::Lifetime | Rule::Payments
        );
        is_room && units(&self.asked) <= units(&self.limit)
    }

    /// Returns the denial of a payment that the wallet cannot cover.
    pub(crate) fn by_balance(shortfall: Shortfall) -> Self {
        let quantity = |amount: &TokenAmount| Some(Quantity::Amount(amount.clone().into()));
        Self {
            limit: quantity(&shortfall.balance),
            used: quantity(&shortfall.in_flight),
            asked: quantity(&shortfall.needed),
            shortfall: Some(Box::new(shortfall.clone())),
            ..Self::new(Rule::InsufficientBalance, shortfall.to_string())
        }
    }

    /// Returns the denial of a payment that Permit2 could not move. `reason` tells why bursar signed no approval for a seller
    /// that offers to pay its gas.
    pub(crate) fn by_allowance(missing: MissingAllowance, reason: Option<String>) -> Self {
        let reason = reason.map(|reason| format!("; {reason}"));
        Self {
            asked: Some(Quantity::Amount(missing.amount.clone().into())),
            missing_allowance: Some(Box::new(missing.clone())),
            ..Self::new(
                Rule::Allowance,
                format!(
                    "{missing}{}; nothing was signed",
                    reason.unwrap_or_default()
                ),
            )
        }
    }

    /// Returns the denial while the ledger is frozen.
    pub(crate) fn frozen(reason: &str, since: Timestamp) -> Self {
        Self::new(
            Rule::Frozen,
            format!("payments are frozen in the ledger since {since}: {reason}"),
        )
    }

    /// Returns the denial of a payee that differs from the first one.
    pub(super) fn payee_changed(origin: &Origin, first: Address, payee: Address) -> Self {
        Self::new(
            Rule::PayeeChanged,
            format!("{origin} was first paid at {first} and now names {payee}"),
        )
    }

    /// Returns the denial of a price that rose from `last` to `value` by more than the policy allows.
    pub(super) fn price_rise(asset: &Asset, last: U256, value: U256, max_percent: u32) -> Self {
        let message = format!(
            "the price rose from {} to {} {}; at most {max_percent} % more is allowed",
            asset.format_units(last),
            asset.format_units(value),
            asset.symbol(),
        );
        let quantity = |units| {
            let amount = TokenAmount::from_units(asset.clone(), units);
            Some(Quantity::Amount(amount.into()))
        };
        let percent = U256::from(max_percent).saturating_add(U256::from(100));
        let limit = last
            .saturating_mul(percent)
            .checked_div(U256::from(100))
            .unwrap_or_default();
        Self {
            limit: quantity(limit),
            asked: quantity(value),
            ..Self::new(Rule::PriceRise, message)
        }
    }

    /// Returns the unused part of the limit, or `None` if the rule is not a limit.
    #[must_use]
    pub fn left(&self) -> Option<Quantity> {
        match (self.limit.as_ref()?, self.used.as_ref()?) {
            (Quantity::Amount(limit), Quantity::Amount(used)) => Some(Quantity::Amount(
                limit.with_units(limit.units().saturating_sub(used.units())),
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

fn times(count: &Quantity) -> String {
    match count {
        Quantity::Payments(1) => "once".to_owned(),
        Quantity::Payments(count) => format!("{count} times"),
        Quantity::Amount(amount) => amount.to_string(),
    }
}

/// The rules of a policy. Each has a stable [name](Self::name).
///
/// ```
/// use bursar::policy::Rule;
///
/// assert_eq!(Rule::PerPayment.to_string(), "per_payment");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// The limit on one payment.
    PerPayment,
    /// The limit over a rolling window.
    Rolling,
    /// The limit over a calendar period.
    Calendar,
    /// The limit over the life of the ledger.
    Lifetime,
    /// The limit on payments that are signed and unresolved.
    Exposure,
    /// The limit on the number of payments in a window.
    Payments,
    /// Payments are frozen: by a file, by the program, or in the ledger.
    Frozen,
    /// The same request was bought too often.
    LoopGuard,
    /// The seller took too many payments without delivering.
    CircuitBreaker,
    /// Sellers refused the last payments because the wallet has too few tokens.
    WalletEmpty,
    /// The wallet has too few tokens, by the chain; see [`Denial::shortfall`].
    InsufficientBalance,
    /// The wallet has not approved Permit2 for the amount, by the chain; see [`Denial::missing_allowance`].
    Allowance,
    /// The seller refused the last payments, and refuses every payment like them.
    RefusedBefore,
    /// The `max_price` of this request.
    MaxPrice,
    /// The networks that may be used.
    Network,
    /// The tokens that may be used.
    Asset,
    /// The token has no dollar value, and the policy has no limit in its own units.
    UnpricedAsset,
    /// No limit of the policy holds the payment, and the policy is not [`unlimited`](crate::Policy::unlimited).
    Unlimited,
    /// The requests that may be paid for.
    Permission,
    /// The hosts that may be paid.
    Host,
    /// The payees that may be paid.
    Payee,
    /// The payee differs from the first payee of this origin.
    PayeeChanged,
    /// The payee is the zero address, the payer, the token, a contract of Permit2 or a precompiled contract.
    PayeeImpossible,
    /// The price rose by more than the policy allows since the last purchase.
    PriceRise,
    /// `resource.url` names another origin.
    ResourceOrigin,
    /// The payee did not sign the offer, and the policy requires it.
    SignedOffer,
    /// The URL has a user name or password.
    Userinfo,
    /// The schemes, and the ways to move a token, that may be used.
    Scheme,
    /// The purchase was signed by EIP-3009 and the offer is for Permit2, or the other way round. Both could settle.
    OtherMethod,
    /// The amount is zero.
    ZeroAmount,
    /// The approver did not approve the payment.
    Approval,
    /// The seller asks for a sign-in alone, and the policy does not sign in there.
    SignIn,
}

impl Rule {
    /// Returns the rule with this name.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error, StrDeserializer};
        let name: StrDeserializer<'_, Error> = name.into_deserializer();
        Self::deserialize(name).ok()
    }

    /// Returns the stable name, such as `per_payment`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PerPayment => "per_payment",
            Self::Rolling => "rolling",
            Self::Calendar => "calendar",
            Self::Lifetime => "lifetime",
            Self::Exposure => "exposure",
            Self::Payments => "payments",
            Self::Frozen => "frozen",
            Self::LoopGuard => "loop_guard",
            Self::CircuitBreaker => "circuit_breaker",
            Self::WalletEmpty => "wallet_empty",
            Self::InsufficientBalance => "insufficient_balance",
            Self::Allowance => "allowance",
            Self::RefusedBefore => "refused_before",
            Self::MaxPrice => "max_price",
            Self::Network => "network",
            Self::Asset => "asset",
            Self::UnpricedAsset => "unpriced_asset",
            Self::Unlimited => "unlimited",
            Self::Permission => "permission",
            Self::Host => "host",
            Self::Payee => "payee",
            Self::PayeeChanged => "payee_changed",
            Self::PayeeImpossible => "payee_impossible",
            Self::PriceRise => "price_rise",
            Self::ResourceOrigin => "resource_origin",
            Self::SignedOffer => "signed_offer",
            Self::Userinfo => "userinfo",
            Self::Scheme => "scheme",
            Self::OtherMethod => "other_method",
            Self::ZeroAmount => "zero_amount",
            Self::Approval => "approval",
            Self::SignIn => "sign_in",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

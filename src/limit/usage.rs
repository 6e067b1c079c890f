//! Usage: the charges that a ledger holds, and the sums that limits need of them.

use std::convert::Infallible;

use alloy::primitives::{Address, U256};

use super::{Amount, Denial, Limit, LimitKind, Moment, PaymentView, Scope, Since, Window};
use crate::clock::Timestamp;
use crate::money::{Network, Usd};
use crate::origin::Origin;

/// One purchase as a limit counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) network: Network,
    pub(crate) asset: Address,
    /// The amount in atomic units.
    pub(crate) value: U256,
    /// The amount in dollars, rounded up.
    pub(crate) usd: Option<Usd>,
    /// The atomic units that the seller refunded, at most `value`.
    pub(crate) refunded: U256,
    /// Whether the seller took the payment and did not deliver.
    pub(crate) failed: bool,
    /// Whether this is an API call at a declared cost, and no payment.
    pub(crate) is_api_call: bool,
    /// The moment that places the charge in the window that was asked for.
    pub(crate) at: Timestamp,
}

impl Charge {
    /// Returns the amount in atomic units, without refunds if `net`.
    fn value(&self, net: bool) -> U256 {
        if net {
            self.value.saturating_sub(self.refunded)
        } else {
            self.value
        }
    }

    /// Returns the amount in micro-dollars, without refunds if `net`. The rest after a refund is rounded up.
    fn micros(&self, net: bool) -> Option<U256> {
        let micros = U256::from(self.usd?.micros());
        if !net {
            return Some(micros);
        }
        let refunded = micros
            .checked_mul(self.refunded)
            .and_then(|product| product.checked_div(self.value));
        Some(micros.saturating_sub(refunded.unwrap_or_default()))
    }
}

/// A purchase as limits see it. The ledger implements this for its own type.
pub(crate) trait Chargeable {
    /// Returns the parts that scopes compare.
    fn payment(&self) -> PaymentView<'_>;

    /// Returns the charge at `moment`, or `None` if no limit on that moment counts the purchase.
    ///
    /// A reservation is counted even after it lapsed, until the ledger voids it. `moment` becomes [`Charge::at`].
    fn charge(&self, moment: Moment) -> Option<Charge>;
}

/// The unit that a limit is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Micro-dollars. `net` is without refunds.
    Usd { net: bool },
    /// Atomic units of a token. `net` is without refunds.
    Token {
        network: Network,
        asset: Address,
        net: bool,
    },
    /// Payments.
    Payments,
    /// Payments that the seller took without delivering.
    Failures,
}

impl Unit {
    /// Returns the unit of a limit. With `net`, refunds make room.
    fn of(kind: &LimitKind, net: bool) -> Self {
        match (kind, kind.amount()) {
            (LimitKind::CircuitBreaker(..), _) => Self::Failures,
            (_, Some(amount)) => Self::of_amount(amount, net),
            (_, None) => Self::Payments,
        }
    }

    /// Returns the unit of an amount.
    pub(crate) fn of_amount(amount: &Amount, net: bool) -> Self {
        match amount {
            Amount::Usd(_) => Self::Usd { net },
            Amount::Token(amount) => Self::Token {
                network: amount.asset().network(),
                asset: amount.asset().address(),
                net,
            },
        }
    }

    /// Returns the charge in this unit, or `None` if the unit does not measure it.
    pub(crate) fn measure(self, charge: &Charge) -> Option<U256> {
        match self {
            Self::Usd { net } => charge.micros(net),
            Self::Token {
                network,
                asset,
                net,
            } => ((network, asset) == (charge.network, charge.asset)).then(|| charge.value(net)),
            Self::Payments => (!charge.is_api_call).then_some(U256::ONE),
            Self::Failures => (!charge.is_api_call && charge.failed).then_some(U256::ONE),
        }
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl Unit {
    /// Returns the name of the unit in databases.
    ///
    /// This is a storage format. Change it only together with the schema version.
    pub(crate) fn key(self) -> String {
        let (unit, net) = match self {
            Self::Usd { net } => ("usd".to_owned(), net),
            Self::Token {
                network,
                asset,
                net,
            } => (format!("{network} {asset:#x}"), net),
            Self::Payments => ("payments".to_owned(), false),
            Self::Failures => ("failures".to_owned(), false),
        };
        if net { unit + " net" } else { unit }
    }

    /// Reads a unit from its key.
    #[cfg(feature = "sqlite")]
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let (unit, net) = key
            .strip_suffix(" net")
            .map_or((key, false), |unit| (unit, true));
        let unit = match unit {
            "usd" => Self::Usd { net },
            "payments" => Self::Payments,
            "failures" => Self::Failures,
            token => {
                let (network, asset) = token.split_once(' ')?;
                Self::Token {
                    network: Network::from_ledger(network)?,
                    asset: asset.parse().ok()?,
                    net,
                }
            }
        };
        Some(unit).filter(|unit| unit.key() == key)
    }
}

/// Limits on at most this many payments of one request are counted payment by payment.
const FEW: u32 = 64;

/// The sum that one limit needs: the charges of a scope, within a window, in a unit.
#[derive(Clone, Debug)]
pub(crate) struct LimitQuery<'a> {
    limit: &'a Limit,
    pub(crate) unit: Unit,
    pub(crate) window: Window,
    pub(crate) since: Since,
}

impl<'a> LimitQuery<'a> {
    /// Returns the query of a limit at `now`, or `None` if the limit looks at one payment only.
    pub(crate) fn new(limit: &'a Limit, now: Timestamp, net: bool) -> Option<Self> {
        let window = limit.kind.window()?;
        Some(Self {
            limit,
            unit: Unit::of(&limit.kind, net),
            since: Since {
                moment: window.moment,
                after: limit.kind.window_start(now),
            },
            window,
        })
    }

    pub(crate) const fn scope(&self) -> &'a Scope {
        &self.limit.scope
    }

    /// Returns the limit on another scope.
    #[cfg(feature = "sqlite")]
    pub(super) fn limit_on(&self, scope: Scope) -> Limit {
        Limit {
            scope,
            kind: self.limit.kind.clone(),
        }
    }

    /// Returns the same query for a limit of the same kind on another scope.
    #[cfg(feature = "sqlite")]
    pub(super) fn of<'b>(&self, limit: &'b Limit) -> LimitQuery<'b> {
        LimitQuery {
            limit,
            unit: self.unit,
            window: self.window.clone(),
            since: self.since,
        }
    }

    /// Whether so few charges can matter that a running total would cost more than it saves.
    pub(super) fn is_few(&self) -> bool {
        let few = self.limit.kind.payments().is_some_and(|max| max <= FEW);
        few && self.scope().is_narrow() && self.unit == Unit::Payments
    }

    /// Returns the moment of `purchase` and its part of the sum, or `None` if it is not in the scope or the window.
    pub(crate) fn part(&self, purchase: &impl Chargeable) -> Option<(Timestamp, U256)> {
        let charge = purchase
            .charge(self.since.moment)
            .filter(|charge| charge.at > self.since.after)?;
        let part = self.unit.measure(&charge)?;
        let is_in = self.scope().covers(&purchase.payment());
        is_in.then_some((charge.at, part))
    }
}

/// The purchases that a ledger holds, as limits need them.
///
/// A ledger implements this over its store, inside the transaction that will write the reservation. The purchase
/// that is being reserved, and reservations that lapsed, must not be among the answers.
pub(crate) trait Usage {
    type Error;

    /// Returns the denial of a freeze that is recorded in the ledger.
    fn frozen(&self) -> Result<Option<Denial>, Self::Error>;

    /// Calls `visit` with every charge in `scope` and `since`, in any order.
    fn charges(
        &self,
        scope: &Scope,
        since: Since,
        visit: &mut dyn FnMut(Charge),
    ) -> Result<(), Self::Error>;

    /// Returns the sum of a query, at most [`U256::MAX`].
    ///
    /// The default adds all [`charges`](Self::charges). A store with running totals should use
    /// [`running_total`](super::running_total), whose cost does not grow with the ledger.
    fn total(&self, query: &LimitQuery<'_>) -> Result<U256, Self::Error> {
        sum(self, query)
    }

    /// Returns the [`Charge::at`] with which, oldest charge first, at least `units` of the sum have left the window,
    /// or `None` if the sum is less than `units`.
    ///
    /// This is asked only when a payment is denied. The default sorts all [`charges`](Self::charges).
    fn leaves_at(
        &self,
        query: &LimitQuery<'_>,
        units: U256,
    ) -> Result<Option<Timestamp>, Self::Error> {
        leaves_at(self, query, units)
    }

    /// Returns the payee of the first purchase from `origin` in this token.
    fn first_payee(
        &self,
        origin: &Origin,
        asset: (Network, Address),
    ) -> Result<Option<Address>, Self::Error>;

    /// Returns the amount of the last purchase from `origin` with this method and path in this token.
    fn last_price(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        asset: (Network, Address),
    ) -> Result<Option<U256>, Self::Error>;
}

/// Implements [`Usage::total`] by adding all charges.
pub(crate) fn sum<U: Usage + ?Sized>(usage: &U, query: &LimitQuery<'_>) -> Result<U256, U::Error> {
    let mut total = U256::ZERO;
    usage.charges(query.scope(), query.since, &mut |charge| {
        total = total.saturating_add(query.unit.measure(&charge).unwrap_or_default());
    })?;
    Ok(total)
}

/// Implements [`Usage::leaves_at`] by sorting all charges.
pub(crate) fn leaves_at<U: Usage + ?Sized>(
    usage: &U,
    query: &LimitQuery<'_>,
    units: U256,
) -> Result<Option<Timestamp>, U::Error> {
    let mut charges: Vec<(Timestamp, U256)> = Vec::new();
    usage.charges(query.scope(), query.since, &mut |charge| {
        charges.extend(query.unit.measure(&charge).map(|part| (charge.at, part)));
    })?;
    charges.sort_unstable_by_key(|(at, _)| *at);
    let mut gone = U256::ZERO;
    Ok(charges.into_iter().find_map(|(at, part)| {
        gone = gone.saturating_add(part);
        (gone >= units).then_some(at)
    }))
}

/// The usage of an empty ledger.
pub(crate) struct NoUsage;

impl Usage for NoUsage {
    type Error = Infallible;

    fn frozen(&self) -> Result<Option<Denial>, Infallible> {
        Ok(None)
    }

    fn charges(&self, _: &Scope, _: Since, _: &mut dyn FnMut(Charge)) -> Result<(), Infallible> {
        Ok(())
    }

    fn first_payee(
        &self,
        _: &Origin,
        _: (Network, Address),
    ) -> Result<Option<Address>, Infallible> {
        Ok(None)
    }

    fn last_price(
        &self,
        _: &Origin,
        _: &str,
        _: &str,
        _: (Network, Address),
    ) -> Result<Option<U256>, Infallible> {
        Ok(None)
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

    #[test]
    fn keys_of_units_are_a_storage_format_and_do_not_change() {
        let token = |net| Unit::Token {
            network: Network::from_chain_id(8453),
            asset: Address::repeat_byte(0xAB),
            net,
        };
        for (unit, key) in [
            (Unit::Usd { net: false }, "usd"),
            (Unit::Usd { net: true }, "usd net"),
            (
                token(false),
                "eip155:8453 0xabababababababababababababababababababab",
            ),
            (
                token(true),
                "eip155:8453 0xabababababababababababababababababababab net",
            ),
            (Unit::Payments, "payments"),
            (Unit::Failures, "failures"),
        ] {
            assert_eq!(unit.key(), key);
            assert_eq!(Unit::parse(key), Some(unit));
        }
    }

    #[test]
    fn other_texts_are_not_units() {
        for text in ["", "euro", "payments net", "base 0x00", "usd net net"] {
            assert_eq!(Unit::parse(text), None, "{text}");
        }
    }
}

//! Judging one payment: pure, total, in one place.

use alloy::primitives::{Address, U256};
use url::Url;

use super::limit::{Amount, Meter, Subject};
use super::{Denial, PayeeRule, Policy, ResourceRule, Rule};
use crate::ledger::{Checks, PayeePin, PriceCeiling};
use crate::origin::Origin;
use crate::quote::Quote;
use crate::{Timestamp, text};

/// All that the policy may know of a payment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) url: &'a Url,
    pub(crate) origin: &'a Origin,
    pub(crate) method: &'a str,
    /// As the books store it.
    pub(crate) path: &'a str,
    pub(crate) tag: Option<&'a str>,
    pub(crate) agent: Option<&'a str>,
    pub(crate) payer: Address,
    pub(crate) quote: &'a Quote,
    /// `resource.url`, as the seller claims it.
    pub(crate) resource_url: Option<&'a str>,
    pub(crate) max_price: Option<&'a Amount>,
    pub(crate) now: Timestamp,
}

impl Facts<'_> {
    pub(super) const fn subject(&self) -> Subject<'_> {
        Subject { origin: self.origin, quote: self.quote, tag: self.tag, agent: self.agent }
    }

    /// The seller's `resource.url` when it names another origin.
    pub(crate) fn foreign_resource(&self) -> Option<String> {
        let claimed = self.resource_url?;
        let origin = Url::parse(claimed).ok().as_ref().and_then(Origin::of);
        (origin.as_ref() != Some(self.origin)).then(|| text::excerpt(claimed))
    }
}

type Verdict = Result<(), Denial>;

impl Policy {
    /// The rules that need no books, each with its answer, in the order they are asked.
    pub(crate) fn judge(&self, facts: &Facts<'_>) -> Vec<(Rule, Verdict)> {
        vec![
            (Rule::Userinfo, Self::userinfo(facts)),
            (Rule::Host, self.host_listed(facts)),
            (Rule::Network, self.network_allowed(facts)),
            (Rule::Asset, self.asset_allowed(facts)),
            (Rule::ZeroAmount, Self::some_amount(facts)),
            (Rule::MaxPrice, Self::within_max_price(facts)),
            (Rule::UnpricedAsset, self.measured(facts)),
            (Rule::PayeeImpossible, Self::payee_possible(facts)),
            (Rule::Payee, self.payee_allowed(facts)),
            (Rule::ResourceOrigin, self.resource_allowed(facts)),
        ]
    }

    /// The first refusal that needs no books.
    pub(crate) fn deny(&self, facts: &Facts<'_>) -> Option<Denial> {
        self.judge(facts).into_iter().find_map(|(_, verdict)| verdict.err())
    }

    /// What the books must be asked.
    pub(crate) fn checks(&self, facts: &Facts<'_>) -> Checks {
        let subject = facts.subject();
        let meters = self
            .effective_limits()
            .into_iter()
            .filter_map(|limit| limit.selector.select(subject).map(|scope| Meter { scope, kind: limit.kind }));
        let pinned = self.setting(facts.origin, |settings| settings.payee.clone()) == Some(PayeeRule::Pinned);
        let payee = pinned.then(|| PayeePin { origin: facts.origin.clone(), payee: facts.quote.pay_to() });
        let price =
            self.setting(facts.origin, |settings| settings.max_price_rise).map(|max_rise_percent| PriceCeiling {
                origin: facts.origin.clone(),
                method: facts.method.to_owned(),
                path: facts.path.to_owned(),
                max_rise_percent,
            });
        let payment = Some((facts.quote.asset().clone(), facts.quote.value()));
        Checks { now: facts.now, payment, meters: meters.collect(), payee, price }
    }

    /// Why somebody must be asked, if so.
    pub(crate) fn ask(&self, facts: &Facts<'_>) -> Option<String> {
        self.asks.iter().find_map(|(selector, threshold)| {
            let scope = selector.select(facts.subject())?;
            let weight = threshold.weigh(facts.quote.asset(), facts.quote.value())?;
            (weight > threshold.weight()).then(|| format!("above {threshold} ({scope})"))
        })
    }

    fn userinfo(facts: &Facts<'_>) -> Verdict {
        let bare = facts.url.username().is_empty() && facts.url.password().is_none();
        deny_unless(bare, Rule::Userinfo, || "the URL carries a user name or password".to_owned())
    }

    fn host_listed(&self, facts: &Facts<'_>) -> Verdict {
        let host = facts.origin.host();
        if let Some(pattern) = self.lists.denied_hosts.iter().find(|pattern| pattern.matches(host)) {
            return Err(Denial::new(Rule::Host, format!("host {host} is denied by {pattern}")));
        }
        let allowed = &self.lists.allowed_hosts;
        let listed = allowed.is_empty() || allowed.iter().any(|pattern| pattern.matches(host));
        deny_unless(listed, Rule::Host, || format!("host {host} is not on the list of allowed hosts"))
    }

    fn network_allowed(&self, facts: &Facts<'_>) -> Verdict {
        let network = facts.quote.network();
        let allowed = self.networks.contains(&network) && !self.lists.denied_networks.contains(&network);
        deny_unless(allowed, Rule::Network, || {
            let name = network.name().map(|name| format!(" ({name})")).unwrap_or_default();
            format!("network {network}{name} is not allowed")
        })
    }

    fn asset_allowed(&self, facts: &Facts<'_>) -> Verdict {
        let asset = facts.quote.asset();
        let key = (asset.network(), asset.address());
        let listed = self.lists.allowed_assets.is_empty() || self.lists.allowed_assets.contains(&key);
        let allowed = listed && !self.lists.denied_assets.contains(&key);
        deny_unless(allowed, Rule::Asset, || format!("token {asset} ({}) is not allowed", asset.address()))
    }

    fn some_amount(facts: &Facts<'_>) -> Verdict {
        deny_unless(facts.quote.value() > U256::ZERO, Rule::ZeroAmount, || {
            "the price is zero; nothing is worth a signature".to_owned()
        })
    }

    fn within_max_price(facts: &Facts<'_>) -> Verdict {
        let Some(max) = facts.max_price else { return Ok(()) };
        let weight = max.weigh(facts.quote.asset(), facts.quote.value());
        deny_unless(weight.is_some_and(|weight| weight <= max.weight()), Rule::MaxPrice, || {
            format!("{} is above this request's max_price of {max}", facts.quote.amount())
        })
    }

    /// A token that dollars cannot measure must be limited in its own units, once per payment and
    /// once over time; otherwise no limit would hold it at all.
    fn measured(&self, facts: &Facts<'_>) -> Verdict {
        let asset = facts.quote.asset();
        if facts.quote.dollars().is_some() {
            return Ok(());
        }
        if asset.dollars(U256::ZERO).is_some() {
            return Err(Denial::new(Rule::PerPayment, "the amount is above what dollars can count"));
        }
        let meters = self.checks(facts).meters;
        let in_units = |meter: &&Meter| matches!(meter.max(), super::limit::Max::Amount(Amount::Token(amount)) if amount.asset() == asset);
        let per_payment = |meter: &&Meter| meter.span(facts.now).is_none();
        let (single, total): (Vec<_>, Vec<_>) = meters.iter().filter(in_units).partition(per_payment);
        deny_unless(!single.is_empty() && !total.is_empty(), Rule::UnpricedAsset, || {
            format!("{asset} has no dollar value; the policy must limit it in its own units, per payment and over time")
        })
    }

    fn payee_possible(facts: &Facts<'_>) -> Verdict {
        let payee = facts.quote.pay_to();
        let wrong = if payee == facts.payer {
            "the payer itself"
        } else if payee == facts.quote.asset().address() {
            "the token's own contract"
        } else if U256::from_be_bytes(payee.into_word().0) <= U256::from(0xff) {
            "the zero address or a precompiled contract"
        } else {
            return Ok(());
        };
        Err(Denial::new(Rule::PayeeImpossible, format!("payee {payee} is {wrong}")))
    }

    fn payee_allowed(&self, facts: &Facts<'_>) -> Verdict {
        let payee = facts.quote.pay_to();
        let everywhere = self.lists.allowed_payees.is_empty() || self.lists.allowed_payees.contains(&payee);
        let here = match self.setting(facts.origin, |settings| settings.payee.clone()) {
            Some(PayeeRule::Listed(payees)) => payees.contains(&payee),
            _ => true,
        };
        let allowed = everywhere && here && !self.lists.denied_payees.contains(&payee);
        deny_unless(allowed, Rule::Payee, || format!("payee {payee} is not allowed for {}", facts.origin))
    }

    fn resource_allowed(&self, facts: &Facts<'_>) -> Verdict {
        let refuse = self.setting(facts.origin, |settings| settings.resource) == Some(ResourceRule::Refuse);
        match facts.foreign_resource().filter(|_| refuse) {
            None => Ok(()),
            Some(claimed) => Err(Denial::new(
                Rule::ResourceOrigin,
                format!("the seller at {} says it sells `{claimed}`", facts.origin),
            )),
        }
    }
}

fn deny_unless(allowed: bool, rule: Rule, message: impl FnOnce() -> String) -> Verdict {
    if allowed { Ok(()) } else { Err(Denial::new(rule, message())) }
}

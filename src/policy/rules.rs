//! Judging one payment: pure, total, in one place.

use alloy::primitives::{Address, U256};
use url::Url;

use super::limit::{Amount, LimitKind, Max, Meter, Scope, Subject};
use super::{BREAKER, Denial, PayeeRule, Policy, Quantity, REPEATS, ResourceRule, Rule};
use crate::asset::Asset;
use crate::ledger::{Checks, PayeePin, PriceCeiling};
use crate::origin::Origin;
use crate::quote::Quote;
use crate::{PurchaseRequest, Timestamp, text};

/// Everything that the policy knows about a payment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) request: &'a PurchaseRequest,
    /// The path of the URL, as the ledger stores it.
    pub(crate) path: &'a str,
    pub(crate) agent: Option<&'a str>,
    pub(crate) payer: Address,
    pub(crate) quote: &'a Quote,
    /// `resource.url`, as the seller claims it.
    pub(crate) resource_url: Option<&'a str>,
    pub(crate) now: Timestamp,
}

impl Facts<'_> {
    pub(super) fn subject(&self) -> Subject<'_> {
        let path = self.request.url().path();
        Subject {
            origin: self.request.origin(),
            path,
            quote: self.quote,
            request: self.request.fingerprint(),
            tag: self.request.tag_name(),
            agent: self.agent,
        }
    }

    /// The seller's `resource.url` when it names another origin.
    pub(crate) fn foreign_resource(&self) -> Option<String> {
        let claimed = self.resource_url?;
        if self.request.origin().begins(claimed) {
            return None;
        }
        // A tool is named by its own URL, `mcp://tool/NAME`, under whatever origin.
        if self.request.url().path().strip_prefix('/') == Some(claimed)
            && claimed.starts_with("mcp://tool/")
        {
            return None;
        }
        let origin = Url::parse(claimed).ok().as_ref().and_then(Origin::of);
        (origin.as_ref() != Some(self.request.origin())).then(|| text::excerpt(claimed))
    }
}

/// A rule's refusal, if it refuses.
type Refusal = Option<Denial>;

impl Policy {
    /// The rules that need no books, each with its answer, in the order they are asked.
    pub(crate) fn judge(&self, facts: &Facts<'_>) -> Vec<(Rule, Refusal)> {
        vec![
            (Rule::Permission, self.forbids(facts.request, facts.agent)),
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
        self.judge(facts)
            .into_iter()
            .find_map(|(_, refusal)| refusal)
    }

    /// What the books must be asked.
    pub(crate) fn checks(&self, facts: &Facts<'_>) -> Checks {
        let subject = facts.subject();
        let limits = self.effective_limits().into_iter();
        let limits = limits.filter_map(|limit| {
            limit.selector.select(subject).map(|scope| Meter {
                scope,
                kind: limit.kind,
            })
        });
        let meters = limits.chain(self.brakes(facts));
        let pinned = self.setting(facts.request.origin(), |settings| settings.payee.clone())
            == Some(PayeeRule::Pinned);
        let payee = pinned.then(|| PayeePin {
            origin: facts.request.origin().clone(),
            payee: facts.quote.pay_to(),
        });
        let price = self
            .setting(facts.request.origin(), |settings| settings.max_price_rise)
            .map(|max_rise_percent| PriceCeiling {
                origin: facts.request.origin().clone(),
                method: facts.request.method().as_str().to_owned(),
                path: facts.path.to_owned(),
                max_rise_percent,
            });
        let payment = Some((facts.quote.asset().clone(), facts.quote.value()));
        let refunds_make_room = self.refunds_make_room;
        Checks {
            now: facts.now,
            payment,
            meters: meters.collect(),
            payee,
            price,
            refunds_make_room,
        }
    }

    /// The first refusal of a call by key that needs no books: the request's own maximum, and the
    /// lists of hosts.
    pub(crate) fn deny_call(&self, facts: &Facts<'_>) -> Option<Denial> {
        self.forbids(facts.request, facts.agent)
            .or_else(|| self.host_listed(facts))
            .or_else(|| Self::within_max_price(facts))
    }

    /// What the books must be asked before a call by key of a declared cost: the dollar limits on
    /// everything, on hosts, tags and agents. Numbers of payments, tokens, networks and payees are not
    /// about it, and nothing of it stays unresolved.
    pub(crate) fn call_checks(&self, facts: &Facts<'_>) -> Checks {
        let concerns = |meter: &Meter| {
            let dollars = matches!(meter.max(), Max::Amount(Amount::Usd(_)));
            let paying = matches!(
                meter.scope,
                Scope::Payee(_) | Scope::Asset(..) | Scope::Network(_)
            );
            dollars && !paying && !matches!(meter.kind, LimitKind::Exposure(_))
        };
        let mut checks = self.checks(facts);
        checks.meters.retain(concerns);
        Checks {
            payee: None,
            price: None,
            ..checks
        }
    }

    /// The loop detector and the breaker.
    fn brakes(&self, facts: &Facts<'_>) -> Vec<Meter> {
        let failures = self
            .setting(facts.request.origin(), |settings| settings.breaker)
            .or(self.defaults.then_some(BREAKER));
        let failures = failures.map(|(window, max)| Meter {
            scope: Scope::Origin(facts.request.origin().clone()),
            kind: LimitKind::Failures(window, max),
        });
        let repeats = self
            .setting(facts.request.origin(), |settings| settings.repeats)
            .or(self.defaults.then_some(REPEATS));
        let repeats = repeats.map(|(window, max)| Meter {
            scope: Scope::Request(facts.request.fingerprint()),
            kind: LimitKind::Repeats(window, max),
        });
        failures.into_iter().chain(repeats).collect()
    }

    /// Why somebody must be asked, if so: the payment is above a threshold, or there are only
    /// thresholds that do not measure its token.
    pub(crate) fn ask(&self, facts: &Facts<'_>) -> Option<String> {
        let (mut measured, mut unmeasured) = (false, None);
        for (selector, threshold) in &self.asks {
            let Some(scope) = selector.select(facts.subject()) else {
                continue;
            };
            match threshold.weigh(facts.quote.asset(), facts.quote.value()) {
                Some(weight) if weight > threshold.weight() => {
                    return Some(format!("above {threshold} ({scope})"));
                }
                Some(_) => measured = true,
                None => {
                    unmeasured = Some(format!(
                        "no dollar value to compare with {threshold} ({scope})"
                    ))
                }
            }
        }
        unmeasured.filter(|_| !measured)
    }

    fn userinfo(facts: &Facts<'_>) -> Refusal {
        let bare =
            facts.request.url().username().is_empty() && facts.request.url().password().is_none();
        deny_unless(bare, Rule::Userinfo, || {
            "the URL carries a user name or password".to_owned()
        })
    }

    fn host_listed(&self, facts: &Facts<'_>) -> Refusal {
        let host = facts.request.origin().host();
        if let Some(pattern) = self
            .lists
            .denied_hosts
            .iter()
            .find(|pattern| pattern.matches(host))
        {
            return Some(Denial::new(
                Rule::Host,
                format!("host {host} is denied by {pattern}"),
            ));
        }
        let allowed = &self.lists.allowed_hosts;
        let listed = allowed.is_empty() || allowed.iter().any(|pattern| pattern.matches(host));
        deny_unless(listed, Rule::Host, || {
            format!("host {host} is not on the list of allowed hosts")
        })
    }

    fn network_allowed(&self, facts: &Facts<'_>) -> Refusal {
        let network = facts.quote.network();
        let allowed = self.payable_networks().any(|payable| payable == network);
        deny_unless(allowed, Rule::Network, || {
            let name = network
                .name()
                .map(|name| format!(" ({name})"))
                .unwrap_or_default();
            format!("network {network}{name} is not allowed")
        })
    }

    fn asset_allowed(&self, facts: &Facts<'_>) -> Refusal {
        let asset = facts.quote.asset();
        deny_unless(self.lists_asset(asset), Rule::Asset, || {
            format!("token {asset} ({}) is not allowed", asset.address())
        })
    }

    pub(super) fn lists_asset(&self, asset: &Asset) -> bool {
        let key = (asset.network(), asset.address());
        let listed =
            self.lists.allowed_assets.is_empty() || self.lists.allowed_assets.contains(&key);
        listed && !self.lists.denied_assets.contains(&key)
    }

    fn some_amount(facts: &Facts<'_>) -> Refusal {
        deny_unless(facts.quote.value() > U256::ZERO, Rule::ZeroAmount, || {
            "the price is zero; nothing is worth a signature".to_owned()
        })
    }

    fn within_max_price(facts: &Facts<'_>) -> Refusal {
        let max = facts.request.price_ceiling()?;
        let weight = max.weigh(facts.quote.asset(), facts.quote.value());
        if weight.is_some_and(|weight| weight <= max.weight()) {
            return None;
        }
        let message = format!(
            "{} is above this request's max_price of {max}",
            facts.quote.amount()
        );
        let asked = weight.map_or_else(
            || facts.quote.amount().into(),
            |weight| max.of_weight(weight),
        );
        let (limit, asked) = (
            Some(Quantity::Amount(max.clone())),
            Some(Quantity::Amount(asked)),
        );
        Some(Denial {
            limit,
            asked,
            ..Denial::new(Rule::MaxPrice, message)
        })
    }

    /// A token that dollars cannot measure must be limited in its own units, once per payment and
    /// once over time; otherwise no limit would hold it at all.
    fn measured(&self, facts: &Facts<'_>) -> Refusal {
        let asset = facts.quote.asset();
        if facts.quote.dollars().is_some() {
            return None;
        }
        if asset.dollars(U256::ZERO).is_some() {
            return Some(Denial::new(
                Rule::PerPayment,
                "the amount is above what dollars can count",
            ));
        }
        let meters = self.checks(facts).meters;
        let in_units = |meter: &&Meter| matches!(meter.max(), Max::Amount(Amount::Token(amount)) if amount.asset() == asset);
        let kinds = || meters.iter().filter(in_units).map(|meter| &meter.kind);
        let single = kinds().any(|kind| matches!(kind, LimitKind::PerPayment(_)));
        let total = kinds().any(|kind| {
            matches!(
                kind,
                LimitKind::Rolling(..) | LimitKind::Calendar(..) | LimitKind::Lifetime(_)
            )
        });
        deny_unless(single && total, Rule::UnpricedAsset, || {
            format!(
                "{asset} has no dollar value; the policy must limit it in its own units, per payment and over time"
            )
        })
    }

    fn payee_possible(facts: &Facts<'_>) -> Refusal {
        let payee = facts.quote.pay_to();
        let wrong = if payee == facts.payer {
            "the payer itself"
        } else if payee == facts.quote.asset().address() {
            "the token's own contract"
        } else if U256::from_be_bytes(payee.into_word().0) <= U256::from(0xff) {
            "the zero address or a precompiled contract"
        } else {
            return None;
        };
        Some(Denial::new(
            Rule::PayeeImpossible,
            format!("payee {payee} is {wrong}"),
        ))
    }

    fn payee_allowed(&self, facts: &Facts<'_>) -> Refusal {
        let payee = facts.quote.pay_to();
        let everywhere =
            self.lists.allowed_payees.is_empty() || self.lists.allowed_payees.contains(&payee);
        let here = match self.setting(facts.request.origin(), |settings| settings.payee.clone()) {
            Some(PayeeRule::Listed(payees)) => payees.contains(&payee),
            _ => true,
        };
        let allowed = everywhere && here && !self.lists.denied_payees.contains(&payee);
        deny_unless(allowed, Rule::Payee, || {
            format!(
                "payee {payee} is not allowed for {}",
                facts.request.origin()
            )
        })
    }

    fn resource_allowed(&self, facts: &Facts<'_>) -> Refusal {
        let refuse = self.setting(facts.request.origin(), |settings| settings.resource)
            == Some(ResourceRule::Refuse);
        let claimed = if refuse {
            facts.foreign_resource()?
        } else {
            return None;
        };
        let message = format!(
            "the seller at {} says it sells `{claimed}`",
            facts.request.origin()
        );
        Some(Denial::new(Rule::ResourceOrigin, message))
    }
}

fn deny_unless(allowed: bool, rule: Rule, message: impl FnOnce() -> String) -> Refusal {
    (!allowed).then(|| Denial::new(rule, message()))
}

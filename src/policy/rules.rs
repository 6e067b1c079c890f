//! The rules of a policy, applied to one payment.
//!
//! The rules in this file are pure. The limits, and the rules that compare a payment with earlier purchases, become a
//! [`LimitCheck`] that the ledger runs.

use std::time::Duration;

use alloy::primitives::{Address, U256};
use url::Url;

use super::{DAY, MINUTE, PayeeRule, Policy, ResourceRule};
use crate::clock::Timestamp;
use crate::limit::{
    Amount, Denial, InFlight, Limit, LimitCheck, LimitKind, PayeePin, PaymentView, PriceCeiling,
    Quantity, Rule, Scope, Selector, Watch,
};
use crate::money::Asset;
use crate::origin::Origin;
use crate::permit2::{EXACT_PROXY, PERMIT2, UPTO_PROXY};
use crate::request::PurchaseRequest;
use crate::x402::{Quote, Verification};
use crate::{text, usd};

/// The default of `loop_guard`: more payments for the same request look like a loop.
pub(super) const LOOP_GUARD: (Duration, u32) = (MINUTE, 30);
/// The default of `circuit_breaker`: a seller that took this many payments in this time without delivering is not paid.
pub(super) const CIRCUIT_BREAKER: (Duration, u32) = (Duration::from_secs(600), 3);
/// The limits on all payments that apply unless the policy replaces them.
static DEFAULT_LIMITS: [Limit<Selector>; 4] = [
    on_all_payments(LimitKind::PerPayment(Amount::Usd(usd!("0.10")))),
    on_all_payments(LimitKind::Rolling(DAY, Amount::Usd(usd!("5")))),
    on_all_payments(LimitKind::Exposure(Amount::Usd(usd!("1")))),
    on_all_payments(LimitKind::Payments(MINUTE, 60)),
];

const fn on_all_payments(kind: LimitKind) -> Limit<Selector> {
    Limit {
        scope: Selector::Only(Scope::Global),
        kind,
    }
}

/// Everything that the policy knows about a payment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) request: &'a PurchaseRequest,
    /// The path of the URL, as the ledger stores it.
    pub(crate) path: &'a str,
    pub(crate) agent: Option<&'a str>,
    /// The name of the API key that says that its host is never paid.
    pub(crate) never_pay: Option<&'a str>,
    pub(crate) payer: Address,
    pub(crate) quote: &'a Quote,
    /// The `resource.url` that the seller claims.
    pub(crate) resource_url: Option<&'a str>,
    /// The seller's signature on the offer. `None` for an offer that no seller made.
    pub(crate) signature: Option<&'a Verification>,
    pub(crate) now: Timestamp,
}

impl Facts<'_> {
    /// Returns the parts that scopes compare.
    pub(super) fn payment(&self) -> PaymentView<'_> {
        PaymentView {
            origin: self.request.origin(),
            path: self
                .path
                .split_once('?')
                .map_or(self.path, |(path, _)| path),
            network: self.quote.network(),
            asset: self.quote.asset().address(),
            payee: self.quote.pay_to(),
            request: self.request.fingerprint(),
            tag: self.request.tag_name(),
            agent: self.agent,
        }
    }

    /// Returns the seller's `resource.url` if it names another origin.
    pub(crate) fn foreign_resource(&self) -> Option<String> {
        let claimed = self.resource_url?;
        if self.request.origin().begins(claimed) {
            return None;
        }
        // An MCP tool has a URL of its own on any origin: `mcp://tool/NAME` or `x402://NAME`.
        let named = claimed
            .strip_prefix("mcp://")
            .or_else(|| claimed.strip_prefix("x402://"))
            .and_then(|name| name.trim_end_matches('/').rsplit('/').next());
        let path = self.request.url().path();
        if let Some(name) = named
            && let Some(tool) = path.strip_prefix("/mcp://tool/")
            && (tool == name || path == super::tool_path(name))
        {
            return None;
        }
        let origin = Url::parse(claimed).ok().as_ref().and_then(Origin::of);
        (origin.as_ref() != Some(self.request.origin())).then(|| text::excerpt(claimed))
    }
}

/// The denial by a rule, or `None` if the rule allows the payment.
pub(super) type Refusal = Option<Denial>;

/// A rule, and the function that applies it.
type Check = (Rule, fn(&Policy, &Facts<'_>) -> Refusal);

/// The rules that do not need the ledger, in the order in which they are applied.
pub(super) const RULES: [Check; 14] = [
    (Rule::Permission, |policy, facts| {
        policy.forbids(facts.request, facts.agent)
    }),
    (Rule::Userinfo, |_, facts| no_userinfo(facts)),
    (Rule::Host, Policy::host_allowed),
    (Rule::Network, Policy::network_allowed),
    (Rule::Asset, Policy::asset_allowed),
    (Rule::Scheme, Policy::scheme_allowed),
    (Rule::ZeroAmount, |_, facts| not_zero(facts)),
    (Rule::MaxPrice, |_, facts| within_max_price(facts)),
    (Rule::UnpricedAsset, Policy::limited_in_its_unit),
    (Rule::Unlimited, Policy::limited_in_dollars),
    (Rule::PayeeImpossible, |_, facts| payee_possible(facts)),
    (Rule::Payee, Policy::payee_allowed),
    (Rule::ResourceOrigin, Policy::resource_allowed),
    (Rule::SignedOffer, Policy::offer_signed),
];

impl Policy {
    /// Applies every rule that does not need the ledger.
    pub(super) fn judge(&self, facts: &Facts<'_>) -> impl Iterator<Item = (Rule, Option<Denial>)> {
        let apply = |(rule, check): Check| (rule, check(self, facts));
        RULES.into_iter().map(apply)
    }

    /// Returns the first denial by a rule that does not need the ledger.
    pub(crate) fn deny(&self, facts: &Facts<'_>) -> Option<Denial> {
        RULES.into_iter().find_map(|(_, check)| check(self, facts))
    }

    /// Returns the first denial of an API call by a rule that does not need the ledger: permissions, lists of hosts
    /// and the maximum of the request.
    pub(crate) fn deny_call(&self, facts: &Facts<'_>) -> Option<Denial> {
        self.forbids(facts.request, facts.agent)
            .or_else(|| self.host_allowed(facts))
            .or_else(|| within_max_price(facts))
    }

    /// Returns the check that the ledger must run for a payment.
    pub(crate) fn limit_check(&self, facts: &Facts<'_>) -> LimitCheck {
        let pinned = self.setting(facts.request.origin(), |settings| settings.payee.as_ref())
            == Some(&PayeeRule::Pinned);
        let payee = pinned.then(|| PayeePin {
            origin: facts.request.origin().clone(),
            payee: facts.quote.pay_to(),
        });
        let max_rise = self.setting(facts.request.origin(), |settings| settings.max_price_rise);
        let price = max_rise.map(|max_rise_percent| PriceCeiling {
            origin: facts.request.origin().clone(),
            method: facts.request.method().as_str().to_owned(),
            path: facts.path.to_owned(),
            max_rise_percent,
        });
        LimitCheck {
            now: facts.now,
            payment: Some((facts.quote.asset().clone(), facts.quote.value())),
            limits: self.limits_for(facts),
            payee,
            price,
            refunds_make_room: self.refunds_make_room,
            in_flight: InFlight::default(),
            watch: self.watch(facts),
        }
    }

    /// Returns the check that the ledger must run for an API call of a declared cost: the limits in dollars on
    /// everything, on hosts, tags and agents. An API call is not a payment, so limits on tokens, networks, payees and
    /// numbers of payments do not apply, and nothing of it stays unresolved.
    pub(crate) fn call_limit_check(&self, facts: &Facts<'_>) -> LimitCheck {
        let mut check = self.limit_check(facts);
        let applies = |limit: &Limit| {
            let is_exposure = matches!(limit.kind, LimitKind::Exposure(_));
            matches!(limit.kind.amount(), Some(Amount::Usd(_)))
                && limit.scope.holds_api_calls()
                && !is_exposure
        };
        check.limits.retain(applies);
        check.watch.retain(applies);
        check.payee = None;
        check.price = None;
        check
    }

    /// Returns a check without a payment, of the limits with one fixed scope each.
    pub(crate) fn budget_check(&self, now: Timestamp) -> LimitCheck {
        let fixed = self
            .effective_limits()
            .filter_map(|limit| match &limit.scope {
                Selector::Only(scope) => Some(Limit {
                    scope: scope.clone(),
                    kind: limit.kind.clone(),
                }),
                Selector::Each(_) => None,
            });
        LimitCheck {
            now,
            payment: None,
            limits: fixed.collect(),
            payee: None,
            price: None,
            refunds_make_room: self.refunds_make_room,
            in_flight: InFlight::default(),
            watch: Watch::default(),
        }
    }

    /// Returns the limits that apply to a payment.
    fn limits_for(&self, facts: &Facts<'_>) -> Vec<Limit> {
        let payment = facts.payment();
        // With room for the defaults and for the two at the end.
        let most = DEFAULT_LIMITS.len().saturating_add(2);
        let mut limits = Vec::with_capacity(self.limits.len().saturating_add(most));
        let applied = self
            .effective_limits()
            .filter_map(|limit| limit.for_payment(&payment));
        limits.extend(applied);
        let origin = facts.request.origin();
        let (window, max) = self
            .setting(origin, |settings| settings.breaker)
            .unwrap_or(CIRCUIT_BREAKER);
        let circuit_breaker = Limit {
            scope: Scope::Origin(origin.clone()),
            kind: LimitKind::CircuitBreaker(window, max),
        };
        let (window, max) = self
            .setting(origin, |settings| settings.repeats)
            .unwrap_or(LOOP_GUARD);
        let loop_guard = Limit {
            scope: Scope::Request(facts.request.fingerprint()),
            kind: LimitKind::LoopGuard(window, max),
        };
        limits.extend([circuit_breaker, loop_guard]);
        limits
    }

    /// Returns the limits of the policy, and the defaults that it does not replace.
    ///
    /// Limits on one payment come first, since the first denial is reported: a price that is too high is the clearest
    /// reason.
    pub(super) fn effective_limits(&self) -> impl Iterator<Item = &Limit<Selector>> {
        let replaced = |default: &Limit<Selector>| {
            // Few limits are of the kind, so it is compared first.
            let mut same_kind = self
                .limits
                .iter()
                .filter(|limit| limit.kind.replaces(&default.kind));
            same_kind.any(|limit| limit.scope == default.scope)
        };
        let all = move || {
            let defaults = DEFAULT_LIMITS
                .iter()
                .filter(move |default| self.defaults && !replaced(default));
            defaults.chain(&self.limits)
        };
        let is_single = |limit: &&Limit<Selector>| matches!(limit.kind, LimitKind::PerPayment(_));
        let single = all().filter(is_single);
        single.chain(all().filter(move |limit| !is_single(limit)))
    }

    /// Returns the reason why an approver must be asked, if there is one: the payment is above a threshold, or no
    /// threshold measures its token.
    pub(crate) fn ask(&self, facts: &Facts<'_>) -> Option<String> {
        let (asset, value) = (facts.quote.asset(), facts.quote.value());
        let (mut measured, mut unmeasured) = (false, None);
        for (selector, threshold) in &self.asks {
            let Some(scope) = selector.select(&facts.payment()) else {
                continue;
            };
            match threshold.measure(asset, value) {
                Some(units) if units > threshold.units() => {
                    return Some(format!("above {threshold} ({scope})"));
                }
                Some(_) => measured = true,
                None => {
                    unmeasured = Some(format!(
                        "no dollar value to compare with {threshold} ({scope})"
                    ));
                }
            }
        }
        unmeasured.filter(|_| !measured)
    }

    fn host_allowed(&self, facts: &Facts<'_>) -> Refusal {
        let host = facts.request.origin().host();
        match facts.never_pay {
            Some(key) => Some(never_paid(host, key)),
            None => self.lists_host(host),
        }
    }

    /// Returns the denial by the lists of allowed and denied hosts.
    pub(super) fn lists_host(&self, host: &str) -> Refusal {
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

    /// A token without a dollar value must be limited in its own units, per payment and over time. Otherwise no limit
    /// would hold it.
    fn limited_in_its_unit(&self, facts: &Facts<'_>) -> Refusal {
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
        deny_unless(self.measures(facts, false), Rule::UnpricedAsset, || {
            format!(
                "{asset} has no dollar value; the policy must limit it in its own units, per payment and over time"
            )
        })
    }

    /// A token with a dollar value must be limited per payment and over time. The default limits do this for every
    /// payment; without them, the policy can have limits on some scopes only.
    fn limited_in_dollars(&self, facts: &Facts<'_>) -> Refusal {
        if self.defaults || self.unlimited || facts.quote.dollars().is_none() {
            return None;
        }
        deny_unless(self.measures(facts, true), Rule::Unlimited, || {
            "no limit of the policy holds this payment; set one per payment and one over time, or `unlimited`"
                .to_owned()
        })
    }

    /// Returns whether a limit per payment and one over time hold this payment: in its token, or also in `dollars`.
    fn measures(&self, facts: &Facts<'_>, dollars: bool) -> bool {
        let payment = facts.payment();
        let measuring = |limit: &&Limit<Selector>| {
            let measures = match limit.kind.amount() {
                Some(Amount::Token(amount)) => amount.asset() == facts.quote.asset(),
                Some(Amount::Usd(_)) => dollars,
                None => false,
            };
            measures && limit.scope.select(&payment).is_some()
        };
        limits_both(self.effective_limits().filter(measuring))
    }

    fn payee_allowed(&self, facts: &Facts<'_>) -> Refusal {
        let payee = facts.quote.pay_to();
        let everywhere =
            self.lists.allowed_payees.is_empty() || self.lists.allowed_payees.contains(&payee);
        let here = match self.setting(facts.request.origin(), |settings| settings.payee.as_ref()) {
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

/// Returns the denial of a payment to a host that has an API key with
/// [`Preference::NeverPay`](crate::credential::Preference::NeverPay).
pub(crate) fn never_paid(host: &str, key: &str) -> Denial {
    let message = format!("host {host} is never paid, because its API key `{key}` says never pay");
    Denial::new(Rule::Host, message)
}

/// Returns whether there is a limit per payment, and one over time.
pub(super) fn limits_both<'a>(limits: impl Iterator<Item = &'a Limit<Selector>>) -> bool {
    let (mut single, mut total) = (false, false);
    for Limit { kind, .. } in limits {
        single |= matches!(kind, LimitKind::PerPayment(_));
        total |= kind.is_total();
    }
    single && total
}

fn no_userinfo(facts: &Facts<'_>) -> Refusal {
    let url = facts.request.url();
    let bare = url.username().is_empty() && url.password().is_none();
    deny_unless(bare, Rule::Userinfo, || {
        "the URL carries a user name or password".to_owned()
    })
}

fn not_zero(facts: &Facts<'_>) -> Refusal {
    deny_unless(facts.quote.value() > U256::ZERO, Rule::ZeroAmount, || {
        "the price is zero; bursar does not sign for nothing".to_owned()
    })
}

fn within_max_price(facts: &Facts<'_>) -> Refusal {
    let measure = |max: &Amount| max.measure(facts.quote.asset(), facts.quote.value());
    let fits = |max: &&Amount| measure(max).is_some_and(|units| units <= max.units());
    let mut ceilings = facts.request.price_ceilings().iter();
    let max = ceilings.find(|max| !fits(max))?;
    let units = measure(max);
    let price = facts.quote.amount();
    let message = format!("{price} is above this request's max_price of {max}");
    let asked = units.map_or_else(|| price.into(), |units| max.with_units(units));
    Some(Denial {
        limit: Some(Quantity::Amount(max.clone())),
        asked: Some(Quantity::Amount(asked)),
        ..Denial::new(Rule::MaxPrice, message)
    })
}

fn payee_possible(facts: &Facts<'_>) -> Refusal {
    let payee = facts.quote.pay_to();
    let wrong = if payee == facts.payer {
        "the payer itself"
    } else if payee == facts.quote.asset().address() {
        "the token's own contract"
    } else if [PERMIT2, EXACT_PROXY, UPTO_PROXY].contains(&payee) {
        "a contract of Permit2, which keeps the money for ever"
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

pub(super) fn deny_unless(allowed: bool, rule: Rule, message: impl FnOnce() -> String) -> Refusal {
    (!allowed).then(|| Denial::new(rule, message()))
}

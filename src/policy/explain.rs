//! What each rule would say to a payment, without books and without money.

use std::fmt;
use std::time::Duration;

use alloy::primitives::{Address, U256};
use serde::Serialize;
use url::Url;

use super::{Facts, Policy};
use crate::limit::{Amount, Denial, LimitStatus, NoUsage, Rule};
use crate::money::{Asset, TransferMethod};
use crate::origin::Origin;
use crate::payer::fingerprint;
use crate::x402::Quote;
use crate::{Network, Timestamp};

/// A payment to ask about: a request and a price.
#[derive(Clone, Debug)]
pub struct Hypothetical {
    pub(crate) url: Url,
    pub(crate) method: String,
    pub(crate) price: Amount,
    pub(crate) network: Option<Network>,
    pub(crate) payee: Address,
    pub(crate) tag: Option<String>,
    pub(crate) agent: Option<String>,
}

impl Hypothetical {
    /// A `GET` of this URL for this price, to an invented payee. A price in dollars is paid in
    /// USDC, or another dollar token that is allowed, on the policy's first network.
    #[must_use]
    pub fn new(url: Url, price: impl Into<Amount>) -> Self {
        Self {
            url,
            method: "GET".to_owned(),
            price: price.into(),
            network: None,
            payee: Address::repeat_byte(0xee),
            tag: None,
            agent: None,
        }
    }

    /// With another method.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = method.into();
        self
    }

    /// On this network, for a price in dollars.
    #[must_use]
    pub const fn network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// To this payee.
    #[must_use]
    pub const fn payee(mut self, payee: Address) -> Self {
        self.payee = payee;
        self
    }

    /// With this tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// By this agent.
    #[must_use]
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.agent = Some(agent.into());
        self
    }
}

/// What every rule answers to one payment. `Display` is a table with a line for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The answers, in the order in which the rules are asked.
    pub answers: Vec<Answer>,
    /// Why somebody would be asked, if nothing denies.
    pub ask: Option<String>,
}

/// One rule's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Answer {
    /// The rule, or the limit in full such as `global rolling 1d`.
    pub name: String,
    /// The rule.
    pub rule: Rule,
    /// What it said beyond yes: what is left of a limit.
    pub detail: Option<String>,
    /// Its refusal.
    pub denial: Option<Denial>,
}

impl Explanation {
    /// The first refusal: what a real payment would be denied with.
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        self.answers
            .iter()
            .find_map(|answer| answer.denial.as_ref())
    }

    pub(crate) fn new(policy: &Policy, facts: &Facts<'_>, statuses: Vec<LimitStatus>) -> Self {
        let rules = policy
            .judge(facts)
            .into_iter()
            .map(|(rule, denial)| Answer {
                name: rule.name().to_owned(),
                rule,
                detail: None,
                denial,
            });
        let limits = statuses.into_iter().map(Answer::from);
        Self {
            answers: rules.chain(limits).collect(),
            ask: policy.ask(facts),
        }
    }
}

impl From<LimitStatus> for Answer {
    fn from(status: LimitStatus) -> Self {
        let detail = status
            .left
            .zip(status.limit)
            .map(|(left, limit)| format!("{left} of {limit} left"));
        Self {
            name: status.name,
            rule: status.rule,
            detail,
            denial: status.denial,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .answers
            .iter()
            .map(|answer| answer.name.chars().count())
            .max()
            .unwrap_or(0);
        for Answer {
            name,
            detail,
            denial,
            ..
        } in &self.answers
        {
            let (mark, words) = match denial {
                Some(denial) => ("deny", denial.message.as_str()),
                None => ("pass", detail.as_deref().unwrap_or_default()),
            };
            writeln!(
                f,
                "{}",
                format!("{mark}  {name:width$}  {words}").trim_end()
            )?;
        }
        match (self.denial(), &self.ask) {
            (Some(denial), _) => writeln!(f, "=> denied: {denial}"),
            (None, Some(why)) => writeln!(f, "=> asks for approval: {why}"),
            (None, None) => writeln!(f, "=> allowed"),
        }
    }
}

impl Policy {
    /// What each rule says to a payment when the books are empty.
    ///
    /// `None` when the URL has no origin, or the registry has no such token: no dollar token on the
    /// network, or not the one that the price is in.
    /// [`Client::explain`](crate::Client::explain) asks with the books as they are.
    #[must_use]
    pub fn explain(&self, payment: &Hypothetical, now: Timestamp) -> Option<Explanation> {
        let origin = Origin::of(&payment.url)?;
        let quote = self.imagine(payment)?;
        let path = self.stored_path(&payment.url);
        let facts = payment.facts(&origin, &quote, &path, now);
        let statuses = self.limit_check(&facts).evaluate(&NoUsage).ok()?;
        Some(Explanation::new(self, &facts, statuses))
    }

    /// The quote that a seller would make for the payment.
    pub(crate) fn imagine(&self, payment: &Hypothetical) -> Option<Quote> {
        let registry = self.asset_registry();
        let (asset, value) = match &payment.price {
            Amount::Token(amount) => (
                registry.iter().find(|asset| *asset == amount.asset())?,
                amount.units(),
            ),
            Amount::Usd(usd) => {
                let network = payment.network.or_else(|| self.networks.first().copied())?;
                let asset = registry
                    .iter()
                    .filter(|asset| asset.network() == network && is_dollar(asset));
                let asset = asset.min_by_key(|asset| {
                    (
                        !self.lists_asset(asset),
                        asset.symbol() != "USDC",
                        asset.address(),
                    )
                })?;
                (asset, asset.parse_units(&usd.to_string())?)
            }
        };
        Some(Quote::imagined(
            asset.clone(),
            payment.payee,
            value,
            Duration::from_secs(60),
        ))
    }
}

fn is_dollar(asset: &Asset) -> bool {
    asset.transfer_method() == TransferMethod::Eip3009 && asset.dollars(U256::ZERO).is_some()
}

impl Hypothetical {
    pub(crate) fn facts<'a>(
        &'a self,
        origin: &'a Origin,
        quote: &'a Quote,
        path: &'a str,
        now: Timestamp,
    ) -> Facts<'a> {
        Facts {
            url: &self.url,
            origin,
            method: &self.method,
            path,
            tag: self.tag.as_deref(),
            agent: self.agent.as_deref(),
            payer: Address::ZERO,
            quote,
            request: fingerprint(&self.method, &self.url, Some(&[])),
            resource_url: None,
            max_price: None,
            now,
        }
    }
}

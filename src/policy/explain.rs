//! The answer of each rule to a payment that nobody makes.

use std::fmt::{self, Write};
use std::time::Duration;

use alloy::primitives::{Address, U256};
use serde::Serialize;

use super::rules::RULES;
use super::{Facts, Policy, SignIn};
use crate::clock::Timestamp;
use crate::limit::{Amount, Denial, LimitStatus, NoUsage, Rule};
use crate::money::Network;
use crate::money::{Asset, TransferMethod};
use crate::request::PurchaseRequest;
use crate::x402::Quote;

/// The price that a seller might ask, for [`Policy::explain`] and [`Payer::explain`](crate::Payer::explain).
///
/// An amount alone is enough: a price in dollars is paid in USDC, or in another dollar token that the policy
/// allows, on the first network of the policy, to an invented payee.
///
/// ```
/// use bursar::{Policy, PurchaseRequest, Timestamp, usd};
/// use bursar::policy::AskingPrice;
///
/// let policy = Policy::new().allow_network("base").allow_network("polygon");
/// let request = PurchaseRequest::new("GET", "https://api.example.com/report", b"")?;
/// let price = AskingPrice::new(usd!("0.02")).network("polygon".parse()?);
/// let explanation = policy.explain(&request, price, None, Timestamp::from_secs(1_800_000_000));
/// assert!(explanation.is_some_and(|explanation| explanation.denial().is_none()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct AskingPrice {
    amount: Amount,
    network: Option<Network>,
    payee: Address,
}

impl AskingPrice {
    /// Returns the price.
    #[must_use]
    pub fn new(amount: impl Into<Amount>) -> Self {
        Self {
            amount: amount.into(),
            network: None,
            payee: Address::repeat_byte(0xee),
        }
    }

    /// Sets the network on which a price in dollars is paid.
    #[must_use]
    pub const fn network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Sets the payee.
    #[must_use]
    pub const fn payee(mut self, payee: Address) -> Self {
        self.payee = payee;
        self
    }
}

impl<A: Into<Amount>> From<A> for AskingPrice {
    fn from(amount: A) -> Self {
        Self::new(amount)
    }
}

/// The answer of every rule to one payment. `Display` writes a table with a line for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The answers, in the order in which bursar checks the rules.
    pub answers: Vec<Answer>,
    /// Why bursar would ask the approver, if no rule denies the payment.
    pub ask: Option<String>,
    /// Where bursar signs in instead of paying again; see [`Policy::sign_in`].
    #[serde(skip_serializing_if = "SignIn::is_never")]
    pub sign_in: SignIn,
}

/// The answer of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Answer {
    /// The name of the rule, or the limit in full such as `global rolling 1d`.
    pub name: String,
    /// The rule.
    pub rule: Rule,
    /// The room left under a limit.
    pub detail: Option<String>,
    /// The denial, if the rule denies the payment.
    pub denial: Option<Denial>,
}

impl Explanation {
    /// Returns the first denial: the one that a real payment would receive.
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        self.answers
            .iter()
            .find_map(|answer| answer.denial.as_ref())
    }

    pub(crate) fn new(
        policy: &Policy,
        facts: &Facts<'_>,
        balance: Option<Answer>,
        statuses: Vec<LimitStatus>,
    ) -> Self {
        let rules = policy
            .judge(facts)
            // This rule is about policies without the default limits.
            .filter(|(rule, _)| *rule != Rule::Unlimited || !policy.defaults)
            .filter(|(rule, _)| {
                *rule != Rule::SignedOffer || policy.requires_signed_offers(facts.request.origin())
            })
            .map(|(rule, denial)| Answer {
                name: rule.name().to_owned(),
                rule,
                detail: (rule == Rule::Unlimited && policy.unlimited)
                    .then(|| "the policy is unlimited".to_owned()),
                denial,
            });
        // Answers are large, so the list is made once with room for all of them.
        let mut answers =
            Vec::with_capacity(statuses.len().saturating_add(RULES.len().saturating_add(1)));
        answers.extend(rules.chain(balance));
        answers.extend(statuses.into_iter().map(Answer::from));
        Self {
            answers,
            ask: policy.ask(facts),
            sign_in: policy.signs_in(facts.request.origin()),
        }
    }
}

impl From<LimitStatus> for Answer {
    fn from(status: LimitStatus) -> Self {
        let detail = status
            .left
            .zip(status.limit)
            .map(|(left, limit)| short(format_args!("{left} of {limit} left")));
        Self {
            name: status.name,
            rule: status.rule,
            detail,
            denial: status.denial,
        }
    }
}

/// Formats a text of a few words, into one allocation.
fn short(words: fmt::Arguments<'_>) -> String {
    let mut text = String::with_capacity(48);
    match text.write_fmt(words) {
        Ok(()) => text,
        Err(_) => words.to_string(),
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
        if !self.sign_in.is_never() {
            writeln!(
                f,
                "sign_in = \"{}\": {}",
                self.sign_in,
                self.sign_in.meaning()
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
    /// Returns the answer of each rule to a payment while the ledger is empty. `agent` is the name that the
    /// payment would be recorded under.
    ///
    /// Returns `None` when no registered token fits the price: no dollar token on the network, or not the token
    /// that the price is in. [`Client::explain`](crate::Client::explain) answers with the ledger as it is.
    #[must_use]
    pub fn explain(
        &self,
        request: &PurchaseRequest,
        price: impl Into<AskingPrice>,
        agent: Option<&str>,
        now: Timestamp,
    ) -> Option<Explanation> {
        let quote = self.asking_quote(&price.into())?;
        let path = self.stored_path(request);
        let facts = Facts {
            request,
            path: &path,
            agent,
            never_pay: None,
            payer: Address::ZERO,
            quote: &quote,
            resource_url: None,
            signature: None,
            now,
        };
        let statuses = self.limit_check(&facts).evaluate(&NoUsage).ok()?;
        Some(Explanation::new(self, &facts, None, statuses))
    }

    /// The quote that a seller with this price would make.
    pub(crate) fn asking_quote(&self, price: &AskingPrice) -> Option<Quote> {
        let registry = self.asset_registry();
        let (asset, value) = match &price.amount {
            Amount::Token(amount) => (
                registry.iter().find(|asset| *asset == amount.asset())?,
                amount.units(),
            ),
            Amount::Usd(usd) => {
                let network = price.network.or_else(|| self.networks.first().copied())?;
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
            price.payee,
            value,
            Duration::from_secs(60),
        ))
    }
}

fn is_dollar(asset: &Asset) -> bool {
    asset.transfer_method() == TransferMethod::Eip3009 && asset.dollars(U256::ZERO).is_some()
}

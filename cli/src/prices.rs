//! The offers of a seller with the decision of the policy: the JSON of `bursar quote` and of the tool `quote`.

use bursar::PriceCheck;
use bursar::policy::{Explanation, PricedOffer, Rule};
use bursar::x402::Verification;
use serde::Serialize;

use crate::payment::{method, network_name, signature_name};
use crate::problem::Refusal;

/// All offers of a seller.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Prices {
    /// The index of the offer that bursar would pay.
    pub(crate) best: Option<usize>,
    pub(crate) offers: Vec<Offer>,
    /// Remarks about terms that other software may not take.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// One offer.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Offer {
    /// `allowed`, `ask`, `denied`, `unpayable` or `unjudged`.
    verdict: &'static str,
    /// `permit2` or `upto`, whose amount is a ceiling. Absent for EIP-3009.
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    amount: Option<String>,
    price: Option<String>,
    usd: Option<String>,
    asset: Option<String>,
    network: Option<String>,
    pay_to: Option<String>,
    reason: Option<String>,
    denial: Option<Refusal>,
    /// `verified`, `unverified` or `wrong`, if the seller signed the offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<&'static str>,
    /// Why the signature is not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_reason: Option<String>,
    /// The offer as text, with the answer of each rule.
    #[serde(skip)]
    text: String,
}

impl Prices {
    pub(crate) fn of(price_check: &PriceCheck) -> Self {
        Self {
            best: price_check.best().map(bursar::x402::Quote::offer),
            offers: price_check.offers.iter().map(Offer::of).collect(),
            warnings: price_check.required.warnings(),
        }
    }

    /// Removes everything that quotes the seller. Returns the removed reasons.
    #[cfg(feature = "mcp-serve")]
    pub(crate) fn take_seller_text(&mut self) -> Vec<String> {
        self.offers
            .iter_mut()
            .filter_map(Offer::take_seller_text)
            .collect()
    }

    pub(crate) fn text(&self) -> String {
        let lines = self.offers.iter().enumerate().map(|(index, offer)| {
            let number = index.saturating_add(1);
            let best = if self.best == Some(index) {
                " (bursar would pay this one)"
            } else {
                ""
            };
            format!("offer {number}{best}: {}\n", offer.text)
        });
        let warnings = self.warnings.iter();
        let warnings = warnings.map(|warning| format!("warning: {warning}\n"));
        lines.chain(warnings).collect()
    }
}

impl Offer {
    fn of(offer: &PricedOffer) -> Self {
        let quote = match &offer.quote {
            Ok(quote) => quote,
            Err(reason) => {
                return Self {
                    verdict: UNPAYABLE,
                    reason: Some(reason.to_string()),
                    text: format!("not payable: {reason}"),
                    ..Self::default()
                };
            }
        };
        let (verdict, reason, denial) = verdict(offer.explanation.as_ref());
        let price = quote.to_string();
        Self {
            verdict,
            method: method(Some(quote.payment_method())),
            amount: Some(quote.value().to_string()),
            usd: quote.dollars().map(|usd| usd.to_string()),
            asset: Some(quote.asset().address().to_string()),
            network: Some(quote.network().to_string()),
            pay_to: Some(quote.pay_to().to_string()),
            reason,
            denial,
            signature: signature_name(quote.signature()),
            signature_reason: match quote.signature() {
                Verification::Unverified { reason } | Verification::Wrong { reason } => {
                    Some(reason.clone())
                }
                _ => None,
            },
            text: format!(
                "{price} to {} on {}{}{}",
                quote.pay_to(),
                network_name(quote.network()),
                match quote.signature() {
                    Verification::Absent => String::new(),
                    signature => format!(", {signature}"),
                },
                answers(offer.explanation.as_ref())
            ),
            price: Some(price),
        }
    }

    #[cfg(feature = "mcp-serve")]
    fn take_seller_text(&mut self) -> Option<String> {
        // It can quote the seller's signed content.
        self.signature_reason = None;
        if let Some(denial) = self.denial.take() {
            let denial = denial.without_seller_text();
            self.reason = Some(denial.message().to_owned());
            self.denial = Some(denial);
        }
        // A threshold for each resource names the path, which a redirect of the seller can choose.
        let names_path = |reason: &String| reason.contains("(resource ");
        if self.verdict == ASK && self.reason.as_ref().is_some_and(names_path) {
            return self.reason.replace(Rule::Approval.to_string());
        }
        self.reason.take_if(|_| self.verdict == UNPAYABLE)
    }
}

const UNPAYABLE: &str = "unpayable";
const ASK: &str = "ask";

/// Returns the verdict of the policy: its stable name, the reason and the refusal.
fn verdict(explanation: Option<&Explanation>) -> (&'static str, Option<String>, Option<Refusal>) {
    let Some(explanation) = explanation else {
        return ("unjudged", None, None);
    };
    match (explanation.denial(), &explanation.ask) {
        (Some(denial), _) => ("denied", Some(denial.to_string()), Some(denial.into())),
        (None, Some(why)) => (ASK, Some(format!("{} {why}", Rule::Approval)), None),
        (None, None) => ("allowed", None, None),
    }
}

/// Returns the answer of each rule on an indented line of its own.
fn answers(explanation: Option<&Explanation>) -> String {
    match explanation {
        Some(explanation) => explanation
            .to_string()
            .lines()
            .map(|line| format!("\n  {line}"))
            .collect(),
        None => "; not judged, because you gave no --policy and no --network".to_owned(),
    }
}

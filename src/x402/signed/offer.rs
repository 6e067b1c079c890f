//! Signed offers, and the quotes that they are for.

use std::fmt;

use alloy::primitives::{B256, keccak256};
use serde_json::json;
use serde_json::value::RawValue;
use url::Url;

use super::super::members::Members;
use super::super::unpayable::read_amount;
use super::super::{PaymentRequired, Quote, Unpayable};
use super::artifact::{Artifact, digest, number};
use super::{SellerSignature, Verification, names};
use crate::clock::Timestamp;
use crate::money::{Network, parse_address};
use crate::text;

/// The number of signed offers that bursar reads.
const MOST_READ: usize = 256;
/// The number of signatures that bursar checks for one set of terms, and for one offer.
const MOST_CHECKED: u32 = 64;
const MOST_FOR_ONE: usize = 4;
const DOMAIN: &str = "x402 offer";
const TYPE: &str = "Offer(uint256 version,string resourceUrl,string scheme,string network,string asset,string payTo,string amount,uint256 validUntil)";

/// Returns `offer-receipt.info.offers` as the seller wrote it.
pub(in super::super) fn raw_offers(extensions: Option<&RawValue>) -> Option<Box<RawValue>> {
    // Most sellers sign nothing.
    let extensions = extensions.filter(|raw| raw.get().contains("ffer"))?;
    let member = |raw: &RawValue, name: &str| -> Option<Box<RawValue>> {
        Members::of(raw)
            .ok()?
            .get(&[name])
            .ok()?
            .map(RawValue::to_owned)
    };
    let extension = member(extensions, "offerreceipt")?;
    let info = member(&extension, "info")?;
    member(&info, "offers")
}

/// The seller's signature on an offer, with the parts that depend on the request and the time.
#[derive(Clone, PartialEq, Eq)]
pub(in super::super) struct SignedOffer {
    pub(in super::super) signature: SellerSignature,
    url: Option<String>,
    /// In Unix seconds, or zero.
    valid_until: u64,
}

/// Without the signed URL, which can have the query of the request.
impl fmt::Debug for SignedOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedOffer")
            .field("signature", &self.signature)
            .field("valid_until", &self.valid_until)
            .finish_non_exhaustive()
    }
}

impl SignedOffer {
    fn unusable(verification: Verification) -> Self {
        Self {
            signature: SellerSignature {
                verification,
                artifact: None,
            },
            url: None,
            valid_until: 0,
        }
    }

    /// Checks that the signature is for this request and has not expired.
    pub(in super::super) fn check_for(&mut self, request: &Url, now: Timestamp) {
        let mut worse = Verification::Absent;
        if let Some(url) = &self.url
            && let Err(other) = names(url, request, true)
        {
            worse = worse.or_worse(other);
        }
        if self.valid_until != 0 && self.valid_until < now.secs() {
            let expired = Timestamp::from_secs(self.valid_until);
            worse = worse.or_worse(Verification::wrong(format!("it expired at {expired}")));
        }
        let verification = std::mem::take(&mut self.signature.verification);
        self.signature.verification = verification.or_worse(worse);
    }
}

impl Quote {
    /// Returns the result of checking the seller's signature on the offer.
    ///
    /// A quote that you [read](Self::read) yourself was compared with the terms. bursar also compares the signed URL with
    /// that of the request and checks the expiry before it pays, and in a [`PriceCheck`](crate::PriceCheck).
    #[must_use]
    pub fn signature(&self) -> &Verification {
        self.signed
            .as_ref()
            .map_or(&Verification::Absent, |signed| {
                &signed.signature.verification
            })
    }

    /// Returns the signature as the ledger keeps it.
    pub(crate) fn seller_signature(&self) -> Option<&SellerSignature> {
        self.signed.as_ref().map(|signed| &signed.signature)
    }

    /// Checks that the signature is for this request and has not expired.
    pub(crate) fn check_signature(&mut self, request: &Url, now: Timestamp) {
        if let Some(signed) = &mut self.signed {
            signed.check_for(request, now);
        }
    }

    fn sign(&mut self, signed: SignedOffer) {
        self.signed = Some(Box::new(signed));
    }
}

/// Gives each quote the signature of the seller on its offer.
///
/// A signed offer belongs to the offer with the same content, wherever it is in the list. One that has the content of no
/// offer belongs to the offer at its index.
pub(in super::super) fn attach(
    required: &PaymentRequired,
    quotes: &mut [Result<Quote, Unpayable>],
) {
    let Some(raw) = required.raw_signed_offers() else {
        return;
    };
    let list: Result<Vec<&RawValue>, _> = serde_json::from_str(raw.get());
    let Ok(mut list) = list else {
        let fault = Verification::wrong("it cannot be read: `offers` is not a list");
        for quote in quotes.iter_mut().flatten() {
            quote.sign(SignedOffer::unusable(fault.clone()));
        }
        return;
    };
    list.truncate(MOST_READ);
    let entries: Vec<Entry> = list
        .into_iter()
        .enumerate()
        .map(|(place, raw)| Entry::read(raw, place))
        .collect();
    let mut matched = vec![false; entries.len()];
    let mut left = MOST_CHECKED;
    for quote in quotes.iter_mut().flatten() {
        let scheme = required.offers().get(quote.offer());
        let scheme = scheme.and_then(|offer| Members::of(offer.raw()).ok()?.words(&["scheme"]));
        let scheme = scheme.unwrap_or_default();
        let same = |entry: &Entry| {
            let content = entry.content.as_ref().ok();
            content.is_some_and(|content| content.difference(quote, &scheme).is_none())
        };
        let mut best: Option<SignedOffer> = None;
        let mut tried = 0_usize;
        for (entry, matched) in entries.iter().zip(&mut matched) {
            if !same(entry) {
                continue;
            }
            *matched = true;
            tried = tried.saturating_add(1);
            let Ok(content) = entry.content.as_ref() else {
                continue;
            };
            if tried > MOST_FOR_ONE || best.as_ref().is_some_and(is_verified) {
                continue;
            }
            let signed = match left.checked_sub(1) {
                Some(rest) => {
                    left = rest;
                    content.check(quote)
                }
                None => {
                    let reason = "the seller signed too many offers";
                    SignedOffer::unusable(Verification::unverified(reason))
                }
            };
            best = Some(match best {
                Some(best) if !is_better(&signed, &best) => best,
                _ => signed,
            });
        }
        if let Some(best) = best {
            quote.sign(best);
        }
    }
    for quote in quotes
        .iter_mut()
        .flatten()
        .filter(|quote| quote.signed.is_none())
    {
        let offer = quote.offer();
        let mut unmatched = entries
            .iter()
            .zip(&matched)
            .filter(|(entry, matched)| !**matched && entry.index == offer);
        let Some((entry, _)) = unmatched.next() else {
            continue;
        };
        let scheme = required.offers().get(offer);
        let scheme = scheme.and_then(|offer| Members::of(offer.raw()).ok()?.words(&["scheme"]));
        let verification = match &entry.content {
            Ok(content) => match content.difference(quote, &scheme.unwrap_or_default()) {
                Some(difference) => Verification::wrong(difference),
                None => continue,
            },
            Err(verification) => verification.clone(),
        };
        quote.sign(SignedOffer::unusable(verification));
    }
}

fn is_verified(signed: &SignedOffer) -> bool {
    signed.signature.verification.is_verified()
}

fn is_better(one: &SignedOffer, other: &SignedOffer) -> bool {
    one.signature.verification.badness() < other.signature.verification.badness()
}

/// An element of the list of signed offers.
struct Entry {
    /// The index of the offer, by the seller.
    index: usize,
    content: Result<Content, Verification>,
}

/// The content of a signed offer.
struct Content {
    artifact: Artifact,
    url: String,
    scheme: String,
    network: String,
    asset: String,
    pay_to: String,
    amount: String,
    valid_until: u64,
}

impl Entry {
    fn read(raw: &RawValue, place: usize) -> Self {
        let index = Members::of(raw)
            .ok()
            .and_then(|members| members.words(&["acceptindex"])?.parse().ok());
        Self {
            index: index.unwrap_or(place),
            content: Content::read(raw),
        }
    }
}

impl Content {
    fn read(raw: &RawValue) -> Result<Self, Verification> {
        let artifact = Artifact::read(raw)?;
        let payload = artifact.payload()?;
        payload.check_version()?;
        Ok(Self {
            url: payload.text("resourceUrl")?,
            scheme: payload.text("scheme")?,
            network: payload.text("network")?,
            asset: payload.text("asset")?,
            pay_to: payload.text("payTo")?,
            amount: payload.text("amount")?,
            valid_until: payload.number("validUntil")?,
            artifact,
        })
    }

    /// Returns the difference to the offer, if there is one.
    fn difference(&self, quote: &Quote, scheme: &str) -> Option<String> {
        let address = quote.asset().address();
        let differs = |name: &str, signed: &str, offered: &str| {
            let signed = text::excerpt(signed);
            Some(format!("it has {name} {signed}, the offer {offered}"))
        };
        if self.scheme != scheme {
            return differs("scheme", &self.scheme, &text::excerpt(scheme));
        }
        if self.network.parse::<Network>().ok() != Some(quote.network()) {
            return differs("network", &self.network, &quote.network().to_string());
        }
        if parse_address(&self.asset) != Some(address) {
            return differs("asset", &self.asset, &address.to_string());
        }
        if parse_address(&self.pay_to) != Some(quote.pay_to()) {
            return differs("payTo", &self.pay_to, &quote.pay_to().to_string());
        }
        if read_amount(&self.amount).ok() != Some(quote.value()) {
            return differs("amount", &self.amount, &quote.value().to_string());
        }
        None
    }

    fn check(&self, quote: &Quote) -> SignedOffer {
        let verification = self.artifact.check(self.digest(), quote.pay_to());
        let payload = json!({
            "version": 1,
            "resourceUrl": self.url,
            "scheme": self.scheme,
            "network": self.network,
            "asset": self.asset,
            "payTo": self.pay_to,
            "amount": self.amount,
            "validUntil": self.valid_until,
        });
        let is_safe = verification.is_verified();
        SignedOffer {
            signature: SellerSignature {
                artifact: Some(self.artifact.kept(&self.url, payload, is_safe)),
                verification,
            },
            url: Some(self.url.clone()),
            valid_until: self.valid_until,
        }
    }

    fn digest(&self) -> B256 {
        digest(
            DOMAIN,
            TYPE,
            &[
                number(1),
                keccak256(&self.url),
                keccak256(&self.scheme),
                keccak256(&self.network),
                keccak256(&self.asset),
                keccak256(&self.pay_to),
                keccak256(&self.amount),
                number(self.valid_until),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;
    use serde_json::{Value, value::to_raw_value};

    use super::*;
    use crate::money::AssetRegistry;

    fn vectors() -> Value {
        let all: Value =
            serde_json::from_str(include_str!("../../../tests/vectors/extensions.json")).unwrap();
        all["offer_receipt"].clone()
    }

    fn content(offer: &Value) -> Content {
        Content::read(&to_raw_value(offer).unwrap()).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Returns terms with the vector's offer, changed, and with signed offers.
    fn quote(signed: &Value, from: &str, to: &str) -> Quote {
        let offer = r#"{"scheme":"exact","network":"eip155:84532","amount":"10000",
            "asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","payTo":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
            "maxTimeoutSeconds":60,"extra":{"name":"USDC","version":"2"}}"#;
        assert!(offer.contains(from), "{from}");
        let offer = offer.replace(from, to);
        let terms = format!(
            r#"{{"x402Version":2,"resource":{{"url":"https://api.example.com/premium-data","description":"","mimeType":""}},
                "accepts":[{offer}],"extensions":{{"offer-receipt":{{"info":{{"offers":{signed}}}}}}}}}"#
        );
        let required = PaymentRequired::from_json(terms.as_bytes()).unwrap();
        Quote::read(&required, 0, AssetRegistry::stablecoins()).unwrap()
    }

    #[test]
    fn the_official_offer_has_the_same_digest_and_signer() {
        let vectors = vectors();
        let content = content(&vectors["offer"]);
        assert_eq!(content.digest().to_string(), vectors["offerDigest"]);
        let signer: Address = vectors["signer"].as_str().unwrap().parse().unwrap();
        let payee: Address = content.pay_to.parse().unwrap();
        assert_ne!(signer, payee);
        let verified = Verification::Verified { by: signer };
        assert_eq!(content.artifact.check(content.digest(), signer), verified);
        assert_eq!(
            content.artifact.check(content.digest(), payee).name(),
            "wrong"
        );
    }

    #[test]
    fn a_signed_offer_that_cannot_be_read_proves_nothing() {
        let vectors = vectors();
        let good = &vectors["offer"];
        let with = |pointer: &str, value: Value| {
            let mut changed = good.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            Value::Array(vec![changed])
        };
        // The payee of these terms did not sign, but the content is that of the offer.
        let stranger = with(
            "/payload/payTo",
            "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into(),
        );
        for (signed, name) in [
            (json!([]), "absent"),
            (json!(null), "absent"),
            (json!("x"), "wrong"),
            (json!([null]), "wrong"),
            (json!([[]]), "wrong"),
            (stranger, "wrong"),
            (with("/format", "ssh".into()), "unverified"),
            (with("/format", "jws".into()), "wrong"),
            (with("/signature", "0x".into()), "wrong"),
            (with("/signature", "garbage".into()), "wrong"),
            (with("/signature", 7.into()), "wrong"),
            (with("/payload", json!(null)), "wrong"),
            (with("/payload", json!([1])), "wrong"),
            (with("/payload/version", 2.into()), "unverified"),
            (with("/payload/validUntil", (-1).into()), "wrong"),
            (with("/payload/amount", json!({})), "wrong"),
            (
                with("/payload/resourceUrl", "x".repeat(9000).into()),
                "unverified",
            ),
        ] {
            let quote = quote(&signed, "60", "60");
            assert_eq!(quote.signature().name(), name, "{signed}");
        }
    }

    #[test]
    fn a_signed_offer_must_have_the_content_of_the_offer() {
        let signed = Value::Array(vec![vectors()["offer"].clone()]);
        let payee = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
        let differs = quote(&signed, "10000", "20000");
        let Verification::Wrong { reason } = differs.signature() else {
            panic!("{:?}", differs.signature());
        };
        assert!(reason.contains("payTo"), "{reason}");
        let mut own = vectors()["offer"].clone();
        own["payload"]["payTo"] = payee.into();
        let own = Value::Array(vec![own]);
        let quote = quote(&own, "10000", "10001");
        let Verification::Wrong { reason } = quote.signature() else {
            panic!("{:?}", quote.signature());
        };
        assert_eq!(reason, "it has amount 10000, the offer 10001");
    }

    #[test]
    fn a_flood_of_signed_offers_is_checked_in_part() {
        let mut own = vectors()["offer"].clone();
        own["payload"]["payTo"] = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into();
        let flood = Value::Array(vec![own; 300]);
        assert_eq!(quote(&flood, "60", "60").signature().name(), "wrong");
        let offer = r#"{"scheme":"exact","network":"eip155:84532","amount":"10000","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "payTo":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8","maxTimeoutSeconds":60,"extra":{"name":"USDC","version":"2"}}"#;
        let offers = vec![offer; 256].join(",");
        let terms = format!(
            r#"{{"x402Version":2,"accepts":[{offers}],"extensions":{{"offer-receipt":{{"info":{{"offers":{flood}}}}}}}}}"#
        );
        let required = PaymentRequired::from_json(terms.as_bytes()).unwrap();
        let quotes = Quote::read_all(&required, AssetRegistry::stablecoins());
        let named = |name: &str| {
            let quotes = quotes.iter().flatten();
            quotes
                .filter(|quote| quote.signature().name() == name)
                .count()
        };
        assert_eq!((named("wrong"), named("unverified")), (16, 240));
    }
}

//! The signed receipt in a settlement response.

use alloy::primitives::{B256, keccak256};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use url::Url;

use super::super::{SettlementResponse, SignedPayment};
use super::artifact::{Artifact, digest, number};
use super::{SellerSignature, Verification, names};
use crate::clock::Timestamp;
use crate::money::{Network, parse_address};
use crate::origin::Origin;
use crate::text;

const DOMAIN: &str = "x402 receipt";
const TYPE: &str = "Receipt(uint256 version,string network,string resourceUrl,string payer,uint256 issuedAt,string transaction)";
/// The age of the oldest receipt that official clients take, in seconds.
const OLDEST: u64 = 3600;
/// The difference between the seller's clock and this one that is no reason for doubt, in seconds.
const CLOCKS: u64 = 300;

/// Checks the signed receipt of a settlement against the payment. Returns `None` if there is none.
pub(crate) fn signed_receipt(
    claim: &SettlementResponse,
    payment: &SignedPayment,
    origin: &Origin,
    now: Timestamp,
) -> Option<SellerSignature> {
    let extension = claim.extensions.as_ref()?.get("offer-receipt")?;
    let receipt = extension.get("info")?.get("receipt")?;
    let receipt = Some(receipt).filter(|receipt| !receipt.is_null())?;
    let raw = to_raw_value(receipt).ok()?;
    let checked = check(&raw, claim, payment, origin, now);
    Some(checked.unwrap_or_else(|verification| SellerSignature {
        verification,
        artifact: None,
    }))
}

fn check(
    raw: &RawValue,
    claim: &SettlementResponse,
    payment: &SignedPayment,
    origin: &Origin,
    now: Timestamp,
) -> Result<SellerSignature, Verification> {
    let artifact = Artifact::read(raw)?;
    let content = Content::read(&artifact)?;
    let mut verification = artifact.check(content.digest(), payment.pay_to);
    // An unverified receipt can hold the buyer's own signature in disguise.
    let is_safe = verification.is_verified();
    for doubt in content.doubts(claim, payment, origin, now) {
        verification = verification.or_worse(doubt);
    }
    let kept = artifact.kept(&content.url, content.json(), is_safe);
    Ok(SellerSignature {
        verification,
        artifact: Some(kept),
    })
}

struct Content {
    network: String,
    url: String,
    payer: String,
    issued_at: u64,
    transaction: String,
}

impl Content {
    fn read(artifact: &Artifact) -> Result<Self, Verification> {
        let payload = artifact.payload()?;
        payload.check_version()?;
        Ok(Self {
            network: payload.text("network")?,
            url: payload.text("resourceUrl")?,
            payer: payload.text("payer")?,
            issued_at: payload.number("issuedAt")?,
            transaction: payload.optional("transaction")?.unwrap_or_default(),
        })
    }

    /// Returns everything that makes the receipt one of another purchase.
    fn doubts(
        &self,
        claim: &SettlementResponse,
        payment: &SignedPayment,
        origin: &Origin,
        now: Timestamp,
    ) -> impl Iterator<Item = Verification> {
        let differs = |name: &str, signed: &str, paid: &str| {
            let signed = text::excerpt(signed);
            Verification::wrong(format!("it has {name} {signed}, the payment {paid}"))
        };
        let network = payment.network();
        let other_network = (self.network.parse::<Network>().ok() != Some(network))
            .then(|| differs("network", &self.network, &network.to_string()));
        let other_payer = (parse_address(&self.payer.to_ascii_lowercase()) != Some(payment.payer))
            .then(|| differs("payer", &self.payer, &payment.payer.to_string()));
        let hash = |text: &str| text.strip_prefix("0x").unwrap_or(text).parse::<B256>().ok();
        let claimed_hash = hash(&claim.transaction);
        let other_transaction = (!self.transaction.is_empty()
            && hash(&self.transaction).is_none_or(|hash| Some(hash) != claimed_hash))
        .then(|| {
            let claimed = text::excerpt(&claim.transaction);
            let signed = text::excerpt(&self.transaction);
            Verification::wrong(format!(
                "it has transaction {signed}, the settlement {claimed}"
            ))
        });
        let other_seller = Url::parse(&origin.to_string())
            .ok()
            .and_then(|origin| names(&self.url, &origin, false).err());
        let issued = Timestamp::from_secs(self.issued_at);
        let time = if self.issued_at > now.secs().saturating_add(CLOCKS) {
            Some(Verification::wrong(format!(
                "it was issued at {issued}, which is in the future"
            )))
        } else if now.secs().saturating_sub(self.issued_at) > OLDEST {
            Some(Verification::unverified(format!(
                "it was issued at {issued}, and can be that of an earlier purchase"
            )))
        } else {
            None
        };
        [
            other_network,
            other_payer,
            other_transaction,
            other_seller,
            time,
        ]
        .into_iter()
        .flatten()
    }

    fn json(&self) -> Value {
        json!({
            "version": 1,
            "network": self.network,
            "resourceUrl": self.url,
            "payer": self.payer,
            "issuedAt": self.issued_at,
            "transaction": self.transaction,
        })
    }

    fn digest(&self) -> B256 {
        digest(
            DOMAIN,
            TYPE,
            &[
                number(1),
                keccak256(&self.network),
                keccak256(&self.url),
                keccak256(&self.payer),
                number(self.issued_at),
                keccak256(&self.transaction),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, U256};

    use super::*;
    use crate::eip3009::PurchaseId;
    use crate::money::{AssetRegistry, TokenAmount};

    fn vectors() -> Value {
        let all: Value =
            serde_json::from_str(include_str!("../../../tests/vectors/extensions.json")).unwrap();
        all["offer_receipt"].clone()
    }

    /// Checks the official receipt, changed, against the payment that it is for.
    fn check(pointer: &str, value: Value, now: u64) -> Verification {
        let vectors = vectors();
        let mut receipt = vectors["receipt"].clone();
        *receipt.pointer_mut(pointer).unwrap() = value;
        let network = Network::from_chain_id(84_532);
        let usdc = AssetRegistry::stablecoins().find_symbol(network, "USDC");
        let address = |text: &str| text.parse::<Address>().unwrap();
        let payment = SignedPayment {
            method: crate::x402::PaymentMethod::Eip3009,
            purchase: PurchaseId::random().unwrap(),
            amount: TokenAmount::from_units(usdc.unwrap().clone(), U256::from(10_000)),
            payer: address("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
            pay_to: address(vectors["signer"].as_str().unwrap()),
            nonce: B256::ZERO,
            valid_before: 0,
        };
        let mut claim =
            SettlementResponse::success(B256::repeat_byte(0x12), network, payment.payer);
        claim.extensions = Some(json!({ "offer-receipt": { "info": { "receipt": receipt } } }));
        let origin = "https://api.example.com".parse().unwrap();
        let signed = signed_receipt(&claim, &payment, &origin, Timestamp::from_secs(now));
        signed.map_or(Verification::Absent, |signed| signed.verification)
    }

    #[test]
    fn the_official_receipt_has_the_same_digest_and_is_verified() {
        let vectors = vectors();
        let artifact = Artifact::read(&to_raw_value(&vectors["receipt"]).unwrap()).unwrap();
        let content = Content::read(&artifact).unwrap();
        assert_eq!(content.digest().to_string(), vectors["receiptDigest"]);
        let verified = check("/format", "eip712".into(), 1_740_672_094);
        assert!(verified.is_verified(), "{verified}");
    }

    #[test]
    fn a_receipt_of_another_purchase_is_not_verified() {
        for (pointer, value, now, name) in [
            (
                "/payload/payer",
                json!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
                0,
                "wrong",
            ),
            ("/payload/network", json!("eip155:8453"), 0, "wrong"),
            (
                "/payload/resourceUrl",
                json!("https://evil.example.com/"),
                0,
                "wrong",
            ),
            ("/payload/transaction", json!("0x13"), 0, "wrong"),
            ("/payload/transaction", json!(""), 0, "wrong"),
            ("/payload/version", json!(2), 0, "unverified"),
            ("/format", json!("eip712"), 3_601, "unverified"),
            ("/signature", json!("0x1234"), 0, "unverified"),
            ("/format", json!("jws"), 0, "wrong"),
        ] {
            let verification = check(pointer, value.clone(), 1_740_672_094 + now);
            assert_eq!(verification.name(), name, "{pointer} {value}");
        }
        let early = check("/format", json!("eip712"), 1_740_672_094 - 301);
        assert_eq!(early.name(), "wrong");
    }
}

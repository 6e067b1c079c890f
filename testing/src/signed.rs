//! Offers and receipts that the seller signs: the extension `offer-receipt`.
//!
//! This does not use the hashing of bursar. A mistake there makes a signature that bursar does not verify.

use std::fmt;

use alloy::primitives::{Address, B256, U256, hex, keccak256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k256::ecdsa::SigningKey;
use k256::elliptic_curve::sec1::ToSec1Point;
use k256::sha2::{Digest, Sha256};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::answer::Claim;
use crate::chain::Settlement;

/// The name of the extension.
const OFFER_RECEIPT: &str = "offer-receipt";
/// The key of a stranger.
const STRANGER: [u8; 32] = [0x77; 32];
/// The time for which an offer is valid, in seconds, as official sellers do.
const VALIDITY: u64 = 60;
const DOMAIN_TYPE: &str = "EIP712Domain(string name,string version,uint256 chainId)";
const OFFER_TYPE: &str = "Offer(uint256 version,string resourceUrl,string scheme,string network,string asset,string payTo,string amount,uint256 validUntil)";
const RECEIPT_TYPE: &str = "Receipt(uint256 version,string network,string resourceUrl,string payer,uint256 issuedAt,string transaction)";

/// The key and the way with which a seller signs its offers and its receipts.
///
/// ```
/// use bursar::usd;
/// use bursar_testing::{OfferSigner, Route, SigningFault};
///
/// // The payee signs with its own key.
/// let signer = OfferSigner::eip712([7; 32]);
/// let honest = Route::get("/report").price(usd!("0.01")).sign_offers(signer.clone());
/// // An attacker has changed the price, and has not the key.
/// let forged = Route::get("/report")
///     .price(usd!("0.01"))
///     .sign_offers(signer.fault(SigningFault::OtherKey));
/// ```
#[derive(Clone)]
#[must_use = "a signer does nothing until a route has it"]
pub struct OfferSigner {
    key: [u8; 32],
    /// The header of the JWS, or `None` for EIP-712.
    jws: Option<Jws>,
    names_transaction: bool,
    fault: Option<SigningFault>,
}

#[derive(Clone)]
struct Jws {
    algorithm: String,
    kid: String,
}

/// A way in which a seller signs wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SigningFault {
    /// A stranger's key signs.
    OtherKey,
    /// The offer is signed for ten times the amount, and the receipt for another transaction.
    OtherAmount,
    /// The offer is signed for another payee, and the receipt for another payer.
    OtherParty,
    /// Offer and receipt are signed for another seller.
    OtherSeller,
    /// Offer and receipt are two hours old.
    Old,
    /// The content is changed after it was signed.
    Changed,
    /// The signature is text.
    Garbage,
    /// The offers are signed, and the receipt is not.
    NoReceipt,
}

impl SigningFault {
    /// All faults, in the order of their declaration.
    pub const ALL: [Self; 8] = [
        Self::OtherKey,
        Self::OtherAmount,
        Self::OtherParty,
        Self::OtherSeller,
        Self::Old,
        Self::Changed,
        Self::Garbage,
        Self::NoReceipt,
    ];
}

impl fmt::Debug for OfferSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfferSigner")
            .field("address", &self.address())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl OfferSigner {
    /// Signs with EIP-712. `key` is the private key. One that is no key signs with that of a stranger.
    pub fn eip712(key: [u8; 32]) -> Self {
        Self {
            key,
            jws: None,
            names_transaction: true,
            fault: None,
        }
    }

    /// Signs with a JWS of the algorithm ES256K. `kid` is the name of the key, such as `did:web:api.example.com#key-1`.
    pub fn jws(key: [u8; 32], kid: &str) -> Self {
        Self {
            jws: Some(Jws {
                algorithm: "ES256K".to_owned(),
                kid: kid.to_owned(),
            }),
            ..Self::eip712(key)
        }
    }

    /// Names another algorithm in the header of the JWS. The signature stays ES256K.
    pub fn algorithm(mut self, name: &str) -> Self {
        if let Some(jws) = &mut self.jws {
            name.clone_into(&mut jws.algorithm);
        }
        self
    }

    /// Leaves the transaction out of the receipt, as official sellers do unless they are asked.
    pub fn without_transaction(mut self) -> Self {
        self.names_transaction = false;
        self
    }

    /// Signs wrongly.
    pub fn fault(mut self, fault: SigningFault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Returns the address of the key. Make it the payee.
    #[must_use]
    pub fn address(&self) -> Address {
        let point = key(&self.key)
            .verifying_key()
            .as_affine()
            .to_sec1_point(false);
        let coordinates = point.as_bytes().get(1..).unwrap_or_default();
        Address::from_word(keccak256(coordinates))
    }

    /// Returns the artifact with this payload. `digest` is the EIP-712 digest of a payload.
    fn sign(&self, payload: &Value, digest: impl Fn(&Value) -> B256) -> Map<String, Value> {
        let key = key(match self.fault {
            Some(SigningFault::OtherKey) => &STRANGER,
            _ => &self.key,
        });
        let mut shown = payload.clone();
        if self.fault == Some(SigningFault::Changed)
            && let Some(url) = shown.get_mut("resourceUrl")
        {
            *url = format!("{}/", url.as_str().unwrap_or_default()).into();
        }
        let mut artifact = Map::new();
        let mut put = |name: &str, value: Value| drop(artifact.insert(name.to_owned(), value));
        match &self.jws {
            None => {
                put("format", "eip712".into());
                put("payload", shown);
                let (signature, recovery) =
                    key.sign_prehash_recoverable(digest(payload).as_slice());
                let v = if recovery.is_y_odd() { 28 } else { 27 };
                let bytes = [signature.to_bytes().as_slice(), &[v]].concat();
                put("signature", hex::encode_prefixed(bytes).into());
            }
            Some(jws) => {
                put("format", "jws".into());
                let header = json!({ "alg": jws.algorithm, "kid": jws.kid });
                let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
                let signed = format!("{}.{}", part(&header), part(payload));
                let (signature, _) = key.sign_prehash_recoverable(&Sha256::digest(&signed));
                let signature = URL_SAFE_NO_PAD.encode(signature.to_bytes());
                let jws = format!("{}.{}.{signature}", part(&header), part(&shown));
                put("signature", jws.into());
            }
        }
        if self.fault == Some(SigningFault::Garbage) {
            put("signature", "garbage \u{1b}[2J".into());
        }
        artifact
    }

    /// Returns the URL that is signed.
    fn url(&self, url: &str) -> String {
        match self.fault {
            Some(SigningFault::OtherSeller) => "https://evil.example/report".to_owned(),
            _ => url.to_owned(),
        }
    }

    /// Returns the time at which the seller signs, in Unix seconds.
    fn time(&self, now: u64) -> u64 {
        match self.fault {
            Some(SigningFault::Old) => now.saturating_sub(7200),
            _ => now,
        }
    }

    /// Returns the extension with a signature on each offer of version 2.
    pub(crate) fn extension(
        &self,
        offers: &[Box<RawValue>],
        url: &str,
        now: u64,
    ) -> (String, Value) {
        let read = |json: &str| serde_json::from_str::<Value>(json).ok();
        let offers = offers.iter().filter_map(|offer| read(offer.get()));
        let offers = offers.enumerate();
        let signed: Vec<Value> = offers
            .map(|(index, offer)| self.offer(index, &offer, url, now))
            .collect();
        let extension = json!({ "info": { "offers": signed }, "schema": { "type": "object" } });
        (OFFER_RECEIPT.to_owned(), extension)
    }

    /// Returns the claim with a signed receipt.
    pub(crate) fn confirm(
        &self,
        claim: Claim,
        settlement: &Settlement,
        url: &str,
        now: u64,
    ) -> Claim {
        let Some(receipt) = self.receipt(settlement, url, now) else {
            return claim;
        };
        let extension = json!({ "info": { "receipt": receipt }, "schema": { "type": "object" } });
        claim.extended(json!({ OFFER_RECEIPT: extension }))
    }

    fn offer(&self, index: usize, offer: &Value, url: &str, now: u64) -> Value {
        let text = |name: &str| {
            let text = offer.get(name).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let amount = match self.fault {
            Some(SigningFault::OtherAmount) => format!("{}0", text("amount")),
            _ => text("amount"),
        };
        let pay_to = match self.fault {
            Some(SigningFault::OtherParty) => Address::repeat_byte(0xde).to_checksum(None),
            _ => text("payTo"),
        };
        // In the order of their names, as canonical JSON has them.
        let payload = json!({
            "amount": amount,
            "asset": text("asset"),
            "network": text("network"),
            "payTo": pay_to,
            "resourceUrl": self.url(url),
            "scheme": text("scheme"),
            "validUntil": self.time(now).saturating_add(VALIDITY),
            "version": 1,
        });
        let names = [
            "resourceUrl",
            "scheme",
            "network",
            "asset",
            "payTo",
            "amount",
        ];
        let digest = |payload: &Value| {
            let mut members = vec![number(1)];
            members.extend(names.map(|name| hashed(payload, name)));
            members.push(whole(payload, "validUntil"));
            digest("x402 offer", OFFER_TYPE, &members)
        };
        let mut artifact = self.sign(&payload, digest);
        artifact.insert("acceptIndex".to_owned(), index.into());
        artifact.into()
    }

    fn receipt(&self, settlement: &Settlement, url: &str, now: u64) -> Option<Value> {
        let payer = match self.fault {
            Some(SigningFault::NoReceipt) => return None,
            Some(SigningFault::OtherParty) => Address::repeat_byte(0xde),
            _ => settlement.authorization.from,
        };
        let transaction = match self.fault {
            Some(SigningFault::OtherAmount) => keccak256(settlement.transaction),
            _ => settlement.transaction,
        };
        let transaction = self.names_transaction.then(|| transaction.to_string());
        let mut payload = json!({
            "issuedAt": self.time(now),
            "network": settlement.network.to_string(),
            "payer": payer.to_checksum(None),
            "resourceUrl": self.url(url),
            "transaction": transaction.clone().unwrap_or_default(),
            "version": 1,
        });
        if self.jws.is_some()
            && transaction.is_none()
            && let Some(payload) = payload.as_object_mut()
        {
            payload.remove("transaction");
        }
        let digest = |payload: &Value| {
            let members = [
                number(1),
                hashed(payload, "network"),
                hashed(payload, "resourceUrl"),
                hashed(payload, "payer"),
                whole(payload, "issuedAt"),
                hashed(payload, "transaction"),
            ];
            digest("x402 receipt", RECEIPT_TYPE, &members)
        };
        Some(self.sign(&payload, digest).into())
    }
}

fn key(bytes: &[u8; 32]) -> SigningKey {
    let known = SigningKey::from_slice(bytes);
    known.unwrap_or_else(|_| key(&STRANGER))
}

fn digest(domain: &str, encoded_type: &str, members: &[B256]) -> B256 {
    let separator = [keccak256(domain), keccak256("1"), number(1)];
    let separator = hash_struct(DOMAIN_TYPE, &separator);
    let content = hash_struct(encoded_type, members);
    keccak256([&[0x19, 0x01], separator.as_slice(), content.as_slice()].concat())
}

fn hash_struct(encoded_type: &str, members: &[B256]) -> B256 {
    let members = members.iter().flat_map(|member| member.0);
    keccak256(
        keccak256(encoded_type)
            .0
            .into_iter()
            .chain(members)
            .collect::<Vec<u8>>(),
    )
}

fn number(value: u64) -> B256 {
    B256::from(U256::from(value))
}

fn hashed(payload: &Value, name: &str) -> B256 {
    let text = payload.get(name).and_then(Value::as_str);
    keccak256(text.unwrap_or_default())
}

fn whole(payload: &Value, name: &str) -> B256 {
    number(
        payload
            .get(name)
            .and_then(Value::as_u64)
            .unwrap_or_default(),
    )
}

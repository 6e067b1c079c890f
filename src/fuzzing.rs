//! Access to private functions for the targets in `fuzz/`. Only `--cfg fuzzing` builds it.

use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use http::{HeaderMap, HeaderValue};
use secrecy::SecretString;
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::discovery::{Advertised, Skipped, SourceKind};
use crate::eip3009::PurchaseId;
use crate::ledger::{Ledger, LedgerError, Purchase, PurchaseKey};
use crate::ledger::{NewPurchase, Reservation, Reserved, SellerAnswer, Terms, Transition};
use crate::limit::Scope;
use crate::limit::{InFlight, Limit, LimitCheck, LimitKind};
use crate::money::Usd;
use crate::money::{Asset, AssetRegistry, Network, TokenAmount};
use crate::sign_in::Challenge;
use crate::signer::SignInMessage;
#[cfg(feature = "keystore")]
use crate::signer::open_cheap;
use crate::x402::{Claim, PaymentMethod, PaymentRequired, Quote, SignedPayment};
use crate::{Url, text, x402};

/// The lease of the holds of [`reserve`].
pub const LEASE: Duration = Duration::from_secs(60);

/// USDC on Base.
///
/// # Panics
/// When the registry has lost it.
#[must_use]
#[expect(clippy::expect_used, reason = "without it no target means anything")]
pub fn usdc() -> Asset {
    AssetRegistry::stablecoins()
        .find_symbol(Network::from_chain_id(8453), "USDC")
        .expect("USDC on Base")
        .clone()
}

/// A purchase, and the one lifetime limit that it must fit.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "targets build it")]
pub struct Wish {
    /// The id of the purchase.
    pub id: PurchaseId,
    /// The price in micro-dollars.
    pub micros: u64,
    /// The way to pay.
    pub method: PaymentMethod,
    /// The scope of the limit.
    pub scope: Scope,
    /// The limit in micro-dollars.
    pub lifetime: u64,
    /// Whether new terms of a signed purchase are accepted.
    pub changed: bool,
    /// The present.
    pub now: Timestamp,
}

/// The answer to a [`Wish`].
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "targets take it apart")]
pub enum Answer {
    /// The amount is held.
    Held(Box<Purchase>),
    /// The limit has no room.
    Denied(String),
    /// The purchase was signed before.
    Known,
    /// Another call is buying it.
    InFlight,
    /// The id belongs to another request.
    Mismatch,
    /// The purchase was signed by a method with other nonces.
    OtherMethod,
}

/// A change of a purchase.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "targets build it")]
pub enum Change {
    /// It is signed, under the lease of its hold, until this Unix time.
    Signed {
        /// The lease of the hold.
        lease: Timestamp,
        /// The expiry.
        valid_before: u64,
    },
    /// The signer did not answer.
    SignerTimedOut {
        /// The way to pay that it was asked for.
        method: PaymentMethod,
        /// The expiry.
        valid_before: u64,
    },
    /// The seller claimed a settlement.
    Settled {
        /// The transaction.
        transaction: [u8; 32],
        /// The charge that it names, in micro-dollars.
        charged: Option<u64>,
    },
    /// The chain proved the settlement.
    Proved {
        /// The charge, in micro-dollars, or `None` if it cannot be told.
        charged: Option<u64>,
    },
    /// The seller refused.
    Rejected,
    /// The answer was lost.
    Unresolved,
    /// It is given up.
    Voided {
        /// The lease of the hold.
        lease: Timestamp,
    },
}

/// The payer of all wishes.
pub const PAYER: Address = Address::repeat_byte(0xAB);

/// Reserves a purchase of `https://api.example.com/report`, to one payee.
///
/// # Errors
/// When the ledger cannot be used.
pub async fn reserve(ledger: &Ledger, wish: Wish) -> Result<Answer, LedgerError> {
    Ok(match ledger.reserve(&reservation(wish)).await? {
        Reserved::Held(purchase) => Answer::Held(purchase),
        Reserved::Denied(denial) => Answer::Denied(denial.to_string()),
        Reserved::Known(_) | Reserved::OtherPayer(_) => Answer::Known,
        Reserved::InFlight => Answer::InFlight,
        Reserved::Mismatch => Answer::Mismatch,
        Reserved::OtherMethod(_) => Answer::OtherMethod,
    })
}

/// Records a change of a purchase.
///
/// # Errors
/// When the ledger cannot be used, or the state of the purchase does not allow the change.
pub async fn record(
    ledger: &Ledger,
    id: &PurchaseId,
    change: Change,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let reason = "fuzzed".to_owned();
    let key = PurchaseKey::new(PAYER, id.clone());
    let transition = match change {
        Change::Signed {
            lease,
            valid_before,
        } => Transition::Signed {
            lease,
            valid_before,
            payload: SecretString::from("eyJ4NDAyVmVyc2lvbiI6Mn0="),
            presenter_lease_until: now,
        },
        Change::SignerTimedOut {
            method,
            valid_before,
        } => Transition::SignerTimedOut {
            method,
            valid_before,
            reason,
        },
        Change::Settled {
            transaction,
            charged,
        } => Transition::Settled {
            transaction: B256::new(transaction),
            charged: charged.map(U256::from),
            answer: SellerAnswer::of(200),
        },
        Change::Proved { charged } => Transition::Confirmed {
            nonce: (ledger.purchase(&key).await?).map_or(B256::ZERO, |purchase| purchase.nonce),
            transaction: None,
            charged: charged.map(U256::from),
            proof: "{}".to_owned(),
        },
        Change::Rejected => Transition::Rejected {
            reason,
            answer: SellerAnswer::of(402),
        },
        Change::Unresolved => Transition::Unresolved {
            reason,
            answer: None,
        },
        Change::Voided { lease } => Transition::Voided { lease },
    };
    ledger.record(&key, &transition, now).await
}

#[expect(clippy::expect_used, reason = "without it no target means anything")]
fn reservation(wish: Wish) -> Reservation {
    let limit = LimitKind::Lifetime(Usd::from_micros(wish.lifetime).into());
    let purchase = NewPurchase {
        identifier: format!("pay_{}", wish.id),
        id: wish.id,
        payer: PAYER,
        fingerprint: B256::repeat_byte(1),
        origin: "https://api.example.com".parse().expect("an origin"),
        method: "GET".to_owned(),
        path: "/report".to_owned(),
        foreign_resource: None,
        version: 2,
        asset: usdc(),
        payment_method: Some(wish.method),
        payee: Address::repeat_byte(0xC1),
        value: U256::from(wish.micros),
        tag: Some("research".to_owned()),
        agent: Some("ada".to_owned()),
        credential: None,
        terms: None,
    };
    let checks = LimitCheck {
        now: wish.now,
        payment: Some((purchase.asset.clone(), purchase.value)),
        limits: vec![Limit {
            scope: wish.scope,
            kind: limit,
        }],
        payee: None,
        price: None,
        refunds_make_room: false,
        in_flight: InFlight::default(),
        watch: crate::limit::Watch::default(),
    };
    let terms = if wish.changed {
        Terms::Changed
    } else {
        Terms::First
    };
    Reservation {
        purchase,
        checks,
        lease: LEASE,
        terms,
        flight: None,
    }
}

/// Payee, value and `validBefore` of a payment header, as the ledger reads it back.
#[must_use]
pub fn payment(header: &str) -> Option<(Address, U256, u64)> {
    x402::decode_authorization(header)
        .map(|presented| (presented.to, presented.value, presented.valid_before))
}

/// Whether a receipt header is taken for a settlement of `paid`.
#[must_use]
pub fn settles(paid: &SignedPayment, header: &[u8]) -> Option<B256> {
    let mut headers = HeaderMap::new();
    headers.insert("payment-response", HeaderValue::from_bytes(header).ok()?);
    match Claim::of(paid, x402::SettlementResponse::from_headers(&headers)) {
        Claim::Matching(receipt) => Some(receipt.transaction()),
        Claim::Other(_) | Claim::Malformed(_) | Claim::Absent => None,
    }
}

/// The present of sign-ins and signatures of sellers: that of the official vectors.
const THEN: u64 = 1_740_672_094;

/// The results of the checks of the sellers' signatures on the offers, as they are shown.
#[must_use]
pub fn offer_signatures(required: &PaymentRequired, request: &Url) -> Vec<String> {
    let quotes = Quote::read_all(required, AssetRegistry::stablecoins());
    let quotes = quotes.into_iter().flatten();
    let checked = quotes.map(|mut quote| {
        quote.check_signature(request, Timestamp::from_secs(THEN));
        quote.signature().to_string()
    });
    checked.collect()
}

/// The result of the check of the seller's signature on a receipt, as it is shown; `None` if there is none.
#[must_use]
#[expect(clippy::expect_used, reason = "without it no target means anything")]
pub fn receipt_signature(paid: &SignedPayment, header: &[u8]) -> Option<String> {
    let claim = x402::SettlementResponse::from_header(header).ok()?;
    let origin = "https://api.example.com".parse().expect("an origin");
    let signed = x402::signed_receipt(&claim, paid, &origin, Timestamp::from_secs(THEN))?;
    Some(signed.verification.to_string())
}

/// The message that is signed for the challenge of a seller; `None` if it is refused.
#[must_use]
pub fn sign_in(declared: &str, request: &Url) -> Option<SignInMessage> {
    let declared: Box<RawValue> = serde_json::from_str(declared).ok()?;
    let challenge = Challenge::read(&declared, request, Timestamp::from_secs(THEN)).ok()?;
    challenge.message(PAYER, |_| false).ok()
}

/// A payment of 0.01 USDC on Base.
///
/// # Panics
/// When `order-1` is no purchase id.
#[must_use]
#[expect(clippy::expect_used, reason = "without it no target means anything")]
pub fn signed_payment() -> SignedPayment {
    SignedPayment {
        purchase: "order-1".parse().expect("a purchase id"),
        amount: TokenAmount::from_units(usdc(), U256::from(10_000)),
        method: PaymentMethod::Eip3009,
        payer: Address::repeat_byte(0xAB),
        pay_to: Address::repeat_byte(0xC1),
        nonce: B256::repeat_byte(3),
        valid_before: 1_800_000_060,
    }
}

/// JSON as it stands in a header, in base64.
#[must_use]
pub fn header(json: &[u8]) -> String {
    x402::encode_header(json)
}

/// Foreign text as errors repeat it.
#[must_use]
pub fn excerpt(foreign: &str) -> String {
    text::excerpt(foreign)
}

/// Opens a keystore's text with a password; `None` when deriving its key would be slow.
#[cfg(feature = "keystore")]
#[must_use]
pub fn keystore(
    text: &str,
    password: &SecretString,
) -> Option<Result<crate::signer::LocalSigner, crate::signer::KeyError>> {
    open_cheap(text, password)
}

/// Whether a text repeats more hexadecimal than a hash has: a signature, say.
#[must_use]
pub fn has_long_hex(shown: &str) -> bool {
    has_hex_of(65, shown)
}

/// Whether a text has so many hexadecimal digits in a row.
#[must_use]
pub fn has_hex_of(digits: usize, shown: &str) -> bool {
    shown
        .split(|character: char| !character.is_ascii_hexdigit())
        .any(|run| run.len() >= digits)
}

/// The result of reading one page of a list.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "targets take it apart")]
pub struct Listed {
    /// How many items it has.
    pub items: usize,
    /// The items that could not be used.
    pub skipped: Skipped,
    /// Each service with its description, and the number of the description's first words that it matches.
    pub services: Vec<(Url, Advertised, usize)>,
}

/// Reads a page of a list of services; `None` if it is none.
#[must_use]
pub fn listed(kind: SourceKind, page: &[u8]) -> Option<Listed> {
    crate::discovery::read_page(kind, page)
}

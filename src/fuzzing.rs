//! Doors to what is private, for the targets in `fuzz/`. Built under `--cfg fuzzing` only.

use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use http::{HeaderMap, HeaderValue};
#[cfg(feature = "keystore")]
use secrecy::SecretString;

use crate::discovery::{Advertised, Skipped, SourceKind};
use crate::ledger::{Checks, NewPurchase, Reservation, Terms};
use crate::money::Usd;
use crate::policy::limit::{LimitKind, Meter};
use crate::receipt::Claim;
#[cfg(feature = "keystore")]
use crate::signer::open_cheap;
use crate::{
    Asset, AssetRegistry, Network, PurchaseId, Scope, SignedPayment, Timestamp, TokenAmount, text,
    x402,
};

/// How long a hold of [`reservation`] stands without a signature.
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

/// What is to be bought, and the one lifetime limit that it must fit.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "targets build it")]
pub struct Wish {
    /// The purchase.
    pub id: PurchaseId,
    /// The price in micro-dollars.
    pub micros: u64,
    /// What the limit adds up.
    pub scope: Scope,
    /// The limit in micro-dollars.
    pub lifetime: u64,
    /// Whether new terms of a signed purchase are accepted.
    pub changed: bool,
    /// The present.
    pub now: Timestamp,
}

/// A wish in the form that ledgers take: for `https://api.example.com/report`, to one payee.
///
/// # Panics
/// When that is no origin.
#[must_use]
#[expect(clippy::expect_used, reason = "without it no target means anything")]
pub fn reservation(wish: Wish) -> Reservation {
    let limit = LimitKind::Lifetime(Usd::from_micros(wish.lifetime).into());
    let entry = NewPurchase {
        identifier: format!("pay_{}", wish.id),
        purchase: wish.id,
        payer: Address::repeat_byte(0xAB),
        fingerprint: B256::repeat_byte(1),
        origin: "https://api.example.com".parse().expect("an origin"),
        method: "GET".to_owned(),
        path: "/report".to_owned(),
        foreign_resource: None,
        version: 2,
        asset: usdc(),
        payee: Address::repeat_byte(0xC1),
        value: U256::from(wish.micros),
        tag: Some("research".to_owned()),
        agent: Some("ada".to_owned()),
        credential: None,
        terms: None,
    };
    let checks = Checks {
        now: wish.now,
        payment: Some((entry.asset.clone(), entry.value)),
        meters: vec![Meter {
            scope: wish.scope,
            kind: limit,
        }],
        payee: None,
        price: None,
        refunds_make_room: false,
    };
    let terms = if wish.changed {
        Terms::Changed
    } else {
        Terms::First
    };
    Reservation {
        entry,
        checks,
        lease: LEASE,
        terms,
    }
}

/// Payee, value and `validBefore` of a payment header, as the books read it back.
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

/// A payment of 0.01 USDC on Base.
///
/// # Panics
/// When `order-1` is no purchase id.
#[must_use]
#[expect(clippy::expect_used, reason = "without it no target means anything")]
pub fn payment() -> SignedPayment {
    SignedPayment {
        purchase: "order-1".parse().expect("a purchase id"),
        amount: TokenAmount::from_units(usdc(), U256::from(10_000)),
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
) -> Option<Result<crate::LocalSigner, crate::KeyError>> {
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

/// What a page of a list comes to.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "targets take it apart")]
pub struct Listed {
    /// How many items it has.
    pub items: usize,
    /// What could not be used.
    pub skipped: Skipped,
    /// Each service with what it says of itself, and how many of the first words of that it fits.
    pub services: Vec<(crate::Url, Advertised, usize)>,
}

/// Reads a page of a list of services; `None` if it is none.
#[must_use]
pub fn listed(kind: SourceKind, page: &[u8]) -> Option<Listed> {
    crate::discovery::read_page(kind, page)
}

/// A settlement by the transaction that a seller names. The one place that makes it.
#[must_use]
pub const fn settled_by(transaction: [u8; 32]) -> crate::Transition {
    crate::Transition::Settled {
        transaction: B256::new(transaction),
        answer: crate::ledger::SellerAnswer::of(200),
    }
}

//! One purchase in the books, and the states it goes through.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256, hex, keccak256};
use secrecy::SecretString;
use serde::{Serialize, Serializer};

use super::{LedgerError, PurchaseKey};
use crate::asset::Asset;
use crate::policy::{Denial, Rule};
use crate::{Network, Origin, Timestamp, Usd};

/// How long after `validBefore` an authorization is still taken to be cashable: chains date their
/// blocks themselves.
const CHAIN_CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// Names one purchase of a payer: the caller's own id, or a fresh random one.
///
/// One purchase has one nonce on the chain, so everything that is ever signed under one id can be
/// paid at most once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PurchaseId(String);

impl PurchaseId {
    const MAX_LENGTH: usize = 128;

    /// A fresh id of 128 random bits.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        random_hex().map(Self)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

pub(crate) fn random_hex() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

impl FromStr for PurchaseId {
    type Err = PurchaseIdError;

    fn from_str(text: &str) -> Result<Self, PurchaseIdError> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        let length = (1..=Self::MAX_LENGTH).contains(&text.len());
        if printable && length { Ok(Self(text.to_owned())) } else { Err(PurchaseIdError) }
    }
}

impl fmt::Display for PurchaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for PurchaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The text is not a purchase id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a purchase id is 1 to 128 printable ASCII characters without spaces")]
#[non_exhaustive]
pub struct PurchaseIdError;

/// The EIP-3009 nonce of a purchase: `keccak256(tag, payer, chain, asset, purchase id, generation)`.
///
/// Amount, payee and expiry stay out, so that all that is signed for one purchase excludes itself
/// on the chain. Every part but the last has a fixed length.
pub(crate) fn nonce(payer: Address, asset: &Asset, id: &PurchaseId, generation: u32) -> B256 {
    let mut preimage = b"bursar purchase v1".to_vec();
    preimage.extend_from_slice(payer.as_slice());
    preimage.extend_from_slice(&asset.network().chain_id().to_be_bytes());
    preimage.extend_from_slice(asset.address().as_slice());
    preimage.extend_from_slice(&generation.to_be_bytes());
    preimage.extend_from_slice(id.as_str().as_bytes());
    keccak256(preimage)
}

/// The state of a purchase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Money is held, nothing is signed. Stands for the length of its lease.
    Reserved,
    /// An authorization was signed and may have left; no answer is known.
    Signed,
    /// The seller named a transaction that matches what was signed.
    Settled,
    /// The seller refused. Its word is no proof: the money counts until the chain says otherwise.
    Rejected,
    /// The answer was lost or says nothing certain. The money counts.
    Unknown,
    /// Given back before anything was signed.
    Freed,
}

impl State {
    pub(crate) const ALL: [Self; 6] =
        [Self::Reserved, Self::Signed, Self::Settled, Self::Rejected, Self::Unknown, Self::Freed];

    /// The stable name, such as `settled`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Signed => "signed",
            Self::Settled => "settled",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
            Self::Freed => "freed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for State {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<Self, LedgerError> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == text)
            .ok_or_else(|| LedgerError::Damaged(format!("`{}` is no state of a purchase", crate::text::excerpt(text))))
    }
}

/// A purchase as the books hold it.
///
/// `transaction` is the seller's claim; `verified_transaction` is what the chain confirmed.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are the columns; those that need a word have one")]
pub struct Entry {
    /// Position in the books, from 1.
    pub seq: u64,
    pub purchase: PurchaseId,
    /// Counts up when a purchase is bought anew after proof that its nonce is dead.
    pub generation: u32,
    #[serde(serialize_with = "as_text")]
    pub payer: Address,
    pub state: State,
    /// Hash of method, URL and body: what makes a request the same request.
    #[serde(serialize_with = "as_text")]
    pub fingerprint: B256,
    /// Sent as `payment-identifier` to sellers that ask for one.
    pub identifier: String,
    pub origin: Origin,
    pub method: String,
    /// Without the query, unless the policy stores queries.
    pub path: String,
    /// `resource.url` as the seller claims it, where it names another origin.
    pub foreign_resource: Option<String>,
    /// `x402Version`.
    pub version: u8,
    pub network: Network,
    #[serde(serialize_with = "as_text")]
    pub asset: Address,
    pub symbol: String,
    pub decimals: u8,
    #[serde(serialize_with = "as_text")]
    pub payee: Address,
    /// Atomic units: the largest that was signed for this purchase.
    #[serde(serialize_with = "as_text")]
    pub value: U256,
    /// The value in dollars, rounded up to the micro-dollar.
    pub usd: Option<Usd>,
    #[serde(serialize_with = "as_text")]
    pub nonce: B256,
    pub tag: Option<String>,
    pub agent: Option<String>,
    pub reserved_at: Timestamp,
    /// Until when it may be signed; while reserved, when the hold lapses by itself.
    pub lease_until: Timestamp,
    /// The latest moment at which the money may move or moved.
    pub counts_at: Timestamp,
    /// When an unresolved authorization can no longer be cashed.
    pub expires_at: Timestamp,
    pub updated_at: Timestamp,
    /// Unix seconds, of the latest authorization.
    pub valid_before: Option<u64>,
    /// HTTP status of the last answer.
    pub status: Option<u16>,
    /// Why the purchase is rejected or unknown.
    pub reason: Option<String>,
    /// Hash that the seller claims.
    #[serde(rename = "claimed_transaction", serialize_with = "as_optional_text")]
    pub transaction: Option<B256>,
    /// Hash that the chain confirmed; always empty, until bursar reads the chain.
    #[serde(serialize_with = "as_optional_text")]
    pub verified_transaction: Option<B256>,
    /// The payment header, to be presented again. Never exported.
    #[serde(skip)]
    pub(crate) payload: Option<SecretString>,
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_optional_text<S: Serializer>(value: &Option<B256>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

impl Entry {
    /// The purchase's key.
    #[must_use]
    pub fn key(&self) -> PurchaseKey {
        PurchaseKey::new(self.payer, self.purchase.clone())
    }

    /// Whether the purchase counts against limits at `now`: not once it is freed, and a hold
    /// without a signature only for its lease.
    #[must_use]
    pub fn counts(&self, now: Timestamp) -> bool {
        match self.state {
            State::Freed => false,
            State::Reserved => self.lease_until > now,
            State::Signed | State::Settled | State::Rejected | State::Unknown => true,
        }
    }

    /// Whether money is out of hand and unresolved at `now`.
    #[must_use]
    pub fn is_outstanding(&self, now: Timestamp) -> bool {
        match self.state {
            State::Freed | State::Settled => false,
            State::Reserved => self.lease_until > now,
            State::Signed | State::Rejected | State::Unknown => self.expires_at > now,
        }
    }

    /// Moves the purchase to its next state.
    ///
    /// # Errors
    /// When its state does not allow the transition: nothing can be signed after its lease or under
    /// the lease of an earlier hold, only an unsigned hold can be freed, and a settled purchase stays
    /// settled.
    pub fn apply(&mut self, transition: &Transition, now: Timestamp) -> Result<(), LedgerError> {
        use State::{Freed, Rejected, Reserved, Settled, Signed, Unknown};
        self.updated_at = now;
        match (transition, self.state) {
            (Transition::Signed { lease, valid_before, payload }, Reserved | Signed | Rejected | Unknown)
                if self.lease_until > now && self.lease_until == *lease =>
            {
                self.state = Signed;
                self.payload = Some(payload.clone());
                self.outlive(*valid_before);
            }
            (Transition::Doubtful { valid_before, reason }, Reserved | Signed | Rejected | Unknown) => {
                self.state = Unknown;
                self.reason = Some(reason.clone());
                self.outlive(*valid_before);
            }
            (Transition::Settled { transaction, status }, Signed | Rejected | Unknown | Settled) => {
                if self.state != Settled {
                    self.counts_at = now;
                }
                self.state = Settled;
                (self.transaction, self.status, self.reason) = (Some(*transaction), Some(*status), None);
            }
            (Transition::Rejected { reason, status }, Signed | Rejected | Unknown) => {
                self.state = Rejected;
                (self.reason, self.status) = (Some(reason.clone()), Some(*status));
            }
            (Transition::Unknown { reason, status }, Signed | Rejected | Unknown) => {
                self.state = Unknown;
                (self.reason, self.status) = (Some(reason.clone()), *status);
            }
            (Transition::Rejected { .. } | Transition::Unknown { .. }, Settled) => {}
            (Transition::Freed, Reserved | Freed) => self.state = Freed,
            (transition, state) => {
                return Err(LedgerError::Transition {
                    purchase: self.purchase.clone(),
                    state,
                    wanted: transition.name(),
                });
            }
        }
        Ok(())
    }

    /// Counts until the latest of all authorizations has expired.
    fn outlive(&mut self, valid_before: u64) {
        let valid_before = self.valid_before.map_or(valid_before, |earlier| earlier.max(valid_before));
        self.valid_before = Some(valid_before);
        self.counts_at = Timestamp::from_secs(valid_before);
        self.expires_at = self.counts_at.after(CHAIN_CLOCK_MARGIN);
    }
}

/// What became of a purchase.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Transition {
    /// An authorization is signed and about to leave.
    Signed {
        /// The lease of the hold that it was signed for, [`Entry::lease_until`]. A hold that lapsed
        /// may have been taken over at another price.
        lease: Timestamp,
        /// When it expires, in Unix seconds.
        valid_before: u64,
        /// The payment header, to be presented again.
        payload: SecretString,
    },
    /// A signer did not answer; it may have signed.
    Doubtful {
        /// When the authorization expires, in Unix seconds.
        valid_before: u64,
        /// What happened.
        reason: String,
    },
    /// The seller named a transaction that matches what was signed.
    Settled {
        /// Its hash.
        transaction: B256,
        /// HTTP status of the answer.
        status: u16,
    },
    /// The seller refused.
    Rejected {
        /// The seller's reason.
        reason: String,
        /// HTTP status of the answer.
        status: u16,
    },
    /// The answer was lost, or says nothing certain.
    Unknown {
        /// What happened.
        reason: String,
        /// HTTP status of the answer, if there was one.
        status: Option<u16>,
    },
    /// Nothing was signed, and nothing will be.
    Freed,
}

impl Transition {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Signed { .. } => "signed",
            Self::Settled { .. } => "settled",
            Self::Rejected { .. } => "rejected",
            Self::Doubtful { .. } | Self::Unknown { .. } => "unknown",
            Self::Freed => "freed",
        }
    }
}

/// A purchase before the books know it.
#[derive(Clone, Debug)]
pub(crate) struct NewEntry {
    pub(crate) purchase: PurchaseId,
    pub(crate) payer: Address,
    pub(crate) fingerprint: B256,
    pub(crate) identifier: String,
    pub(crate) origin: Origin,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) foreign_resource: Option<String>,
    pub(crate) version: u8,
    pub(crate) asset: Asset,
    pub(crate) payee: Address,
    pub(crate) value: U256,
    pub(crate) tag: Option<String>,
    pub(crate) agent: Option<String>,
}

impl NewEntry {
    pub(crate) fn key(&self) -> PurchaseKey {
        PurchaseKey::new(self.payer, self.purchase.clone())
    }

    /// Whether an authorization for this would exclude those of `known` on the chain.
    pub(crate) fn excludes(&self, known: &Entry) -> bool {
        known.network == self.asset.network() && known.asset == self.asset.address()
    }

    /// New terms may change the price, not who is paid: that is how a hijacked seller looks.
    pub(crate) fn payee_changed(&self, known: &Entry) -> Denial {
        let message = format!("the purchase was signed for {}, and the new terms name {}", known.payee, self.payee);
        Denial::new(Rule::PayeeChanged, message)
    }

    /// The first hold for the purchase.
    pub(crate) fn open(&self, now: Timestamp, lease_until: Timestamp) -> Entry {
        let generation = 0;
        Entry {
            seq: 0,
            purchase: self.purchase.clone(),
            generation,
            payer: self.payer,
            state: State::Reserved,
            fingerprint: self.fingerprint,
            identifier: self.identifier.clone(),
            origin: self.origin.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            foreign_resource: self.foreign_resource.clone(),
            version: self.version,
            network: self.asset.network(),
            asset: self.asset.address(),
            symbol: self.asset.symbol().to_owned(),
            decimals: self.asset.decimals(),
            payee: self.payee,
            value: self.value,
            usd: self.asset.dollars(self.value),
            nonce: nonce(self.payer, &self.asset, &self.purchase, generation),
            tag: self.tag.clone(),
            agent: self.agent.clone(),
            reserved_at: now,
            lease_until,
            counts_at: Timestamp::MAX,
            expires_at: Timestamp::MAX,
            updated_at: now,
            valid_before: None,
            status: None,
            reason: None,
            transaction: None,
            verified_transaction: None,
            payload: None,
        }
    }

    /// The hold of a purchase whose seller changed its terms: of all that was signed at most one
    /// can be paid, so the largest is what counts. It counts at least as long as its lease from
    /// now on: it may have left every window before.
    pub(crate) fn requote(&self, known: Entry, now: Timestamp, lease_until: Timestamp) -> Entry {
        let value = known.value.max(self.value);
        Entry {
            value,
            usd: self.asset.dollars(value),
            payee: self.payee,
            lease_until,
            counts_at: known.counts_at.max(lease_until),
            expires_at: known.expires_at.max(lease_until),
            updated_at: now,
            ..known
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset::AssetRegistry;

    fn entry() -> Entry {
        let base = Network::from_chain_id(8453);
        let asset = AssetRegistry::stablecoins().find_symbol(base, "USDC").unwrap().clone();
        NewEntry {
            purchase: "order-1".parse().unwrap(),
            payer: Address::repeat_byte(1),
            fingerprint: B256::ZERO,
            identifier: String::new(),
            origin: "https://a.example".parse().unwrap(),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            foreign_resource: None,
            version: 2,
            asset,
            payee: Address::repeat_byte(2),
            value: U256::from(10_000),
            tag: None,
            agent: None,
        }
        .open(Timestamp::from_secs(1000), Timestamp::from_secs(1060))
    }

    fn signed(valid_before: u64) -> Transition {
        Transition::Signed { lease: Timestamp::from_secs(1060), valid_before, payload: SecretString::from("x") }
    }

    #[test]
    fn a_hold_lapses_with_its_lease_and_can_then_not_be_signed() {
        let mut entry = entry();
        assert!(entry.counts(Timestamp::from_secs(1059)));
        assert!(!entry.counts(Timestamp::from_secs(1060)));
        assert!(entry.apply(&signed(2000), Timestamp::from_secs(1060)).is_err());
        assert!(entry.apply(&signed(2000), Timestamp::from_secs(1059)).is_ok());
    }

    #[test]
    fn what_is_signed_counts_and_cannot_be_freed() {
        let mut entry = entry();
        entry.apply(&signed(1100), Timestamp::from_secs(1000)).unwrap();
        assert!(entry.apply(&Transition::Freed, Timestamp::from_secs(1001)).is_err());
        entry.apply(&Transition::Rejected { reason: "no".into(), status: 402 }, Timestamp::from_secs(1001)).unwrap();
        assert!(entry.counts(Timestamp::MAX));
        assert!(entry.is_outstanding(Timestamp::from_secs(1159)));
        assert!(!entry.is_outstanding(Timestamp::from_secs(1160)));
    }

    #[test]
    fn a_shorter_second_authorization_does_not_shorten_the_first() {
        let mut entry = entry();
        entry.apply(&signed(1300), Timestamp::from_secs(1000)).unwrap();
        entry.apply(&signed(1100), Timestamp::from_secs(1000)).unwrap();
        assert_eq!(entry.valid_before, Some(1300));
        assert_eq!(entry.counts_at, Timestamp::from_secs(1300));
    }

    #[test]
    fn settled_stays_settled() {
        let mut entry = entry();
        entry.apply(&signed(1300), Timestamp::from_secs(1000)).unwrap();
        entry.apply(&Transition::Settled { transaction: B256::ZERO, status: 200 }, Timestamp::from_secs(1001)).unwrap();
        entry.apply(&Transition::Unknown { reason: "lost".into(), status: None }, Timestamp::from_secs(1002)).unwrap();
        assert_eq!(entry.state, State::Settled);
        assert_eq!(entry.counts_at, Timestamp::from_secs(1001));
        assert!(entry.apply(&signed(1400), Timestamp::from_secs(1003)).is_err());
    }

    #[test]
    fn the_nonce_is_of_the_purchase_alone() {
        let base = Network::from_chain_id(8453);
        let asset = AssetRegistry::stablecoins().find_symbol(base, "USDC").unwrap();
        let id: PurchaseId = "order-1".parse().unwrap();
        let one = nonce(Address::repeat_byte(1), asset, &id, 0);
        assert_eq!(one, nonce(Address::repeat_byte(1), asset, &id, 0));
        assert_ne!(one, nonce(Address::repeat_byte(2), asset, &id, 0));
        assert_ne!(one, nonce(Address::repeat_byte(1), asset, &id, 1));
        assert_ne!(one, nonce(Address::repeat_byte(1), asset, &"order-2".parse().unwrap(), 0));
    }
}

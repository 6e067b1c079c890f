//! Tests that every kind of ledger must pass. Each is run on each of them.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow fails the test, as it should"
)]

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod accidents;
mod denials;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod differential;
mod limits;
mod pages;
mod permits;
pub(super) mod proved;
mod pruned;
mod purchases;
pub(super) mod resumed;
mod sellers;
pub(super) mod windows;

use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

use self::denials::*;
use self::limits::*;
use self::pages::*;
use self::permits::*;
use self::proved::*;
use self::pruned::*;
use self::purchases::*;
use self::resumed::*;
use self::sellers::*;
use self::windows::*;
use super::{
    Bought, Filter, Ledger, LedgerError, NewPurchase, Purchase, PurchaseKey, Refund, Reservation,
    Reserved, SellerAnswer, State, Terms, Transition,
};
use crate::clock::Timestamp;
use crate::limit::{Amount, Limit, LimitKind, Quantity, Scope};
use crate::limit::{Denial, InFlight, Rule};
use crate::limit::{LimitCheck, LimitStatus, PayeePin, PriceCeiling};
use crate::money::{Asset, AssetRegistry, TokenAmount};
use crate::money::{Network, Usd};
use crate::x402::PaymentMethod;

const BASE: Network = Network::from_chain_id(8453);
const SEPOLIA: Network = Network::from_chain_id(84_532);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const LEASE: Duration = Duration::from_secs(60);
pub(super) const PAYLOAD: &str = "c2lnbmF0dXJl";
/// The present of most tests, in seconds.
pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

pub(super) fn usdc(network: Network) -> Asset {
    AssetRegistry::stablecoins()
        .find_symbol(network, "USDC")
        .unwrap()
        .clone()
}

/// A purchase for `micros` micro-dollars.
pub(super) fn order(id: &str, micros: u64) -> NewPurchase {
    NewPurchase {
        id: id.parse().unwrap(),
        payer: Address::repeat_byte(0xAB),
        fingerprint: B256::repeat_byte(1),
        identifier: format!("pay_{id}"),
        origin: "https://api.example.com".parse().unwrap(),
        method: "GET".to_owned(),
        path: "/report".to_owned(),
        foreign_resource: None,
        version: 2,
        asset: usdc(BASE),
        payment_method: Some(PaymentMethod::Eip3009),
        payee: Address::repeat_byte(0xC1),
        value: U256::from(micros),
        tag: None,
        agent: None,
        credential: None,
        terms: None,
    }
}

fn micros(micros: u64) -> Amount {
    Usd::from_micros(micros).into()
}

fn checks(purchase: &NewPurchase, now: Timestamp, meters: Vec<Limit>) -> LimitCheck {
    LimitCheck {
        now,
        payment: Some((purchase.asset.clone(), purchase.value)),
        limits: meters,
        payee: None,
        price: None,
        refunds_make_room: false,
        in_flight: InFlight::default(),
        watch: crate::limit::Watch::default(),
    }
}

pub(super) fn wish(purchase: NewPurchase, now: Timestamp, meters: Vec<Limit>) -> Reservation {
    Reservation {
        checks: checks(&purchase, now, meters),
        purchase,
        lease: LEASE,
        terms: Terms::First,
        flight: None,
    }
}

pub(super) fn meter(scope: Scope, kind: LimitKind) -> Limit {
    Limit { scope, kind }
}

pub(super) fn lifetime(max: u64) -> Vec<Limit> {
    vec![meter(Scope::Global, LimitKind::Lifetime(micros(max)))]
}

fn rolling(max: u64) -> Vec<Limit> {
    vec![meter(Scope::Global, LimitKind::Rolling(HOUR, micros(max)))]
}

fn exposure(max: u64) -> Vec<Limit> {
    vec![meter(Scope::Global, LimitKind::Exposure(micros(max)))]
}

pub(super) fn signed(valid_before: u64) -> Transition {
    signed_under(at(NOW).after(LEASE), valid_before)
}

pub(super) fn signed_under(lease: Timestamp, valid_before: u64) -> Transition {
    Transition::Signed {
        lease,
        valid_before,
        payload: SecretString::from(PAYLOAD),
        presenter_lease_until: at(0),
    }
}

pub(super) fn settled() -> Transition {
    Transition::Settled {
        transaction: B256::repeat_byte(7),
        charged: None,
        answer: SellerAnswer::of(200),
    }
}

pub(super) fn given_up() -> Transition {
    Transition::Voided {
        lease: at(NOW).after(LEASE),
    }
}

fn rejected() -> Transition {
    Transition::Rejected {
        reason: "insufficient_funds".to_owned(),
        answer: SellerAnswer::of(402),
    }
}

pub(super) fn unknown() -> Transition {
    Transition::Unresolved {
        reason: "timed out".to_owned(),
        answer: None,
    }
}

pub(super) async fn hold(ledger: &Ledger, purchase: NewPurchase, now: u64) -> PurchaseKey {
    let key = purchase.key();
    let answer = ledger
        .reserve(&wish(purchase, at(now), Vec::new()))
        .await
        .unwrap();
    assert!(matches!(answer, Reserved::Held(_)), "{answer:?}");
    key
}

async fn sign(ledger: &Ledger, purchase: NewPurchase, now: u64, valid_before: u64) -> PurchaseKey {
    let key = hold(ledger, purchase, now).await;
    ledger
        .record(
            &key,
            &signed_under(at(now).after(LEASE), valid_before),
            at(now),
        )
        .await
        .unwrap();
    key
}

async fn denied(
    ledger: &Ledger,
    purchase: NewPurchase,
    now: u64,
    meters: Vec<Limit>,
) -> Option<Denial> {
    match ledger
        .reserve(&wish(purchase, at(now), meters))
        .await
        .unwrap()
    {
        Reserved::Held(_) => None,
        Reserved::Denied(denial) => Some(*denial),
        other => panic!("{other:?}"),
    }
}

/// Returns the used part of `meter`, in micro-dollars or payments.
async fn used(ledger: &Ledger, now: u64, meter: Limit) -> u64 {
    let checks = LimitCheck {
        now: at(now),
        payment: None,
        limits: vec![meter],
        payee: None,
        price: None,
        refunds_make_room: false,
        in_flight: InFlight::default(),
        watch: crate::limit::Watch::default(),
    };
    match ledger.examine(&checks).await.unwrap().remove(0).used {
        Some(Quantity::Amount(Amount::Usd(usd))) => usd.micros(),
        Some(Quantity::Payments(count)) => count,
        other => panic!("{other:?}"),
    }
}

async fn state(ledger: &Ledger, key: &PurchaseKey) -> Purchase {
    ledger.purchase(key).await.unwrap().unwrap()
}

/// Opens new ledgers in one kind of database.
struct Ledgers {
    kind: Kind,
    directory: TempDir,
    /// A character that not every database can store.
    odd: &'static str,
}

enum Kind {
    Memory,
    #[cfg(feature = "sqlite")]
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
}

impl Ledgers {
    fn new(kind: Kind, odd: &'static str) -> Self {
        Self {
            kind,
            directory: tempfile::tempdir().unwrap(),
            odd,
        }
    }

    async fn open(&self) -> Ledger {
        match self.kind {
            Kind::Memory => Ledger::memory(),
            #[cfg(feature = "sqlite")]
            Kind::Sqlite => {
                let name = super::random_hex().unwrap();
                Ledger::sqlite(self.directory.path().join(name)).unwrap()
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres => super::postgres::tests::new_ledger().await,
        }
    }
}

macro_rules! conformance {
    ($($case:ident)*) => {
        mod memory {
            use super::*;

            $(#[tokio::test]
            async fn $case() {
                super::$case(&Ledgers::new(Kind::Memory, "\u{0}")).await;
            })*
        }

        #[cfg(feature = "sqlite")]
        mod sqlite {
            use super::*;

            $(#[tokio::test]
            async fn $case() {
                super::$case(&Ledgers::new(Kind::Sqlite, "\u{0}")).await;
            })*
        }

        #[cfg(feature = "postgres")]
        mod postgres {
            use super::*;

            $(#[tokio::test]
            #[ignore = "needs a PostgreSQL: tests/postgres/run"]
            async fn $case() {
                super::$case(&Ledgers::new(Kind::Postgres, "")).await;
            })*
        }
    };
}

conformance! {
    each_scope_and_span_counts_what_it_should
    exactly_as_many_as_fit_are_held
    tasks_at_once_hold_exactly_as_many_as_fit
    calls_by_key_count_in_dollars_and_are_no_payments
    a_denial_holds_nothing_and_says_what_is_used
    a_lapsed_hold_frees_its_room
    a_clock_ahead_ends_a_hold_which_can_then_not_be_signed
    a_hold_that_was_taken_over_cannot_be_signed_by_its_first_holder
    new_terms_cannot_name_another_payee
    what_is_signed_counts_until_proof
    what_is_settled_counts_until_it_has_expired
    what_is_freed_does_not_count
    a_hold_lies_in_every_window
    a_charge_at_the_edge_of_a_window_is_outside_whatever_becomes_of_it
    a_known_purchase_is_not_bought_again
    an_id_is_bought_once_whatever_key_signs
    an_id_that_was_not_bought_is_free_for_another_key
    changed_terms_hold_the_largest
    changed_terms_are_held_in_windows_that_the_purchase_had_left
    the_first_payee_is_remembered
    the_last_price_is_remembered
    a_wallet_is_known_to_a_seller_by_what_it_bought
    filters_pass_what_they_name
    room_returns_when_enough_has_left
    the_largest_value_neither_wraps_nor_fits
    tokens_are_limited_in_their_own_units
    a_purchase_is_read_as_it_was_written
    what_is_not_allowed_is_not_recorded
    an_unresolved_purchase_is_taken_up_by_one
    a_settled_purchase_is_resumed_until_it_is_delivered
    what_was_delivered_is_not_taken_up
    only_the_same_request_is_taken_up
    a_payment_excludes_an_identical_request_until_no_clock_takes_it_for_valid
    a_lease_of_a_clock_that_was_ahead_does_not_block_a_payment
    a_signer_that_did_not_answer_is_asked_for_the_same_nonce_by_the_same_request
    what_is_released_does_not_count_and_is_bought_anew
    what_expired_is_bought_again_under_its_nonce
    only_proof_of_the_latest_authorization_releases
    what_the_chain_confirms_is_kept_beside_the_claim
    a_signer_that_did_not_answer_is_asked_again
    a_freeze_stays_until_it_is_removed
    refunds_are_booked_once_and_make_room_if_they_may
    repeats_and_failures_are_counted
    what_the_chain_must_be_asked_about_is_found
    pages_name_each_purchase_once_and_in_order
    a_host_or_a_pattern_selects_purchases
    an_id_is_found_under_each_payer
    calls_of_a_key_are_counted_without_the_refused_ones
    finished_purchases_are_archived_and_still_count
    a_pruned_purchase_takes_proofs_and_refunds
    nothing_is_pruned_without_its_archive
    denials_are_counted_by_rule_and_host
    the_counts_of_denials_are_bounded_and_lose_no_denial
    the_payment_that_passes_a_share_of_a_limit_warns_once
    of_many_tasks_one_warns_of_a_limit
    a_purchase_that_signed_one_kind_never_signs_the_other
    a_signer_that_hung_by_one_kind_ends_a_hold_by_the_other
    a_claimed_charge_frees_no_room_and_a_proved_one_does
    a_proof_never_counts_more_than_was_signed
    a_refund_is_at_most_the_proved_charge
}

/// Origin, network, payee, tag, agent.
type Place = (
    &'static str,
    Network,
    u8,
    Option<&'static str>,
    Option<&'static str>,
);

/// Places differ in all that scopes look at.
pub(super) const PLACES: [Place; 7] = [
    ("https://api.example.com", BASE, 1, Some("t"), Some("a")),
    ("https://api.example.com:8443", BASE, 2, Some("u"), None),
    ("https://x.api.example.com", SEPOLIA, 1, None, Some("b")),
    ("http://example.com", BASE, 3, Some("t"), Some("b")),
    ("https://example-com.com", SEPOLIA, 3, None, None),
    ("https://api.example.com.evil.org", BASE, 4, Some("T"), None),
    ("https://example.github.io", BASE, 4, None, Some("a")),
];

/// Every scope with the places that lie in it.
pub(super) fn scopes() -> Vec<(Scope, Vec<usize>)> {
    let origin = |text: &str| Scope::Origin(text.parse().unwrap());
    let resource =
        |origin: &str, path: &str| Scope::Resource(origin.parse().unwrap(), path.to_owned());
    let host = |text: &str| Scope::Host(text.parse().unwrap());
    let usdc = |network| Scope::Asset(network, usdc(network).address());
    vec![
        (Scope::Global, (0..7).collect()),
        (origin("https://api.example.com"), vec![0]),
        (origin("http://api.example.com"), vec![]),
        (origin("https://api.example.com:8443"), vec![1]),
        (resource("https://api.example.com", "/report"), vec![0]),
        (resource("https://api.example.com", "/repor"), vec![]),
        (resource("https://api.example.com", "/"), vec![0]),
        (resource("https://api.example.com:8443", "/"), vec![1]),
        (resource("https://api.example.com:8443", "/report"), vec![1]),
        (
            resource("https://api.example.com:8443", "/report/a"),
            vec![1],
        ),
        (
            resource("https://api.example.com:8443", "/report/a/b"),
            vec![],
        ),
        (
            resource("https://api.example.com:8443", "/report/b"),
            vec![],
        ),
        (
            resource("https://x.api.example.com", "/mcp://tool/A"),
            vec![2],
        ),
        (
            resource("https://x.api.example.com", "/mcp://tool/a"),
            vec![],
        ),
        (resource("https://x.api.example.com", "/mcp:"), vec![]),
        (resource("https://x.api.example.com", "/"), vec![]),
        (resource("http://example.com", "/"), vec![3]),
        (resource("http://example.com", "/x"), vec![]),
        (host("api.example.com"), vec![0, 1]),
        (host("*.example.com"), vec![0, 1, 2]),
        (host("*.api.example.com"), vec![2]),
        (host("*.com"), vec![0, 1, 2, 3, 4]),
        (host("*.ample.com"), vec![]),
        (Scope::Domain("example.com".to_owned()), vec![0, 1, 2, 3]),
        (Scope::Domain("evil.org".to_owned()), vec![5]),
        (Scope::Domain("example.github.io".to_owned()), vec![6]),
        (Scope::Domain("github.io".to_owned()), vec![]),
        (Scope::Payee(Address::repeat_byte(1)), vec![0, 2]),
        (Scope::Payee(Address::repeat_byte(9)), vec![]),
        (usdc(BASE), vec![0, 1, 3, 5, 6]),
        (Scope::Asset(BASE, usdc_address(SEPOLIA)), vec![]),
        (Scope::Network(SEPOLIA), vec![2, 4]),
        (Scope::Tag("t".to_owned()), vec![0, 3]),
        (Scope::Tag(String::new()), vec![]),
        (Scope::Agent("a".to_owned()), vec![0, 6]),
        (Scope::Agent("c".to_owned()), vec![]),
    ]
}

fn usdc_address(network: Network) -> Address {
    usdc(network).address()
}

pub(super) fn at_place(place: usize, mut purchase: NewPurchase) -> NewPurchase {
    let (origin, network, payee, tag, agent) = PLACES[place];
    purchase.origin = origin.parse().unwrap();
    purchase.asset = usdc(network);
    purchase.payee = Address::repeat_byte(payee);
    let paths = ["/report", "/Report/A?x=1", "/mcp://tool/A", "/"];
    if let Some(path) = paths.get(place) {
        purchase.path = (*path).to_owned();
    }
    (purchase.tag, purchase.agent) = (tag.map(str::to_owned), agent.map(str::to_owned));
    purchase
}

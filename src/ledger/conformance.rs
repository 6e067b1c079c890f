//! What every ledger must do, run on each of them.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow fails the test, as it should"
)]

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod differential;
mod unresolved;

use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

use self::unresolved::*;
use super::{
    Filter, Ledger, LedgerError, NewPurchase, Purchase, PurchaseKey, Refund, Reservation, Reserved,
    SellerAnswer, State, Terms, Transition,
};
use crate::limit::{
    Amount, Denial, Limit, LimitCheck, LimitKind, LimitStatus, PayeePin, PriceCeiling, Quantity,
    Rule, Scope,
};
use crate::money::{Asset, AssetRegistry, TokenAmount};
use crate::{Network, Timestamp, Usd};

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

fn checks(entry: &NewPurchase, now: Timestamp, meters: Vec<Limit>) -> LimitCheck {
    LimitCheck {
        now,
        payment: Some((entry.asset.clone(), entry.value)),
        limits: meters,
        payee: None,
        price: None,
        refunds_make_room: false,
    }
}

pub(super) fn wish(entry: NewPurchase, now: Timestamp, meters: Vec<Limit>) -> Reservation {
    Reservation {
        checks: checks(&entry, now, meters),
        purchase: entry,
        lease: LEASE,
        terms: Terms::First,
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

pub(super) async fn hold(ledger: &Ledger, entry: NewPurchase, now: u64) -> PurchaseKey {
    let key = entry.key();
    let answer = ledger
        .reserve(&wish(entry, at(now), Vec::new()))
        .await
        .unwrap();
    assert!(matches!(answer, Reserved::Held(_)), "{answer:?}");
    key
}

async fn sign(ledger: &Ledger, entry: NewPurchase, now: u64, valid_before: u64) -> PurchaseKey {
    let key = hold(ledger, entry, now).await;
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
    entry: NewPurchase,
    now: u64,
    meters: Vec<Limit>,
) -> Option<Denial> {
    match ledger.reserve(&wish(entry, at(now), meters)).await.unwrap() {
        Reserved::Held(_) => None,
        Reserved::Denied(denial) => Some(*denial),
        other => panic!("{other:?}"),
    }
}

/// What is used of `meter`, in micro-dollars or payments.
async fn used(ledger: &Ledger, now: u64, meter: Limit) -> u64 {
    let checks = LimitCheck {
        now: at(now),
        payment: None,
        limits: vec![meter],
        payee: None,
        price: None,
        refunds_make_room: false,
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
    a_hold_that_was_taken_over_cannot_be_signed_by_its_first_holder
    new_terms_cannot_name_another_payee
    what_is_signed_counts_until_proof
    what_is_settled_counts_until_it_has_expired
    what_is_freed_does_not_count
    a_hold_lies_in_every_window
    a_charge_at_the_edge_of_a_window_is_outside_whatever_becomes_of_it
    a_known_purchase_is_not_bought_again
    changed_terms_hold_the_largest
    changed_terms_are_held_in_windows_that_the_purchase_had_left
    the_first_payee_is_remembered
    the_last_price_is_remembered
    filters_pass_what_they_name
    room_returns_when_enough_has_left
    the_largest_value_neither_wraps_nor_fits
    tokens_are_limited_in_their_own_units
    an_entry_is_read_as_it_was_written
    what_is_not_allowed_is_not_recorded
    an_unresolved_purchase_is_taken_up_by_one
    what_was_delivered_is_not_taken_up
    only_the_same_request_is_taken_up
    what_is_released_does_not_count_and_is_bought_anew
    only_proof_of_the_latest_authorization_releases
    what_the_chain_confirms_is_kept_beside_the_claim
    a_signer_that_did_not_answer_is_asked_again
    a_freeze_stays_until_it_is_removed
    refunds_are_booked_once_and_make_room_if_they_may
    repeats_and_failures_are_counted
    what_the_chain_must_be_asked_about_is_found
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

/// Histories and whether they lie in the spans ever, spent within an hour, reserved within an
/// hour, outstanding.
const HISTORIES: [(&str, [bool; 4]); 8] = [
    ("settled long ago", [true, false, false, false]),
    ("settled just now", [true, true, false, false]),
    ("signed", [true, true, true, true]),
    ("rejected and expired", [true, false, false, false]),
    ("unknown and live", [true, true, false, true]),
    ("held", [true, true, true, true]),
    ("lapsed", [false; 4]),
    ("freed", [false; 4]),
];

async fn live_through(ledger: &Ledger, history: &str, entry: NewPurchase) {
    let (long_ago, lately) = (NOW - 7200, NOW - 600);
    match history {
        "settled long ago" | "settled just now" => {
            let expiry = if history == "settled just now" {
                lately
            } else {
                long_ago + 300
            };
            let key = sign(ledger, entry, long_ago, expiry).await;
            ledger.record(&key, &settled(), at(long_ago)).await.unwrap();
        }
        "signed" => drop(sign(ledger, entry, lately, NOW + 300).await),
        "rejected and expired" => {
            let key = sign(ledger, entry, long_ago, long_ago + 300).await;
            ledger.record(&key, &rejected(), at(lately)).await.unwrap();
        }
        "unknown and live" => {
            let key = sign(ledger, entry, long_ago, NOW + 1).await;
            ledger.record(&key, &unknown(), at(lately)).await.unwrap();
        }
        "held" => drop(hold(ledger, entry, NOW - 10).await),
        "lapsed" => drop(hold(ledger, entry, NOW - 60).await),
        _ => {
            let key = hold(ledger, entry, NOW - 10).await;
            let lease = at(NOW - 10).after(LEASE);
            ledger
                .record(&key, &Transition::Voided { lease }, at(NOW))
                .await
                .unwrap();
        }
    }
}

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

pub(super) fn at_place(place: usize, mut entry: NewPurchase) -> NewPurchase {
    let (origin, network, payee, tag, agent) = PLACES[place];
    entry.origin = origin.parse().unwrap();
    entry.asset = usdc(network);
    entry.payee = Address::repeat_byte(payee);
    (entry.tag, entry.agent) = (tag.map(str::to_owned), agent.map(str::to_owned));
    entry
}

/// Every purchase costs another power of two, so that a sum tells which it is made of.
async fn each_scope_and_span_counts_what_it_should(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let price = |place: usize, history: usize| 1_u64 << (place * HISTORIES.len() + history);
    for place in 0..PLACES.len() {
        for (number, (history, _)) in HISTORIES.iter().enumerate() {
            let entry = order(&format!("{place}-{number}"), price(place, number));
            live_through(&ledger, history, at_place(place, entry)).await;
        }
    }
    for (scope, places) in scopes() {
        let expected = |span: usize, weigh: &dyn Fn(usize, usize) -> u64| -> u64 {
            let within = (0..HISTORIES.len()).filter(|history| HISTORIES[*history].1[span]);
            within
                .map(|history| {
                    places
                        .iter()
                        .map(|place| weigh(*place, history))
                        .sum::<u64>()
                })
                .sum()
        };
        let max = || Amount::Usd(Usd::MAX);
        for (span, kind) in [
            LimitKind::Lifetime(max()),
            LimitKind::Rolling(HOUR, max()),
            LimitKind::Payments(HOUR, 1),
            LimitKind::Exposure(max()),
        ]
        .into_iter()
        .enumerate()
        {
            let expected = if span == 2 {
                expected(span, &|_, _| 1)
            } else {
                expected(span, &price)
            };
            let meter = meter(scope.clone(), kind);
            assert_eq!(used(&ledger, NOW, meter.clone()).await, expected, "{meter}");
        }
    }
}

async fn exactly_as_many_as_fit_are_held(ledgers: &Ledgers) {
    for (scope, places) in scopes()
        .into_iter()
        .filter(|(_, places)| !places.is_empty())
    {
        let kinds = [
            LimitKind::Lifetime(micros(39)),
            LimitKind::Rolling(HOUR, micros(30)),
            LimitKind::Exposure(micros(30)),
            LimitKind::Payments(HOUR, 3),
        ];
        for kind in kinds {
            let ledger = ledgers.open().await;
            let meters = vec![meter(scope.clone(), kind)];
            let mut held = 0;
            for number in 0..6 {
                let entry = at_place(
                    places[number % places.len()],
                    order(&format!("order-{number}"), 10),
                );
                held += usize::from(denied(&ledger, entry, NOW, meters.clone()).await.is_none());
            }
            assert_eq!(held, 3, "{}", meters[0]);
        }
    }
}

/// The same as a call by key.
fn by_key(entry: NewPurchase, name: &str) -> NewPurchase {
    let asset = Asset::declared_dollars().clone();
    NewPurchase {
        asset,
        payee: Address::ZERO,
        credential: Some(name.to_owned()),
        ..entry
    }
}

async fn calls_by_key_count_in_dollars_and_are_no_payments(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let first = by_key(order("first", 10), "one");
    let key = hold(&ledger, first, NOW).await;
    hold(&ledger, by_key(order("second", 20), "two"), NOW + 1).await;
    sign(&ledger, order("paid", 40), NOW + 1, NOW + 300).await;
    let entry = ledger.purchase(&key).await.unwrap().unwrap();
    assert_eq!(
        (entry.state, entry.credential.as_deref()),
        (State::ApiCall, Some("one"))
    );
    assert!(!entry.is_unproven() && !entry.is_unresolved() && !entry.is_outstanding(at(NOW)));
    let global = |kind: LimitKind| meter(Scope::Global, kind);
    let max = || Amount::Usd(Usd::MAX);
    for (kind, expected) in [
        (LimitKind::Lifetime(max()), 70),
        (LimitKind::Rolling(HOUR, max()), 70),
        (LimitKind::Exposure(max()), 40),
        (LimitKind::Payments(HOUR, 9), 1),
        (LimitKind::LoopGuard(HOUR, 9), 1),
    ] {
        assert_eq!(
            used(&ledger, NOW + 2, global(kind.clone())).await,
            expected,
            "{kind:?}"
        );
    }
    assert_eq!(
        used(
            &ledger,
            NOW + 2 + 3600,
            global(LimitKind::Rolling(HOUR, max()))
        )
        .await,
        40,
        "a call counts when made"
    );
    let limit = vec![global(LimitKind::Lifetime(micros(75)))];
    assert!(
        denied(
            &ledger,
            by_key(order("third", 6), "one"),
            NOW + 2,
            limit.clone()
        )
        .await
        .is_some()
    );
    let called = |name: &str| Filter {
        credential: Some(name.to_owned()),
        ..Filter::all()
    };
    assert_eq!(ledger.purchases(&called("one")).await.unwrap().len(), 1);
    for refused in [
        signed(NOW + 300),
        settled(),
        unknown(),
        rejected(),
        Transition::Presented { until: at(NOW) },
    ] {
        let refusal = ledger.record(&key, &refused, at(NOW)).await.unwrap_err();
        assert!(
            matches!(refusal, LedgerError::Transition { .. }),
            "{refused:?}"
        );
    }
    ledger
        .record(
            &key,
            &Transition::Voided {
                lease: entry.lease_until,
            },
            at(NOW + 3),
        )
        .await
        .unwrap();
    assert!(
        denied(&ledger, by_key(order("third", 6), "one"), NOW + 4, limit)
            .await
            .is_none()
    );
}

async fn tasks_at_once_hold_exactly_as_many_as_fit(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                denied(
                    &ledger,
                    order(&format!("order-{number}"), 10),
                    NOW,
                    lifetime(370),
                )
                .await
                .is_none()
            })
        })
        .collect();
    let mut held = 0;
    for task in tasks {
        held += usize::from(task.await.unwrap());
    }
    assert_eq!(
        (held, ledger.purchases(&Filter::all()).await.unwrap().len()),
        (37, 37)
    );
}

async fn a_denial_holds_nothing_and_says_what_is_used(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    hold(&ledger, order("first", 70), NOW).await;
    let meters = [rolling(1000), lifetime(100)].concat();
    let denial = denied(&ledger, order("second", 31), NOW, meters)
        .await
        .unwrap();
    assert_eq!(
        (denial.rule, denial.scope, denial.room_returns),
        (Rule::Lifetime, Some(Scope::Global), None)
    );
    let amounts = [denial.limit, denial.used, denial.asked].map(Option::unwrap);
    assert_eq!(
        amounts,
        [100, 70, 31].map(|amount| Quantity::Amount(micros(amount)))
    );
    assert!(
        ledger
            .purchase(&order("second", 31).key())
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        denied(&ledger, order("second", 30), NOW, lifetime(100))
            .await
            .is_none()
    );
}

async fn a_lapsed_hold_frees_its_room(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, order("first", 10), NOW).await;
    for meters in [lifetime(10), rolling(10), exposure(10)] {
        assert!(
            denied(&ledger, order("second", 10), NOW + 59, meters)
                .await
                .is_some()
        );
    }
    assert!(
        denied(&ledger, order("second", 10), NOW + 60, lifetime(10))
            .await
            .is_none()
    );
    let late = ledger.record(&key, &signed(NOW + 300), at(NOW + 60)).await;
    assert!(
        matches!(
            late,
            Err(LedgerError::Transition {
                state: State::Voided,
                ..
            })
        ),
        "{late:?}"
    );
    // Whatever time the late one takes it to be: its room is taken.
    let late = ledger.record(&key, &signed(NOW + 300), at(NOW + 59)).await;
    assert!(
        matches!(
            late,
            Err(LedgerError::Transition {
                state: State::Voided,
                ..
            })
        ),
        "{late:?}"
    );
}

async fn what_is_signed_counts_until_proof(ledgers: &Ledgers) {
    let expiry = NOW + 300;
    let doubtful = Transition::SignerTimedOut {
        valid_before: expiry,
        reason: "the signer hung".to_owned(),
    };
    for history in [
        vec![signed(expiry)],
        vec![signed(expiry), unknown()],
        vec![signed(expiry), rejected()],
        vec![doubtful],
    ] {
        let ledger = ledgers.open().await;
        let key = hold(&ledger, order("first", 10), NOW).await;
        for transition in &history {
            ledger.record(&key, transition, at(NOW)).await.unwrap();
        }
        let years_later = NOW + 100_000_000;
        assert!(
            denied(&ledger, order("second", 1), years_later, lifetime(10))
                .await
                .is_some(),
            "{history:?}"
        );
        // The rolling window starts when the money may move last; exposure ends a minute after.
        assert!(
            denied(&ledger, order("second", 1), expiry + 3599, rolling(10))
                .await
                .is_some(),
            "{history:?}"
        );
        assert!(
            denied(&ledger, order("second", 1), expiry + 59, exposure(10))
                .await
                .is_some(),
            "{history:?}"
        );
        assert!(
            denied(&ledger, order("second", 1), expiry + 60, exposure(10))
                .await
                .is_none(),
            "{history:?}"
        );
        assert!(
            denied(&ledger, order("third", 9), expiry + 3600, rolling(10))
                .await
                .is_none(),
            "{history:?}"
        );
    }
}

async fn what_is_settled_counts_until_it_has_expired(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
    ledger.record(&key, &settled(), at(NOW + 5)).await.unwrap();
    ledger.record(&key, &unknown(), at(NOW + 6)).await.unwrap();
    ledger.record(&key, &settled(), at(NOW + 7)).await.unwrap();
    // The receipt is the seller's claim: the money may leave as late as the authorization expires.
    assert_eq!(state(&ledger, &key).await.counts_at, at(NOW + 300));
    let denial = denied(&ledger, order("second", 1), NOW + 3899, rolling(10))
        .await
        .unwrap();
    assert_eq!(denial.room_returns, Some(at(NOW + 3900)));
    assert!(
        denied(&ledger, order("second", 1), NOW + 8, exposure(1))
            .await
            .is_none()
    );
    assert!(
        denied(&ledger, order("third", 9), NOW + 3900, rolling(10))
            .await
            .is_none()
    );
}

async fn what_is_freed_does_not_count(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, order("first", 10), NOW).await;
    ledger.record(&key, &given_up(), at(NOW)).await.unwrap();
    ledger.record(&key, &given_up(), at(NOW)).await.unwrap();
    for limit in [lifetime(0), rolling(0), exposure(0)] {
        assert_eq!(used(&ledger, NOW, limit[0].clone()).await, 0);
    }
    assert_eq!(
        used(
            &ledger,
            NOW,
            meter(Scope::Global, LimitKind::Payments(HOUR, 1))
        )
        .await,
        0
    );
    assert!(
        denied(&ledger, order("second", 10), NOW, lifetime(10))
            .await
            .is_none()
    );
    let signing = ledger.record(&key, &signed(NOW + 300), at(NOW)).await;
    assert!(
        matches!(
            signing,
            Err(LedgerError::Transition {
                state: State::Voided,
                ..
            })
        ),
        "{signing:?}"
    );
}

async fn a_hold_lies_in_every_window(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    hold(&ledger, order("first", 10), NOW).await;
    let instant = LimitKind::Rolling(Duration::from_millis(1), micros(10));
    let denial = denied(
        &ledger,
        order("second", 1),
        NOW + 30,
        vec![meter(Scope::Global, instant)],
    )
    .await
    .unwrap();
    assert_eq!(
        denial.room_returns, None,
        "nobody knows when a hold will be spent"
    );
    let forever = LimitKind::Rolling(Duration::MAX, micros(10));
    assert!(
        denied(
            &ledger,
            order("second", 1),
            NOW + 30,
            vec![meter(Scope::Global, forever)]
        )
        .await
        .is_some()
    );
}

async fn a_charge_at_the_edge_of_a_window_is_outside_whatever_becomes_of_it(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let first = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
    let edge = at(NOW + 3900);
    let mut net = wish(order("second", 7), edge, rolling(1000));
    net.checks.refunds_make_room = true;
    assert!(matches!(
        ledger.reserve(&net).await.unwrap(),
        Reserved::Held(_)
    ));
    ledger
        .record(
            &net.key(),
            &signed_under(edge.after(LEASE), NOW + 4200),
            edge,
        )
        .await
        .unwrap();
    let refund = Refund::new(B256::repeat_byte(1), U256::from(4), edge, true);
    for secs in [0, 0, 1] {
        let checks = LimitCheck {
            now: edge.after(Duration::from_secs(secs)),
            ..net.checks.clone()
        };
        let used = ledger.examine(&checks).await.unwrap().remove(0).used;
        assert_eq!(used, Some(Quantity::Amount(micros(7))), "{secs}");
        ledger
            .record(&first, &Transition::Refunded(refund.clone()), edge)
            .await
            .unwrap();
    }
}

async fn a_known_purchase_is_not_bought_again(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let again = |now| wish(order("order", 10), at(now), lifetime(10));
    assert!(
        matches!(ledger.reserve(&again(NOW)).await.unwrap(), Reserved::Held(entry) if entry.seq == 1)
    );
    assert!(matches!(
        ledger.reserve(&again(NOW + 59)).await.unwrap(),
        Reserved::InFlight
    ));
    // A lapsed hold is renewed, and its own money does not stand in its way.
    assert!(
        matches!(ledger.reserve(&again(NOW + 60)).await.unwrap(), Reserved::Held(entry) if entry.seq == 1 && entry.reserved_at == at(NOW + 60))
    );
    let mut other = again(NOW + 60);
    other.purchase.fingerprint = B256::repeat_byte(2);
    assert!(matches!(
        ledger.reserve(&other).await.unwrap(),
        Reserved::Mismatch
    ));
    let key = order("order", 10).key();
    let signed = signed_under(at(NOW + 60).after(LEASE), NOW + 300);
    for transition in [signed, rejected(), unknown(), settled()] {
        ledger
            .record(&key, &transition, at(NOW + 60))
            .await
            .unwrap();
        match ledger.reserve(&again(NOW + 60)).await.unwrap() {
            Reserved::Known(entry) => assert_eq!(entry.payload.unwrap().expose_secret(), PAYLOAD),
            other => panic!("{transition:?}: {other:?}"),
        }
    }
    let mut stranger = order("order", 10);
    stranger.payer = Address::repeat_byte(0xEE);
    assert!(
        denied(&ledger, stranger, NOW + 60, lifetime(20))
            .await
            .is_none(),
        "an id belongs to its payer"
    );
    assert_eq!(ledger.purchases(&Filter::all()).await.unwrap().len(), 2);
}

async fn changed_terms_hold_the_largest(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let changed = |value: u64| Reservation {
        terms: Terms::Changed,
        ..wish(order("order", value), at(NOW), lifetime(30))
    };
    let key = sign(&ledger, order("order", 10), NOW, NOW + 300).await;
    ledger.record(&key, &rejected(), at(NOW)).await.unwrap();
    for (value, largest) in [(25, 25), (20, 25), (30, 30)] {
        let answer = ledger.reserve(&changed(value)).await.unwrap();
        assert!(
            matches!(&answer, Reserved::Held(entry) if entry.value == U256::from(largest)),
            "{value}: {answer:?}"
        );
        assert_eq!(used(&ledger, NOW, lifetime(30)[0].clone()).await, largest);
        assert!(matches!(
            ledger.reserve(&changed(value)).await.unwrap(),
            Reserved::InFlight
        ));
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
        ledger.record(&key, &rejected(), at(NOW)).await.unwrap();
    }
    assert!(matches!(
        ledger.reserve(&changed(31)).await.unwrap(),
        Reserved::Denied(_)
    ));
    let kept = state(&ledger, &key).await;
    assert_eq!(
        (kept.value, kept.state, kept.seq),
        (U256::from(30), State::Rejected, 1)
    );
    let mut elsewhere = changed(10);
    elsewhere.purchase.asset = usdc(SEPOLIA);
    assert!(
        matches!(
            ledger.reserve(&elsewhere).await.unwrap(),
            Reserved::Mismatch
        ),
        "both could be paid"
    );
    ledger.record(&key, &settled(), at(NOW)).await.unwrap();
    assert!(matches!(
        ledger.reserve(&changed(10)).await.unwrap(),
        Reserved::Known(_)
    ));
}

async fn changed_terms_are_held_in_windows_that_the_purchase_had_left(ledgers: &Ledgers) {
    for limit in [rolling(10), exposure(10)] {
        let ledger = ledgers.open().await;
        let key = sign(&ledger, order("old", 10), NOW - 7200, NOW - 6900).await;
        ledger
            .record(&key, &rejected(), at(NOW - 7200))
            .await
            .unwrap();
        let changed = Reservation {
            terms: Terms::Changed,
            ..wish(order("old", 10), at(NOW), limit.clone())
        };
        assert!(matches!(
            ledger.reserve(&changed).await.unwrap(),
            Reserved::Held(_)
        ));
        assert!(
            denied(&ledger, order("new", 1), NOW, limit).await.is_some(),
            "the room is taken before the signature exists"
        );
        let late = ledger.record(&key, &signed(NOW + 300), at(NOW + 60)).await;
        assert!(
            matches!(
                late,
                Err(LedgerError::Transition {
                    state: State::Rejected,
                    ..
                })
            ),
            "{late:?}"
        );
        ledger
            .record(&key, &signed(NOW + 300), at(NOW + 59))
            .await
            .unwrap();
        assert_eq!(state(&ledger, &key).await.counts_at, at(NOW + 300));
    }
}

async fn the_first_payee_is_remembered(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let pinned = |payee: u8, network| {
        let payee = Address::repeat_byte(payee);
        let entry = NewPurchase {
            payee,
            asset: usdc(network),
            ..order("next", 1)
        };
        let pin = PayeePin {
            origin: entry.origin.clone(),
            payee,
        };
        LimitCheck {
            payee: Some(pin),
            ..checks(&entry, at(NOW), Vec::new())
        }
    };
    let freed = hold(
        &ledger,
        NewPurchase {
            payee: Address::repeat_byte(9),
            ..order("freed", 1)
        },
        NOW,
    )
    .await;
    ledger.record(&freed, &given_up(), at(NOW)).await.unwrap();
    assert_eq!(
        refusal(ledger.examine(&pinned(2, BASE)).await),
        None,
        "nobody was paid yet"
    );
    for (number, payee) in [1, 2, 2].into_iter().enumerate() {
        let entry = NewPurchase {
            payee: Address::repeat_byte(payee),
            ..order(&format!("order-{number}"), 1)
        };
        sign(&ledger, entry, NOW, NOW + 300).await;
    }
    assert_eq!(refusal(ledger.examine(&pinned(1, BASE)).await), None);
    assert_eq!(
        refusal(ledger.examine(&pinned(2, BASE)).await),
        Some(Rule::PayeeChanged)
    );
    assert_eq!(
        refusal(ledger.examine(&pinned(2, SEPOLIA)).await),
        None,
        "another token has a payee of its own"
    );
    let wish = Reservation {
        checks: pinned(2, BASE),
        ..wish(order("next", 1), at(NOW), Vec::new())
    };
    assert!(matches!(
        ledger.reserve(&wish).await.unwrap(),
        Reserved::Denied(_)
    ));
}

fn refusal(findings: Result<Vec<LimitStatus>, LedgerError>) -> Option<Rule> {
    findings
        .unwrap()
        .into_iter()
        .find_map(|finding| finding.denial)
        .map(|denial| denial.rule)
}

async fn the_last_price_is_remembered(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let priced = |value: u64, method: &str, path: &str| {
        let entry = order("next", value);
        let ceiling = PriceCeiling {
            origin: entry.origin.clone(),
            method: method.to_owned(),
            path: path.to_owned(),
            max_rise_percent: 50,
        };
        LimitCheck {
            price: Some(ceiling),
            ..checks(&entry, at(NOW), Vec::new())
        }
    };
    assert_eq!(
        refusal(ledger.examine(&priced(1_000_000, "GET", "/report")).await),
        None,
        "there is no last price"
    );
    for (number, value) in [1000, 10].into_iter().enumerate() {
        sign(
            &ledger,
            order(&format!("order-{number}"), value),
            NOW,
            NOW + 300,
        )
        .await;
    }
    sign(
        &ledger,
        NewPurchase {
            path: "/other".to_owned(),
            ..order("other", 5000)
        },
        NOW,
        NOW + 300,
    )
    .await;
    sign(
        &ledger,
        NewPurchase {
            origin: "https://b.example".parse().unwrap(),
            ..order("elsewhere", 5000)
        },
        NOW,
        NOW + 300,
    )
    .await;
    let freed = hold(&ledger, order("freed", 5000), NOW).await;
    ledger.record(&freed, &given_up(), at(NOW)).await.unwrap();
    assert_eq!(
        refusal(ledger.examine(&priced(15, "GET", "/report")).await),
        None
    );
    assert_eq!(
        refusal(ledger.examine(&priced(16, "GET", "/report")).await),
        Some(Rule::PriceRise)
    );
    assert_eq!(
        refusal(ledger.examine(&priced(16, "POST", "/report")).await),
        None
    );
    assert_eq!(
        refusal(ledger.examine(&priced(7500, "GET", "/other")).await),
        None
    );
}

async fn filters_pass_what_they_name(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    for place in 0..PLACES.len() {
        let secs = NOW + u64::try_from(place).unwrap();
        let key = hold(
            &ledger,
            at_place(place, order(&place.to_string(), 10)),
            secs,
        )
        .await;
        if place % 2 == 0 {
            ledger
                .record(
                    &key,
                    &signed_under(at(secs).after(LEASE), NOW + 300),
                    at(secs),
                )
                .await
                .unwrap();
        }
    }
    let origin = Filter {
        origin: Some(PLACES[1].0.parse().unwrap()),
        ..Filter::all()
    };
    let cases: [(Filter, &[usize]); 11] = [
        (Filter::all(), &[0, 1, 2, 3, 4, 5, 6]),
        (
            Filter {
                since: Some(at(NOW + 2)),
                until: Some(at(NOW + 4)),
                ..Filter::all()
            },
            &[2, 3],
        ),
        (origin, &[1]),
        (
            Filter {
                payee: Some(Address::repeat_byte(1)),
                ..Filter::all()
            },
            &[0, 2],
        ),
        (
            Filter {
                tag: Some("t".to_owned()),
                ..Filter::all()
            },
            &[0, 3],
        ),
        (
            Filter {
                agent: Some("b".to_owned()),
                ..Filter::all()
            },
            &[2, 3],
        ),
        (
            Filter {
                state: Some(State::Reserved),
                ..Filter::all()
            },
            &[1, 3, 5],
        ),
        (
            Filter {
                last: Some(2),
                ..Filter::all()
            },
            &[5, 6],
        ),
        (
            Filter {
                last: Some(0),
                ..Filter::all()
            },
            &[],
        ),
        (
            Filter {
                last: Some(usize::MAX),
                state: Some(State::Voided),
                ..Filter::all()
            },
            &[],
        ),
        (
            Filter {
                last: Some(1),
                tag: Some("t".to_owned()),
                agent: Some("a".to_owned()),
                state: Some(State::Signed),
                ..Filter::all()
            },
            &[0],
        ),
    ];
    for (filter, expected) in cases {
        let found = ledger.purchases(&filter).await.unwrap();
        let found: Vec<usize> = found
            .iter()
            .map(|entry| entry.id.as_str().parse().unwrap())
            .collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

async fn room_returns_when_enough_has_left(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    for (number, (value, spent)) in [(10, NOW), (20, NOW + 100), (30, NOW + 200)]
        .into_iter()
        .enumerate()
    {
        let key = sign(
            &ledger,
            order(&format!("order-{number}"), value),
            spent - LEASE.as_secs(),
            spent,
        )
        .await;
        ledger.record(&key, &settled(), at(spent)).await.unwrap();
    }
    let returns = async |value, meters| {
        denied(&ledger, order("next", value), NOW + 300, meters)
            .await
            .unwrap()
            .room_returns
    };
    assert_eq!(returns(10, rolling(60)).await, Some(at(NOW + 3600)));
    assert_eq!(returns(11, rolling(60)).await, Some(at(NOW + 3700)));
    assert_eq!(returns(60, rolling(60)).await, Some(at(NOW + 3800)));
    assert_eq!(returns(61, rolling(60)).await, None);
    let payments = |max| vec![meter(Scope::Global, LimitKind::Payments(HOUR, max))];
    let reserved = NOW + 100 - LEASE.as_secs();
    assert_eq!(returns(1, payments(2)).await, Some(at(reserved + 3600)));
    assert_eq!(returns(1, payments(0)).await, None);
    sign(&ledger, order("live", 10), NOW + 300, NOW + 900).await;
    assert_eq!(returns(10, exposure(10)).await, Some(at(NOW + 960)));
}

async fn the_largest_value_neither_wraps_nor_fits(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let largest = |id: &str| NewPurchase {
        value: U256::MAX,
        ..order(id, 0)
    };
    let limit = |units| {
        vec![meter(
            Scope::Global,
            LimitKind::Lifetime(TokenAmount::from_units(usdc(BASE), units).into()),
        )]
    };
    assert!(
        denied(&ledger, largest("first"), NOW, limit(U256::MAX))
            .await
            .is_none()
    );
    let kept = state(&ledger, &largest("first").key()).await;
    assert_eq!((kept.value, kept.usd), (U256::MAX, None));
    assert!(
        denied(&ledger, largest("second"), NOW, limit(U256::MAX))
            .await
            .is_some()
    );
    assert!(
        denied(&ledger, order("third", 1), NOW, limit(U256::MAX))
            .await
            .is_some()
    );
    let dollars = order("fourth", Usd::MAX.micros());
    assert!(
        denied(&ledger, dollars, NOW, lifetime(Usd::MAX.micros()))
            .await
            .is_none()
    );
    assert!(
        denied(&ledger, order("fifth", 1), NOW, lifetime(Usd::MAX.micros()))
            .await
            .is_some()
    );
}

async fn tokens_are_limited_in_their_own_units(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let euro = Asset::new(BASE, Address::repeat_byte(0xE0), "EURC", 6, "EURC", "2");
    let in_euro = |id: &str, units: u64| NewPurchase {
        asset: euro.clone(),
        ..order(id, units)
    };
    let limit = || {
        vec![meter(
            Scope::Global,
            LimitKind::Lifetime(TokenAmount::from_units(euro.clone(), U256::from(10)).into()),
        )]
    };
    assert!(
        denied(&ledger, in_euro("euro", 8), NOW, limit())
            .await
            .is_none()
    );
    assert!(
        denied(&ledger, order("dollars", 100), NOW, limit())
            .await
            .is_none(),
        "dollars are not euros"
    );
    assert!(
        denied(&ledger, in_euro("more", 3), NOW, limit())
            .await
            .is_some()
    );
    assert!(
        denied(&ledger, in_euro("rest", 2), NOW, limit())
            .await
            .is_none()
    );
    assert_eq!(
        used(&ledger, NOW, lifetime(1000)[0].clone()).await,
        100,
        "euros have no dollar value"
    );
    assert_eq!(
        used(
            &ledger,
            NOW,
            meter(Scope::Global, LimitKind::Payments(HOUR, 9))
        )
        .await,
        3
    );
}

async fn an_entry_is_read_as_it_was_written(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let wanted = NewPurchase {
        origin: "http://[::1]:8080".parse().unwrap(),
        path: format!("/é'; DROP TABLE purchases; --{}\n", ledgers.odd),
        foreign_resource: Some("https://b.example/x".to_owned()),
        tag: Some(String::new()),
        agent: Some("ä".to_owned()),
        fingerprint: B256::repeat_byte(0xFE),
        version: 1,
        ..order("order", 12)
    };
    let key = hold(&ledger, wanted.clone(), NOW).await;
    let mut expected = wanted.open(0, at(NOW), at(NOW).after(LEASE));
    expected.seq = 1;
    assert_same(&state(&ledger, &key).await, &expected);
    for transition in [signed(NOW + 300), rejected(), unknown(), settled()] {
        ledger.record(&key, &transition, at(NOW + 1)).await.unwrap();
        expected.apply(&transition, at(NOW + 1)).unwrap();
        assert_same(&state(&ledger, &key).await, &expected);
        assert_same(
            &ledger.purchases(&Filter::all()).await.unwrap()[0],
            &expected,
        );
    }
}

fn assert_same(found: &Purchase, expected: &Purchase) {
    let payload = |entry: &Purchase| {
        entry
            .payload
            .as_ref()
            .map(|payload| payload.expose_secret().to_owned())
    };
    assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    assert_eq!(payload(found), payload(expected));
}

async fn what_is_not_allowed_is_not_recorded(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let nobody = order("nobody", 1).key();
    let answer = ledger.record(&nobody, &settled(), at(NOW)).await;
    assert!(
        matches!(&answer, Err(LedgerError::UnknownPurchase(id)) if *id == nobody.id),
        "{answer:?}"
    );
    assert!(ledger.purchase(&nobody).await.unwrap().is_none());
    let key = hold(&ledger, order("order", 1), NOW).await;
    let before = state(&ledger, &key).await;
    for transition in [settled(), rejected(), unknown()] {
        let answer = ledger.record(&key, &transition, at(NOW + 1)).await;
        assert!(
            matches!(
                answer,
                Err(LedgerError::Transition {
                    state: State::Reserved,
                    ..
                })
            ),
            "{answer:?}"
        );
    }
    assert_same(&state(&ledger, &key).await, &before);
    ledger
        .record(&key, &signed(NOW + 300), at(NOW + 1))
        .await
        .unwrap();
    assert!(ledger.record(&key, &given_up(), at(NOW + 1)).await.is_err());
    assert_eq!(state(&ledger, &key).await.state, State::Signed);
}

async fn a_hold_that_was_taken_over_cannot_be_signed_by_its_first_holder(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, order("order", 10), NOW).await;
    let first = signed_under(at(NOW).after(LEASE), NOW + 300);
    hold(&ledger, order("order", 20), NOW + 60).await;
    assert!(ledger.record(&key, &first, at(NOW + 61)).await.is_err());
    assert!(
        ledger.record(&key, &first, at(NOW + 59)).await.is_err(),
        "nor when it asked before its lease ended"
    );
    let second = signed_under(at(NOW + 60).after(LEASE), NOW + 300);
    ledger.record(&key, &second, at(NOW + 61)).await.unwrap();
}

async fn new_terms_cannot_name_another_payee(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    sign(&ledger, order("order", 10), NOW, NOW + 300).await;
    let other = NewPurchase {
        payee: Address::repeat_byte(0x77),
        ..order("order", 10)
    };
    let mut wish = wish(other, at(NOW), Vec::new());
    wish.terms = Terms::Changed;
    let answer = ledger.reserve(&wish).await.unwrap();
    assert!(
        matches!(&answer, Reserved::Denied(denial) if denial.rule == Rule::PayeeChanged),
        "{answer:?}"
    );
}

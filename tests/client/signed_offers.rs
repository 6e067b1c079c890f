//! Offers and receipts that the seller signs.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bursar::ledger::State;
use bursar::policy::Rule;
use bursar::telemetry::{Event, EventKind};
use bursar::x402::Verification;
use bursar::{Client, ClientBuilder, PaymentStatus, Policy, ResponseExt};
use bursar_testing::{Fault, OfferSigner, Paywall, Route, SigningFault};
use bursar_tests::clock::{MINUTE, SECOND, TestClock};
use bursar_tests::paywall::{open, payments_sent, policy, purchases, report};
use serde_json::Value;

use crate::builder;

const KEY: [u8; 32] = [0x42; 32];
const WEB: &str = "did:web:api.example.com#key-1";

fn eip712() -> OfferSigner {
    OfferSigner::eip712(KEY)
}

fn jws() -> OfferSigner {
    OfferSigner::jws(KEY, WEB)
}

fn signed(signer: OfferSigner) -> Route {
    report().sign_offers(signer)
}

fn strict() -> Policy {
    policy().require_signed_offers()
}

/// Returns a client, and the reasons of its warnings about wrong signatures.
fn warned(policy: Policy) -> (Client, Arc<Mutex<Vec<String>>>) {
    let reasons = Arc::<Mutex<Vec<String>>>::default();
    let list = Arc::clone(&reasons);
    let observer = move |event: &Event<'_>| {
        if event.kind == EventKind::WrongSignature {
            let reason = event.signature.unwrap().to_string();
            list.lock().unwrap().push(reason);
        }
    };
    let client = builder().policy(policy).observer(observer).build();
    (client.unwrap(), reasons)
}

fn client(policy: Policy) -> ClientBuilder {
    builder().policy(policy)
}

async fn evidence(client: &Client) -> Value {
    let purchase = purchases(client).await.remove(0);
    let ledger = client.ledger().unwrap();
    let evidence = ledger.evidence(&purchase.key()).await.unwrap();
    serde_json::to_value(evidence).unwrap()
}

/// Returns the verification of the first offer, by a price check.
async fn quoted(client: &Client, seller: &Paywall) -> Verification {
    let outcome = client.get(seller.url("/report")).quote().await.unwrap();
    let check = outcome.priced().unwrap();
    check.preferred().unwrap().signature().clone()
}

#[tokio::test]
async fn a_signed_offer_and_its_receipt_are_verified_and_kept() {
    for signer in [eip712(), jws(), jws().without_transaction()] {
        let by = signer.address();
        let seller = open(signed(signer)).await;
        let (client, warnings) = warned(strict());
        assert_eq!(
            quoted(&client, &seller).await,
            Verification::Verified { by }
        );
        let response = client.get(seller.url("/report")).send().await.unwrap();
        let receipt = response.receipt().unwrap();
        assert_eq!(receipt.signature(), &Verification::Verified { by });
        assert_eq!(seller.settlements()[0].authorization.to, by);

        let purchase = purchases(&client).await.remove(0);
        assert_eq!(purchase.offer_signature(), Verification::Verified { by });
        assert_eq!(purchase.receipt_signature(), Verification::Verified { by });
        let evidence = evidence(&client).await;
        assert_eq!(evidence["offer_signature"]["result"], "verified");
        assert_eq!(evidence["offer_signature"]["by"], by.to_string());
        assert_eq!(evidence["receipt_signature"]["result"], "verified");
        let offer = &evidence["terms"]["signedOffer"]["artifact"];
        let receipt = &evidence["answer"]["signed_receipt"]["artifact"];
        for artifact in [offer, receipt] {
            let signature = artifact["signature"].as_str().unwrap();
            match artifact["format"].as_str().unwrap() {
                "eip712" => assert_eq!(signature.len(), 132, "{artifact}"),
                _ => assert_eq!(signature.split('.').count(), 3, "{artifact}"),
            }
        }
        assert!(warnings.lock().unwrap().is_empty());
    }
}

/// The kept artifacts are those that the seller sent, so that others can verify them.
#[tokio::test]
async fn the_kept_artifacts_are_those_of_the_seller() {
    let seller = open(signed(eip712())).await;
    let client = client(policy()).build().unwrap();
    let response = client.get(seller.url("/report")).send().await.unwrap();
    let sent = response.receipt().unwrap().claim().extensions.clone();
    let sent = &sent.unwrap()["offer-receipt"]["info"]["receipt"];
    let evidence = evidence(&client).await;
    assert_eq!(&evidence["answer"]["signed_receipt"]["artifact"], sent);

    let echoed = seller.requests()[1].payment.clone().unwrap().json.unwrap();
    let offer = &echoed["extensions"]["offer-receipt"]["info"]["offers"][0];
    let kept = &evidence["terms"]["signedOffer"]["artifact"];
    assert_eq!(kept["signature"], offer["signature"]);
    assert_eq!(kept["payload"], offer["payload"]);
}

#[tokio::test]
async fn a_wrong_signature_is_a_warning_and_a_denial_where_signed_offers_are_required() {
    let pkh = OfferSigner::jws(KEY, &format!("did:pkh:eip155:1:{}", eip712().address()));
    for (format, signer) in [("eip712", eip712()), ("web", jws()), ("pkh", pkh)] {
        for fault in SigningFault::ALL {
            let (offer, receipt) = match (fault, format) {
                (SigningFault::NoReceipt, _) => ("verified", "absent"),
                (SigningFault::OtherKey | SigningFault::Changed, "web") => {
                    ("unverified", "unverified")
                }
                (SigningFault::Old, _) => ("wrong", "unverified"),
                _ => ("wrong", "wrong"),
            };
            let case = format!("{format} {fault:?}");
            let seller = open(signed(signer.clone().fault(fault))).await;
            let (lenient, warnings) = warned(policy());
            assert_eq!(quoted(&lenient, &seller).await.name(), offer, "{case}");
            let response = lenient.get(seller.url("/report")).send().await.unwrap();
            let signature = response.receipt().unwrap().signature().clone();
            assert_eq!(signature.name(), receipt, "{case}: {signature}");
            assert_eq!(response.payment_status(), PaymentStatus::Paid, "{case}");
            let purchase = purchases(&lenient).await.remove(0);
            assert_eq!(purchase.state, State::Settled, "{case}");
            assert_eq!(purchase.offer_signature().name(), offer, "{case}");
            assert_eq!(purchase.receipt_signature().name(), receipt, "{case}");
            let wrong = [offer, receipt].map(|name| usize::from(name == "wrong"));
            let warnings = warnings.lock().unwrap().clone();
            assert_eq!(warnings.len(), wrong[0] + wrong[1], "{case}: {warnings:?}");
            assert!(!format!("{warnings:?}").contains('\u{1b}'), "{case}");
            let kept = evidence(&lenient).await;
            let artifact = &kept["terms"]["signedOffer"]["artifact"];
            // The payee made the signature, although it is not for this purchase.
            let is_payees = matches!(fault, SigningFault::OtherSeller | SigningFault::Old);
            let is_kept = is_payees || offer == "verified";
            assert_eq!(artifact["signature"].is_string(), is_kept, "{case}");

            let sent = payments_sent(&seller);
            let (strict, warnings) = warned(strict());
            let bought = strict.get(seller.url("/report")).send().await;
            if offer == "verified" {
                assert_eq!(
                    bought.unwrap().payment_status(),
                    PaymentStatus::Paid,
                    "{case}"
                );
                continue;
            }
            let error = bought.unwrap_err();
            assert_eq!(
                error.denial().unwrap().rule,
                Rule::SignedOffer,
                "{case}: {error}"
            );
            assert_eq!(error.payment_status(), PaymentStatus::NotPaid, "{case}");
            assert_eq!(payments_sent(&seller), sent, "{case}");
            assert_eq!(warnings.lock().unwrap().len(), wrong[0], "{case}");
            assert!(purchases(&strict).await.is_empty(), "{case}");
        }
    }
}

#[tokio::test]
async fn an_unsigned_offer_is_paid_unless_the_policy_requires_signed_offers() {
    let seller = open(report()).await;
    let buy = async |policy: Policy| {
        let client = client(policy).build().unwrap();
        let bought = client.get(seller.url("/report")).send().await;
        bought.err().map(|error| error.denial().unwrap().rule)
    };
    assert_eq!(buy(policy()).await, None);
    assert_eq!(buy(strict()).await, Some(Rule::SignedOffer));
    let here = |host| policy().host_limits(host, |host| host.require_signed_offers());
    assert_eq!(buy(here("127.0.0.1")).await, Some(Rule::SignedOffer));
    assert_eq!(buy(here("api.example.com")).await, None);
    let except = strict().host_limits("127.0.0.1", |host| host.accept_unsigned_offers());
    assert_eq!(buy(except).await, None);
    let file = |setting: &str| {
        let head = "version = 1\nnetworks = [\"base-sepolia\"]\n";
        Policy::from_toml(&format!("{head}{setting}")).unwrap()
    };
    let global = "global.require_signed_offers = true\n";
    let host = "[[host]]\nmatch = \"127.0.0.1\"\nrequire_signed_offers";
    assert_eq!(buy(file(global)).await, Some(Rule::SignedOffer));
    assert_eq!(
        buy(file(&format!("{host} = true"))).await,
        Some(Rule::SignedOffer)
    );
    assert_eq!(buy(file(&format!("{global}{host} = false"))).await, None);
    assert_eq!(buy(file("")).await, None);
    assert_eq!(seller.settlements().len(), 5);
}

#[tokio::test]
async fn a_signature_by_a_key_that_is_not_the_payees_is_not_verified() {
    let stranger = bursar::primitives::Address::repeat_byte(0xaa);
    for (signer, name) in [(eip712(), "wrong"), (jws(), "unverified")] {
        let seller = open(signed(signer).pay_to(stranger)).await;
        let client = client(strict()).build().unwrap();
        assert_eq!(quoted(&client, &seller).await.name(), name);
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::SignedOffer);
    }
}

#[tokio::test]
async fn another_algorithm_is_not_verified() {
    let seller = open(signed(jws().algorithm("EdDSA"))).await;
    let client = client(strict()).build().unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    let message = &error.denial().unwrap().message;
    assert!(
        message.contains("algorithm `EdDSA` is not supported"),
        "{message}"
    );
}

#[tokio::test]
async fn the_query_of_a_signed_url_is_verified_and_not_kept() {
    for signer in [eip712(), jws()] {
        let seller = open(signed(signer)).await;
        let client = client(strict()).build().unwrap();
        let url = seller.url("/report?token=do-not-keep-me");
        let response = client.get(url).send().await.unwrap();
        assert!(response.receipt().unwrap().signature().is_verified());
        let kept = evidence(&client).await;
        assert_eq!(kept["offer_signature"]["result"], "verified");
        let omitted = &kept["terms"]["signedOffer"]["artifact"]["omitted"];
        assert!(omitted["keccak256"].is_string(), "{kept}");
        let ledger = format!("{:?} {kept}", purchases(&client).await);
        assert!(!ledger.contains("do-not-keep-me"), "{ledger}");
        // Of the encoded JWS, too.
        assert!(!ledger.contains("ZG8tbm90"), "{ledger}");
    }
}

/// The payee chooses the name of its key, and evidence goes to others.
#[tokio::test]
async fn neither_the_query_nor_a_signature_hides_in_the_name_of_the_key_of_a_jws() {
    let signature = "ab".repeat(65);
    for hidden in ["do-not-keep-me", &signature] {
        let signer = OfferSigner::jws(KEY, &format!("did:web:api.example.com#{hidden}"));
        let encoded = URL_SAFE_NO_PAD.encode(
            serde_json::json!({ "alg": "ES256K", "kid": format!("did:web:api.example.com#{hidden}") })
                .to_string(),
        );
        let seller = open(signed(signer)).await;
        let client = client(strict()).build().unwrap();
        let url = seller.url("/report?token=do-not-keep-me");
        let response = client.get(url).send().await.unwrap();
        assert!(response.receipt().unwrap().signature().is_verified());
        let kept = evidence(&client).await;
        let ledger = format!("{:?} {kept}", purchases(&client).await);
        assert!(!ledger.contains(hidden), "{ledger}");
        assert!(!ledger.contains(&encoded), "{ledger}");
        let receipt = &kept["answer"]["signed_receipt"];
        assert_eq!(receipt["verification"]["result"], "verified");
        assert!(
            receipt["artifact"]["omitted"]["keccak256"].is_string(),
            "{kept}"
        );
    }
}

#[tokio::test]
async fn remembered_terms_are_asked_for_again_when_their_signature_has_expired() {
    let clock = TestClock::default();
    let route = signed(eip712());
    let seller = Paywall::builder().route(route).clock(clock.clone());
    let seller = seller.start().await.unwrap();
    let policy = strict().remember_terms(10 * MINUTE);
    let client = client(policy).clock(clock.clone()).build().unwrap();
    let buy = async || {
        let request = client.get(seller.url("/report")).allow_duplicate();
        request.send().await.unwrap().payment_status()
    };
    let asked = || seller.requests().len() - payments_sent(&seller);
    assert_eq!(buy().await, PaymentStatus::Paid);
    assert_eq!((buy().await, asked()), (PaymentStatus::Paid, 1));
    clock.advance(MINUTE + SECOND);
    assert_eq!((buy().await, asked()), (PaymentStatus::Paid, 2));
    assert_eq!(seller.settlements().len(), 3);
}

#[tokio::test]
async fn a_payment_is_presented_again_by_the_signature_that_the_ledger_keeps() {
    for (signer, allowed) in [(Some(eip712()), true), (None, false)] {
        let route = report().idempotent().fault_once(Fault::DropAfterSettle);
        let route = match signer {
            Some(signer) => route.sign_offers(signer),
            None => route,
        };
        let seller = open(route).await;
        let retry = bursar::RetryPolicy {
            attempts: 1,
            ..bursar::RetryPolicy::default()
        };
        let first = client(policy()).retry_policy(retry).build().unwrap();
        let request = || PurchaseRequests::of(&seller);
        let lost = request().send(&first).await;
        assert_eq!(lost, Err(None));
        let payer = first.payer().unwrap().with_policy(strict()).unwrap();
        let second = bursar_tests::paywall::client_without_wallet()
            .payer(payer)
            .build()
            .unwrap();
        let again = request().send(&second).await;
        let expected = if allowed {
            Ok(true)
        } else {
            Err(Some(Rule::SignedOffer))
        };
        assert_eq!(again, expected);
        assert_eq!(seller.settlements().len(), 1);
    }
}

/// The same purchase, sent by several clients.
struct PurchaseRequests(bursar::Url);

impl PurchaseRequests {
    fn of(seller: &Paywall) -> Self {
        Self(seller.url("/report"))
    }

    /// Returns whether the receipt is verified, or the rule that denies.
    async fn send(self, client: &Client) -> Result<bool, Option<Rule>> {
        let sent = client.get(self.0).purchase_id("order-1").send().await;
        match sent {
            Ok(response) => Ok(response.receipt().unwrap().signature().is_verified()),
            Err(error) => Err(error.denial().map(|denial| denial.rule)),
        }
    }
}

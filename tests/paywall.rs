//! The paywall of `bursar_testing`: what it sells, what it refuses and how it misbehaves.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::LazyLock;
use std::task::Poll;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256, address, hex, keccak256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::ledger::{Filter, State};
use bursar::money::AssetRegistry;
use bursar::{
    Asset, Client, ErrorKind, Ledger, LocalSigner, Network, PaymentStatus, Policy, ResponseExt,
    RetryPolicy, Timestamp, usd,
};
use bursar_testing::{Authorization, Fault, Forgery, Paywall, Route};
use k256::ecdsa::SigningKey;
use k256::elliptic_curve::sec1::ToSec1Point;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

/// The moment that the vectors were signed at.
const NOW: u64 = 1_740_672_094;
const PAYEE: Address = address!("209693Bc6afc0C5328bA36FaF03C514EF312287C");

async fn open(route: Route) -> Paywall {
    Paywall::builder().route(route).start().await.unwrap()
}

/// A paywall whose time stands still.
async fn open_at_now(route: Route) -> Paywall {
    Paywall::builder()
        .route(route)
        .clock(|| Timestamp::from_secs(NOW))
        .start()
        .await
        .unwrap()
}

fn report() -> Route {
    Route::get("/report").price(usd!("0.01")).body("the report")
}

fn client() -> Client {
    Client::builder()
        .signer(LocalSigner::random().unwrap())
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .per_payment(usd!("0.05"))
                .circuit_breaker(Duration::from_secs(1), 100),
        )
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .retry_policy(RetryPolicy {
            initial_backoff: Duration::ZERO,
            ..RetryPolicy::default()
        })
        .build()
        .unwrap()
}

fn usdc() -> Asset {
    AssetRegistry::stablecoins()
        .find_symbol(Network::from_chain_id(84_532), "USDC")
        .unwrap()
        .clone()
}

/// A payment made by hand, to be made wrongly.
#[derive(Clone)]
struct Cheque {
    key: SigningKey,
    from: Address,
    to: Address,
    value: U256,
    valid_after: u64,
    valid_before: u64,
    nonce: B256,
}

impl Cheque {
    /// What the `/report` costs.
    fn new() -> Self {
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let point = key.verifying_key().as_affine().to_sec1_point(false);
        let from = Address::from_word(keccak256(&point.as_bytes()[1..]));
        let nonce = B256::repeat_byte(1);
        Self {
            key,
            from,
            to: PAYEE,
            value: U256::from(10_000),
            valid_after: 0,
            valid_before: NOW + 60,
            nonce,
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut cheque = Self::new();
        change(&mut cheque);
        cheque
    }

    fn signature(&self) -> Vec<u8> {
        let words = [
            keccak256(
                "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)",
            ),
            self.from.into_word(),
            self.to.into_word(),
            self.value.into(),
            U256::from(self.valid_after).into(),
            U256::from(self.valid_before).into(),
            self.nonce,
        ];
        let content = keccak256(words.concat());
        let digest = keccak256(
            [
                &[0x19, 1][..],
                usdc().domain_separator().as_slice(),
                content.as_slice(),
            ]
            .concat(),
        );
        let (signature, recovery) = self.key.sign_prehash_recoverable(digest.as_slice());
        [
            &signature.to_bytes()[..],
            &[27 + u8::from(recovery.is_y_odd())],
        ]
        .concat()
    }

    fn payload(&self) -> Value {
        json!({
            "authorization": {
                "from": self.from, "to": self.to, "value": self.value.to_string(),
                "validAfter": self.valid_after.to_string(), "validBefore": self.valid_before.to_string(),
                "nonce": self.nonce,
            },
            "signature": hex::encode_prefixed(self.signature()),
        })
    }

    fn v2(&self, required: &Value) -> Value {
        json!({ "x402Version": 2, "accepted": required["accepts"][0], "payload": self.payload() })
    }

    fn v1(&self) -> Value {
        json!({ "x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": self.payload() })
    }
}

fn encode(json: &Value) -> String {
    STANDARD.encode(json.to_string())
}

fn decode(response: &Response, header: &str) -> Value {
    serde_json::from_slice(&STANDARD.decode(&response.headers()[header]).unwrap()).unwrap()
}

/// reqwest alone. Made once, for that takes a while; it keeps no connection, because each test has
/// a runtime of its own.
fn http() -> &'static reqwest::Client {
    static HTTP: LazyLock<reqwest::Client> = LazyLock::new(|| {
        let builder = reqwest::Client::builder().pool_max_idle_per_host(0);
        builder
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap()
    });
    &HTTP
}

async fn get(paywall: &Paywall, path: &str) -> Response {
    http().get(paywall.url(path)).send().await.unwrap()
}

/// The terms of version 2.
async fn terms(paywall: &Paywall, path: &str) -> Value {
    decode(&get(paywall, path).await, "payment-required")
}

async fn try_pay(paywall: &Paywall, path: &str, payment: &Value) -> reqwest::Result<Response> {
    let header = if payment["x402Version"] == 1 {
        "x-payment"
    } else {
        "payment-signature"
    };
    http()
        .get(paywall.url(path))
        .header(header, encode(payment))
        .send()
        .await
}

async fn pay(paywall: &Paywall, path: &str, payment: &Value) -> Response {
    try_pay(paywall, path, payment).await.unwrap()
}

/// Takes the terms and pays them by hand, once.
async fn pay_report(route: Route) -> (Paywall, reqwest::Result<Response>) {
    let paywall = open_at_now(route).await;
    let payment = Cheque::new().v2(&terms(&paywall, "/report").await);
    let response = try_pay(&paywall, "/report", &payment).await;
    (paywall, response)
}

mod selling {
    use super::*;

    #[tokio::test]
    async fn version_2_has_its_terms_and_receipt_in_headers() {
        let paywall = open(report()).await;
        let challenge = get(&paywall, "/report?day=1").await;
        assert_eq!(challenge.status(), StatusCode::PAYMENT_REQUIRED);
        assert_eq!(challenge.headers()["cache-control"], "no-store");
        let terms = decode(&challenge, "payment-required");
        assert_eq!(
            terms["resource"]["url"],
            paywall.url("/report?day=1").as_str()
        );
        assert_eq!(
            terms["accepts"],
            json!([{
                "scheme": "exact", "network": "eip155:84532", "amount": "10000",
                "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "payTo": PAYEE.to_checksum(None),
                "maxTimeoutSeconds": 60, "extra": { "name": "USDC", "version": "2" },
            }])
        );
        assert_eq!(challenge.text().await.unwrap(), "{}");

        let client = client();
        let response = client.get(paywall.url("/report")).send().await.unwrap();
        let (paid, settled) = (
            response.payment().unwrap().clone(),
            paywall.settlements().remove(0),
        );
        assert_eq!(
            response.receipt().unwrap().transaction(),
            settled.transaction
        );
        assert_eq!(response.headers()["cache-control"], "private");
        assert_eq!(
            decode(&response, "payment-response")["network"],
            "eip155:84532"
        );
        let Authorization {
            from,
            to,
            value,
            valid_before,
            nonce,
            ..
        } = settled.authorization;
        assert_eq!(
            (from, to, value, valid_before, nonce),
            (
                paid.payer,
                PAYEE,
                U256::from(10_000),
                paid.valid_before,
                paid.nonce
            )
        );
        assert!(paywall.is_used(&usdc(), paid.payer, paid.nonce));
        assert_eq!(paywall.spent_by(paid.payer), U256::from(10_000));
        assert_eq!(response.text().await.unwrap(), "the report");
    }

    #[tokio::test]
    async fn version_1_has_its_terms_in_the_body() {
        let paywall = open(report().v1()).await;
        let challenge = get(&paywall, "/report").await;
        assert_eq!(challenge.status(), StatusCode::PAYMENT_REQUIRED);
        assert!(!challenge.headers().contains_key("payment-required"));
        let terms: Value = challenge.json().await.unwrap();
        assert_eq!(terms["x402Version"], 1);
        assert_eq!(terms["accepts"][0]["maxAmountRequired"], "10000");
        assert_eq!(terms["accepts"][0]["network"], "base-sepolia");

        let response = client().get(paywall.url("/report")).send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
        assert_eq!(
            decode(&response, "x-payment-response")["network"],
            "base-sepolia"
        );
        assert_eq!(paywall.settlements().len(), 1);
    }

    #[tokio::test]
    async fn both_versions_can_be_spoken_at_once() {
        let paywall = open_at_now(report().v1_and_v2()).await;
        let challenge = get(&paywall, "/report").await;
        assert_eq!(decode(&challenge, "payment-required")["x402Version"], 2);
        assert_eq!(challenge.json::<Value>().await.unwrap()["x402Version"], 1);

        let old = pay(&paywall, "/report", &Cheque::new().v1()).await;
        assert_eq!(decode(&old, "x-payment-response")["success"], true);
        let second = Cheque::with(|cheque| cheque.nonce = B256::repeat_byte(2));
        let new = pay(
            &paywall,
            "/report",
            &second.v2(&terms(&paywall, "/report").await),
        )
        .await;
        assert_eq!(decode(&new, "payment-response")["success"], true);
        assert_eq!(paywall.settlements().len(), 2);
    }

    #[tokio::test]
    async fn a_version_that_is_not_spoken_is_not_heard() {
        let paywall = open_at_now(report()).await;
        let response = pay(&paywall, "/report", &Cheque::new().v1()).await;
        assert_eq!(
            decode(&response, "payment-required")["error"],
            "Payment required"
        );
    }

    #[tokio::test]
    async fn a_post_is_echoed() {
        let paywall = open(Route::post("/echo").price(usd!("0.01")).echo()).await;
        let body = json!({ "question": "what?" });
        let response = client()
            .post(paywall.url("/echo"))
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.json::<Value>().await.unwrap(), body);

        let received = paywall.requests();
        assert_eq!(received.len(), 2);
        assert!(
            received
                .iter()
                .all(|request| request.method == "POST" && request.body == body.to_string())
        );
        assert!(received[0].payment.is_none());
        let payment = received[1].payment.as_ref().unwrap();
        assert_eq!(
            payment.authorization,
            Some(paywall.settlements()[0].authorization)
        );
    }

    #[tokio::test]
    async fn events_come_in_chunks() {
        let paywall = open(
            Route::get("/stream")
                .price(usd!("0.01"))
                .events(["one", "two"]),
        )
        .await;
        let mut response = client().get(paywall.url("/stream")).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.content_length(), None);
        let mut read = Vec::new();
        while let Some(chunk) = response.chunk().await.unwrap() {
            read.extend_from_slice(&chunk);
        }
        assert_eq!(read, b"data: one\n\ndata: two\n\n");
    }

    #[tokio::test]
    async fn some_things_are_free_and_some_are_not_there() {
        let paywall = Paywall::builder()
            .route(Route::get("/free").body("free").header("x-kind", "free"))
            .route(Route::get("/old").redirect("/free"))
            .route(Route::any("/all/*").status(204))
            .start()
            .await
            .unwrap();
        let response = client().get(paywall.url("/old")).send().await.unwrap();
        assert_eq!(
            (response.payment_status(), response.url().path()),
            (PaymentStatus::NotPaid, "/free")
        );
        assert_eq!(response.headers()["x-kind"], "free");
        assert_eq!(
            get(&paywall, "/all/of/it").await.status(),
            StatusCode::NO_CONTENT
        );
        assert_eq!(
            get(&paywall, "/nothing").await.status(),
            StatusCode::NOT_FOUND
        );
        let posted = client().post(paywall.url("/free")).send().await.unwrap();
        assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn offers_go_out_byte_for_byte() {
        let offers = [
            r#"{"scheme":"exact","amount":"1","amount":"2"}"#,
            r#"{"scheme": "upto"}"#,
            "7",
        ];
        let paywall = open(
            Route::get("/odd")
                .offers(offers)
                .challenge_header("x-server", "odd"),
        )
        .await;
        let response = get(&paywall, "/odd").await;
        assert_eq!(response.headers()["x-server"], "odd");
        let json = STANDARD
            .decode(&response.headers()["payment-required"])
            .unwrap();
        assert!(
            String::from_utf8(json)
                .unwrap()
                .contains(&format!(r#""accepts":[{}]"#, offers.join(",")))
        );
        let error = client().get(paywall.url("/odd")).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::NotPayable, PaymentStatus::NotPaid)
        );
    }

    #[tokio::test]
    async fn failed_work_is_not_charged_unless_it_was_paid_upfront() {
        let (paywall, response) = pay_report(report().status(500)).await;
        assert_eq!(
            response.unwrap().status(),
            StatusCode::INTERNAL_SERVER_ERROR
        );
        assert!(paywall.settlements().is_empty());

        let (paywall, response) = pay_report(report().status(500).upfront()).await;
        let response = response.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(decode(&response, "payment-response")["success"], true);
        assert_eq!(paywall.settlements().len(), 1);
        let terms = terms(&paywall, "/report").await;
        assert_eq!(terms["accepts"][0]["extra"]["paymentFlow"], "upfront");
    }

    #[tokio::test]
    async fn a_balance_runs_out() {
        let cheque = Cheque::new();
        let paywall = Paywall::builder()
            .route(report())
            .balance(cheque.from, 15_000)
            .balance(PAYEE, 0)
            .clock(|| Timestamp::from_secs(NOW))
            .start()
            .await
            .unwrap();
        let terms = terms(&paywall, "/report").await;
        assert_eq!(
            pay(&paywall, "/report", &cheque.v2(&terms)).await.status(),
            StatusCode::OK
        );
        assert_eq!(paywall.balance_of(cheque.from), Some(U256::from(5_000)));
        assert_eq!(paywall.balance_of(PAYEE), Some(U256::from(10_000)));
        assert_eq!(paywall.balance_of(Address::ZERO), None);
        let second = Cheque {
            nonce: B256::repeat_byte(2),
            ..cheque
        };
        let refused = pay(&paywall, "/report", &second.v2(&terms)).await;
        assert_eq!(
            decode(&refused, "payment-required")["error"],
            "invalid_exact_evm_insufficient_balance"
        );
    }

    #[tokio::test]
    async fn mistakes_are_told_at_the_start() {
        let coarse = Asset::new(
            Network::from_chain_id(84_532),
            PAYEE,
            "COARSE",
            2,
            "Coarse",
            "1",
        );
        for route in [
            report().header("not a name", "x"),
            report().status(7),
            report().offers(["{"]),
            report().asset(coarse).price(usd!("0.001")),
        ] {
            let error = Paywall::builder().route(route).start().await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("/report"), "{error}");
        }
    }

    #[tokio::test]
    async fn it_stops_when_dropped() {
        let paywall = open(Route::get("/free")).await;
        let url = paywall.url("/free");
        let kept_alive = reqwest::Client::new();
        kept_alive.get(url.clone()).send().await.unwrap();
        drop(paywall);
        // The tasks end when the runtime next looks at them; this test shares its only thread with them.
        tokio::task::yield_now().await;
        assert!(kept_alive.get(url.clone()).send().await.is_err());
        assert!(http().get(url).send().await.is_err());
    }

    #[tokio::test]
    async fn debug_shows_no_signature() {
        let (paywall, response) = pay_report(report()).await;
        response.unwrap();
        let payment = paywall.requests().remove(1).payment.unwrap();
        let signature = payment.json.as_ref().unwrap()["payload"]["signature"]
            .as_str()
            .unwrap()
            .to_owned();
        let shown = format!("{paywall:?} {:?}", paywall.requests());
        assert!(shown.contains("Authorization"), "{shown}");
        assert!(
            !shown.contains(&signature) && !shown.contains(&payment.header),
            "{shown}"
        );
    }
}

mod verification {
    use super::*;

    type Change = Box<dyn FnOnce(&mut Value)>;

    /// What an honest payment becomes by `change`, and why it is refused.
    async fn refusal(route: Route, change: impl FnOnce(&mut Value), cheque: Cheque) -> String {
        let v1 = get(&open_at_now(route.clone()).await, "/report")
            .await
            .headers()
            .get("payment-required")
            .is_none();
        let paywall = open_at_now(route).await;
        let mut payment = if v1 {
            cheque.v1()
        } else {
            cheque.v2(&terms(&paywall, "/report").await)
        };
        change(&mut payment);
        let response = pay(&paywall, "/report", &payment).await;
        assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
        assert!(paywall.settlements().is_empty());
        let terms = if v1 {
            response.json().await.unwrap()
        } else {
            decode(&response, "payment-required")
        };
        assert!(
            terms["accepts"][0].is_object(),
            "a refusal states the terms again"
        );
        terms["error"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn what_the_cheque_says_is_checked() {
        let value = "invalid_exact_evm_payload_authorization_value_mismatch";
        let before = "invalid_exact_evm_payload_authorization_valid_before";
        let after = "invalid_exact_evm_payload_authorization_valid_after";
        for (cheque, reason) in [
            (
                Cheque::with(|cheque| cheque.to = Address::ZERO),
                "invalid_exact_evm_recipient_mismatch",
            ),
            (
                Cheque::with(|cheque| cheque.value = U256::from(9_999)),
                value,
            ),
            (
                Cheque::with(|cheque| cheque.value = U256::from(10_001)),
                value,
            ),
            (Cheque::with(|cheque| cheque.valid_before = NOW + 5), before),
            (Cheque::with(|cheque| cheque.valid_after = NOW + 1), after),
            (
                Cheque::with(|cheque| cheque.from = PAYEE),
                "invalid_exact_evm_signature",
            ),
        ] {
            assert_eq!(refusal(report(), |_| {}, cheque.clone()).await, reason);
            let v1 = if reason == value {
                "invalid_exact_evm_authorization_value"
            } else {
                reason
            };
            assert_eq!(refusal(report().v1(), |_| {}, cheque).await, v1);
        }
        for cheque in [
            Cheque::with(|cheque| cheque.valid_before = NOW + 6),
            Cheque::with(|cheque| cheque.valid_after = NOW),
        ] {
            let paywall = open_at_now(report()).await;
            let payment = cheque.v2(&terms(&paywall, "/report").await);
            assert_eq!(
                pay(&paywall, "/report", &payment).await.status(),
                StatusCode::OK
            );
        }
    }

    #[tokio::test]
    async fn what_is_around_the_cheque_is_checked() {
        let unmatched = "No matching payment requirements";
        let signature = "/payload/signature";
        let set = |pointer: &'static str, value: Value| {
            move |payment: &mut Value| *payment.pointer_mut(pointer).unwrap() = value
        };
        let cases: [(Change, &str); 8] = [
            (
                Box::new(set("/x402Version", json!(3))),
                "invalid_x402_version",
            ),
            (Box::new(set("/accepted/amount", json!("1"))), unmatched),
            (
                Box::new(set("/accepted/maxTimeoutSeconds", json!(61))),
                unmatched,
            ),
            (
                Box::new(set("/accepted/extra/name", json!("Evil"))),
                unmatched,
            ),
            (
                Box::new(|payment| payment["accepted"]["more"] = json!(1)),
                unmatched,
            ),
            (
                Box::new(set("/payload/authorization/nonce", json!("0x01"))),
                "invalid_payload",
            ),
            (
                Box::new(set("/payload/authorization/value", json!(10_000))),
                "invalid_payload",
            ),
            (
                Box::new(set(signature, json!("0x00"))),
                "invalid_exact_evm_failed_to_parse_signature",
            ),
        ];
        for (change, reason) in cases {
            assert_eq!(refusal(report(), change, Cheque::new()).await, reason);
        }
        let network = set("/network", json!("base"));
        assert_eq!(
            refusal(report().v1(), network, Cheque::new()).await,
            unmatched
        );
        let paywall = open_at_now(report()).await;
        let mut added = Cheque::new().v2(&terms(&paywall, "/report").await);
        added["accepted"]["extra"]["more"] = json!(1);
        assert_eq!(
            pay(&paywall, "/report", &added).await.status(),
            StatusCode::OK,
            "extra may be added to"
        );
    }

    #[tokio::test]
    async fn a_header_that_cannot_be_read_is_refused() {
        let paywall = open(report()).await;
        for header in ["%%%", "bm8=", ""] {
            let request = http()
                .get(paywall.url("/report"))
                .header("payment-signature", header);
            let response = request.send().await.unwrap();
            assert_eq!(
                decode(&response, "payment-required")["error"],
                "invalid_payload"
            );
        }
    }

    #[tokio::test]
    async fn a_wrong_domain_is_the_sellers_mistake() {
        let offer = |extra: &str| {
            Route::get("/report").offers([format!(
                r#"{{"scheme":"exact","network":"eip155:84532","amount":"10000","asset":"{}","payTo":"{PAYEE}",
                    "maxTimeoutSeconds":60{extra}}}"#,
                usdc().address()
            )])
        };
        let missing = refusal(offer(""), |_| {}, Cheque::new()).await;
        assert_eq!(missing, "invalid_exact_evm_missing_eip712_domain");
        let other = offer(r#","extra":{"name":"USD Coin","version":"2"}"#);
        assert_eq!(
            refusal(other, |_| {}, Cheque::new()).await,
            "invalid_exact_evm_signature"
        );
    }

    #[tokio::test]
    async fn extensions_are_echoed_or_left_out() {
        let route = report().extension("note", json!({ "info": { "text": "keep" } }));
        let paywall = open_at_now(route.clone()).await;
        assert_eq!(
            client_at_now()
                .get(paywall.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            PaymentStatus::Paid
        );
        let changed = |payment: &mut Value| {
            payment["extensions"] = json!({ "note": { "info": { "text": "lose" } } })
        };
        assert_eq!(
            refusal(route, changed, Cheque::new()).await,
            "extension_echo_mismatch"
        );
    }

    fn client_at_now() -> Client {
        Client::builder()
            .signer(LocalSigner::random().unwrap())
            .policy(
                Policy::new()
                    .allow_network("base-sepolia")
                    .per_payment(usd!("0.05")),
            )
            .ledger(Ledger::memory())
            .clock(|| Timestamp::from_secs(NOW))
            .allow_http_loopback(true)
            .build()
            .unwrap()
    }

    /// Every payment of the official clients, for every token they know.
    #[tokio::test]
    async fn official_payments_are_accepted() {
        let v2: Vec<Value> =
            serde_json::from_str(include_str!("vectors/exact_v2_default_assets.json")).unwrap();
        let v1: Vec<Value> = serde_json::from_str(include_str!("vectors/exact_v1.json")).unwrap();
        let mut accepted = 0;
        for vector in v2
            .iter()
            .filter(|vector| vector["method"] == "eip3009")
            .chain(&v1)
        {
            let required = vector
                .get("paymentRequired")
                .unwrap_or(&vector["paymentRequiredBody"]);
            let offers = required["accepts"]
                .as_array()
                .unwrap()
                .iter()
                .map(Value::to_string);
            let route = Route::get("/report").offers(offers);
            let route = if required["x402Version"] == 1 {
                route.v1()
            } else {
                route
            };
            let paywall = open_at_now(route).await;
            let header = vector["headerName"].as_str().unwrap();
            let value = vector["headerValue"].as_str().unwrap();
            let request = http().get(paywall.url("/report")).header(header, value);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{}", required["accepts"]);
            assert_eq!(
                paywall.settlements()[0].authorization.valid_before,
                NOW + 60
            );
            accepted += 1;
        }
        assert!(accepted > 30, "{accepted}");
    }
}

mod replay {
    use super::*;

    #[tokio::test]
    async fn a_used_nonce_is_refused() {
        let paywall = open_at_now(report()).await;
        let payment = Cheque::new().v2(&terms(&paywall, "/report").await);
        assert_eq!(
            pay(&paywall, "/report", &payment).await.status(),
            StatusCode::OK
        );
        let refused = pay(&paywall, "/report", &payment).await;
        assert_eq!(
            decode(&refused, "payment-required")["error"],
            "invalid_exact_evm_nonce_already_used"
        );
        assert_eq!(paywall.settlements().len(), 1);
    }

    #[tokio::test]
    async fn an_idempotent_seller_answers_again() {
        let paywall = open_at_now(report().idempotent()).await;
        let terms = terms(&paywall, "/report").await;
        let payment = Cheque::new().v2(&terms);
        let first = pay(&paywall, "/report", &payment).await;
        let again = pay(&paywall, "/report", &payment).await;
        assert_eq!(
            first.headers()["payment-response"],
            again.headers()["payment-response"]
        );
        assert_eq!(again.text().await.unwrap(), "the report");
        let later = Cheque::with(|cheque| cheque.valid_before += 1);
        assert_eq!(
            pay(&paywall, "/report", &later.v2(&terms)).await.status(),
            StatusCode::PAYMENT_REQUIRED
        );
        assert_eq!(paywall.settlements().len(), 1);
    }

    #[tokio::test]
    async fn a_payment_identifier_stands_for_one_payment() {
        let paywall = open_at_now(report().payment_identifier(true)).await;
        let terms = terms(&paywall, "/report").await;
        let under = |cheque: &Cheque, id: &str| {
            let mut payment = cheque.v2(&terms);
            payment["extensions"] = terms["extensions"].clone();
            payment["extensions"]["payment-identifier"]["info"]["id"] = id.into();
            payment
        };
        let (first, second) = (
            Cheque::new(),
            Cheque::with(|cheque| cheque.nonce = B256::repeat_byte(2)),
        );
        for (payment, status) in [
            (first.v2(&terms), StatusCode::BAD_REQUEST),
            (under(&first, "short"), StatusCode::BAD_REQUEST),
            (under(&first, "pay_0123456789abcdef"), StatusCode::OK),
            (under(&first, "pay_0123456789abcdef"), StatusCode::OK),
            (under(&second, "pay_0123456789abcdef"), StatusCode::CONFLICT),
            (under(&second, "pay_fedcba9876543210"), StatusCode::OK),
        ] {
            assert_eq!(
                pay(&paywall, "/report", &payment).await.status(),
                status,
                "{payment}"
            );
        }
        assert_eq!(paywall.settlements().len(), 2);
    }

    #[tokio::test]
    async fn the_client_names_its_purchase() {
        let paywall = open(report().payment_identifier(true)).await;
        assert_eq!(
            client()
                .get(paywall.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            PaymentStatus::Paid
        );
        let id = paywall.requests()[1]
            .payment
            .as_ref()
            .unwrap()
            .identifier()
            .unwrap()
            .to_owned();
        assert!(id.starts_with("pay_"), "{id}");
    }
}

mod faults {
    use super::*;

    /// What a hand-made payment gets from a seller with this fault, and how much was settled.
    async fn answer(fault: Fault) -> (Response, usize) {
        let (paywall, response) = pay_report(report().fault(fault)).await;
        (response.unwrap(), paywall.settlements().len())
    }

    /// What the client makes of it, and how much was settled.
    async fn outcome(fault: Fault) -> (Result<PaymentStatus, (ErrorKind, PaymentStatus)>, usize) {
        let paywall = open(report().fault(fault)).await;
        let outcome = client().get(paywall.url("/report")).send().await;
        let outcome = outcome
            .map(|response| response.payment_status())
            .map_err(|error| (error.kind(), error.payment_status()));
        (outcome, paywall.settlements().len())
    }

    #[tokio::test]
    async fn drop_after_settle() {
        let (paywall, response) = pay_report(report().fault(Fault::DropAfterSettle)).await;
        assert!(response.is_err());
        assert_eq!(paywall.settlements().len(), 1);
        assert_eq!(
            outcome(Fault::DropAfterSettle).await,
            (Err((ErrorKind::Transport, PaymentStatus::MaybePaid)), 1)
        );
    }

    #[tokio::test]
    async fn a_lost_answer_is_fetched_without_paying_again() {
        let paywall = open(report().idempotent().fault_once(Fault::DropAfterSettle)).await;
        let client = client();
        let send = || client.get(paywall.url("/report")).purchase_id("one").send();
        assert_eq!(send().await.unwrap().text().await.unwrap(), "the report");
        assert_eq!(paywall.settlements().len(), 1);
    }

    #[tokio::test]
    async fn hang_after_settle() {
        let paywall = open(report().fault(Fault::HangAfterSettle)).await;
        let client = client();
        tokio::select! {
            answer = client.get(paywall.url("/report")).send() => panic!("{answer:?}"),
            () = paywall.wait_for_settlements(1) => {}
        }
        let purchases = client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap();
        assert_eq!(
            purchases[0].state,
            State::Unresolved,
            "the caller went away after the payment had left"
        );
    }

    #[tokio::test]
    async fn server_error_after_settle() {
        let (response, settled) = answer(Fault::ServerErrorAfterSettle).await;
        assert_eq!((response.status(), settled), (StatusCode::BAD_GATEWAY, 1));
        assert!(!response.headers().contains_key("payment-response"));
        assert_eq!(
            outcome(Fault::ServerErrorAfterSettle).await,
            (Ok(PaymentStatus::MaybePaid), 1)
        );
    }

    #[tokio::test]
    async fn broken_body_after_settle() {
        let (mut response, settled) = answer(Fault::BrokenBodyAfterSettle).await;
        assert_eq!((response.status(), settled), (StatusCode::OK, 1));
        assert_eq!(decode(&response, "payment-response")["success"], true);
        assert_eq!(response.chunk().await.unwrap().unwrap(), "the r");
        assert!(response.chunk().await.is_err());
    }

    #[tokio::test]
    async fn no_receipt_or_one_that_proves_nothing() {
        let (response, settled) = answer(Fault::NoReceipt).await;
        assert_eq!((response.status(), settled), (StatusCode::OK, 1));
        assert!(!response.headers().contains_key("payment-response"));

        let (response, settled) = answer(Fault::MalformedReceipt).await;
        assert_eq!((response.status(), settled), (StatusCode::OK, 1));
        assert!(
            STANDARD
                .decode(&response.headers()["payment-response"])
                .is_err()
        );

        for (forgery, field, value) in [
            (
                Forgery::Payer,
                "payer",
                json!(Address::repeat_byte(0xde).to_checksum(None)),
            ),
            (Forgery::Network, "network", json!("eip155:1")),
            (Forgery::NoTransaction, "transaction", json!("")),
        ] {
            let (response, settled) = answer(Fault::ForgedReceipt(forgery)).await;
            assert_eq!((response.status(), settled), (StatusCode::OK, 1));
            let receipt = decode(&response, "payment-response");
            assert_eq!(
                (&receipt["success"], &receipt[field]),
                (&json!(true), &value)
            );
            assert_eq!(
                outcome(Fault::ForgedReceipt(forgery)).await,
                (Ok(PaymentStatus::MaybePaid), 1)
            );
        }
        assert_eq!(
            outcome(Fault::NoReceipt).await,
            (Ok(PaymentStatus::MaybePaid), 1)
        );
        assert_eq!(
            outcome(Fault::MalformedReceipt).await,
            (Ok(PaymentStatus::MaybePaid), 1)
        );
    }

    #[tokio::test]
    async fn settlement_fails_truly_or_by_the_sellers_word() {
        for (fault, moved) in [
            (Fault::SettlementFailure, 0),
            (Fault::ForgedReceipt(Forgery::Failure), 1),
        ] {
            let (response, settled) = answer(fault.clone()).await;
            assert_eq!(
                (response.status(), settled),
                (StatusCode::PAYMENT_REQUIRED, moved)
            );
            assert!(!response.headers().contains_key("payment-required"));
            let receipt = decode(&response, "payment-response");
            assert_eq!(
                (&receipt["success"], &receipt["transaction"]),
                (&json!(false), &json!(""))
            );
            assert_eq!(
                outcome(fault).await,
                (
                    Err((ErrorKind::SettlementFailed, PaymentStatus::MaybePaid)),
                    moved
                )
            );
        }
        let paywall = open_at_now(report().v1().fault(Fault::SettlementFailure)).await;
        let response = pay(&paywall, "/report", &Cheque::new().v1()).await;
        let reason = decode(&response, "x-payment-response")["errorReason"].clone();
        assert_eq!(
            response.json::<Value>().await.unwrap()["error"],
            reason,
            "version 1 states its terms again"
        );
    }

    #[tokio::test]
    async fn settlement_pending() {
        let (paywall, response) = pay_report(report().fault(Fault::SettlementPending)).await;
        let response = response.unwrap();
        assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
        let receipt = decode(&response, "payment-response");
        assert_eq!(receipt["errorReason"], "settlement_pending");
        assert_eq!(
            receipt["transaction"],
            paywall.settlements()[0].transaction.to_string()
        );
        let pending = Err((ErrorKind::SettlementPending, PaymentStatus::MaybePaid));
        assert_eq!(outcome(Fault::SettlementPending).await, (pending, 1));
    }

    #[tokio::test]
    async fn reject_again() {
        let (response, settled) = answer(Fault::RejectAgain).await;
        assert_eq!(
            (response.status(), settled),
            (StatusCode::PAYMENT_REQUIRED, 0)
        );
        assert_eq!(
            decode(&response, "payment-required")["accepts"][0]["amount"],
            "20000"
        );
        assert_eq!(
            outcome(Fault::RejectAgain).await,
            (Err((ErrorKind::Rejected, PaymentStatus::MaybePaid)), 0)
        );

        let paywall = open(report().fault_once(Fault::RejectAgain)).await;
        let response = client()
            .get(paywall.url("/report"))
            .accept_new_terms()
            .send()
            .await
            .unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
        assert_eq!(
            paywall.settlements()[0].authorization.value,
            U256::from(20_000)
        );
        let nonces: Vec<B256> = paywall
            .requests()
            .iter()
            .filter_map(|request| Some(request.payment.as_ref()?.authorization?.nonce))
            .collect();
        assert_eq!(nonces.len(), 2);
        assert_eq!(nonces[0], nonces[1], "one purchase has one nonce");
    }

    #[tokio::test]
    async fn redirect_after_payment() {
        let other = open(Route::any("/*").body("caught")).await;
        let fault = Fault::RedirectAfterPayment(other.url("/catch"));
        let (response, settled) = answer(fault.clone()).await;
        assert_eq!(
            (response.status(), settled),
            (StatusCode::TEMPORARY_REDIRECT, 0)
        );
        assert_eq!(response.headers()["location"], other.url("/catch").as_str());
        assert_eq!(outcome(fault).await, (Ok(PaymentStatus::MaybePaid), 0));
        assert!(other.requests().is_empty(), "the payment must not go along");
    }

    #[tokio::test]
    async fn huge_body() {
        const SIZE: usize = 3 << 20;
        let paywall = open(report().v1().fault(Fault::HugeBody402(SIZE))).await;
        let body = get(&paywall, "/report").await.bytes().await.unwrap();
        assert_eq!(body.len(), SIZE);
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap()["x402Version"],
            1
        );
        let error = client()
            .get(paywall.url("/report"))
            .send()
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Malformed, PaymentStatus::NotPaid)
        );
        assert_eq!(
            outcome(Fault::HugeBody402(SIZE)).await,
            (Ok(PaymentStatus::Paid), 1),
            "version 2 needs no body"
        );
    }

    #[tokio::test]
    async fn hanging_body() {
        let paywall = open(report().v1().fault(Fault::HangingBody402)).await;
        let mut response = get(&paywall, "/report").await;
        assert!(response.chunk().await.unwrap().unwrap().starts_with(b"{"));
        let mut next = pin!(response.chunk());
        assert!(poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await);

        let limit = Duration::from_millis(50);
        let hasty = Client::builder()
            .answer_timeout(limit)
            .allow_http_loopback(true)
            .build()
            .unwrap();
        let error = hasty.get(paywall.url("/report")).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Timeout, PaymentStatus::NotPaid)
        );
        assert_eq!(
            outcome(Fault::HangingBody402).await,
            (Ok(PaymentStatus::Paid), 1),
            "version 2 needs no body"
        );
    }

    #[tokio::test]
    async fn huge_header() {
        const SIZE: usize = 100_000;
        let paywall = open(report().fault(Fault::HugeHeader(SIZE))).await;
        let response = get(&paywall, "/report").await;
        assert_eq!(response.headers()["payment-required"].len(), SIZE);
        assert_eq!(decode(&response, "payment-required")["x402Version"], 2);
        assert_eq!(
            outcome(Fault::HugeHeader(SIZE)).await,
            (Err((ErrorKind::Malformed, PaymentStatus::NotPaid)), 0)
        );
        let old = open(report().v1().fault(Fault::HugeHeader(SIZE))).await;
        assert_eq!(
            get(&old, "/report").await.headers()["x-padding"].len(),
            SIZE
        );
    }

    #[tokio::test]
    async fn faults_come_one_after_the_other_and_end() {
        let route = report()
            .fault_once(Fault::NoReceipt)
            .fault_once(Fault::ServerErrorAfterSettle);
        let paywall = open(route.fault(Fault::DropAfterSettle)).await;
        let client = client();
        let send = || client.get(paywall.url("/report")).allow_duplicate().send();
        assert_eq!(send().await.unwrap().status(), StatusCode::OK);
        assert_eq!(send().await.unwrap().status(), StatusCode::BAD_GATEWAY);
        assert!(send().await.is_err());
        assert!(send().await.is_err());
        paywall.reform();
        assert_eq!(send().await.unwrap().payment_status(), PaymentStatus::Paid);
        assert_eq!(paywall.settlements().len(), 5);
    }

    #[tokio::test]
    async fn only_valid_payments_are_betrayed() {
        let paywall = open_at_now(report().fault_once(Fault::DropAfterSettle)).await;
        let wrong =
            Cheque::with(|cheque| cheque.to = Address::ZERO).v2(&terms(&paywall, "/report").await);
        assert_eq!(
            pay(&paywall, "/report", &wrong).await.status(),
            StatusCode::PAYMENT_REQUIRED
        );
        let right = Cheque::new().v2(&terms(&paywall, "/report").await);
        assert!(try_pay(&paywall, "/report", &right).await.is_err());
    }
}

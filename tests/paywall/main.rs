//! The paywall of `bursar_testing`: the content that it sells, the payments that it refuses, and its faults.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod faults;
mod openai;
mod permits;
mod replay;
mod selling;
mod verification;

use std::sync::LazyLock;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256, address, hex, keccak256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::{Client, Timestamp};
use bursar_testing::{Paywall, Route};
use bursar_tests::paywall;
use bursar_tests::tokens::usdc;
use k256::ecdsa::SigningKey;
use k256::elliptic_curve::sec1::ToSec1Point;
use reqwest::Response;
use serde_json::{Value, json};

/// The moment that the vectors were signed at.
const NOW: u64 = 1_740_672_094;
const PAYEE: Address = address!("209693Bc6afc0C5328bA36FaF03C514EF312287C");

/// A paywall whose time stands still.
async fn open_at_now(route: Route) -> Paywall {
    Paywall::builder()
        .route(route)
        .clock(|| Timestamp::from_secs(NOW))
        .start()
        .await
        .unwrap()
}

/// Returns a client that no circuit breaker stops, because these sellers fail again and again.
fn client() -> Client {
    paywall::client()
        .policy(paywall::policy().circuit_breaker(Duration::from_secs(1), 100))
        .build()
        .unwrap()
}

/// A payment made by hand, to be made wrongly.
#[derive(Clone)]
struct Payment {
    key: SigningKey,
    from: Address,
    to: Address,
    value: U256,
    valid_after: u64,
    valid_before: u64,
    nonce: B256,
}

impl Payment {
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
        let mut payment = Self::new();
        change(&mut payment);
        payment
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
                usdc("base-sepolia").domain_separator().as_slice(),
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
    let payment = Payment::new().v2(&terms(&paywall, "/report").await);
    let response = try_pay(&paywall, "/report", &payment).await;
    (paywall, response)
}

//! Answers of the proxy itself: errors in the form of the command, and the headers about a payment.
//!
//! | status | meaning | money |
//! |---|---|---|
//! | 402 | the policy denied the payment | not paid |
//! | 424 | a payment was signed, and the answer failed | may be paid, or paid |
//! | 422 | the purchase id cannot be used for this request | not paid |
//! | 502, 504 | the target failed | not paid |
//!
//! SDKs repeat 408, 409, 429 and 5xx by themselves. None of these says that money may have moved.

use std::time::Duration;

use bursar::ledger::PurchaseKey;
use bursar::reqwest::header::{
    CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use bursar::reqwest::{self, StatusCode};
use bursar::text::json;
use bursar::{
    Client, Error, ErrorKind, PaymentStatus, Purchase, PurchaseId, Receipt, ResponseExt,
    SignedPayment, TokenAmount,
};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use serde_json::{Value, json as value};
use tokio::time::timeout;

use crate::outcome::Outcome;
use crate::payment::{amount as purchase_amount, prefix, signed_amount, up_to};
use crate::problem::Problem;

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, reqwest::Error>;

/// The largest part of a failed answer's body that an error repeats, in bytes.
const SHOWN: usize = 64 * 1024;
/// How long the proxy reads it. A program must learn of a payment also if the body never ends.
const READ: Duration = Duration::from_secs(5);

const STATUS: HeaderName = HeaderName::from_static("bursar-payment-status");
const ERROR: HeaderName = HeaderName::from_static("bursar-error");
const AMOUNT: HeaderName = HeaderName::from_static("bursar-amount");
const USD: HeaderName = HeaderName::from_static("bursar-amount-usd");
const CHARGED: HeaderName = HeaderName::from_static("bursar-charged");
const NETWORK: HeaderName = HeaderName::from_static("bursar-network");
const PURCHASE: HeaderName = HeaderName::from_static("bursar-purchase-id");
const TRANSACTION: HeaderName = HeaderName::from_static("bursar-transaction");
const API_KEY: HeaderName = HeaderName::from_static("bursar-api-key");
const API_COST: HeaderName = HeaderName::from_static("bursar-api-cost-usd");
/// The official SDKs of OpenAI and Anthropic read it.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// A request that the proxy does not send.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
        }
    }

    pub(super) fn answer(self) -> Response<Body> {
        let payment = PaymentStatus::NotPaid;
        let message = format!("{}: {}", prefix(payment), self.message);
        let outcome = Outcome {
            error: Some(Problem::new(self.kind, message)),
            ..Outcome::empty(payment)
        };
        let mut answer = failed(self.status, &outcome, None);
        if self.status == StatusCode::UNAUTHORIZED {
            set(
                &mut answer,
                WWW_AUTHENTICATE,
                "Bearer realm=\"bursar proxy\"",
            );
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            // Nothing was sent, and the next moment is another one.
            answer.headers_mut().remove(SHOULD_RETRY);
            set(&mut answer, RETRY_AFTER, "1");
        }
        answer
    }
}

/// Facts about the end of a call, for logs and metrics.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) payment: PaymentStatus,
    pub(super) purchase: Option<PurchaseId>,
    pub(super) amount: Option<String>,
    pub(super) transaction: Option<String>,
    pub(super) error: Option<&'static str>,
    pub(super) message: Option<String>,
}

/// Returns the answer of the proxy with a text.
pub(super) fn text(
    status: StatusCode,
    kind: &'static str,
    text: impl Into<Bytes>,
) -> Response<Body> {
    let full = Full::new(text.into()).map_err(|never| match never {});
    let mut answer = Response::new(full.boxed_unsync());
    *answer.status_mut() = status;
    set(&mut answer, CONTENT_TYPE, kind);
    answer
}

/// Returns a message with the headers and options of the proxy in place of the settings of the library.
fn for_program(message: &str) -> String {
    message
        .replace(
            "`allow_duplicate`",
            "the header `bursar-allow-duplicate: true`",
        )
        .replace(
            "the client denies private networks",
            "the proxy was started without --allow-private-networks",
        )
        .replace(
            "set --timeout",
            "set --answer-timeout, --timeout or the `timeout` of the route",
        )
}

/// Returns an answer for an error, in the form of `bursar pay --json`, which SDKs of OpenAI and of others read too.
fn failed(status: StatusCode, outcome: &Outcome, purchase: Option<&PurchaseId>) -> Response<Body> {
    let kind = outcome.error.as_ref().map_or("failed", |error| error.kind);
    let mut body = serde_json::to_value(outcome).unwrap_or_default();
    if let Some(members) = body.as_object_mut() {
        let purchase = purchase.map_or(Value::Null, |id| value!(id.as_str()));
        members.insert("type".to_owned(), value!("error"));
        members.insert("purchase_id".to_owned(), purchase);
    }
    if let Some(error) = body.get_mut("error").and_then(Value::as_object_mut) {
        error.insert("type".to_owned(), value!("bursar"));
        error.insert("code".to_owned(), value!(kind));
        error.insert("param".to_owned(), Value::Null);
    }
    let body = json(&body).unwrap_or_default();
    let mut answer = text(status, "application/json", body);
    set(&mut answer, ERROR, kind);
    set(&mut answer, STATUS, outcome.payment.name());
    set(&mut answer, SHOULD_RETRY, "false");
    answer
}

/// Returns the answer to a request that ended in an error.
pub(super) async fn of_error(error: &Error, client: &Client) -> (Response<Body>, Ended) {
    let purchase = purchase(error, client).await;
    let mut outcome = Outcome::of_error(error, purchase.as_ref());
    if let Some(problem) = &mut outcome.error {
        problem.message = for_program(&problem.message);
    }
    let payment = error.payment_status();
    let mut answer = failed(status_of(error), &outcome, error.purchase_id());
    if may_repeat(error) {
        answer.headers_mut().remove(SHOULD_RETRY);
    }
    let headers = answer.headers_mut();
    if let Some(id) = error.purchase_id() {
        put(headers, PURCHASE, id.as_str());
    }
    let amount = match (error.payment(), &purchase) {
        (Some(signed), _) => Some(describe(headers, signed, error.receipt())),
        (None, Some(purchase)) => {
            let amount = up_to(purchase_amount(purchase), purchase.payment_method);
            put(headers, AMOUNT, &amount);
            put(headers, NETWORK, &purchase.network.to_string());
            Some(amount)
        }
        (None, None) => None,
    };
    let ended = Ended {
        payment,
        purchase: error.purchase_id().cloned(),
        amount,
        transaction: error
            .receipt()
            .map(|receipt| receipt.transaction().to_string()),
        error: Some(error.kind().name()),
        message: outcome.error.map(|problem| problem.message),
    };
    (answer, ended)
}

/// Returns the answer for an answer of the target that the program must not take for the goods, or for its own to handle.
pub(super) async fn of_failure(
    mut response: reqwest::Response,
    status: StatusCode,
) -> (Response<Body>, Ended) {
    let mut outcome = Outcome::of_response(&response);
    let payment = outcome.payment;
    if let Some(target) = response.redirect_place() {
        let message = format!(
            "{}: the answer is {}, a redirect that the proxy does not follow: {target}",
            prefix(payment),
            response.status()
        );
        outcome.error = Some(Problem::new("redirect", message));
    } else if let Some(problem) = &mut outcome.error {
        problem.message = for_program(&problem.message);
    }
    let mut shown = Vec::new();
    let read = async {
        while shown.len() < SHOWN
            && let Ok(Some(piece)) = response.chunk().await
        {
            shown.extend_from_slice(&piece);
        }
    };
    // The part that came is shown if the time is over.
    drop(timeout(READ, read).await);
    shown.truncate(SHOWN);
    outcome.body = String::from_utf8_lossy(&shown).into_owned();
    let signed = response.payment().cloned();
    let purchase = signed.as_ref().map(|signed| signed.purchase.clone());
    let mut answer = failed(status, &outcome, purchase.as_ref());
    let mut ended = describe_response(answer.headers_mut(), &response);
    ended.error = outcome.error.as_ref().map(|error| error.kind);
    ended.message = outcome.error.map(|error| error.message);
    (answer, ended)
}

/// Adds the headers about the payment of an answer.
pub(super) fn describe_response(headers: &mut HeaderMap, response: &reqwest::Response) -> Ended {
    let payment = response.payment_status();
    put(headers, STATUS, payment.name());
    let signed = response.payment();
    let receipt = response.receipt();
    let amount = signed.map(|signed| describe(headers, signed, receipt));
    if let Some(call) = response.api_call() {
        put(headers, API_KEY, call.credential());
        put(headers, API_COST, &call.cost().to_string());
    }
    Ended {
        payment,
        purchase: signed.map(|signed| signed.purchase.clone()),
        amount,
        transaction: receipt.map(|receipt| receipt.transaction().to_string()),
        error: None,
        message: None,
    }
}

/// Adds the headers about a signed payment. Returns its amount.
fn describe(headers: &mut HeaderMap, signed: &SignedPayment, receipt: Option<&Receipt>) -> String {
    let amount = signed_amount(signed);
    put(headers, AMOUNT, &amount);
    if let Some(usd) = TokenAmount::dollars(&signed.amount) {
        put(headers, USD, &usd.to_string());
    }
    put(headers, NETWORK, &signed.network().to_string());
    put(headers, PURCHASE, signed.purchase.as_str());
    if let Some(receipt) = receipt {
        put(headers, TRANSACTION, &receipt.transaction().to_string());
        if let Some(charged) = receipt.charged().filter(|_| signed.is_ceiling()) {
            put(headers, CHARGED, &charged.to_string());
        }
    }
    amount
}

/// Returns the purchase of a request that failed after its signature.
async fn purchase(error: &Error, client: &Client) -> Option<Purchase> {
    let id = error
        .purchase_id()
        .filter(|_| error.payment_status() != PaymentStatus::NotPaid)?;
    let payer = client.payer()?;
    let key = PurchaseKey::new(payer.address(), id.clone());
    payer.ledger().purchase(&key).await.ok().flatten()
}

fn status_of(error: &Error) -> StatusCode {
    match (error.payment_status(), error.kind()) {
        // Also a denial of a payment that was signed earlier.
        (PaymentStatus::MaybePaid | PaymentStatus::Paid, _) => StatusCode::FAILED_DEPENDENCY,
        (_, ErrorKind::Denied) => StatusCode::PAYMENT_REQUIRED,
        (_, ErrorKind::Purchase) => StatusCode::UNPROCESSABLE_ENTITY,
        (_, ErrorKind::Builder) => StatusCode::BAD_REQUEST,
        (_, ErrorKind::Insecure) => StatusCode::FORBIDDEN,
        (_, ErrorKind::Timeout) => StatusCode::GATEWAY_TIMEOUT,
        (_, ErrorKind::Ledger | ErrorKind::Signer | ErrorKind::Credential) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// Whether an SDK may repeat the request by itself: nothing was signed, and the next try can succeed.
fn may_repeat(error: &Error) -> bool {
    error.payment_status() == PaymentStatus::NotPaid
        && matches!(error.kind(), ErrorKind::Transport | ErrorKind::Timeout)
}

fn set(answer: &mut Response<Body>, name: HeaderName, text: &str) {
    put(answer.headers_mut(), name, text);
}

fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    // Names and amounts of the operator's tokens may have other letters. They are in the JSON and the ledger.
    if let Ok(text) = HeaderValue::from_str(text) {
        headers.insert(name, text);
    }
}

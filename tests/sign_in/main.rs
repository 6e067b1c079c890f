//! Sign-in-with-x: entering again what was bought.
#![expect(clippy::unwrap_used, reason = "tests")]

mod challenges;
mod policies;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::ledger::State;
use bursar::policy::{Rule, SignIn};
use bursar::signer::{SignInMessage, Signature, SignerError, TransferAuthorization};
use bursar::telemetry::Event;
use bursar::{
    Address, Client, ClientBuilder, Error, ErrorKind, FreezeSwitch, Ledger, LocalSigner,
    PaymentStatus, Policy, ResponseExt, Signer, signer_fn, usd,
};
use bursar_testing::{FalseTerms, Fault, Paywall, Route, SignInFault};
use bursar_tests::clock::{HOUR, TestClock};
use bursar_tests::paywall::{
    client, distinct_payments, open, open_all, payments_sent, policy, purchases, report,
};
use reqwest::Response;
use serde_json::{Value, json};

const HEADER: &str = "sign-in-with-x";

/// Returns a client that signs in there.
fn signing_in(sign_in: SignIn) -> ClientBuilder {
    client().policy(policy().sign_in(sign_in))
}

fn known() -> Client {
    signing_in(SignIn::Known).build().unwrap()
}

fn always() -> Client {
    signing_in(SignIn::Always).build().unwrap()
}

async fn get(client: &Client, seller: &Paywall, path: &str) -> Response {
    client.get(seller.url(path)).send().await.unwrap()
}

async fn refused(client: &Client, seller: &Paywall, path: &str) -> Error {
    let sent = client.get(seller.url(path)).send().await;
    let error = sent.unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::NotPaid, "{error}");
    error
}

/// Returns the requests of a path in words: `plain`, `signed in` or `paid`.
fn wire(seller: &Paywall, path: &str) -> Vec<&'static str> {
    let requests = seller.requests();
    let of_path = requests.iter().filter(|request| request.path() == path);
    let words = of_path.map(|request| match (request.header(HEADER), &request.payment) {
        (Some(_), Some(_)) => "both",
        (Some(_), None) => "signed in",
        (None, Some(_)) => "paid",
        (None, None) => "plain",
    });
    words.collect()
}

#[tokio::test]
async fn a_report_that_was_bought_is_entered_again_without_a_payment() {
    let seller = open(report().sign_in()).await;
    let steps = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&steps);
    let client = signing_in(SignIn::Known)
        .observer(move |event: &Event<'_>| told.lock().unwrap().push(event.name()))
        .build()
        .unwrap();
    let first = get(&client, &seller, "/report").await;
    assert_eq!(first.payment_status(), PaymentStatus::Paid);
    assert!(!first.signed_in());
    steps.lock().unwrap().clear();
    for _ in 0..2 {
        let again = get(&client, &seller, "/report").await;
        assert_eq!(again.payment_status(), PaymentStatus::NotPaid);
        assert!(again.payment().is_none() && again.receipt().is_none() && again.signed_in());
        assert_eq!(again.text().await.unwrap(), "the report");
    }
    assert_eq!(*steps.lock().unwrap(), ["signed_in", "signed_in"]);
    assert_eq!(seller.settlements().len(), 1);
    assert_eq!(purchases(&client).await.len(), 1);
    let sign_ins = seller.sign_ins();
    assert_eq!(sign_ins.len(), 2);
    assert!(sign_ins.iter().all(|sign_in| sign_in.accepted));
    assert_ne!(sign_ins[0].nonce, sign_ins[1].nonce);
    assert_eq!(sign_ins[0].address, Some(client.payer().unwrap().address()));
    assert_eq!(
        wire(&seller, "/report"),
        ["plain", "paid", "plain", "signed in", "plain", "signed in"]
    );
    let requests = seller.requests();
    assert_eq!(requests[3].header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn only_a_path_that_was_bought_is_entered_as_known() {
    let other = Route::get("/other").price(usd!("0.01")).sign_in();
    let post = Route::post("/report").price(usd!("0.01")).echo().sign_in();
    let seller = open_all([report().sign_in(), post, other]).await;
    let client = known();
    get(&client, &seller, "/report").await;
    get(&client, &seller, "/other").await;
    assert_eq!(seller.sign_ins(), [], "nothing was bought at the path yet");
    assert_eq!(wire(&seller, "/other"), ["plain", "paid"]);
    // Official sellers remember buyers by path: method, query and body do not matter.
    get(&client, &seller, "/report?day=2").await;
    let posted = client.post(seller.url("/report")).body("body");
    let posted = posted.send().await.unwrap();
    assert_eq!(posted.text().await.unwrap(), "body");
    assert_eq!(seller.sign_ins().len(), 2);
    assert_eq!(seller.settlements().len(), 2);
    // Another wallet is not known, also on the same ledger.
    let stranger = client.with_signer(LocalSigner::random().unwrap()).unwrap();
    get(&stranger, &seller, "/report").await;
    assert_eq!(seller.sign_ins().len(), 2);
    assert_eq!(seller.settlements().len(), 3);
}

#[tokio::test]
async fn a_new_process_knows_from_its_ledger_what_was_bought() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.db");
    let key = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
    let agent = || {
        signing_in(SignIn::Known)
            .signer(LocalSigner::from_hex(&key.to_owned().into()).unwrap())
            .ledger(Ledger::sqlite(&path).unwrap())
            .build()
            .unwrap()
    };
    let seller = open(report().sign_in()).await;
    get(&agent(), &seller, "/report").await;
    let again = get(&agent(), &seller, "/report").await;
    assert_eq!(again.text().await.unwrap(), "the report");
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn a_seller_that_still_asks_is_paid_by_its_new_terms() {
    let route = report().sign_in_fault(SignInFault::DoublesPrice);
    let seller = open(route).await;
    let client = known();
    get(&client, &seller, "/report").await;
    let paid = get(&client, &seller, "/report").await;
    assert_eq!(paid.receipt().unwrap().amount().units(), 20_000);
    assert_eq!(
        wire(&seller, "/report"),
        ["plain", "paid", "plain", "signed in", "paid"]
    );
    // Four cents are allowed, and eight cents are not. Nothing is paid by the older terms.
    get(&client, &seller, "/report").await;
    let error = refused(&client, &seller, "/report").await;
    assert_eq!(error.denial().unwrap().rule, Rule::PerPayment);
    assert_eq!(seller.settlements().len(), 3);
    assert_eq!(seller.sign_ins().len(), 3);
    let values = purchases(&client).await;
    let values: Vec<_> = values.iter().map(|purchase| purchase.value).collect();
    assert_eq!(values.len(), 3);
    assert!(values.iter().all(|value| *value <= usd!("0.04").micros()));
}

#[tokio::test]
async fn a_route_that_wants_a_sign_in_alone_costs_nothing_and_leaves_no_purchase() {
    let me = Route::post("/me").sign_in_only().echo();
    let seller = open(me).await;
    let client = always();
    let answer = client
        .post(seller.url("/me"))
        .body("hello")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.payment_status(), PaymentStatus::NotPaid);
    assert_eq!(answer.text().await.unwrap(), "hello");
    assert!(purchases(&client).await.is_empty());
    assert_eq!(wire(&seller, "/me"), ["plain", "signed in"]);
    let stream = reqwest::Body::wrap_stream(OneChunk(Some("hello")));
    let error = client
        .post(seller.url("/me"))
        .body(stream)
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReplayable);
}

/// A body that cannot be sent twice.
struct OneChunk(Option<&'static str>);

impl futures_core::Stream for OneChunk {
    type Item = Result<&'static str, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.take().map(Ok))
    }
}

#[tokio::test]
async fn an_unresolved_payment_is_presented_again_and_no_sign_in_replaces_it() {
    let failing = report()
        .sign_in()
        .idempotent()
        .fault(Fault::DropAfterSettle);
    let seller = open_all([report().sign_in(), failing]).await;
    let client = known();
    get(&client, &seller, "/report").await;
    seller.remove_route("/report");
    let lost = client.get(seller.url("/report")).no_sign_in().send().await;
    assert_eq!(lost.unwrap_err().payment_status(), PaymentStatus::MaybePaid);
    assert_eq!(seller.settlements().len(), 2);
    seller.clear_faults();
    let sent = payments_sent(&seller);

    // The seller would let the buyer in. The unresolved payment goes first.
    let answer = get(&client, &seller, "/report").await;
    assert_eq!(answer.payment_status(), PaymentStatus::Paid);
    assert_eq!(seller.sign_ins(), []);
    assert_eq!(payments_sent(&seller), sent + 1);
    assert_eq!(distinct_payments(&seller), 2);
    assert_eq!(seller.settlements().len(), 2);
    let states: Vec<_> = purchases(&client)
        .await
        .iter()
        .map(|known| known.state)
        .collect();
    assert_eq!(states, [State::Settled, State::Settled]);

    get(&client, &seller, "/report").await;
    assert_eq!(seller.sign_ins().len(), 1);
    assert_eq!(seller.settlements().len(), 2);
}

#[tokio::test]
async fn a_purchase_id_that_was_paid_is_presented_again_and_a_new_one_signs_in() {
    let seller = open(report().sign_in().idempotent()).await;
    let client = known();
    let order = |id: &str| client.get(seller.url("/report")).purchase_id(id).send();
    order("one").await.unwrap();
    let again = order("one").await.unwrap();
    assert_eq!(again.payment_status(), PaymentStatus::Paid);
    assert_eq!(
        (seller.sign_ins().len(), distinct_payments(&seller)),
        (0, 1)
    );
    let other = order("two").await.unwrap();
    assert_eq!(other.payment_status(), PaymentStatus::NotPaid);
    assert_eq!(
        (seller.sign_ins().len(), seller.settlements().len()),
        (1, 1)
    );
}

#[tokio::test]
async fn a_caller_that_signs_in_itself_gets_no_second_sign_in() {
    let seller = open(report().sign_in()).await;
    let client = always();
    let request = client.get(seller.url("/report")).header(HEADER, "my own");
    let paid = request.send().await.unwrap();
    assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    let headers: Vec<_> = seller
        .sign_ins()
        .into_iter()
        .map(|own| own.header)
        .collect();
    assert_eq!(headers, ["my own", "my own"]);
}

#[tokio::test]
async fn remembered_terms_do_not_pay_for_something_that_a_sign_in_enters() {
    let policy = policy().remember_terms(HOUR).sign_in(SignIn::Known);
    let seller = open(report().sign_in()).await;
    let client = client().policy(policy.clone()).build().unwrap();
    get(&client, &seller, "/report").await;
    let again = get(&client, &seller, "/report").await;
    assert_eq!(again.payment_status(), PaymentStatus::NotPaid);
    assert_eq!(seller.settlements().len(), 1);
    let paid = client.get(seller.url("/report")).no_sign_in();
    paid.send().await.unwrap();
    assert_eq!(
        wire(&seller, "/report"),
        ["plain", "paid", "plain", "signed in", "paid"]
    );
}

/// A wallet that keeps the messages that it was shown, and signs them with a key.
struct Shown {
    address: Address,
    key: LocalSigner,
    messages: Arc<Mutex<Vec<SignInMessage>>>,
}

impl Signer for Shown {
    fn address(&self) -> Address {
        self.address
    }

    async fn sign(&self, authorization: &TransferAuthorization) -> Result<Signature, SignerError> {
        self.key.sign(authorization).await
    }

    async fn sign_in(&self, message: &SignInMessage) -> Result<Signature, SignerError> {
        self.messages.lock().unwrap().push(message.clone());
        self.key.sign_in(message).await
    }
}

#[tokio::test]
async fn a_signer_sees_the_whole_message_and_its_signature_is_checked() {
    let seller = open(Route::get("/me").sign_in_only()).await;
    let messages = Arc::new(Mutex::new(Vec::new()));
    let wallet = |key: LocalSigner, address| Shown {
        address,
        key,
        messages: Arc::clone(&messages),
    };
    let key = LocalSigner::random().unwrap();
    let address = key.address();
    let client = always().with_signer(wallet(key, address)).unwrap();
    assert_eq!(get(&client, &seller, "/me").await.status(), 200);
    let message = messages.lock().unwrap()[0].clone();
    let domain = seller.url("/").authority().to_owned();
    assert_eq!(
        (message.domain(), message.address()),
        (domain.as_str(), address)
    );
    assert_eq!(message.uri(), seller.url("/me").as_str());
    assert_eq!(message.nonce(), seller.sign_ins()[0].nonce);
    assert_eq!(message.network().chain_id(), 84_532);
    let text = message.text();
    let head = format!("{domain} wants you to sign in with your Ethereum account:\n{address}\n\n");
    assert!(text.starts_with(&head), "{text}");
    assert!(text.contains(message.statement().unwrap()), "{text}");

    // A wallet that signs with another key is found out, and nothing leaves.
    let confused = wallet(LocalSigner::random().unwrap(), address);
    let client = always().with_signer(confused).unwrap();
    let error = refused(&client, &seller, "/me").await;
    assert_eq!(error.kind(), ErrorKind::Signer);
    assert_eq!(seller.sign_ins().len(), 1);
}

#[tokio::test]
async fn a_signer_that_cannot_sign_in_pays() {
    let seller = open_all([report().sign_in(), Route::get("/me").sign_in_only()]).await;
    let key = Arc::new(LocalSigner::random().unwrap());
    let address = key.address();
    let signer = signer_fn(address, move |authorization| {
        let key = Arc::clone(&key);
        async move { Signer::sign(&key, &authorization).await }
    });
    let client = always().with_signer(signer).unwrap();
    for _ in 0..2 {
        let paid = get(&client, &seller, "/report").await;
        assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    }
    let error = refused(&client, &seller, "/me").await;
    assert_eq!(error.kind(), ErrorKind::Signer);
    assert!(error.to_string().contains("cannot sign in"), "{error}");
    assert_eq!(seller.sign_ins(), []);
}

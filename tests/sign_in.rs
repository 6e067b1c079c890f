//! Sign-in-with-x: entering again what was bought.
#![expect(clippy::unwrap_used, reason = "tests")]

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
async fn no_one_is_signed_in_unless_the_policy_says_so() {
    let never_here = policy()
        .sign_in(SignIn::Always)
        .host_limits("127.0.0.1", |host| host.sign_in(SignIn::Never));
    for policy in [policy(), policy().sign_in(SignIn::Never), never_here] {
        let seller = open(report().sign_in()).await;
        let client = client().policy(policy).build().unwrap();
        for _ in 0..2 {
            let paid = get(&client, &seller, "/report").await;
            assert_eq!(paid.payment_status(), PaymentStatus::Paid);
        }
        assert_eq!(seller.sign_ins(), []);
        assert_eq!(seller.settlements().len(), 2);
    }
    let here = policy().host_limits("127.0.0.1", |host| host.sign_in(SignIn::Known));
    let seller = open(report().sign_in()).await;
    let client = client().policy(here).build().unwrap();
    get(&client, &seller, "/report").await;
    get(&client, &seller, "/report").await;
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn a_request_can_refuse_to_sign_in() {
    let seller = open_all([report().sign_in(), Route::get("/me").sign_in_only()]).await;
    let client = always();
    get(&client, &seller, "/report").await;
    let request = client.get(seller.url("/report")).no_sign_in();
    let paid = request.send().await.unwrap();
    assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    let error = client.get(seller.url("/me")).no_sign_in().send().await;
    let error = error.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::SignIn);
    let unpaid = client.get(seller.url("/report")).no_payment().send().await;
    assert_eq!(unpaid.unwrap().status(), 402);
    let unpaid = client.get(seller.url("/me")).no_payment().send().await;
    assert_eq!(unpaid.unwrap().status(), 402);
    // The first request signed in, as `always` says, and the seller did not know it.
    assert_eq!(seller.sign_ins().len(), 1);
    assert!(!seller.sign_ins()[0].accepted);
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
async fn a_seller_that_asks_for_sign_ins_for_ever_gets_one_in_a_call() {
    let route = report().sign_in_fault(SignInFault::Refuses);
    let me = Route::get("/me")
        .sign_in_only()
        .sign_in_fault(SignInFault::Refuses);
    let seller = open_all([route, me]).await;
    let client = always();
    for _ in 0..2 {
        let paid = get(&client, &seller, "/report").await;
        assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    }
    assert_eq!(
        wire(&seller, "/report"),
        ["plain", "signed in", "paid", "plain", "signed in", "paid"]
    );
    let error = refused(&client, &seller, "/me").await;
    assert_eq!(error.kind(), ErrorKind::NotPayable);
    assert_eq!(error.status().unwrap(), 402);
    assert!(
        error.to_string().contains("does not accept the sign-in"),
        "{error}"
    );
    assert_eq!(wire(&seller, "/me"), ["plain", "signed in"]);
}

#[tokio::test]
async fn a_false_challenge_is_never_signed_and_the_report_is_paid() {
    for fault in [
        SignInFault::OtherDomain,
        SignInFault::OtherUri,
        SignInFault::Expired,
        SignInFault::Old,
        SignInFault::Future,
        SignInFault::NotYet,
        SignInFault::ForgesLine,
        SignInFault::OnlySolana,
        SignInFault::Garbage,
    ] {
        let route = report().sign_in_fault(fault.clone());
        let me = Route::get("/me")
            .sign_in_only()
            .sign_in_fault(fault.clone());
        let seller = open_all([route, me]).await;
        let client = always();
        for _ in 0..2 {
            let paid = get(&client, &seller, "/report").await;
            assert_eq!(paid.payment_status(), PaymentStatus::Paid, "{fault:?}");
        }
        let error = refused(&client, &seller, "/me").await;
        let kind = match fault {
            SignInFault::OnlySolana => ErrorKind::NotPayable,
            _ => ErrorKind::Malformed,
        };
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        assert_eq!(seller.sign_ins(), [], "{fault:?}");
        assert_eq!(wire(&seller, "/report"), ["plain", "paid", "plain", "paid"]);
        assert_eq!(wire(&seller, "/me"), ["plain"]);
    }
}

#[tokio::test]
async fn no_seller_gets_two_payments_or_two_sign_ins_in_a_call() {
    let away = "http://127.0.0.1:9/".to_owned();
    let faults = [
        SignInFault::OtherDomain,
        SignInFault::OtherUri,
        SignInFault::RepeatsChallenge,
        SignInFault::Expired,
        SignInFault::Old,
        SignInFault::Future,
        SignInFault::NotYet,
        SignInFault::ForgesLine,
        SignInFault::OnlySolana,
        SignInFault::Garbage,
        SignInFault::Refuses,
        SignInFault::DoublesPrice,
        SignInFault::Status(503),
        SignInFault::Redirects(away),
    ];
    let names: Vec<_> = faults.iter().map(SignInFault::name).collect();
    assert_eq!(names, SignInFault::NAMES, "every fault is tried");
    for fault in faults {
        for sign_in in [SignIn::Known, SignIn::Always] {
            let seller = open(report().sign_in_fault(fault.clone())).await;
            let client = signing_in(sign_in).build().unwrap();
            for call in 1..=3 {
                drop(client.get(seller.url("/report")).send().await);
                let (sign_ins, requests) = (seller.sign_ins(), wire(&seller, "/report"));
                assert!(sign_ins.len() <= call, "{fault:?} {requests:?}");
                assert!(requests.len() <= 3 * call, "{fault:?} {requests:?}");
                assert!(!requests.contains(&"both"), "{fault:?} {requests:?}");
                let transfers = seller.settlements().len() + seller.settle_presented();
                assert!(transfers <= call, "{fault:?} {requests:?}");
                let mut nonces: Vec<_> = sign_ins.iter().map(|known| &known.nonce).collect();
                nonces.sort();
                nonces.dedup();
                assert_eq!(
                    nonces.len(),
                    sign_ins.len(),
                    "{fault:?}: one challenge, two answers"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_challenge_is_answered_once_by_all_clients_of_a_process() {
    let fault = SignInFault::RepeatsChallenge;
    let route = report().sign_in_fault(fault.clone());
    let me = Route::get("/me").sign_in_only().sign_in_fault(fault);
    let seller = open_all([route, me]).await;
    let first = always();
    // The first sign-in is of a stranger, so the report is paid.
    get(&first, &seller, "/report").await;
    assert_eq!(seller.sign_ins().len(), 1);
    for client in [first.clone(), always()] {
        let paid = get(&client, &seller, "/report").await;
        assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    }
    assert_eq!(seller.sign_ins().len(), 1);
    get(&first, &seller, "/me").await;
    for client in [first, always()] {
        let error = refused(&client, &seller, "/me").await;
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.to_string().contains("repeats a challenge"), "{error}");
    }
    assert_eq!(seller.sign_ins().len(), 2);
}

#[tokio::test]
async fn many_calls_at_once_each_answer_a_challenge_of_their_own() {
    let seller = open(report().sign_in()).await;
    let client = known();
    get(&client, &seller, "/report").await;
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (client, url) = (client.clone(), seller.url("/report"));
            tokio::spawn(async move { client.get(url).send().await.unwrap() })
        })
        .collect();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.payment_status(), PaymentStatus::NotPaid);
        assert_eq!(answer.text().await.unwrap(), "the report");
    }
    let mut nonces: Vec<_> = seller
        .sign_ins()
        .into_iter()
        .map(|sign_in| sign_in.nonce)
        .collect();
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 8);
    assert_eq!(seller.settlements().len(), 1);
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
async fn a_route_that_wants_a_sign_in_alone_is_denied_where_the_policy_does_not_allow_it() {
    let seller = open_all([report(), Route::get("/me").sign_in_only()]).await;
    let client = client().build().unwrap();
    let error = refused(&client, &seller, "/me").await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    let denial = error.denial().unwrap();
    assert_eq!(denial.rule, Rule::SignIn);
    for hint in ["sign_in = \"always\"", "Policy::sign_in", "127.0.0.1"] {
        assert!(denial.message.contains(hint), "{denial}");
    }
    let denials = client.ledger().unwrap().denials().await.unwrap();
    assert_eq!((denials[0].rule, denials[0].count), (Rule::SignIn, 1));

    // A known seller is one from which this wallet has bought something.
    let client = known();
    let denial = refused(&client, &seller, "/me").await;
    assert!(
        denial.to_string().contains("has bought nothing"),
        "{denial}"
    );
    assert_eq!(seller.sign_ins(), []);
    get(&client, &seller, "/report").await;
    assert_eq!(get(&client, &seller, "/me").await.status(), 200);
    assert_eq!(seller.sign_ins().len(), 1);
}

#[tokio::test]
async fn a_host_that_is_not_paid_is_not_told_who_comes() {
    let seller = open(Route::get("/me").sign_in_only()).await;
    let switch = FreezeSwitch::new();
    switch.freeze("an audit");
    let frozen_ledger = Ledger::memory();
    frozen_ledger.freeze("an audit").await.unwrap();
    let always = || signing_in(SignIn::Always);
    let lists = |policy: Policy| always().policy(policy.sign_in(SignIn::Always));
    for (client, rule) in [
        (lists(policy().deny_host("127.0.0.1")), Rule::Host),
        (lists(policy().allow_host("a.example")), Rule::Host),
        (always().freeze_switch(switch), Rule::Frozen),
        (always().ledger(frozen_ledger), Rule::Frozen),
    ] {
        let client = client.build().unwrap();
        let error = refused(&client, &seller, "/me").await;
        assert_eq!(error.denial().unwrap().rule, rule);
    }
    assert_eq!(seller.sign_ins(), []);
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
async fn a_sign_in_goes_to_the_url_that_asked_and_no_further() {
    let stranger = open(report()).await;
    let away = SignInFault::Redirects(stranger.url("/report").into());
    let seller = open(report().sign_in_fault(away)).await;
    let client = always();
    let answer = get(&client, &seller, "/report").await;
    assert_eq!(answer.status(), 307);
    assert_eq!(answer.redirect_target(), Some(stranger.url("/report")));
    assert!(stranger.requests().is_empty());
    assert_eq!(wire(&seller, "/report"), ["plain", "signed in"]);
    assert!(purchases(&client).await.is_empty());

    // Within the origin, the redirect is followed without the sign-in.
    let here = SignInFault::Redirects("/elsewhere".to_owned());
    let elsewhere = Route::get("/elsewhere").body("the goods");
    let seller = open_all([report().sign_in_fault(here), elsewhere]).await;
    let answer = get(&client, &seller, "/report").await;
    assert_eq!(answer.text().await.unwrap(), "the goods");
    assert_eq!(wire(&seller, "/elsewhere"), ["plain"]);
}

#[tokio::test]
async fn an_error_that_answers_a_sign_in_reaches_the_caller_and_nothing_is_paid() {
    for status in [400, 403, 500] {
        let seller = open(report().sign_in_fault(SignInFault::Status(status))).await;
        let client = always();
        let answer = get(&client, &seller, "/report").await;
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(answer.payment_status(), PaymentStatus::NotPaid);
        assert_eq!(wire(&seller, "/report"), ["plain", "signed in"]);
        assert!(purchases(&client).await.is_empty());
    }
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

#[tokio::test]
async fn a_query_that_the_challenge_repeats_does_not_spoil_the_payment() {
    let seller = open(report().sign_in()).await;
    let client = known();
    let path = "/report?key=k-4f09a27c";
    let paid = get(&client, &seller, path).await;
    assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    // The seller compares the URL of its challenge, so a payment without the query leaves the challenge out.
    let requests = seller.requests();
    let payment = requests[1].payment.as_ref().unwrap();
    let payment = payment.json.as_ref().unwrap();
    assert!(!payment.to_string().contains("k-4f09a27c"), "{payment}");
    // Official sellers remember the buyer by the path of this URL.
    assert_eq!(payment["resource"]["url"], seller.url("/report").as_str());
    // The sign-in has the URL as the seller wrote it.
    get(&client, &seller, path).await;
    let sign_in = &seller.sign_ins()[0];
    assert!(sign_in.accepted);
    let json: Value = serde_json::from_slice(&STANDARD.decode(&sign_in.header).unwrap()).unwrap();
    assert_eq!(json["uri"], seller.url(path).as_str());
    let stored = format!("{:?}", purchases(&client).await);
    assert!(!stored.contains("k-4f09a27c"), "{stored}");
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

#[tokio::test]
async fn a_sign_in_follows_the_clock_of_the_client() {
    let clock = TestClock::default();
    let seller = Paywall::builder()
        .route(Route::get("/me").sign_in_only())
        .clock(clock.clone());
    let seller = seller.start().await.unwrap();
    let agent = |clock: TestClock| {
        let client = signing_in(SignIn::Always).clock(clock);
        client.build().unwrap()
    };
    assert_eq!(
        get(&agent(clock.clone()), &seller, "/me").await.status(),
        200
    );
    for (ahead, signs) in [(0, true), (4, true), (6, false)] {
        let late = clock.clone();
        let late = TestClock::starting_at(
            bursar::clock::Clock::now(&late).after(Duration::from_secs(60 * ahead)),
        );
        let sent = agent(late).get(seller.url("/me")).send().await;
        assert_eq!(sent.is_ok(), signs, "{ahead} minutes ahead");
    }
}

#[tokio::test]
async fn false_terms_after_a_sign_in_meet_the_whole_policy() {
    let terms = FalseTerms::Price(100);
    let false_later = report()
        .sign_in_fault(SignInFault::Refuses)
        .fault_once(Fault::TermsWithStatus(402))
        .fault_once(Fault::TermsWithStatus(402))
        .fault_once(Fault::Terms(terms));
    let seller = open(false_later).await;
    let client = known();
    get(&client, &seller, "/report").await;
    let error = refused(&client, &seller, "/report").await;
    assert_eq!(error.denial().unwrap().rule, Rule::PerPayment);
    assert_eq!(
        wire(&seller, "/report"),
        ["plain", "paid", "plain", "signed in"]
    );
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn the_policy_shows_where_it_signs_in() {
    let text = r#"
version = 1
networks = ["base-sepolia"]
[global]
sign_in = "known"
[[host]]
match = "tracker.example.com"
sign_in = "never"
[[origin]]
match = "https://me.example.com"
sign_in = "always"
"#;
    let policy = Policy::from_toml(text).unwrap();
    let effective = policy.effective().to_string();
    for line in [
        "sign_in = \"known\"",
        "sign_in = \"never\"",
        "sign_in = \"always\"",
    ] {
        assert!(effective.contains(line), "{effective}");
    }
    let again = Policy::from_toml(&effective).unwrap();
    assert_eq!(again.effective().to_string(), effective);
    let none = Policy::new().allow_network("base-sepolia");
    assert!(none.effective().to_string().contains("sign_in = \"never\""));
    let wrong = Policy::from_toml(&text.replace("\"known\"", "\"know\"")).unwrap_err();
    assert!(wrong.to_string().contains("known"), "{wrong}");
    let misplaced = text.replace("[global]", "[each.origin]");
    let misplaced = Policy::from_toml(&misplaced).unwrap_err();
    assert!(
        misplaced.to_string().contains("`sign_in` is a setting"),
        "{misplaced}"
    );

    let client = client().policy(policy).build().unwrap();
    let explained = async |host: &str| {
        let url = format!("https://{host}/report");
        let request = bursar::PurchaseRequest::new("GET", &url, b"").unwrap();
        client.explain(&request, usd!("0.01")).await.unwrap()
    };
    let known = explained("api.example.com").await;
    assert_eq!(known.sign_in, SignIn::Known);
    assert!(known.to_string().contains("sign_in = \"known\""), "{known}");
    assert_eq!(json!(known)["sign_in"], "known");
    let never = explained("tracker.example.com").await;
    assert!(!never.to_string().contains("sign_in"), "{never}");
    assert_eq!(explained("me.example.com").await.sign_in, SignIn::Always);
}

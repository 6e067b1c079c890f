//! The client against the crate's paywall: what reached the wire, the chain and the books.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bursar::approval::{Verdict, approve_fn};
use bursar::ledger::{Filter, State};
use bursar::money::AssetRegistry;
use bursar::policy::Rule;
use bursar::primitives::U256;
use bursar::signer::SignerError;
use bursar::{
    Address, Client, ClientBuilder, ErrorKind, Ledger, LocalSigner, Network, PaymentStatus, Policy,
    PriceOutcome, ResponseExt, RetryPolicy, Signer, signer_fn, usd,
};
use bursar_testing::{Fault, Forgery, Paywall, Route};

/// Anvil's account 0, published with it.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

fn wallet() -> LocalSigner {
    LocalSigner::from_hex(&KEY.to_owned().into()).unwrap()
}

fn policy() -> Policy {
    Policy::new().allow_network("base-sepolia")
}

fn builder() -> ClientBuilder {
    Client::builder()
        .signer(wallet())
        .policy(policy())
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
}

fn client() -> Client {
    builder().build().unwrap()
}

async fn paywall(routes: impl IntoIterator<Item = Route>) -> Paywall {
    let builder = routes
        .into_iter()
        .fold(Paywall::builder(), |builder, route| builder.route(route));
    builder.start().await.unwrap()
}

fn paid_report() -> Route {
    Route::get("/report").price(usd!("0.01")).body("the report")
}

/// How many requests carried a payment.
fn payments_sent(paywall: &Paywall) -> usize {
    paywall
        .requests()
        .iter()
        .filter(|request| request.payment.is_some())
        .count()
}

/// How many payments were sent, however often each.
fn distinct_payments(paywall: &Paywall) -> usize {
    let headers = paywall
        .requests()
        .into_iter()
        .filter_map(|request| Some(request.payment?.header));
    headers.collect::<std::collections::BTreeSet<_>>().len()
}

#[tokio::test]
async fn a_free_page_is_free() {
    let paywall = paywall([Route::get("/free").body("hello")]).await;
    let client = client();
    let response = client.get(paywall.url("/free")).send().await.unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.payment(),
            response.receipt().is_none()
        ),
        (PaymentStatus::NotPaid, None, true)
    );
    assert_eq!(response.text().await.unwrap(), "hello");
    assert_eq!(paywall.requests().len(), 1);
    assert!(
        client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_paid_page_is_paid_once_and_booked_as_signed() {
    for route in [
        paid_report(),
        paid_report().v1(),
        paid_report().v1_and_v2(),
        paid_report().upfront(),
    ] {
        let paywall = paywall([route]).await;
        let client = client();
        let response = client.get(paywall.url("/report")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let receipt = response.receipt().unwrap().clone();
        assert_eq!(response.text().await.unwrap(), "the report");

        let settled = paywall.settlements();
        assert_eq!(settled.len(), 1);
        assert_eq!(
            (settled[0].transaction, settled[0].authorization.value),
            (receipt.transaction(), U256::from(10_000))
        );

        let purchases = client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap();
        assert_eq!(purchases.len(), 1);
        let entry = &purchases[0];
        assert_eq!(
            (entry.state, entry.transaction),
            (State::Settled, Some(receipt.transaction()))
        );
        assert_eq!(
            (entry.nonce, entry.payee, entry.value),
            (
                settled[0].authorization.nonce,
                settled[0].authorization.to,
                settled[0].authorization.value
            )
        );
        assert_eq!((entry.usd, entry.status), (Some(usd!("0.01")), Some(200)));
    }
}

#[tokio::test]
async fn every_verb_and_builder_method_reaches_the_seller_twice_the_same() {
    let paywall = paywall([Route::any("/echo").price(usd!("0.01")).echo()]).await;
    let client = client();
    let url = || paywall.url("/echo");
    for request in [
        client
            .get(url())
            .query(&[("q", "a b")])
            .header("x-mine", "1"),
        client
            .post(url())
            .json(&serde_json::json!({ "a": 1 }))
            .bearer_auth("token"),
        client
            .put(url())
            .form(&[("a", "1")])
            .basic_auth("user", Some("password")),
        client.patch(url()).body("text"),
        client.delete(url()).headers(
            [("x-many".parse().unwrap(), "2".parse().unwrap())]
                .into_iter()
                .collect(),
        ),
        client
            .request(reqwest::Method::OPTIONS, url())
            .version(reqwest::Version::HTTP_11),
    ] {
        let before = paywall.requests().len();
        assert_eq!(
            request.send().await.unwrap().payment_status(),
            PaymentStatus::Paid
        );
        let requests = paywall.requests();
        let [first, second] = &requests[before..] else {
            panic!("{requests:?}")
        };
        assert_eq!(
            (&first.method, &first.target, &first.body),
            (&second.method, &second.target, &second.body)
        );
        for (name, value) in &first.headers {
            assert_eq!(second.headers.get(name), Some(value));
        }
        assert_eq!(second.headers["cache-control"], "no-store");
    }
    let head = client.head(paywall.url("/echo")).send().await.unwrap();
    assert_eq!(head.payment_status(), PaymentStatus::Paid);
}

#[tokio::test]
async fn a_request_can_be_cloned_built_and_executed() {
    let paywall = paywall([paid_report()]).await;
    let client = client();
    let request = client
        .get(paywall.url("/report"))
        .tag("t")
        .purchase_id("order-1");
    let copy = request.try_clone().unwrap().build().unwrap();
    assert_eq!(copy.request().url().path(), "/report");
    client.execute(copy).await.unwrap();
    assert_eq!(
        client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()[0]
            .tag
            .as_deref(),
        Some("t")
    );
    client
        .execute(reqwest::Request::new(
            reqwest::Method::GET,
            paywall.url("/report"),
        ))
        .await
        .unwrap();
    assert_eq!(paywall.settlements().len(), 2);
    assert_eq!(
        client
            .get(paywall.url("/report"))
            .purchase_id("not an id")
            .send()
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Builder
    );
}

#[tokio::test]
async fn a_stream_is_not_paid_for_unless_it_can_be_made_again() {
    let paywall = paywall([Route::post("/echo").price(usd!("0.01")).echo()]).await;
    let client = client();
    let stream = || reqwest::Body::wrap_stream(tokio_stream(["a", "b"]));

    let error = client
        .post(paywall.url("/echo"))
        .body(stream())
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::NotReplayable, PaymentStatus::NotPaid)
    );
    assert_eq!(
        error.price_check().unwrap().best().unwrap().dollars(),
        Some(usd!("0.01"))
    );
    assert!(
        client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()
            .is_empty(),
        "nothing is held"
    );
    assert_eq!(payments_sent(&paywall), 0);

    let response = client
        .post(paywall.url("/echo"))
        .body_fn(stream)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.text().await.unwrap().as_str()
        ),
        (PaymentStatus::Paid, "ab")
    );
}

#[tokio::test]
async fn a_multipart_form_is_made_again_with_a_boundary_of_its_own() {
    let paywall = paywall([Route::post("/echo").price(usd!("0.01")).echo()]).await;
    let form = || {
        reqwest::multipart::Form::new()
            .text("field", "value")
            .part("file", reqwest::multipart::Part::bytes(vec![0, 159]))
    };
    let response = client()
        .post(paywall.url("/echo"))
        .multipart_fn(form)
        .send()
        .await
        .unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let boundary = kind.split("boundary=").nth(1).unwrap();
    let body = response.bytes().await.unwrap();
    assert!(
        body.windows(boundary.len())
            .any(|window| window == boundary.as_bytes()),
        "{kind}"
    );
    let error = client()
        .post(paywall.url("/echo"))
        .multipart(form())
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::NotReplayable, PaymentStatus::NotPaid)
    );
}

/// A stream without the futures crate.
fn tokio_stream(
    parts: [&'static str; 2],
) -> impl futures_core::Stream<Item = Result<&'static str, std::io::Error>> {
    struct Parts(std::array::IntoIter<&'static str, 2>);
    impl futures_core::Stream for Parts {
        type Item = Result<&'static str, std::io::Error>;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            std::task::Poll::Ready(self.0.next().map(Ok))
        }
    }
    Parts(parts.into_iter())
}

#[tokio::test]
async fn a_402_that_is_not_x402_comes_back_untouched() {
    let page = "x".repeat(3 * 1024 * 1024);
    for (kind, body) in [
        (
            "application/problem+json",
            r#"{"type":"payment","detail":"buy credits"}"#,
        ),
        ("application/json", "not even JSON"),
        ("text/html", page.as_str()),
        ("application/json", r#"{"accepts":[]}"#),
    ] {
        let route = Route::get("/mpp")
            .status(402)
            .header("content-type", kind)
            .header("www-authenticate", "Payment id=1")
            .body(body.to_owned());
        let paywall = paywall([route]).await;
        let response = client().get(paywall.url("/mpp")).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (402, PaymentStatus::NotPaid)
        );
        assert_eq!(response.headers()["www-authenticate"], "Payment id=1");
        assert_eq!(response.url(), &paywall.url("/mpp"));
        assert_eq!(response.text().await.unwrap(), body);
        assert_eq!(paywall.requests().len(), 1);
    }
}

#[tokio::test]
async fn terms_that_cannot_be_read_are_an_error_and_cost_nothing() {
    for (header, body) in [
        ("!!", "{}"),
        ("e30=", "{}"),
        ("", r#"{"x402Version":1,"accepts":7}"#),
        ("", r#"{"x402Version":3,"accepts":[]}"#),
    ] {
        let mut route = Route::get("/bad")
            .status(402)
            .header("content-type", "application/json")
            .body(body);
        if !header.is_empty() {
            route = route.header("payment-required", header);
        }
        let paywall = paywall([route]).await;
        let error = client().get(paywall.url("/bad")).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Malformed, PaymentStatus::NotPaid),
            "{header} {body}"
        );
    }
}

#[tokio::test]
async fn no_payment_hands_the_402_back() {
    let paywall = paywall([paid_report()]).await;
    let response = client()
        .get(paywall.url("/report"))
        .no_payment()
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (402, PaymentStatus::NotPaid)
    );
    assert_eq!(paywall.requests().len(), 1);
}

#[tokio::test]
async fn a_client_without_a_wallet_tells_the_price() {
    let paywall = paywall([paid_report()]).await;
    let client = Client::builder().allow_http_loopback(true).build().unwrap();
    let error = client.get(paywall.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::NoWallet, PaymentStatus::NotPaid)
    );
    assert_eq!(
        error.price_check().unwrap().preferred().unwrap().dollars(),
        Some(usd!("0.01"))
    );
}

#[test]
fn a_wallet_is_signer_policy_and_ledger_or_does_not_build() {
    let missing = |builder: ClientBuilder, what: &str| {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Builder);
        assert!(error.to_string().contains(what), "{error}");
    };
    missing(Client::builder().signer(wallet()), "policy");
    missing(
        Client::builder().signer(wallet()).policy(policy()),
        "ledger",
    );
    missing(
        Client::builder().policy(policy()).ledger(Ledger::memory()),
        "signer",
    );
    missing(
        Client::builder()
            .signer(wallet())
            .policy(Policy::new())
            .ledger(Ledger::memory()),
        "network",
    );
}

#[tokio::test]
async fn quoting_signs_and_holds_nothing() {
    let paywall = paywall([
        paid_report(),
        Route::get("/dear").price(usd!("2")),
        Route::get("/free").body("free"),
    ])
    .await;
    let client = client();
    let price_check = client
        .get(paywall.url("/report"))
        .quote()
        .await
        .unwrap()
        .priced()
        .unwrap();
    assert_eq!(price_check.best().unwrap().dollars(), Some(usd!("0.01")));
    let price_check = client
        .get(paywall.url("/dear"))
        .quote()
        .await
        .unwrap()
        .priced()
        .unwrap();
    assert!(price_check.best().is_none());
    assert_eq!(
        price_check.offers[0]
            .explanation
            .as_ref()
            .unwrap()
            .denial()
            .unwrap()
            .rule,
        Rule::PerPayment
    );
    let PriceOutcome::Unpriced(free) = client.get(paywall.url("/free")).quote().await.unwrap()
    else {
        panic!("it is free")
    };
    assert_eq!(free.text().await.unwrap(), "free");
    assert_eq!(payments_sent(&paywall), 0);
    assert!(
        client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_denial_reaches_neither_signer_nor_seller() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let signer = signer_fn(wallet().address(), move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Err(SignerError::rejected("never")) }
    });
    let paywall = paywall([Route::get("/dear").price(usd!("0.11"))]).await;
    let client = builder().signer(signer).build().unwrap();
    let error = client.get(paywall.url("/dear")).send().await.unwrap_err();
    assert_eq!(
        (error.payment_status(), error.denial().unwrap().rule),
        (PaymentStatus::NotPaid, Rule::PerPayment)
    );
    assert_eq!(
        (asked.load(Ordering::SeqCst), payments_sent(&paywall)),
        (0, 0)
    );
    assert!(error.to_string().starts_with("not paid: "), "{error}");
}

#[tokio::test]
async fn a_signer_that_fails_frees_the_money_and_one_that_is_late_does_not() {
    struct Late(Address);
    impl Signer for Late {
        fn address(&self) -> Address {
            self.0
        }
        fn time_limit(&self) -> Duration {
            Duration::from_millis(1)
        }
        async fn sign(
            &self,
            _: &bursar::signer::TransferAuthorization,
        ) -> Result<bursar::signer::Signature, SignerError> {
            std::future::pending().await
        }
    }
    let paywall = paywall([paid_report()]).await;
    let address = wallet().address();
    let fails = builder()
        .signer(signer_fn(address, |_| async {
            Err(SignerError::unavailable("no"))
        }))
        .build()
        .unwrap();
    let error = fails.get(paywall.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Signer, PaymentStatus::NotPaid)
    );
    assert_eq!(
        fails
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()[0]
            .state,
        State::Voided
    );

    let late = builder().signer(Late(address)).build().unwrap();
    let error = late.get(paywall.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Signer, PaymentStatus::MaybePaid)
    );
    assert_eq!(
        late.ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()[0]
            .state,
        State::Unresolved
    );
    assert_eq!(payments_sent(&paywall), 0);
}

#[tokio::test]
async fn nothing_is_signed_once_the_calls_time_is_up() {
    let paywall = paywall([paid_report()]).await;
    let limit = Duration::from_secs(1);
    let under = |approver: fn(std::time::Instant) -> Option<Verdict>| {
        let approver = approve_fn(move |_| async move {
            match approver(std::time::Instant::now() + limit) {
                Some(verdict) => verdict,
                None => std::future::pending().await,
            }
        });
        builder()
            .policy(policy().ask_above(usd!("0")))
            .approver(approver)
            .timeout(limit)
            .build()
            .unwrap()
    };
    let silent = under(|_| None);
    let error = silent.get(paywall.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.payment_status(), error.denial().unwrap().rule),
        (PaymentStatus::NotPaid, Rule::Approval)
    );
    let late = under(|end| {
        while std::time::Instant::now() < end {
            std::hint::spin_loop();
        }
        Some(Verdict::Approve)
    });
    let error = late.get(paywall.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Timeout, PaymentStatus::NotPaid),
        "{error}"
    );
    assert!(
        late.ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(payments_sent(&paywall), 0);
}

#[tokio::test]
async fn another_s_signature_never_leaves() {
    let other = LocalSigner::random().unwrap();
    let address = wallet().address();
    let other = Arc::new(other);
    let signer = signer_fn(address, move |authorization| {
        let other = Arc::clone(&other);
        async move { other.sign(&authorization).await }
    });
    let paywall = paywall([paid_report()]).await;
    let client = builder().signer(signer).build().unwrap();
    let error = client.get(paywall.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Signer, PaymentStatus::NotPaid)
    );
    assert_eq!(payments_sent(&paywall), 0);
}

#[tokio::test]
async fn lost_answers_count_as_spent_and_the_same_purchase_is_presented_again() {
    for fault in [Fault::DropAfterSettle, Fault::ServerErrorAfterSettle] {
        let paywall = paywall([paid_report().idempotent().fault_once(fault)]).await;
        let client = builder()
            .signer(wallet())
            .retry_policy(RetryPolicy::once())
            .build()
            .unwrap();
        let first = client
            .get(paywall.url("/report"))
            .purchase_id("order-1")
            .send()
            .await;
        match first {
            Err(error) => {
                assert_eq!(
                    (
                        error.payment_status(),
                        error.purchase_id().unwrap().as_str()
                    ),
                    (PaymentStatus::MaybePaid, "order-1")
                )
            }
            Ok(response) => assert_eq!(
                (response.status().as_u16(), response.payment_status()),
                (502, PaymentStatus::MaybePaid)
            ),
        }
        assert_eq!(
            client
                .ledger()
                .unwrap()
                .purchases(&Filter::all())
                .await
                .unwrap()[0]
                .state,
            State::Unresolved
        );

        let response = client
            .get(paywall.url("/report"))
            .purchase_id("order-1")
            .send()
            .await
            .unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
        assert_eq!(response.text().await.unwrap(), "the report");
        assert_eq!(paywall.settlements().len(), 1, "one payment on the chain");
        assert_eq!(
            client
                .ledger()
                .unwrap()
                .purchases(&Filter::all())
                .await
                .unwrap()
                .len(),
            1
        );
    }
}

#[tokio::test]
async fn a_purchase_id_belongs_to_one_request() {
    let paywall = paywall([paid_report(), Route::get("/other").price(usd!("0.01"))]).await;
    let client = client();
    client
        .get(paywall.url("/report"))
        .purchase_id("order-1")
        .send()
        .await
        .unwrap();
    let error = client
        .get(paywall.url("/other"))
        .purchase_id("order-1")
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Purchase, PaymentStatus::NotPaid)
    );
    assert_eq!(paywall.settlements().len(), 1);
}

#[tokio::test]
async fn receipts_that_prove_nothing_leave_the_outcome_unknown_and_lose_no_content() {
    for fault in [
        Fault::NoReceipt,
        Fault::MalformedReceipt,
        Fault::ForgedReceipt(Forgery::Payer),
        Fault::ForgedReceipt(Forgery::Network),
        Fault::ForgedReceipt(Forgery::NoTransaction),
    ] {
        let paywall = paywall([paid_report().fault(fault.clone())]).await;
        let client = client();
        let response = client.get(paywall.url("/report")).send().await.unwrap();
        assert_eq!(
            (response.payment_status(), response.receipt().is_none()),
            (PaymentStatus::MaybePaid, true),
            "{fault:?}"
        );
        assert!(response.payment().is_some());
        assert_eq!(response.text().await.unwrap(), "the report");
        assert_eq!(
            client
                .ledger()
                .unwrap()
                .purchases(&Filter::all())
                .await
                .unwrap()[0]
                .state,
            State::Unresolved
        );
    }
}

#[tokio::test]
async fn a_402_after_payment_is_an_error_and_never_a_second_payment() {
    for (fault, kind) in [
        (Fault::RejectAgain, ErrorKind::Rejected),
        (Fault::SettlementFailure, ErrorKind::SettlementFailed),
        (
            Fault::ForgedReceipt(Forgery::Failure),
            ErrorKind::SettlementFailed,
        ),
        (Fault::SettlementPending, ErrorKind::SettlementPending),
    ] {
        let paywall = paywall([paid_report().fault(fault.clone())]).await;
        let client = client();
        let error = client.get(paywall.url("/report")).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (kind, PaymentStatus::MaybePaid),
            "{fault:?}"
        );
        assert!(error.to_string().starts_with("may be paid: "), "{error}");
        assert_eq!(distinct_payments(&paywall), 1, "{fault:?}");
        let booked = if kind == ErrorKind::SettlementPending {
            State::Unresolved
        } else {
            State::Rejected
        };
        assert_eq!(
            client
                .ledger()
                .unwrap()
                .purchases(&Filter::all())
                .await
                .unwrap()[0]
                .state,
            booked
        );
    }
}

#[tokio::test]
async fn a_402_with_a_receipt_is_an_error_that_knows_of_the_money() {
    let paywall = paywall([paid_report().fault(Fault::ForgedReceipt(Forgery::WithTerms))]).await;
    let client = client();
    let error = client.get(paywall.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Rejected, PaymentStatus::Paid),
        "{error}"
    );
    assert_eq!(
        error.receipt().unwrap().transaction(),
        paywall.settlements()[0].transaction
    );
    assert_eq!(
        client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()[0]
            .state,
        State::Settled
    );
}

#[tokio::test]
async fn new_terms_are_accepted_only_when_asked_under_the_policy_with_the_same_nonce() {
    let dearer = || paid_report().fault_once(Fault::RejectAgain);
    let paywall_ = paywall([dearer()]).await;
    let client_ = client();
    let response = client_
        .get(paywall_.url("/report"))
        .accept_new_terms()
        .send()
        .await
        .unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    let settled = paywall_.settlements();
    assert_eq!(
        (settled.len(), settled[0].authorization.value),
        (1, U256::from(20_000))
    );
    let purchases = client_
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    assert_eq!(
        (purchases.len(), purchases[0].value, purchases[0].nonce),
        (1, U256::from(20_000), settled[0].authorization.nonce)
    );
    assert_eq!(payments_sent(&paywall_), 2);

    let paywall_ = paywall([dearer()]).await;
    let tight = builder()
        .policy(policy().per_payment(usd!("0.015")))
        .build()
        .unwrap();
    let error = tight
        .get(paywall_.url("/report"))
        .accept_new_terms()
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.payment_status(), error.denial().unwrap().rule),
        (PaymentStatus::MaybePaid, Rule::PerPayment)
    );
    assert_eq!(payments_sent(&paywall_), 1);
    assert_eq!(
        tight
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()[0]
            .value,
        U256::from(10_000)
    );
}

#[tokio::test]
async fn redirects_are_followed_within_the_origin_before_payment_and_never_after() {
    let elsewhere = paywall([paid_report()]).await;
    let here = paywall([
        paid_report(),
        Route::any("/moved").redirect("/report"),
        Route::get("/away").redirect(elsewhere.url("/report").as_str()),
        Route::get("/trap")
            .price(usd!("0.01"))
            .fault(Fault::RedirectAfterPayment(elsewhere.url("/report"))),
    ])
    .await;
    let client = client();

    let response = client.get(here.url("/moved")).send().await.unwrap();
    assert_eq!(
        (response.url().path(), response.payment_status()),
        ("/report", PaymentStatus::Paid)
    );

    let response = client.get(here.url("/away")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (307, PaymentStatus::NotPaid)
    );

    let response = client.get(here.url("/trap")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (307, PaymentStatus::MaybePaid)
    );
    assert!(
        elsewhere.requests().is_empty(),
        "nothing reached the other origin"
    );
}

#[tokio::test]
async fn a_redirected_post_repeats_or_drops_its_body_as_the_status_says() {
    let paywall = paywall([
        Route::any("/echo").price(usd!("0.01")).echo(),
        Route::post("/see-other").redirect("/echo").status(303),
        Route::post("/temporary").redirect("/echo").status(307),
    ])
    .await;
    let client = client();
    let kept = client
        .post(paywall.url("/temporary"))
        .body("content")
        .send()
        .await
        .unwrap();
    assert_eq!(kept.text().await.unwrap(), "content");
    client
        .post(paywall.url("/see-other"))
        .body("content")
        .send()
        .await
        .unwrap();
    let last = paywall.requests().pop().unwrap();
    assert_eq!((last.method.as_str(), last.body.len()), ("GET", 0));
}

#[tokio::test]
async fn plain_http_is_refused_unless_loopback_is_allowed() {
    let paywall = paywall([paid_report()]).await;
    let strict = Client::builder()
        .signer(wallet())
        .policy(policy())
        .ledger(Ledger::memory())
        .build()
        .unwrap();
    let error = strict.get(paywall.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Insecure, PaymentStatus::NotPaid)
    );
    let error = client()
        .get("http://example.invalid/")
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Insecure);
    assert!(paywall.requests().is_empty());
}

#[tokio::test]
async fn private_networks_are_refused_on_request_behind_names_too() {
    let client = Client::builder().deny_private_networks().build().unwrap();
    for url in [
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:192.168.0.1]/",
    ] {
        assert_eq!(
            client.get(url).send().await.unwrap_err().kind(),
            ErrorKind::Insecure,
            "{url}"
        );
    }
    // The name resolves; the resolver inside the connector gives out none of its addresses.
    let error = client.get("https://localhost/").send().await.unwrap_err();
    let chain = format!("{error:?}");
    assert!(chain.contains("denies private networks"), "{chain}");
}

#[tokio::test]
async fn bombs_are_not_read() {
    let paywall_ = paywall([paid_report().fault(Fault::HangingBody402)]).await;
    let response = client().get(paywall_.url("/report")).send().await.unwrap();
    assert_eq!(
        response.payment_status(),
        PaymentStatus::Paid,
        "a body that the header makes unnecessary is not waited for"
    );

    let paywall_ = paywall([paid_report().fault(Fault::HugeBody402(64 * 1024 * 1024))]).await;
    assert_eq!(
        client()
            .get(paywall_.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );

    let paywall_ = paywall([paid_report()
        .v1()
        .fault(Fault::HugeBody402(2 * 1024 * 1024))])
    .await;
    let error = client()
        .get(paywall_.url("/report"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Malformed, PaymentStatus::NotPaid)
    );

    let paywall_ = paywall([paid_report().fault(Fault::HugeHeader(100 * 1024))]).await;
    let error = client()
        .get(paywall_.url("/report"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Malformed, PaymentStatus::NotPaid)
    );
}

#[cfg(feature = "gzip")]
#[tokio::test]
async fn a_compressed_bomb_is_measured_as_it_unpacks() {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed
        .write_all(br#"{"x402Version":1,"accepts":[],"error":""#)
        .unwrap();
    packed.write_all(&vec![b' '; 64 * 1024 * 1024]).unwrap();
    packed.write_all(br#""}"#).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 128 * 1024);
    let bomb = Route::get("/bomb")
        .status(402)
        .header("content-type", "application/json");
    let paywall = paywall([bomb.header("content-encoding", "gzip").body(packed)]).await;
    let error = client().get(paywall.url("/bomb")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Malformed, PaymentStatus::NotPaid),
        "{error}"
    );
}

#[tokio::test]
async fn the_payment_header_is_marked_sensitive() {
    let paywall = paywall([paid_report()]).await;
    let client = client();
    let url = paywall.url("/report");
    let price_check = client
        .get(url.clone())
        .quote()
        .await
        .unwrap()
        .priced()
        .unwrap();
    let intent = bursar::PurchaseRequest::new("GET", url.as_str(), b"").unwrap();
    let payment = client
        .payer()
        .unwrap()
        .authorize(&price_check.required, &intent)
        .await
        .unwrap();
    let (name, value) = payment.header().unwrap();
    assert_eq!(
        (name.as_str(), value.is_sensitive()),
        ("payment-signature", true)
    );
}

#[tokio::test]
async fn answers_are_bounded_in_time_and_the_money_is_not_forgotten() {
    let paywall = paywall([paid_report().fault(Fault::HangAfterSettle)]).await;
    let client = client();
    let error = client
        .get(paywall.url("/report"))
        .timeout(Duration::from_millis(300))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Timeout, PaymentStatus::MaybePaid)
    );
    assert_eq!(
        client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()[0]
            .state,
        State::Unresolved
    );
}

#[tokio::test]
async fn a_dropped_call_is_booked_as_unknown() {
    let paywall = paywall([paid_report().fault(Fault::HangAfterSettle)]).await;
    let client = client();
    let call = tokio::spawn(client.get(paywall.url("/report")).send());
    paywall.wait_for_settlements(1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let purchases = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    assert_eq!(
        (purchases.len(), purchases[0].state),
        (1, State::Unresolved)
    );
    let used = client.budget().await.unwrap();
    assert!(
        used.iter().any(|finding| finding.rule == Rule::Rolling
            && finding.used.as_ref().unwrap().to_string() == "0.01 USD"),
        "{used:?}"
    );
}

#[tokio::test]
async fn a_paid_body_streams_before_it_is_complete() {
    let paywall = paywall([Route::get("/events")
        .price(usd!("0.01"))
        .events(["1", "2", "3"])])
    .await;
    let mut response = client().get(paywall.url("/events")).send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "data: 1\n\ndata: 2\n\ndata: 3\n\n"
    );
}

#[tokio::test]
async fn the_cheapest_payable_offer_is_paid_and_what_is_signed_is_what_was_offered() {
    let usdc = AssetRegistry::stablecoins()
        .find_symbol(Network::from_chain_id(84_532), "USDC")
        .unwrap()
        .address();
    let offer = |scheme: &str, amount: &str, extra: &str| {
        format!(
            r#"{{"scheme":"{scheme}","network":"eip155:84532","amount":"{amount}","asset":"{usdc}","payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C","maxTimeoutSeconds":3600,"extra":{extra},"unknown":[1.50]}}"#
        )
    };
    let domain = r#"{"name":"USDC","version":"2"}"#;
    let offers = [
        offer("exact", "50000", domain),
        offer("upto", "1", domain),
        offer(
            "exact",
            "1",
            r#"{"name":"USDC","version":"2","assetTransferMethod":"permit2"}"#,
        ),
        offer("exact", "2", r#"{"name":"USD Coin","version":"2"}"#),
        offer("exact", "20000", domain),
    ];
    let paywall = paywall([Route::get("/several").offers(offers.clone()).body("x")]).await;
    let client = client();
    let response = client.get(paywall.url("/several")).send().await.unwrap();
    let receipt = response.receipt().unwrap();
    assert_eq!(receipt.amount().to_string(), "0.02 USDC");
    let settled = &paywall.settlements()[0];
    assert_eq!(settled.authorization.value, U256::from(20_000));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(
        receipt.payment().valid_before <= now.saturating_add(300),
        "an hour was asked, the ceiling is 300 s"
    );
}

#[tokio::test]
async fn when_nothing_is_payable_every_reason_is_given() {
    let paywall = paywall([Route::get("/x").offers([
        r#"{"scheme":"upto"}"#,
        r#"{"scheme":"exact","network":"solana:x","amount":"1","asset":"a","payTo":"b","maxTimeoutSeconds":60}"#,
    ])])
    .await;
    let error = client().get(paywall.url("/x")).send().await.unwrap_err();
    assert_eq!(
        (
            error.kind(),
            error.payment_status(),
            error.unpayable().len()
        ),
        (ErrorKind::NotPayable, PaymentStatus::NotPaid, 2)
    );
}

#[tokio::test]
async fn error_for_spend_knows_what_was_paid() {
    let paywall = paywall([
        Route::get("/up")
            .price(usd!("0.01"))
            .upfront()
            .status(500)
            .body("sorry"),
        Route::get("/free").status(404),
    ])
    .await;
    let client = client();
    let error = client
        .get(paywall.url("/up"))
        .send()
        .await
        .unwrap()
        .error_for_payment()
        .unwrap_err();
    assert_eq!(
        (error.payment_status(), error.status().unwrap().as_u16()),
        (PaymentStatus::Paid, 500)
    );
    assert_eq!(
        error.receipt().unwrap().transaction(),
        paywall.settlements()[0].transaction
    );
    assert!(error.to_string().starts_with("paid: "), "{error}");
    let error = client
        .get(paywall.url("/free"))
        .send()
        .await
        .unwrap()
        .error_for_payment()
        .unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::NotPaid);
}

#[tokio::test]
async fn neither_key_nor_signature_nor_query_is_in_what_the_client_says() {
    let paywall = paywall([paid_report().fault(Fault::DropAfterSettle)]).await;
    let client = client();
    let mut url = paywall.url("/report");
    url.set_query(Some("email=secret@example.com"));
    let error = client.get(url).send().await.unwrap_err();
    let purchases = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    let mut exported = Vec::new();
    bursar::ledger::write_csv(&purchases, &mut exported).unwrap();
    bursar::ledger::write_jsonl(&purchases, &mut exported).unwrap();
    let said = format!(
        "{client:?} {error} {error:?} {purchases:?} {}",
        String::from_utf8(exported).unwrap()
    );

    let header = paywall.requests().pop().unwrap().headers["payment-signature"]
        .to_str()
        .unwrap()
        .to_owned();
    let payment = paywall
        .requests()
        .pop()
        .unwrap()
        .payment
        .unwrap()
        .json
        .unwrap();
    let signature = payment["payload"]["signature"].as_str().unwrap();
    for secret in [
        KEY.trim_start_matches("0x"),
        &header,
        signature,
        "secret@example",
    ] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}

//! Terms and receipts as sellers really write them.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bursar::ledger::State;
use bursar::policy::Rule;
use bursar::x402::Unpayable;
use bursar::{Error, ErrorKind, PaymentStatus, ResponseExt, usd};
use bursar_testing::{Encoding, FalseTerms, Fault, Paywall, Route};
use bursar_tests::paywall::{
    client, distinct_payments, http, open, payments_sent, policy, purchases, report,
};
use serde_json::{Value, json};

const OFFER: &str = r#"{"scheme":"exact","network":"eip155:84532","amount":"10000","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","payTo":"0x2222222222222222222222222222222222222222","maxTimeoutSeconds":60,"extra":{"name":"USDC","version":"2"}}"#;
const V1_OFFER: &str = r#"{"scheme":"exact","network":"base-sepolia","maxAmountRequired":"10000","resource":"https://shop.example/r","description":"","mimeType":"","payTo":"0x2222222222222222222222222222222222222222","maxTimeoutSeconds":60,"asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","outputSchema":null,"extra":{"name":"USDC","version":"2"}}"#;

/// Returns version 2's terms with these elements of `accepts`.
fn terms(offers: &str) -> String {
    format!(
        r#"{{"x402Version":2,"resource":{{"url":"https://shop.example/r"}},"accepts":[{offers}]}}"#
    )
}

/// A seller that answers with bytes: one 402 to every request without a payment, and another answer to a payment.
struct RawSeller {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

/// The payments in one request, by the names of their headers.
#[derive(Default)]
struct Payments {
    v2: Option<Value>,
    v1: Option<Value>,
}

impl Payments {
    fn of(head: &str) -> Self {
        let payment = |name: &str| {
            let line = head
                .lines()
                .find(|line| line.to_ascii_lowercase().starts_with(name))?;
            let (_, value) = line.split_once(": ")?;
            serde_json::from_slice(&STANDARD.decode(value).unwrap()).unwrap()
        };
        Self {
            v2: payment("payment-signature:"),
            v1: payment("x-payment:"),
        }
    }

    fn any(&self) -> Option<&Value> {
        self.v2.as_ref().or(self.v1.as_ref())
    }
}

/// Returns an answer with a receipt for the payment.
fn sold(payment: &Value) -> String {
    let payer = payment.pointer("/payload/authorization/from").unwrap();
    let receipt = json!({
        "success": true, "transaction": format!("0x{}", "ab".repeat(32)), "network": "eip155:84532", "payer": payer,
    });
    let receipt = STANDARD.encode(receipt.to_string());
    format!("HTTP/1.1 200 OK\r\npayment-response: {receipt}\r\ncontent-length: 5\r\n\r\ngoods")
}

/// Returns a 402 with these header lines and this body.
fn challenge(headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 402 Payment Required\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

fn header(value: &str) -> String {
    format!("payment-required: {value}\r\n")
}

impl RawSeller {
    fn open(
        unpaid: impl Into<Vec<u8>>,
        answer: impl Fn(&Payments) -> Option<String> + Send + 'static,
    ) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/r", socket.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (unpaid, seen) = (unpaid.into(), Arc::clone(&heads));
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let sold = answer(&Payments::of(&head)).map(String::into_bytes);
                seen.lock().unwrap().push(head);
                let answer = sold.unwrap_or_else(|| unpaid.clone());
                let end = answer
                    .windows(2)
                    .position(|bytes| bytes == b"\r\n")
                    .unwrap();
                let (status, rest) = answer.split_at(end);
                let closing = [status, b"\r\nconnection: close", rest].concat();
                drop(stream.write_all(&closing));
            }
        });
        Self { url, heads }
    }

    /// Opens a seller that takes a payment of either version.
    fn simple(unpaid: impl Into<Vec<u8>>) -> Self {
        Self::open(unpaid, |payments| payments.any().map(sold))
    }

    fn payments(&self) -> Vec<Payments> {
        let heads = self.heads.lock().unwrap();
        heads
            .iter()
            .map(|head| Payments::of(head))
            .filter(|payments| payments.any().is_some())
            .collect()
    }
}

/// Buys, and checks that one payment was signed, sent once and settled. Returns it.
async fn paid(unpaid: impl Into<Vec<u8>>) -> Payments {
    let unpaid = unpaid.into();
    let shown = String::from_utf8_lossy(&unpaid).into_owned();
    let seller = RawSeller::simple(unpaid);
    let client = client().build().unwrap();
    let response = client.get(&seller.url).send().await;
    let response = response.unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(response.payment_status(), PaymentStatus::Paid, "{shown}");
    let purchases = purchases(&client).await;
    assert_eq!((purchases.len(), purchases[0].state), (1, State::Settled));
    let mut payments = seller.payments();
    assert_eq!((payments.len(), seller.heads.lock().unwrap().len()), (1, 2));
    payments.remove(0)
}

/// Buys, and checks that nothing was signed. Returns the error.
async fn refused(unpaid: impl Into<Vec<u8>>) -> Error {
    let seller = RawSeller::simple(unpaid);
    let client = client().build().unwrap();
    let error = client.get(&seller.url).send().await.unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::NotPaid, "{error}");
    assert!(purchases(&client).await.is_empty(), "{error}");
    assert_eq!(seller.heads.lock().unwrap().len(), 1, "{error}");
    error
}

fn malformed(error: &Error, words: &str) {
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(error.status().unwrap().as_u16(), 402);
}

fn not_payable(error: &Error, words: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::NotPayable, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[tokio::test]
async fn terms_and_receipts_in_every_encoding_are_read() {
    for encoding in [
        Encoding::Unpadded,
        Encoding::UrlSafe,
        Encoding::UrlSafeUnpadded,
        Encoding::PercentEncoded,
        Encoding::Quoted,
        Encoding::Json,
        Encoding::Body,
        Encoding::BodyMember("detail".to_owned()),
    ] {
        // The description has characters whose base64 differs in the two alphabets.
        let route = report()
            .description("~~~???ÿÿÿ>>>")
            .encoding(encoding.clone());
        let seller = open(route).await;
        let client = client().build().unwrap();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(
            response.payment_status(),
            PaymentStatus::Paid,
            "{encoding:?}"
        );
        assert_eq!(
            response.receipt().unwrap().transaction(),
            seller.settlements()[0].transaction,
            "{encoding:?}"
        );
        assert_eq!((payments_sent(&seller), seller.settlements().len()), (1, 1));
    }
}

#[tokio::test]
async fn a_header_is_read_however_it_is_wrapped() {
    let json = terms(OFFER);
    let base64 = STANDARD.encode(&json);
    let (first, second) = base64.split_at(40);
    for value in [
        format!("  {base64}\t"),
        format!("{first} \t {second}"),
        format!("\"{base64}\""),
        format!("'{base64}'"),
        format!("\"{}\"", URL_SAFE_NO_PAD.encode(&json)),
        STANDARD_NO_PAD.encode(format!("\u{feff}{json}\n")),
        STANDARD.encode(json!(json).to_string()),
        json!(json).to_string(),
        format!("b'{base64}'"),
        json.replace('"', "%22").replace('{', "%7B"),
        json.clone(),
    ] {
        let payment = paid(challenge(&header(&value), "{}")).await.v2.unwrap();
        assert_eq!(payment["accepted"].to_string(), OFFER, "{value}");
    }
    // The same terms twice are no contradiction, whatever their encoding.
    for other in [&base64, &json] {
        let twice = format!("{}{}", header(&base64), header(other));
        paid(challenge(&twice, "<html></html>")).await;
    }
}

/// R16: the header is plain JSON, and so is a receipt that says nothing.
#[tokio::test]
async fn plain_json_in_headers_is_read_and_a_receipt_that_says_nothing_proves_nothing() {
    let v1 = format!(r#"{{"x402Version":1,"accepts":[{V1_OFFER}]}}"#);
    let unpaid = challenge(&header(&terms(OFFER)), &v1);
    let seller = RawSeller::open(unpaid, |payments| {
        payments.v2.as_ref().map(|_| {
            "HTTP/1.1 200 OK\r\npayment-response: {\"receiptId\":\"r1\",\"nonce\":\"0x1\"}\r\ncontent-length: 0\r\n\r\n".to_owned()
        })
    });
    let client = client().build().unwrap();
    let response = client.get(&seller.url).send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::MaybePaid);
    let purchase = purchases(&client).await.remove(0);
    assert_eq!(purchase.state, State::Unresolved);
    let reason = purchase.reason.unwrap();
    assert!(reason.contains("does not say `success`"), "{reason}");
    assert_eq!(seller.payments().len(), 1);
}

#[tokio::test]
async fn an_unreadable_header_does_not_matter_if_the_body_has_terms() {
    let v1 = format!(r#"{{"x402Version":1,"accepts":[{V1_OFFER}]}}"#);
    for value in ["!!", "", "e30=", "{\"x402Version\":2", &"x".repeat(65_537)] {
        let payment = paid(challenge(&header(value), &v1)).await;
        assert!(payment.v1.is_some() && payment.v2.is_none());
    }
}

/// R27 and others: the header says x402, and nothing can be read. The caller learns why and sees the body.
#[tokio::test]
async fn terms_that_cannot_be_read_are_refused_with_the_reason_and_the_body() {
    let single = r#"{"scheme":"exact","network":"eip155:84532","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","amount":40000,"payTo":"0x2222222222222222222222222222222222222222","maxTimeoutSeconds":300}"#;
    let error = refused(challenge(&header(&STANDARD.encode(single)), "{}")).await;
    malformed(&error, "no x402Version; it looks like a single offer");
    for (value, words) in [
        ("!!", "neither base64 nor JSON"),
        ("bnVsbA==", "not an x402 message"),
        ("e30=", "no x402Version"),
        (r#"{"x402Version":3}"#, "x402Version 3 is not supported"),
        (r#"{"x402Version":"two"}"#, "x402Version is no number"),
        (r#"{"x402Version":2,"accepts":7}"#, "`accepts` is no list"),
    ] {
        let error = refused(challenge(&header(value), "write to sales@shop.example")).await;
        malformed(&error, words);
        malformed(&error, "write to sales@shop.example");
        assert_eq!(error.reason(), Some("write to sales@shop.example"));
    }
    let error = refused(challenge("", r#"{"x402Version":2,"accepts":"none"}"#)).await;
    malformed(&error, "`accepts` is no list");
}

#[tokio::test]
async fn a_body_is_read_whatever_its_label_and_its_spelling() {
    let inner = format!(r#""accepts":[{V1_OFFER}]"#);
    let v1 = format!(r#"{{"x402Version":1,{inner}}}"#);
    let snake = v1
        .replace("x402Version", "x402_version")
        .replace("payTo", "pay_to")
        .replace("maxAmountRequired", "max_amount_required")
        .replace("maxTimeoutSeconds", "max_timeout_seconds");
    let bare = r#"{"x402Version":1,"accepts":[{"scheme":"exact","network":"base-sepolia","maxAmountRequired":10000,"payTo":"0x2222222222222222222222222222222222222222","asset":"0x036cbd53842c5426634e7929541ec2318f3dcf7e","extra":{},"description":null,"mimeType":null,"outputSchema":null}]}"#;
    for body in [
        snake,
        bare.to_owned(),
        bare.replace("{}", "null"),
        bare.replace("{}", "[]"),
        bare.replace(r#""extra":{}"#, r#""maxTimeoutSeconds":"60""#),
        bare.replace(r#""extra":{}"#, r#""maxTimeoutSeconds":null"#),
        format!(r#"{{"x402Version":"1",{inner}}}"#),
        format!(r#"{{"x402Version":1.0,{inner}}}"#),
        format!("\u{feff}\n {v1}"),
        v1.replace("accepts", "paymentRequirements"),
        format!(r#"{{"x402Version":1,"paymentRequirements":{V1_OFFER}}}"#),
        format!(r#"{{"detail":{v1}}}"#),
        format!(r#"{{"error":{{"code":402,"data":{v1}}}}}"#),
        format!(r#"{{"status":"error","paymentRequired":{v1}}}"#),
        format!(r#"{{"payment_required":{v1},"message":"pay"}}"#),
        format!(r#"{{"x402":{v1},"data":{v1}}}"#),
        json!(v1).to_string(),
    ] {
        for label in [
            "",
            "content-type: text/html; charset=utf-8\r\n",
            "content-type: application/octet-stream\r\n",
            "content-type: application/json\r\n",
        ] {
            let payment = paid(challenge(label, &body)).await;
            let v1 = payment.v1.unwrap();
            assert_eq!(
                (&v1["x402Version"], &v1["network"]),
                (&json!(1), &json!("base-sepolia")),
                "{body}"
            );
            assert!(payment.v2.is_none());
        }
    }
}

#[tokio::test]
async fn the_offer_is_repeated_as_the_seller_wrote_it() {
    for offer in [
        OFFER.replace(r#""10000""#, "10000"),
        OFFER.replace("payTo", "pay_to").replace("max", "max_"),
        OFFER
            .replace(r#""maxTimeoutSeconds":60,"#, "")
            .replace(",\"extra\":{\"name\":\"USDC\",\"version\":\"2\"}", ""),
        OFFER.replace(r#""extra":"#, r#""note":1.50,"amount":"10000","extra":"#),
    ] {
        let seller = RawSeller::simple(challenge(&header(&STANDARD.encode(terms(&offer))), "{}"));
        let client = client().build().unwrap();
        let response = client.get(&seller.url).send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
        let head = seller.heads.lock().unwrap()[1].clone();
        let sent = head
            .lines()
            .find_map(|line| line.strip_prefix("payment-signature: "));
        let sent = String::from_utf8(STANDARD.decode(sent.unwrap()).unwrap()).unwrap();
        assert!(sent.contains(&format!("\"accepted\":{offer}}}")), "{sent}");
    }
}

/// A URL in place of the resource is judged by the policy, and only objects are repeated.
#[tokio::test]
async fn a_resource_that_is_a_text_and_extensions_that_are_a_list_are_not_repeated() {
    let json = terms(OFFER).replace(
        r#"{"url":"https://shop.example/r"}"#,
        r#""https://shop.example/r","extensions":[]"#,
    );
    let unpaid = challenge(&header(&STANDARD.encode(json)), "{}");
    let payment = paid(unpaid.clone()).await.v2.unwrap();
    assert!(payment.get("resource").is_none() && payment.get("extensions").is_none());
    let seller = RawSeller::simple(unpaid);
    let strict = client()
        .policy(policy().refuse_foreign_resource())
        .build()
        .unwrap();
    let error = strict.get(&seller.url).send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::ResourceOrigin);
    assert!(seller.payments().is_empty());
}

#[tokio::test]
async fn a_page_for_people_is_handed_up_and_terms_in_the_header_are_paid() {
    let page = "<!doctype html><p>Pay here</p><script>window.x402 = {\"x402Version\":1}</script>";
    let html = "content-type: text/html\r\n";
    let seller = RawSeller::simple(challenge(html, page));
    let client = client().build().unwrap();
    let response = client.get(&seller.url).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (402, PaymentStatus::NotPaid)
    );
    assert_eq!(response.text().await.unwrap(), page);
    assert!(purchases(&client).await.is_empty());
    let with_terms = format!("{html}{}", header(&STANDARD.encode(terms(OFFER))));
    paid(challenge(&with_terms, page)).await;
}

/// R14: version 2 in the body alone, by version 1's names, and a seller that reads version 1's header.
#[tokio::test]
async fn version_2_terms_in_a_body_are_paid_in_both_shapes_with_one_authorization() {
    let by_names = V1_OFFER.replace("maxAmountRequired", "amount");
    for (offer, network) in [(by_names.as_str(), "base-sepolia"), (OFFER, "eip155:84532")] {
        let body = format!(
            r#"{{"x402Version":2,"error":"X-PAYMENT header is required","accepts":[{offer}]}}"#
        );
        let seller = RawSeller::open(
            challenge("content-type: application/json\r\n", &body),
            |payments| {
                let payment = payments.v1.as_ref()?;
                (payment["x402Version"] == 1).then(|| sold(payment))
            },
        );
        let client = client().build().unwrap();
        let response = client.get(&seller.url).send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
        let payments = seller.payments();
        assert_eq!(payments.len(), 1);
        let (v1, v2) = (
            payments[0].v1.clone().unwrap(),
            payments[0].v2.clone().unwrap(),
        );
        assert_eq!(
            (&v1["scheme"], &v1["network"]),
            (&json!("exact"), &json!(network))
        );
        assert_eq!(v1["payload"], v2["payload"]);
        assert_eq!(v2["accepted"].to_string(), offer);
        assert_eq!(purchases(&client).await.len(), 1);
    }
}

#[tokio::test]
async fn a_payment_in_both_shapes_is_sent_again_in_both() {
    // The seller says version 2 in the body, and reads `X-PAYMENT` only.
    let route = report()
        .v1()
        .idempotent()
        .fault(Fault::Terms(FalseTerms::ProtocolVersion("2".to_owned())))
        .fault_once(Fault::DropAfterSettle);
    let seller = open(route).await;
    let client = client().build().unwrap();
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    let paid: Vec<_> = seller
        .requests()
        .into_iter()
        .filter(|request| request.payment.is_some())
        .collect();
    assert_eq!(
        (
            paid.len(),
            seller.settlements().len(),
            distinct_payments(&seller)
        ),
        (2, 1, 1)
    );
    assert!(paid[0].header("x-payment").is_some());
    for name in ["x-payment", "payment-signature"] {
        assert_eq!(paid[0].header(name), paid[1].header(name));
    }
}

/// A payment of version 1 is matched with the first offer of its network.
#[tokio::test]
async fn only_the_first_offer_of_a_network_is_paid_for_version_2_terms_in_a_body() {
    let expensive = OFFER.replace("10000", "900000");
    let error = refused(challenge("", &terms(&format!("{expensive},{OFFER}")))).await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    let cheaper = OFFER.replace("10000", "9000");
    let payment = paid(challenge("", &terms(&format!("{OFFER},{cheaper}")))).await;
    assert_eq!(payment.v2.unwrap()["accepted"].to_string(), OFFER);
}

/// R22: a facilitator refuses descriptions of more than 500 characters.
#[tokio::test]
async fn a_long_description_is_cut_in_the_payment_and_named_by_a_quote() {
    for (length, is_long) in [(500, false), (501, true), (5_000, true)] {
        let seller = open(report().description("é".repeat(length))).await;
        let client = client().build().unwrap();
        let check = client
            .get(seller.url("/report"))
            .quote()
            .await
            .unwrap()
            .priced()
            .unwrap();
        let warnings = check.required.warnings();
        assert_eq!(warnings.len(), usize::from(is_long), "{warnings:?}");
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
        assert_eq!((payments_sent(&seller), seller.settlements().len()), (1, 1));
        let payment = seller
            .requests()
            .pop()
            .unwrap()
            .payment
            .unwrap()
            .json
            .unwrap();
        let sent = payment["resource"]["description"].as_str().unwrap();
        assert_eq!(sent.chars().count(), length.min(500));
    }
}

/// R28: two lists, and dollars as the amount.
#[tokio::test]
async fn the_reasons_name_everything_that_an_offer_lacks() {
    let terms = format!(
        r#"{{"x402Version":1,"paymentRequirements":[{V1_OFFER}],"error":"Payment required","accepts":[{{"network":"eip155:84532","asset":"USDC","amount":"$0.01"}}]}}"#
    );
    let error = refused(challenge(&header(&STANDARD.encode(terms)), "{}")).await;
    not_payable(
        &error,
        &[
            "no `scheme`",
            "no `payTo`",
            "amount `$0.01` is not a canonical",
        ],
    );
}

/// R30: one foreign offer never makes the others unreadable.
#[tokio::test]
async fn foreign_offers_do_not_hide_the_one_that_can_be_paid() {
    let foreign = r#"{"scheme":"exact","network":"eip155:137","asset":"0x3333333333333333333333333333333333333333","maxAmountRequired":"1","amount":"1","payTo":"0x2222222222222222222222222222222222222222","maxTimeoutSeconds":60}"#;
    let others =
        r#"null,7,"x",[],{},{"scheme":"exact","network":"solana:x"},{"scheme":3,"network":{}}"#;
    for (version, offer) in [(1, V1_OFFER), (2, OFFER)] {
        let json = format!(r#"{{"x402Version":{version},"accepts":[{foreign},{others},{offer}]}}"#);
        let unpaid = challenge(&header(&STANDARD.encode(&json)), "{}");
        paid(unpaid.clone()).await;
        let seller = RawSeller::simple(unpaid);
        let client = client().build().unwrap();
        let check = client
            .get(&seller.url)
            .quote()
            .await
            .unwrap()
            .priced()
            .unwrap();
        assert_eq!((check.offers.len(), check.best().unwrap().offer()), (9, 8));
        let reasons = check
            .offers
            .iter()
            .filter_map(|offer| offer.quote.as_ref().err());
        assert_eq!(
            reasons
                .filter(|reason| !reason.to_string().is_empty())
                .count(),
            8
        );
    }
}

/// R31 and R32: schemes that bursar does not sign, beside one that it signs.
#[tokio::test]
async fn an_unsupported_scheme_is_named_and_the_ordinary_offer_is_paid() {
    let upto = OFFER.replace("exact", "upto").replace("10000", "5000");
    let gateway = OFFER.replace("\"USDC\",\"version\":\"2\"", "\"GatewayWalletBatched\",\"version\":\"1\",\"verifyingContract\":\"0x7777777777777777777777777777777777777777\"");
    for (foreign, words) in [
        (&upto, "`upto` is not supported"),
        (&gateway, "Circle Gateway's batched scheme"),
    ] {
        let terms_of = |offers: &str| challenge(&header(&STANDARD.encode(terms(offers))), "{}");
        not_payable(&refused(terms_of(foreign)).await, &[words]);
        let payment = paid(terms_of(&format!("{foreign},{OFFER}")))
            .await
            .v2
            .unwrap();
        assert_eq!(payment["accepted"].to_string(), OFFER);
    }
}

#[tokio::test]
async fn members_that_contradict_each_other_are_refused_by_name() {
    let terms_of = |offer: &str| challenge(&header(&STANDARD.encode(terms(offer))), "{}");
    let after = |member: &str| OFFER.replacen('{', &format!("{{{member},"), 1);
    for (member, name) in [
        (r#""maxAmountRequired":"9999""#, "`maxAmountRequired`"),
        (r#""amount":"9999""#, "`amount`"),
        (
            r#""pay_to":"0x3333333333333333333333333333333333333333""#,
            "`pay_to`",
        ),
        (r#""network":"eip155:8453""#, "`network`"),
        (r#""scheme":"upto""#, "`scheme`"),
        (
            r#""asset":"0x3333333333333333333333333333333333333333""#,
            "`asset`",
        ),
        (r#""max_timeout_seconds":600"#, "`max_timeout_seconds`"),
        (r#""extra":{"name":"Evil"}"#, "`extra`"),
    ] {
        let error = refused(terms_of(&after(member))).await;
        not_payable(&error, &["contradicts itself", name]);
        assert!(matches!(error.unpayable(), [Unpayable::Contradiction(_)]));
    }
    for same in [
        r#""amount":"10000""#,
        r#""maxAmountRequired":10000"#,
        r#""pay_to":"0x2222222222222222222222222222222222222222""#,
        r#""asset":"0x036cbd53842c5426634e7929541ec2318f3dcf7e""#,
    ] {
        paid(terms_of(&after(same))).await;
    }
    let two = format!(
        r#"{{"x402Version":1,"accepts":[{V1_OFFER}],"paymentRequirements":[{}]}}"#,
        V1_OFFER.replace("10000", "1")
    );
    not_payable(
        &refused(challenge("", &two)).await,
        &["`accepts` and `paymentRequirements` differ"],
    );
}

#[tokio::test]
async fn messages_that_contradict_each_other_are_refused() {
    let (one, other) = (terms(OFFER), terms(&OFFER.replace("10000", "9000")));
    let (one, other) = (STANDARD.encode(one), STANDARD.encode(other));
    let v1 = format!(r#"{{"x402Version":1,"accepts":[{V1_OFFER}]}}"#);
    let two_headers = format!("{}{}", header(&one), header(&other));
    let error = refused(challenge(&two_headers, &v1)).await;
    malformed(&error, "two PAYMENT-REQUIRED headers differ");
    let cheap = V1_OFFER.replace("10000", "1");
    for body in [
        format!(r#"{{"x402Version":1,"accepts":[{V1_OFFER}],"accepts":[{cheap}]}}"#),
        format!(r#"{{"x402Version":1,"x402_version":2,"accepts":[{V1_OFFER}]}}"#),
        format!(r#"{{"detail":{v1},"data":{}}}"#, v1.replace("10000", "1")),
    ] {
        malformed(&refused(challenge("", &body)).await, "ambiguous");
    }
}

#[tokio::test]
async fn version_1_in_the_body_beside_version_2_in_the_header_is_no_contradiction() {
    let v1 = format!(r#"{{"x402Version":1,"accepts":[{V1_OFFER}]}}"#);
    let payment = paid(challenge(&header(&STANDARD.encode(terms(OFFER))), &v1)).await;
    assert!(payment.v2.is_some() && payment.v1.is_none());
}

#[tokio::test]
async fn more_than_32_offers_are_read_and_offers_that_are_left_out_are_counted() {
    let list = |count: usize| format!("{}{OFFER}", r#"{"scheme":"x"},"#.repeat(count));
    let terms_of = |count| challenge(&header(&STANDARD.encode(terms(&list(count)))), "{}");
    for count in [32, 100, 255] {
        paid(terms_of(count)).await;
    }
    not_payable(
        &refused(terms_of(300)).await,
        &["45 further offers were not read"],
    );
}

/// R29: a receipt of failure with empty network and payer.
#[tokio::test]
async fn a_receipt_of_failure_is_read_without_network_and_payer() {
    let empty = r#"{"success":false,"errorReason":"invalid_exact_evm_insufficient_balance","transaction":"","network":"","payer":""}"#;
    for receipt in [
        empty.to_owned(),
        empty.replace(r#""""#, "null"),
        empty.replace(r#","transaction":"","network":"","payer":"""#, ""),
        empty.replace("errorReason", "error_reason"),
        empty.replace("false", "\"false\""),
    ] {
        let unpaid = challenge(&header(&STANDARD.encode(terms(OFFER))), "{}");
        let seller = RawSeller::open(unpaid, move |payments| {
            payments.v2.as_ref().map(|_| {
                challenge(
                    &format!("payment-response: {}\r\n", STANDARD.encode(&receipt)),
                    "{}",
                )
            })
        });
        let client = client().build().unwrap();
        let error = client.get(&seller.url).send().await.unwrap_err();
        assert_eq!(
            error.reason(),
            Some("invalid_exact_evm_insufficient_balance"),
            "{error}"
        );
        assert_eq!(purchases(&client).await[0].state, State::Rejected);
    }
}

#[tokio::test]
async fn a_receipt_in_another_spelling_settles_and_a_false_one_does_not() {
    let hash = format!("0x{}", "ab".repeat(32));
    let other = format!("0x{}", "cd".repeat(32));
    for (receipt, status) in [
        (
            json!({ "success": "true", "txHash": hash, "networkId": "base-sepolia" }),
            PaymentStatus::Paid,
        ),
        (
            json!({ "success": true, "transaction": hash, "tx_hash": hash, "network": "eip155:84532" }),
            PaymentStatus::Paid,
        ),
        (
            json!({ "success": true, "transaction": hash, "tx_hash": other, "network": "eip155:84532" }),
            PaymentStatus::MaybePaid,
        ),
        (
            json!({ "success": true, "transaction": hash, "network": "eip155:8453" }),
            PaymentStatus::MaybePaid,
        ),
    ] {
        let unpaid = challenge(&header(&STANDARD.encode(terms(OFFER))), "{}");
        let shown = receipt.to_string();
        let seller = RawSeller::open(unpaid, move |payments| {
            let payment = payments.v2.as_ref()?;
            let mut receipt = receipt.clone();
            receipt["payer"] = payment["payload"]["authorization"]["from"].clone();
            Some(format!(
                "HTTP/1.1 200 OK\r\npayment-response: {receipt}\r\ncontent-length: 0\r\n\r\n"
            ))
        });
        let client = client().build().unwrap();
        let response = client.get(&seller.url).send().await.unwrap();
        assert_eq!(response.payment_status(), status, "{shown}");
    }
}

/// Returns the length of the payment header that reached the seller.
fn payment_length(seller: &Paywall) -> usize {
    seller
        .requests()
        .pop()
        .unwrap()
        .payment
        .unwrap()
        .header
        .len()
}

/// R08: a header that common servers refuse is never sent.
#[tokio::test]
async fn a_payment_header_stays_below_16_kib_or_is_not_signed() {
    let pad = json!({ "info": { "pad": "a".repeat(18_000) } });
    for route in [
        report().extension("x", pad.clone()),
        report().extension("x", json!({ "info": { "pad": "a".repeat(6_000) } })),
    ] {
        let seller = open(route).await;
        let client = client().build().unwrap();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
        assert!(payment_length(&seller) <= 15 * 1024);
    }
    let required = json!({ "info": { "required": true, "pad": "a".repeat(18_000) } });
    let long = OFFER.replace(
        "\"extra\":{",
        &format!("\"extra\":{{\"pad\":\"{}\",", "a".repeat(12_000)),
    );
    for route in [
        report().extension("x", required),
        Route::get("/report").offers([long]),
    ] {
        let seller = open(route).await;
        let client = client().build().unwrap();
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        not_payable(
            &error,
            &["the payment header would have about", "16 KiB of headers"],
        );
        assert!(
            matches!(error.unpayable(), [Unpayable::HeaderTooLong { length }] if *length > 15 * 1024)
        );
        assert_eq!(
            (payments_sent(&seller), purchases(&client).await.len()),
            (0, 0)
        );
    }
}

/// A seller over HTTP/2 with prior knowledge. It takes a payment of version 2.
async fn http2_seller(terms: String) -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/r", socket.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let terms = terms.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let payment = request.headers().get("payment-signature");
                    let head = http::Response::builder();
                    let head = match payment {
                        None => head.status(402).header("payment-required", &terms),
                        Some(payment) => {
                            let payment = STANDARD.decode(payment).unwrap();
                            let sold = sold(&serde_json::from_slice(&payment).unwrap());
                            let receipt = sold.lines().nth(1).unwrap().split_once(": ").unwrap().1;
                            head.status(200).header("payment-response", receipt)
                        }
                    };
                    respond.send_response(head.body(()).unwrap(), true).unwrap();
                }
            });
        }
    });
    url
}

fn long_terms(length: usize) -> String {
    let pad = "a".repeat(length);
    let json = terms(OFFER).replacen(
        '{',
        &format!(r#"{{"extensions":{{"x":{{"info":{{"pad":"{pad}"}}}}}},"#),
        1,
    );
    STANDARD.encode(json)
}

/// R08: terms of 24 KiB and of almost 64 KiB over HTTP/2, through the client and through middleware.
#[tokio::test]
async fn long_terms_are_read_over_http_2() {
    for length in [18_000, 48_000] {
        let url = http2_seller(long_terms(length)).await;
        let http = http().http2_prior_knowledge();
        let client = client().http(http).build().unwrap();
        let response = client.get(&url).send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
    }
}

#[cfg(feature = "middleware")]
#[tokio::test]
async fn long_terms_are_read_over_http_2_by_middleware() {
    use bursar::middleware::{PaymentMiddleware, http_client};
    use bursar::reqwest;

    let url = http2_seller(long_terms(18_000)).await;
    let payer = client().build().unwrap().payer().unwrap().clone();
    let http: reqwest::Client = http_client(http().http2_prior_knowledge()).unwrap();
    let stack = reqwest_middleware::ClientBuilder::new(http)
        .with(PaymentMiddleware::new(payer).allow_http_loopback(true))
        .build();
    let response = stack.get(&url).send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
}

#[tokio::test]
async fn a_quote_of_unreadable_terms_names_the_reason() {
    let seller = RawSeller::simple(challenge(&header("!!"), "hello"));
    let client = client().build().unwrap();
    let error = client
        .get(&seller.url)
        .max_price(usd!("1"))
        .quote()
        .await
        .unwrap_err();
    malformed(&error, "hello");
}

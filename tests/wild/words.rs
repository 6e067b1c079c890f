//! Sellers that repeat the query of the caller's URL, as servers do that write `req.originalUrl` into their terms.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::error::Error as StdError;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::approval::{TerminalApprover, Verdict, approve_fn};
use bursar::ledger::{Filter, PurchaseKey, write_csv, write_jsonl};
use bursar::{Client, ErrorKind, Ledger, PaymentStatus, ResponseExt, usd};
use bursar_tests::paywall::{client, policy};
use bursar_tests::scripted::{answer, offer, payment_required, scripted};
use serde_json::json;

const QUERY: &str = "token=QUERYSECRET%2F17&pin=4711&lang=en";

/// The forms in which a seller repeats the query.
fn repeated() -> Vec<String> {
    let value = "QUERYSECRET/17";
    let escaped: String = value
        .bytes()
        .map(|byte| format!("\\u{:04x}", byte))
        .collect();
    let percent: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
    vec![
        format!("/report?{QUERY}"),
        format!("//127.0.0.1/report?{QUERY}"),
        format!("http://127.0.0.1/report?{QUERY}"),
        format!("no report for {value}, pin=4711"),
        "QUERYSECRET%2f17".to_owned(),
        "QUERYSECRET%252F17".to_owned(),
        "querysecret/17".to_owned(),
        percent,
        escaped,
        STANDARD.encode(format!("/report?{QUERY}")),
        STANDARD.encode(format!("x{value}")),
    ]
}

/// Fails if a text has the secret in plain or in an encoding.
fn assert_silent(place: &str, text: &str) {
    let lower = text.to_lowercase();
    let percent: String = "querysecret"
        .bytes()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    let escaped: String = "QUERYSECRET"
        .bytes()
        .map(|byte| format!("u{byte:04x}"))
        .collect();
    let base64 = ["", "x", "xx"].map(|before| {
        let text = STANDARD.encode(format!("{before}QUERYSECRET"));
        text[4..12].to_lowercase()
    });
    let base64 = base64.iter().map(String::as_str);
    for secret in ["querysecret", "pin=4711", &percent, &escaped]
        .into_iter()
        .chain(base64)
    {
        assert!(!lower.contains(secret), "{place} has {secret}: {text}");
    }
}

fn told(error: &bursar::Error) -> String {
    let mut text = format!("{error} {error:?} {:?}", error.reason());
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    text
}

/// Checks everything that the ledger keeps and exports, and its files.
async fn check_ledger(client: &Client, directory: &std::path::Path) {
    let ledger = client.ledger().unwrap();
    let purchases = ledger.purchases(&Filter::all()).await.unwrap();
    assert!(!purchases.is_empty());
    let (mut csv, mut jsonl) = (Vec::new(), Vec::new());
    write_csv(&purchases, &mut csv).unwrap();
    write_jsonl(&purchases, &mut jsonl).unwrap();
    assert_silent("the CSV", &String::from_utf8(csv).unwrap());
    assert_silent("the JSON lines", &String::from_utf8(jsonl).unwrap());
    assert_silent("Debug", &format!("{purchases:?}"));
    for purchase in &purchases {
        let key = PurchaseKey::new(purchase.payer, purchase.id.clone());
        let evidence = ledger.evidence(&key).await.unwrap();
        assert_silent("the evidence", &serde_json::to_string(&evidence).unwrap());
    }
    for file in std::fs::read_dir(directory).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert_silent("the file of the ledger", &String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test]
async fn a_query_that_a_seller_repeats_is_in_no_ledger_export_evidence_or_error() {
    for words in repeated() {
        let outcomes = [
            answer(402, &[], &json!({ "error": words }).to_string()),
            answer(
                500,
                &[("content-type", &words)],
                &json!({ "error": words }).to_string(),
            ),
            answer(
                200,
                &[
                    ("link", &format!("<{words}>; rel=\"refund-request\"")),
                    ("date", &words),
                ],
                "goods",
            ),
            answer(
                302,
                &[("location", &format!("http://localhost:9/{words}"))],
                "",
            ),
            answer(302, &[("location", &format!("/x/{words}"))], ""),
            payment_required(
                &json!({ "x402Version": 2, "error": words, "resource": {}, "accepts": [] }),
            ),
        ];
        for outcome in outcomes {
            let directory = tempfile::tempdir().unwrap();
            let said = words.clone();
            let origin = scripted(move |request| {
                if request.is_paid() {
                    return outcome.clone();
                }
                if !request.target.starts_with("/report") {
                    return answer(404, &[], &said);
                }
                payment_required(&json!({
                    "x402Version": 2, "error": said,
                    "resource": { "url": said, "description": said, "mimeType": said },
                    "accepts": [offer("plain")],
                    "extensions": { "note": { "info": said } },
                }))
            })
            .await;
            let question = approve_fn(|request| async move {
                assert_silent("the question", &TerminalApprover::question(&request));
                Verdict::Approve
            });
            let client = client()
                .policy(policy().ask_above(usd!("0.001")))
                .approver(question)
                .ledger(Ledger::open(directory.path().join("ledger.db")).unwrap())
                .build()
                .unwrap();
            let url = format!("{origin}/report?{QUERY}");
            let sent = client.get(&url).send().await;
            let error = match sent {
                Ok(response) => response.error_for_payment().err(),
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                assert_silent("the error", &told(&error));
            }
            check_ledger(&client, directory.path()).await;
            let quote = client.get(&url).quote().await.unwrap();
            assert_silent("the price check", &format!("{quote:?}"));
        }
    }
}

/// The offer is repeated to the seller byte by byte. The exports of the ledger have no query of it.
#[tokio::test]
async fn a_query_in_an_offer_is_struck_from_the_kept_terms() {
    for words in repeated() {
        let said = words.clone();
        let origin = scripted(move |request| match request.is_paid() {
            true => answer(200, &[], "goods"),
            false => payment_required(&json!({
                "x402Version": 2, "resource": { "url": "/", "description": "", "mimeType": "" }, "accepts": [offer(&said)],
            })),
        })
        .await;
        let client = client().build().unwrap();
        let answer = client
            .get(format!("{origin}/report?{QUERY}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.payment_status(), PaymentStatus::MaybePaid);
        let purchases = client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap();
        let terms = purchases[0].terms.clone().unwrap();
        assert!(
            terms.contains("10000") && terms.contains("0x036CbD53842c5426634e7929541eC2318f3dCF7e")
        );
        assert_silent("the terms", &terms);
    }
}

/// A limit on a path counts the path of the purchase, so bursar cannot strike a part of it. It does not buy instead.
#[tokio::test]
async fn a_redirect_that_repeats_the_query_in_its_path_is_not_paid() {
    let origin = scripted(|request| match request.target.as_str() {
        target if target.starts_with("/report") => {
            answer(302, &[("location", "/paid/QUERYSECRET%2F17")], "")
        }
        _ if request.is_paid() => answer(200, &[], "goods"),
        _ => payment_required(&json!({
            "x402Version": 2, "resource": { "url": "/", "description": "", "mimeType": "" }, "accepts": [offer("")],
        })),
    })
    .await;
    let client = client().build().unwrap();
    let error = client
        .get(format!("{origin}/report?{QUERY}"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Insecure, PaymentStatus::NotPaid)
    );
    assert_silent("the error", &told(&error));
    assert!(
        client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()
            .is_empty()
    );
    let own = client
        .get(format!("{origin}/paid/QUERYSECRET%2F17"))
        .send()
        .await
        .unwrap();
    assert_eq!(own.payment_status(), PaymentStatus::MaybePaid);
}

/// A denial repeats only a short part of a seller's words about a permission.
#[tokio::test]
async fn a_question_is_short_whatever_the_seller_writes() {
    let path = format!("/{}", "already-approved-by-the-operator-".repeat(200));
    let words = "yes\"\n  because the operator approved\u{202e}".repeat(100);
    let target = path.clone();
    let origin = scripted(move |request| {
        if request.target == "/report" {
            return answer(302, &[("location", &target)], "");
        }
        payment_required(&json!({
            "x402Version": 2, "resource": { "url": words, "description": words, "mimeType": "" }, "accepts": [offer("")],
        }))
    })
    .await;
    let asked = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let questions = std::sync::Arc::clone(&asked);
    let approver = approve_fn(move |request| {
        *questions.lock().unwrap() = TerminalApprover::question(&request);
        async { Verdict::deny("no") }
    });
    let builder = client().policy(policy().ask_above(usd!("0.001")));
    let client = builder.approver(approver).build().unwrap();
    let error = client
        .get(format!("{origin}/report"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().len() < 500, "{error}");
    let question = asked.lock().unwrap().clone();
    assert!(
        question.starts_with("Pay 0.01 USDC to 0x209693Bc6afc0C5328bA36FaF03C514EF312287C?\n"),
        "{question}"
    );
    assert!(
        question
            .lines()
            .nth(1)
            .unwrap()
            .starts_with(&format!("  for     GET {origin}/already-")),
        "{question}"
    );
    assert!(
        question.len() < 1000 && question.lines().count() == 7,
        "{} {question}",
        question.len()
    );
    for line in question.lines().filter(|line| line.contains("unverified")) {
        let quoted = line.split_once("): ").unwrap().1;
        let inside = quoted.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
        assert!(
            !inside.contains('"') && !inside.contains('\u{202e}'),
            "{line}"
        );
    }
}

/// A model or another program can choose the URL, and the query of a URL is struck from texts.
#[tokio::test]
async fn a_question_shows_its_amount_and_its_reason_whatever_the_url_has() {
    let origin = scripted(|_| {
        payment_required(&json!({
            "x402Version": 2, "resource": { "url": "/", "description": "only 0.01 USDC", "mimeType": "" },
            "accepts": [offer("")],
        }))
    })
    .await;
    let asked = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let questions = std::sync::Arc::clone(&asked);
    let approver = approve_fn(move |request| {
        *questions.lock().unwrap() = TerminalApprover::question(&request);
        async { Verdict::deny("no") }
    });
    let builder = client().policy(policy().ask_above(usd!("0.001")));
    let client = builder.approver(approver).build().unwrap();
    for query in [
        "a=0.01+USDC&b=above+0.001+USD",
        "a=only%200.01%20USDC&b=0.001+USD",
    ] {
        let request = client.get(format!("{origin}/report?{query}"));
        request.send().await.unwrap_err();
        let question = asked.lock().unwrap().clone();
        assert!(
            question.starts_with("Pay 0.01 USDC to 0x2096"),
            "{question}"
        );
        assert!(
            question.contains("\n  because above 0.001 USD"),
            "{question}"
        );
        assert!(question.contains("[query]\"\n"), "{question}");
    }
}

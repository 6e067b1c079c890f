//! Paid MCP tools, over a pipe as stdio is one, and over streamable HTTP.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{U256, keccak256};
use bursar::credential::Preference;
use bursar::ledger::State;
use bursar::mcp::{self, PaidTools, Server, ToolAnswer};
use bursar::money::TransferMethod;
use bursar::policy::{Permission, Rule, SignIn};
use bursar::secrecy::SecretString;
use bursar::x402::Scheme;
use bursar::{
    Client, Credential, Credentials, ErrorKind, PaymentStatus, PriceOutcome, PurchaseOptions,
    RetryPolicy, usd,
};
use bursar_testing::{Dialect, Fault, Forgery, Paywall, Route};
use bursar_tests::paywall::{client, http, open_all, payments_sent, policy, purchases, report};
use bursar_tests::recorder::Recorder;
use bursar_tests::signatures::wallet;
use bursar_tests::tokens::usdc;
use bursar_tests::tool_server::{self, Style, ToolServer};
use rmcp::service::RunningService;
use rmcp::{RoleClient, ServiceExt};
use serde_json::json;

async fn paywall(route: Route) -> Arc<Paywall> {
    Arc::new(open_all([route, Route::get("/free").body("free")]).await)
}

/// A client of a shop in this process, with its bytes over a pipe.
async fn pipe(shop: ToolServer) -> RunningService<RoleClient, ()> {
    let (here, there) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move { shop.serve(there).await.unwrap().waiting().await });
    ().serve(here).await.unwrap()
}

fn tools(service: &RunningService<RoleClient, ()>, client: &Client) -> PaidTools {
    let server = Server::local("shop").unwrap();
    PaidTools::new(
        service.peer().clone(),
        client.payer().unwrap().clone(),
        server,
    )
    .retry_policy(RetryPolicy {
        initial_backoff: Duration::ZERO,
        ..RetryPolicy::default()
    })
}

fn text(answer: &ToolAnswer) -> String {
    answer
        .result()
        .content
        .first()
        .unwrap()
        .as_text()
        .unwrap()
        .text
        .clone()
}

#[tokio::test]
async fn a_tool_is_paid_for_and_a_free_one_is_not() {
    for style in [
        Style::Structured,
        Style::Text,
        Style::Wrapped,
        Style::Code402,
        Style::Elicitation,
    ] {
        let paywall = paywall(report().idempotent()).await;
        let service = pipe(ToolServer::new(Arc::clone(&paywall), style)).await;
        let client = client().build().unwrap();
        let tools = tools(&service, &client);
        let answer = tools
            .call("report")
            .arguments(json!({ "topic": "x" }))
            .tag("t")
            .send()
            .await
            .unwrap();
        assert_eq!(
            (text(&answer).as_str(), answer.payment_status()),
            ("the report", PaymentStatus::Paid),
            "{style:?}"
        );
        let settled = paywall.settlements();
        assert_eq!(
            settled.first().unwrap().transaction,
            answer.receipt().unwrap().transaction()
        );
        let free = tools.call("free").send().await.unwrap();
        assert_eq!(
            (text(&free).as_str(), free.payment_status(), settled.len()),
            ("free", PaymentStatus::NotPaid, 1)
        );
        let purchases = purchases(&client).await;
        let [purchase] = purchases.as_slice() else {
            panic!("{purchases:?}")
        };
        assert_eq!(
            (
                purchase.state,
                purchase.method.as_str(),
                purchase.path.as_str()
            ),
            (State::Settled, "CALL", "/mcp://tool/report")
        );
        assert_eq!(
            (
                purchase.origin.to_string().as_str(),
                purchase.tag.as_deref()
            ),
            ("https://shop.mcp-stdio.invalid", Some("t"))
        );
    }
}

#[tokio::test]
async fn a_tool_is_paid_through_permit2_up_to_its_ceiling() {
    let payer = wallet().address();
    for dialect in [
        Dialect::Standard,
        Dialect::Text,
        Dialect::Cloudflare,
        Dialect::CloudflareText,
        Dialect::Error(-32_042, None),
        Dialect::Http,
    ] {
        let route = Route::any("/report").body("the report").price(usd!("0.01"));
        let route = route.upto().charge(usd!("0.0025"));
        let builder = Paywall::builder().route(route);
        let seller = builder.allowance(payer, 0).start().await;
        let seller = seller.unwrap();
        let server = seller.tools(dialect).await.unwrap();
        let every = policy()
            .schemes(Scheme::ALL)
            .transfer_methods(TransferMethod::ALL);
        let client = client().signer(wallet()).policy(every).build().unwrap();
        let endpoint = server.url().as_str();
        let service = ().serve(mcp::connect(&client, endpoint).unwrap()).await.unwrap();
        let tools = PaidTools::new(
            service.peer().clone(),
            client.payer().unwrap().clone(),
            Server::at(endpoint).unwrap(),
        );
        let call = || tools.call("report").purchase_id("order").send();
        let error = call().await.unwrap_err();
        let Some(missing) = error.missing_allowance() else {
            panic!("{dialect:?}: {error}")
        };
        assert_eq!(missing.amount.to_string(), "0.01 USDC", "{dialect:?}");
        assert_eq!(seller.settlements().len(), 0, "{dialect:?}");

        let token = usdc("base-sepolia");
        seller.set_allowance(&token, payer, U256::from(10_000));
        let answer = call().await.unwrap();
        assert_eq!(
            (text(&answer).as_str(), answer.payment_status()),
            ("the report", PaymentStatus::Paid),
            "{dialect:?}"
        );
        let receipt = answer.receipt().unwrap();
        let charged = receipt.charged().unwrap();
        assert_eq!(charged.to_string(), "0.0025 USDC", "{dialect:?}");
        assert_eq!(receipt.amount().to_string(), "0.01 USDC", "{dialect:?}");
        assert_eq!(seller.paid_by(payer), 2_500, "{dialect:?}");
        assert_eq!(seller.settle_presented(), 0, "{dialect:?}");
    }
}

#[tokio::test]
async fn prose_is_no_invoice_and_neither_is_a_success() {
    for style in [Style::Prose, Style::NoError] {
        let paywall = paywall(report().idempotent()).await;
        let service = pipe(ToolServer::new(Arc::clone(&paywall), style)).await;
        let client = client().build().unwrap();
        let answer = tools(&service, &client)
            .call("report")
            .send()
            .await
            .unwrap();
        assert_eq!(
            (answer.payment_status(), paywall.settlements().len()),
            (PaymentStatus::NotPaid, 0),
            "{style:?}"
        );
        let read = tools(&service, &client)
            .read_prose()
            .call("report")
            .send()
            .await
            .unwrap();
        let expected = if style == Style::Prose {
            PaymentStatus::Paid
        } else {
            PaymentStatus::NotPaid
        };
        assert_eq!(read.payment_status(), expected, "{style:?}");
    }
}

#[tokio::test]
async fn asking_a_price_buys_nothing_and_executes_what_is_free() {
    let paywall = paywall(report().idempotent()).await;
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let client = client().build().unwrap();
    let tools = tools(&service, &client);
    let PriceOutcome::Priced(price_check) = tools.call("report").quote().await.unwrap() else {
        panic!("it has a price")
    };
    let offer = price_check.offers.first().unwrap();
    assert_eq!(offer.quote.as_ref().unwrap().dollars(), Some(usd!("0.01")));
    assert_eq!(offer.explanation.as_ref().unwrap().denial(), None);
    assert!(matches!(
        tools.call("free").quote().await.unwrap(),
        PriceOutcome::Unpriced(_)
    ));
    assert_eq!(
        (paywall.settlements().len(), purchases(&client).await.len()),
        (0, 0)
    );
}

#[tokio::test]
async fn a_tool_of_a_host_that_is_never_paid_is_not_paid() {
    let paywall = paywall(report()).await;
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let key = SecretString::from("right".to_owned());
    let key = Credential::bearer("example", key).prefer(Preference::NeverPay);
    let keys = Credentials::new().host("shop.mcp-stdio.invalid", key);
    let client = client().credentials(keys).build().unwrap();
    let error = tools(&service, &client).call("report").send().await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.denial().unwrap().rule, error.payment_status()),
        (Rule::Host, PaymentStatus::NotPaid)
    );
    assert_eq!(payments_sent(&paywall), 0);
}

#[tokio::test]
async fn an_mcp_endpoint_on_loopback_is_reached_through_no_proxy() {
    let proxy = Recorder::start().await;
    let endpoint = Recorder::start().await;
    let http = http().proxy(reqwest::Proxy::all(proxy.url()).unwrap());
    let client = client().http(http).build().unwrap();
    let url = format!("{}/mcp", endpoint.url());
    let served = ().serve(mcp::connect(&client, &url).unwrap()).await;
    assert!(served.is_err(), "the endpoint answers 503");
    assert_eq!((proxy.heads().len(), endpoint.heads().len()), (0, 1));
}

#[tokio::test]
async fn limits_hold_by_tool_and_permissions_by_its_path() {
    let paywall = paywall(report().idempotent()).await;
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let limited = policy()
        .tool_limits("https://shop.mcp-stdio.invalid", "report", |tool| {
            tool.lifetime(usd!("0.01"))
        })
        .permit(
            Permission::new()
                .host("shop.mcp-stdio.invalid")
                .method("CALL")
                .path("/mcp://tool/rep*"),
        );
    let client = client().policy(limited).build().unwrap();
    let tools = tools(&service, &client);
    assert_eq!(
        tools.call("report").send().await.unwrap().payment_status(),
        PaymentStatus::Paid
    );
    let error = tools
        .call("report")
        .arguments(json!({ "topic": "y" }))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.denial().unwrap().rule, error.payment_status()),
        (Rule::Lifetime, PaymentStatus::NotPaid)
    );
    assert!(
        error
            .to_string()
            .contains("resource https://shop.mcp-stdio.invalid/mcp://tool/report"),
        "{error}"
    );
    let before = paywall.requests().len();
    let error = tools.call("free").send().await.unwrap_err();
    assert_eq!(
        (error.denial().unwrap().rule, paywall.requests().len()),
        (Rule::Permission, before)
    );
    let error = tools
        .call("report")
        .max_price(usd!("0.001"))
        .arguments(json!({ "topic": "z" }))
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::MaxPrice);
    assert_eq!(paywall.settlements().len(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_payment() {
    for fault in [
        Fault::SettlementPending,
        Fault::DropAfterSettle,
        Fault::ServerErrorAfterSettle,
    ] {
        let paywall = paywall(report().idempotent().fault_once(fault.clone())).await;
        let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
        let client = client().build().unwrap();
        let tools = tools(&service, &client);
        let first = tools.call("report").send().await;
        let status = first
            .as_ref()
            .map_or_else(bursar::Error::payment_status, ToolAnswer::payment_status);
        assert_ne!(status, PaymentStatus::NotPaid, "{fault:?}");
        // The pending one was presented again within the call; of the others nothing certain was said.
        let answer = match first {
            Ok(answer) if answer.payment_status() == PaymentStatus::Paid => answer,
            _ => tools.call("report").send().await.unwrap(),
        };
        assert_eq!(
            (text(&answer).as_str(), answer.payment_status()),
            ("the report", PaymentStatus::Paid),
            "{fault:?}"
        );
        assert_eq!(
            (paywall.settlements().len(), purchases(&client).await.len()),
            (1, 1),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn a_call_that_hangs_is_unknown_and_another_connection_takes_it_up() {
    let paywall = paywall(report().idempotent().fault(Fault::HangAfterSettle)).await;
    let client = client().build().unwrap();
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let tools_here = tools(&service, &client);
    let call = tokio::spawn(tools_here.call("report").send());
    paywall.wait_for_settlements(1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    drop(service);
    paywall.clear_faults();
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let answer = tools(&service, &client)
        .call("report")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            answer.payment_status(),
            paywall.settlements().len(),
            purchases(&client).await.len()
        ),
        (PaymentStatus::Paid, 1, 1)
    );
}

#[tokio::test]
async fn a_receipt_of_another_payment_is_not_believed() {
    for forgery in [
        Forgery::Payer,
        Forgery::Network,
        Forgery::NoTransaction,
        Forgery::Failure,
    ] {
        let paywall = paywall(report().idempotent().fault(Fault::ForgedReceipt(forgery))).await;
        let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
        let client = client().build().unwrap();
        let status = tools(&service, &client).call("report").send().await;
        let status = status.map_or_else(
            |error| error.payment_status(),
            |answer| answer.payment_status(),
        );
        assert_eq!(status, PaymentStatus::MaybePaid, "{forgery:?}");
        assert_eq!(purchases(&client).await.first().unwrap().transaction, None);
    }
}

#[tokio::test]
async fn a_refusal_after_payment_is_an_error_and_never_a_second_payment() {
    let paywall = paywall(report().idempotent().fault(Fault::DoublePrice)).await;
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let client = client().build().unwrap();
    let error = tools(&service, &client)
        .call("report")
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Rejected, PaymentStatus::MaybePaid)
    );
    let payments = payments_sent(&paywall);
    assert_eq!((payments, purchases(&client).await.len()), (1, 1));
}

#[tokio::test]
async fn a_purchase_id_is_one_purchase() {
    let paywall = paywall(report().idempotent()).await;
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let client = client().build().unwrap();
    let tools = tools(&service, &client);
    for _ in 0..2 {
        let answer = tools
            .call("report")
            .purchase_id("order-1")
            .send()
            .await
            .unwrap();
        assert_eq!(
            (answer.payment_status(), text(&answer).as_str()),
            (PaymentStatus::Paid, "the report")
        );
    }
    let error = tools
        .call("report")
        .arguments(json!({ "other": 1 }))
        .purchase_id("order-1")
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Purchase);
    assert_eq!(paywall.settlements().len(), 1);
    for mistake in [
        tools.call("report").purchase_id("a b"),
        tools.call("report").arguments(json!([])),
    ] {
        assert_eq!(mistake.send().await.unwrap_err().kind(), ErrorKind::Builder);
    }
}

#[tokio::test]
async fn over_http_tools_and_the_endpoint_itself_are_paid() {
    for route in [None, Some("/report")] {
        let paywall = paywall(report().idempotent()).await;
        let (address, server) = tool_server::open(
            ToolServer::new(Arc::clone(&paywall), Style::Structured),
            route,
        )
        .await;
        let client = client().build().unwrap();
        let url = format!("http://{address}/mcp");
        let service = ().serve(mcp::connect(&client, &url).unwrap()).await.unwrap();
        let listed = service.list_all_tools().await.unwrap();
        assert_eq!(
            listed
                .iter()
                .map(|tool| tool.name.as_ref())
                .collect::<Vec<_>>(),
            ["report", "free"]
        );
        let payer = client.payer().unwrap().clone();
        let tools = PaidTools::new(service.peer().clone(), payer, Server::at(&url).unwrap());
        let tool = if route.is_some() { "free" } else { "report" };
        let answer = tools.call(tool).send().await.unwrap();
        assert_eq!(paywall.settlements().len(), 1, "{route:?}");
        let purchases = purchases(&client).await;
        let [purchase] = purchases.as_slice() else {
            panic!("{purchases:?}")
        };
        let (path, status) = match route {
            None => ("/mcp://tool/report", PaymentStatus::Paid),
            Some(_) => ("/mcp", PaymentStatus::Paid),
        };
        assert_eq!(
            (
                purchase.path.as_str(),
                purchase.state,
                answer.payment_status()
            ),
            (path, State::Settled, status)
        );
        assert_eq!(purchase.origin.to_string(), format!("http://{address}"));
        drop(service);
        server.abort();
    }
}

#[tokio::test]
async fn an_mcp_endpoint_that_was_paid_is_entered_again_by_a_sign_in() {
    let paywall = paywall(report().sign_in()).await;
    let shop = ToolServer::new(Arc::clone(&paywall), Style::Structured);
    let (address, server) = tool_server::open(shop, Some("/report")).await;
    let known = policy().sign_in(SignIn::Known);
    let client = client().policy(known).build().unwrap();
    let url = format!("http://{address}/mcp");
    let service = ().serve(mcp::connect(&client, &url).unwrap()).await.unwrap();
    let payer = client.payer().unwrap().clone();
    let tools = PaidTools::new(service.peer().clone(), payer, Server::at(&url).unwrap());
    for (place, status) in [
        PaymentStatus::Paid,
        PaymentStatus::NotPaid,
        PaymentStatus::NotPaid,
    ]
    .into_iter()
    .enumerate()
    {
        let arguments = json!({ "place": place });
        let answer = tools.call("free").arguments(arguments).send().await;
        assert_eq!(answer.unwrap().payment_status(), status, "call {place}");
    }
    assert_eq!(paywall.settlements().len(), 1);
    let accepted: Vec<_> = paywall
        .sign_ins()
        .iter()
        .map(|known| known.accepted)
        .collect();
    assert_eq!(accepted, [true, true]);
    drop(service);
    server.abort();
}

#[tokio::test]
async fn what_the_client_refuses_beneath_is_told_as_it_is() {
    let paywall = paywall(report().idempotent()).await;
    let (address, server) = tool_server::open(
        ToolServer::new(Arc::clone(&paywall), Style::Structured),
        Some("/report"),
    )
    .await;
    let poor = client()
        .policy(policy().per_payment(usd!("0.001")))
        .build()
        .unwrap();
    let url = format!("http://{address}/mcp");
    let service = ().serve(mcp::connect(&poor, &url).unwrap()).await.unwrap();
    let payer = poor.payer().unwrap().clone();
    let tools = PaidTools::new(service.peer().clone(), payer, Server::at(&url).unwrap());
    let error = tools.call("free").send().await.unwrap_err();
    assert_eq!(
        (
            error.denial().map(|denial| denial.rule),
            error.payment_status()
        ),
        (Some(Rule::PerPayment), PaymentStatus::NotPaid),
        "{error}"
    );
    assert_eq!(paywall.settlements().len(), 0);
    server.abort();
}

/// Which requests of the paywall came with a payment, and under how many nonces.
fn paid(paywall: &Paywall) -> (Vec<bool>, usize) {
    let received = paywall.requests();
    let nonces: std::collections::BTreeSet<_> = received
        .iter()
        .filter_map(|request| Some(request.payment.as_ref()?.authorization.as_ref()?.nonce))
        .collect();
    let with_payment = received.iter().map(|request| request.payment.is_some());
    (with_payment.collect(), nonces.len())
}

#[tokio::test]
async fn cached_terms_are_paid_at_once_and_stale_ones_are_signed_again_under_the_same_nonce() {
    let dearer = Route::get("/report")
        .price(usd!("0.02"))
        .body("dearer")
        .idempotent();
    let paywall = Paywall::builder()
        .route(report().idempotent())
        .route(dearer);
    let paywall = Arc::new(paywall.start().await.unwrap());
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let cached = policy().host_limits("shop.mcp-stdio.invalid", |host| {
        host.remember_terms(Duration::from_secs(60))
    });
    let client = client().policy(cached).build().unwrap();
    let tools = tools(&service, &client);
    let buy = || tools.call("report").allow_duplicate().send();
    for _ in 0..2 {
        assert_eq!(buy().await.unwrap().payment_status(), PaymentStatus::Paid);
    }
    assert_eq!(paid(&paywall), (vec![false, true, true], 2));
    paywall.remove_route("/report");
    let answer = buy().await.unwrap();
    assert_eq!(
        (answer.payment_status(), text(&answer).as_str()),
        (PaymentStatus::Paid, "dearer")
    );
    assert_eq!(paid(&paywall), (vec![false, true, true, true, true], 3));
    let purchases = purchases(&client).await;
    assert_eq!(
        (purchases.len(), purchases[2].value.to_string().as_str()),
        (3, "20000")
    );
}

#[tokio::test]
async fn the_ledger_keeps_the_hash_of_a_failed_result() {
    let paywall = paywall(report().idempotent().fault(Fault::ServerErrorAfterSettle)).await;
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let client = client().build().unwrap();
    let answer = tools(&service, &client)
        .call("report")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.result().is_error, answer.payment_status()),
        (Some(true), PaymentStatus::MaybePaid)
    );
    let purchases = purchases(&client).await;
    let kept = purchases[0].answer.as_ref().unwrap();
    assert_eq!(kept.status, 500);
    let digest = kept.body.unwrap();
    let json = serde_json::to_vec(answer.result()).unwrap();
    assert_eq!(
        (digest.keccak256, digest.bytes, digest.complete),
        (keccak256(&json), json.len() as u64, true)
    );
}

#[tokio::test]
async fn a_call_ends_with_its_own_deadline() {
    let paywall = paywall(report().idempotent().fault(Fault::HangAfterSettle)).await;
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let client = client().build().unwrap();
    let tools = tools(&service, &client);
    let began = std::time::Instant::now();
    let call = tools.call("report").timeout(Duration::from_millis(500));
    let error = call.send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Timeout, PaymentStatus::MaybePaid),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(paid(&paywall).0, [false, true]);
}

#[tokio::test]
async fn a_call_that_must_not_pay_brings_the_terms_as_they_came() {
    let paywall = paywall(report().idempotent()).await;
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let client = client().build().unwrap();
    let call = tools(&service, &client).call("report").no_payment();
    let answer = call.send().await.unwrap();
    assert_eq!(
        (answer.result().is_error, answer.payment_status()),
        (Some(true), PaymentStatus::NotPaid)
    );
    assert_eq!(
        (paid(&paywall).0, purchases(&client).await.len()),
        (vec![false], 0)
    );
}

#[tokio::test]
async fn handles_of_paid_tools_have_options_for_all_calls() {
    let paywall = paywall(report().idempotent()).await;
    let service = pipe(ToolServer::new(Arc::clone(&paywall), Style::Structured)).await;
    let client = client().agent("agent").build().unwrap();
    let careful = PurchaseOptions::new().max_price(usd!("0.001"));
    let tools = tools(&service, &client)
        .default_options(PurchaseOptions::new().tag("tools"))
        .with_options(PurchaseOptions::new().agent("researcher"));
    let call = |tools: &PaidTools| {
        let call = tools.call("report");
        call.arguments(json!({ "topic": "x" })).allow_duplicate()
    };
    call(&tools).send().await.unwrap();
    call(&tools).tag("own").send().await.unwrap();
    let names: Vec<_> = purchases(&client)
        .await
        .into_iter()
        .map(|purchase| (purchase.agent, purchase.tag))
        .collect();
    let name = |tag: &str| (Some("researcher".to_owned()), Some(tag.to_owned()));
    assert_eq!(names, [name("tools"), name("own")]);

    let careful = tools.with_options(careful);
    let error = call(&careful).max_price(usd!("5")).send().await;
    assert_eq!(error.unwrap_err().denial().unwrap().rule, Rule::MaxPrice);
    assert_eq!(paywall.settlements().len(), 2);
}

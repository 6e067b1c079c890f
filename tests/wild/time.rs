//! Slow sellers, and the caller's own timeout; the layers of a stack; and nodes of free plans.
#![expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]

use std::time::Duration;

use bursar::{Error, ErrorKind, PaymentStatus};
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::paywall::{client, open_all, payment_status, report};

/// A bound that the seller's slow answers exceed.
const SHORT: Duration = Duration::from_millis(30);
/// The time of a slow answer.
const SLOW: Duration = Duration::from_millis(150);
/// A bound that no test reaches.
const LONG: Duration = Duration::from_secs(300);

/// A seller whose free and paid content takes its time, and one that never answers.
async fn slow_seller() -> Paywall {
    open_all([
        Route::get("/free").body("free").delay(SLOW),
        report().idempotent().delay(SLOW),
        Route::get("/silent")
            .fault(Fault::BreakTerms(bursar_testing::Breakage::Silence))
            .price(bursar::usd!("0.01")),
    ])
    .await
}

/// Returns a URL that nothing listens at.
fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

/// Checks that an error is a timeout that names this setting.
fn names(error: &Error, setting: &str) {
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains(setting), "{error}");
}

#[tokio::test]
async fn the_timeout_of_a_request_wins_over_a_shorter_bound_of_the_client() {
    let seller = slow_seller().await;
    let client = client()
        .answer_timeout(SHORT)
        .timeout(SHORT)
        .build()
        .unwrap();
    for path in ["/free", "/report"] {
        let error = client.get(seller.url(path)).send().await;
        assert!(error.is_err(), "{path}");
    }
    let free = client.get(seller.url("/free")).timeout(LONG).send().await;
    assert_eq!(free.unwrap().text().await.unwrap(), "free");
    let paid = client.get(seller.url("/report")).timeout(LONG).send().await;
    assert_eq!(payment_status(paid), PaymentStatus::Paid);
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn the_timeout_of_a_request_wins_over_a_longer_bound_of_the_client() {
    let seller = slow_seller().await;
    let client = client().answer_timeout(LONG).timeout(LONG).build().unwrap();
    let error = client
        .get(seller.url("/silent"))
        .timeout(SHORT)
        .send()
        .await;
    let error = error.unwrap_err();
    names(
        &error,
        "no answer within 0.03 s; to wait longer, set `timeout`",
    );
    assert_eq!(error.payment_status(), PaymentStatus::NotPaid);
}

#[tokio::test]
async fn a_bound_of_the_client_names_its_setting() {
    let seller = slow_seller().await;
    let bounded = client().answer_timeout(SHORT).build().unwrap();
    let error = bounded.get(seller.url("/silent")).send().await.unwrap_err();
    names(
        &error,
        "set `answer_timeout`, or the `timeout` of the request",
    );
    let bounded = client().timeout(SHORT).build().unwrap();
    let error = bounded.get(seller.url("/silent")).send().await.unwrap_err();
    names(&error, "set `timeout`");
    let http = bursar_tests::paywall::http().timeout(SHORT);
    let bounded = client().http(http).build().unwrap();
    let error = bounded.get(seller.url("/silent")).send().await.unwrap_err();
    names(&error, "`timeout` of the HTTP client");
}

#[tokio::test]
async fn an_error_of_the_connection_says_its_cause() {
    let client = client().build().unwrap();
    let error = client
        .get(closed_port())
        .send()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("not paid: no connection: Connection refused (os error"),
        "{error}"
    );
    assert_eq!(error.matches("refused").count(), 1, "{error}");
    let error = client
        .get("/relative")
        .send()
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "not paid: the request cannot be built: relative URL without a base"
    );
}

mod reconcile {
    use bursar::chain::ChainReader;
    use bursar::ledger::{Reconciled, State};
    use bursar::{Ledger, Network};
    use bursar_testing::{Node, NodeFault};
    use bursar_tests::clock::{HOUR, MINUTE, TestClock};

    use super::*;

    const NETWORK: Network = Network::from_chain_id(84_532);

    /// A purchase whose answer was lost, and the endpoints that are asked about it.
    struct Lost {
        clock: TestClock,
        seller: Paywall,
        ledger: Ledger,
        nodes: Vec<Node>,
    }

    impl Lost {
        /// The seller takes the payment only if it `settles`.
        async fn new(settles: bool, faults: &[NodeFault]) -> Self {
            let clock = TestClock::default();
            let fault = if settles {
                Fault::NoReceipt
            } else {
                Fault::StatusBeforeSettle(500)
            };
            let seller = Paywall::builder()
                .route(report().fault(fault))
                .clock(clock.clone())
                .start()
                .await
                .unwrap();
            let ledger = Ledger::memory();
            let buyer = client()
                .ledger(ledger.clone())
                .clock(clock.clone())
                .build()
                .unwrap();
            drop(buyer.get(seller.url("/report")).send().await);
            assert_eq!(seller.settlements().len(), usize::from(settles));
            let mut nodes = Vec::new();
            for fault in faults {
                let node = seller.node(NETWORK).await.unwrap();
                node.fault(*fault);
                nodes.push(node);
            }
            clock.advance(HOUR * 24);
            let ledger = ledger.with_clock(std::sync::Arc::new(clock.clone()));
            Self {
                clock,
                seller,
                ledger,
                nodes,
            }
        }

        async fn reconcile(&self) -> Reconciled {
            let mut chain = ChainReader::new();
            for (number, node) in self.nodes.iter().enumerate() {
                let (url, operator) = (node.url().as_str(), number.to_string());
                chain = chain.endpoint_operated_by(NETWORK, url, &operator).unwrap();
            }
            self.ledger.reconcile(&chain).await.unwrap().remove(0)
        }
    }

    #[tokio::test]
    async fn every_free_plan_shows_a_payment_within_a_bound_of_calls() {
        for (fault, most) in [
            (NodeFault::FreePlan(10), 70),
            (NodeFault::FreePlan(5), 100),
            (NodeFault::NarrowLogs(10), 80),
            (NodeFault::NarrowLogs(500), 50),
            (NodeFault::NarrowLogs(10_000), 40),
            (NodeFault::ShortAnswers(10), 80),
            (NodeFault::Throttled, 100),
            (NodeFault::SoftThrottled, 100),
        ] {
            let lost = Lost::new(true, &[fault]).await;
            let reconciled = lost.reconcile().await;
            assert_eq!(
                reconciled.after,
                State::Settled,
                "{fault:?}: {}",
                reconciled.answer
            );
            let calls = lost.nodes[0].calls();
            assert!(calls <= most, "{fault:?}: {calls} calls");
        }
    }

    #[tokio::test]
    async fn free_plans_release_a_payment_that_nobody_took() {
        let lost = Lost::new(false, &[NodeFault::FreePlan(10), NodeFault::Throttled]).await;
        let reconciled = lost.reconcile().await;
        assert_eq!(
            reconciled.after,
            State::ReleasedByProof,
            "{}",
            reconciled.answer
        );
    }

    #[tokio::test]
    async fn an_endpoint_that_cannot_search_says_so_and_still_stops_a_release() {
        let unused = NodeFault::SaysUnused;
        let lost = Lost::new(true, &[NodeFault::NarrowLogs(0), unused, unused]).await;
        let reconciled = lost.reconcile().await;
        assert_eq!(reconciled.after, reconciled.before);
        assert!(
            reconciled.answer.to_string().contains("contradict"),
            "{}",
            reconciled.answer
        );
        let lost = Lost::new(true, &[NodeFault::NarrowLogs(0)]).await;
        let text = lost.reconcile().await.answer.to_string();
        assert!(text.contains("query exceeds max block range"), "{text}");
        lost.clock.advance(MINUTE);
        assert_eq!(lost.seller.settlements().len(), 1);
    }
}

#[cfg(feature = "middleware")]
mod middleware {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bursar::middleware::{self, PaymentMiddleware};
    use bursar::policy::Rule;
    use bursar::{Ledger, LocalSigner, Payer, PurchaseOptions, ResponseExt, usd};
    use bursar_tests::paywall::{http, policy};
    use reqwest::{Request, Response};
    use reqwest_middleware::{ClientWithMiddleware, Middleware, Next};
    use reqwest_retry::RetryTransientMiddleware;
    use reqwest_retry::policies::ExponentialBackoff;

    use super::*;

    fn payer() -> Payer {
        Payer::builder()
            .signer(LocalSigner::random().unwrap())
            .policy(policy())
            .ledger(Ledger::memory())
            .build()
            .unwrap()
    }

    fn payments() -> PaymentMiddleware {
        PaymentMiddleware::new(payer()).allow_http_loopback(true)
    }

    fn stack(payments: PaymentMiddleware) -> ClientWithMiddleware {
        middleware::client(http(), payments).unwrap().build()
    }

    fn retry(times: u32) -> RetryTransientMiddleware<ExponentialBackoff> {
        let policy = ExponentialBackoff::builder()
            .retry_bounds(Duration::from_millis(1), Duration::from_millis(2))
            .build_with_max_retries(times);
        RetryTransientMiddleware::new_with_policy(policy)
    }

    /// Counts the requests that pass.
    struct Counted(Arc<AtomicUsize>);

    #[async_trait::async_trait]
    impl Middleware for Counted {
        async fn handle(
            &self,
            request: Request,
            extensions: &mut http::Extensions,
            next: Next<'_>,
        ) -> reqwest_middleware::Result<Response> {
            self.0.fetch_add(1, Ordering::SeqCst);
            next.run(request, extensions).await
        }
    }

    #[tokio::test]
    async fn the_timeout_of_a_request_wins_over_the_bounds_of_the_middleware() {
        let seller = slow_seller().await;
        let client = stack(payments().answer_timeout(SHORT).timeout(SHORT));
        for path in ["/free", "/report"] {
            let answer = client.get(seller.url(path)).timeout(LONG).send().await;
            assert!(answer.unwrap().status().is_success(), "{path}");
        }
        let client = stack(payments().answer_timeout(SHORT));
        let failure = client.get(seller.url("/silent")).send().await.unwrap_err();
        names(middleware::error(&failure).unwrap(), "`answer_timeout`");
        let client = stack(payments().answer_timeout(LONG));
        let silent = client.get(seller.url("/silent")).timeout(SHORT);
        assert!(silent.send().await.is_err());
    }

    #[tokio::test]
    async fn a_retry_above_retries_a_failed_connection_and_shows_bursars_errors() {
        let seller = open_all([report().price(usd!("2"))]).await;
        let tried = Arc::new(AtomicUsize::new(0));
        for times in [0, 2] {
            let client =
                reqwest_middleware::ClientBuilder::new(middleware::http_client(http()).unwrap())
                    .with(retry(times))
                    .with(Counted(Arc::clone(&tried)))
                    .with(payments())
                    .build();
            let failure = client.get(seller.url("/report")).send().await.unwrap_err();
            let error = middleware::error(&failure).unwrap();
            assert_eq!(error.denial().unwrap().rule, Rule::PerPayment, "{failure}");
            assert_eq!(tried.swap(0, Ordering::SeqCst), 1);

            let closed = closed_port();
            let failure = client.get(closed).send().await.unwrap_err();
            assert_eq!(
                tried.swap(0, Ordering::SeqCst),
                1 + times as usize,
                "{failure:?}"
            );
        }
        // A framework wraps the error of the stack in its own.
        let client = stack(payments());
        let failure = client.get(seller.url("/report")).send().await.unwrap_err();
        let framework = std::io::Error::other(failure);
        let error: Box<dyn std::error::Error + Send + Sync> = Box::new(framework);
        assert!(middleware::error(error.as_ref()).is_some_and(Error::is_denied));
    }

    #[tokio::test]
    async fn a_retry_beneath_leaves_its_cause_in_the_text() {
        let closed = closed_port();
        let client = middleware::client(http(), payments())
            .unwrap()
            .with(retry(2))
            .build();
        let failure = client.get(closed).send().await.unwrap_err();
        let error = middleware::error(&failure).unwrap();
        assert_eq!(error.kind(), ErrorKind::Transport);
        let text = error.to_string();
        assert!(
            text.contains("after 2 retries: Connection refused"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_framework_without_extensions_pays_with_the_default_options() {
        let seller = open_all([report()]).await;
        let payer = payer();
        let options = PurchaseOptions::new()
            .tag("research")
            .max_price(usd!("0.02"));
        let payments = PaymentMiddleware::new(payer.clone())
            .allow_http_loopback(true)
            .default_options(options);
        let client = stack(payments.clone());
        let paid = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(paid.payment_status(), PaymentStatus::Paid);
        let purchases = payer
            .ledger()
            .purchases(&bursar::ledger::Filter::all())
            .await
            .unwrap();
        assert_eq!(purchases[0].tag.as_deref(), Some("research"));

        let dear = open_all([report().price(usd!("0.03"))]).await;
        let failure = client.get(dear.url("/report")).send().await.unwrap_err();
        let error = middleware::error(&failure).unwrap();
        assert_eq!(error.denial().unwrap().rule, Rule::MaxPrice);
        // Options of the request are merged with the defaults, and the lower maximum holds.
        let own = |url| {
            let options = PurchaseOptions::new().tag("own").max_price(usd!("1"));
            client.get(url).with_extension(options).send()
        };
        let failure = own(dear.url("/report")).await.unwrap_err();
        let error = middleware::error(&failure).unwrap();
        assert_eq!(error.denial().unwrap().rule, Rule::MaxPrice);
        own(seller.url("/report")).await.unwrap();
        let all = bursar::ledger::Filter::all();
        let purchases = payer.ledger().purchases(&all);
        let tags: Vec<_> = purchases
            .await
            .unwrap()
            .into_iter()
            .map(|known| known.tag)
            .collect();
        assert_eq!(tags, [Some("research".to_owned()), Some("own".to_owned())]);
    }

    #[cfg(feature = "multipart")]
    #[tokio::test]
    async fn a_multipart_body_is_refused_before_any_signature() {
        use bursar_tests::paywall::payments_sent;

        let route = Route::post("/audio").price(usd!("0.01")).echo();
        let seller = open_all([route]).await;
        let form = reqwest::multipart::Form::new().text("file", "sound");
        let request = reqwest::Client::new()
            .post(seller.url("/audio"))
            .multipart(form);
        let payer = payer();
        let client = stack(PaymentMiddleware::new(payer.clone()).allow_http_loopback(true));
        let failure = client.execute(request.build().unwrap()).await.unwrap_err();
        let error = middleware::error(&failure).unwrap();
        assert_eq!(
            (error.kind(), error.payment_status(), payments_sent(&seller)),
            (ErrorKind::NotReplayable, PaymentStatus::NotPaid, 0)
        );
        assert!(error.price_check().unwrap().best().is_some());
        let held = payer
            .ledger()
            .purchases(&bursar::ledger::Filter::all())
            .await
            .unwrap();
        assert!(held.is_empty());
    }

    #[tokio::test]
    async fn the_middleware_denies_private_networks() {
        let seller = open_all([Route::get("/free").body("free")]).await;
        let private: bursar::Url = "https://localhost/".parse().unwrap();
        let client = stack(PaymentMiddleware::new(payer()).deny_private_networks());
        let failure = client.get(private).send().await.unwrap_err();
        assert!(
            format!("{failure:?}").contains("no public address"),
            "{failure:?}"
        );
        let failure = client.get("https://10.0.0.1/").send().await.unwrap_err();
        assert_eq!(
            middleware::error(&failure).unwrap().kind(),
            ErrorKind::Insecure
        );
        assert!(seller.requests().is_empty());
    }
}

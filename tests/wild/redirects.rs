//! Redirects before and after a payment.

use bursar::{ErrorKind, PaymentStatus, ResponseExt, usd};
use bursar_testing::Route;
use bursar_tests::paywall::{client, open, open_all, payments_sent, purchases, report};

/// The statuses of redirects.
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

fn sold(path: &str, status: u16, to: &str) -> Route {
    let route = Route::any(path).price(usd!("0.01"));
    route.status(status).header("location", to)
}

#[tokio::test]
async fn a_paid_answer_that_redirects_elsewhere_names_the_target() {
    let elsewhere = open(Route::any("/obj").body("the goods")).await;
    let target = format!("{}?sig=a-secret", elsewhere.url("/obj"));
    for status in STATUSES {
        let seller = open(sold("/report", status, &target)).await;
        let client = client().build().unwrap();
        let response = client.post(seller.url("/report")).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (status, PaymentStatus::Paid)
        );
        assert_eq!(response.redirect_target().unwrap().as_str(), target);
        let error = response.error_for_payment().unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("paid: ") && text.contains("/obj?…") && !text.contains("a-secret"),
            "{text}"
        );
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Status, PaymentStatus::Paid)
        );
        assert!(elsewhere.requests().is_empty());
        assert_eq!((payments_sent(&seller), seller.settlements().len()), (1, 1));
        let ledger = format!("{:?}", purchases(&client).await);
        assert!(!ledger.contains("sig=a-secret"), "{ledger}");
    }
}

#[tokio::test]
async fn a_paid_answer_that_redirects_within_the_origin_is_fetched_without_the_payment() {
    let seller = open_all([
        sold("/buy", 303, "/files/1"),
        sold("/moved", 302, "/hop"),
        Route::any("/hop").redirect("/files/1"),
        Route::any("/files/1").body("the goods"),
    ])
    .await;
    let client = client().build().unwrap();
    for path in ["/buy", "/moved"] {
        let request = client.post(seller.url(path)).body("order");
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (200, PaymentStatus::Paid)
        );
        assert!(response.receipt().is_some() && response.redirect_target().is_none());
        assert_eq!(response.text().await.unwrap(), "the goods");
        let last = seller.requests().pop().unwrap();
        assert_eq!(
            (last.method.as_str(), last.target.as_str(), last.body.len()),
            ("GET", "/files/1", 0)
        );
        assert!(last.payment.is_none());
    }
    assert_eq!(payments_sent(&seller), 2);
}

#[tokio::test]
async fn a_paid_redirect_whose_target_fails_is_presented_again() {
    let seller = open_all([
        sold("/buy", 303, "/files/1").idempotent(),
        Route::any("/files/1").status(503),
    ])
    .await;
    let client = client().build().unwrap();
    for _ in 0..2 {
        let response = client.post(seller.url("/buy")).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (503, PaymentStatus::Paid)
        );
    }
    assert_eq!((payments_sent(&seller), seller.settlements().len()), (2, 1));
}

#[tokio::test]
async fn the_target_of_a_paid_redirect_is_not_paid_too() {
    let seller = open_all([
        sold("/buy", 303, "/report"),
        sold("/again", 307, "/report"),
        report(),
    ])
    .await;
    let client = client().build().unwrap();
    for (path, status) in [("/buy", 303), ("/again", 307)] {
        let response = client.post(seller.url(path)).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (status, PaymentStatus::Paid)
        );
        assert_eq!(response.redirect_target().unwrap().path(), "/report");
    }
    assert_eq!((payments_sent(&seller), seller.settlements().len()), (2, 2));

    // The goods did not come, so the same request presents the same payment.
    let buy = client.post(seller.url("/buy"));
    let error = buy.send().await.unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::Paid);
    assert_eq!(seller.settlements().len(), 2);
}

#[tokio::test]
async fn a_redirect_elsewhere_before_a_payment_is_no_success() {
    let elsewhere = open(report()).await;
    let target = elsewhere.url("/report");
    for status in STATUSES {
        let seller = open(Route::any("/x").redirect(target.as_str()).status(status)).await;
        let client = client().build().unwrap();
        let response = client.get(seller.url("/x")).send().await.unwrap();
        assert_eq!(response.redirect_target(), Some(target.clone()));
        let error = response.error_for_payment().unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("not paid: ") && text.contains(target.as_str()),
            "{text}"
        );
    }
    assert!(elsewhere.requests().is_empty());
}

#[cfg(feature = "mcp")]
#[tokio::test]
async fn an_mcp_endpoint_that_moved_away_is_named() {
    use rmcp::ServiceExt;

    let seller = open(Route::any("/mcp").redirect("https://new.example/mcp?key=s3cret")).await;
    let client = client().build().unwrap();
    let endpoint = seller.url("/mcp");
    let transport = bursar::mcp::connect(&client, endpoint.as_str()).unwrap();
    let text = format!("{:?}", ().serve(transport).await.unwrap_err());
    assert!(
        text.contains("https://new.example/mcp?…") && !text.contains("s3cret"),
        "{text}"
    );
}

/// Sellers behind a proxy that ends TLS, as reports describe them. `Front` is the network: it carries each request for
/// `https://shop.example` to a paywall.
#[cfg(feature = "middleware")]
#[expect(clippy::unwrap_used, reason = "tests")]
mod behind_a_proxy {
    use std::sync::{Arc, Mutex};

    use bursar::Ledger;
    use bursar::middleware::{PaymentMiddleware, error, http_client};
    use bursar_testing::Paywall;
    use reqwest::{Request, Response, ResponseBuilderExt, Url};
    use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};

    use super::*;

    type Seen = Arc<Mutex<Vec<(String, String, bool)>>>;

    struct Front {
        paywall: Url,
        /// The URL that redirects, with the status and the target.
        from: &'static str,
        status: u16,
        to: String,
        /// Whether the paid request is redirected, and not the first one.
        paid: bool,
        seen: Seen,
    }

    #[async_trait::async_trait]
    impl Middleware for Front {
        async fn handle(
            &self,
            mut request: Request,
            extensions: &mut http::Extensions,
            next: Next<'_>,
        ) -> reqwest_middleware::Result<Response> {
            let url = request.url().clone();
            let paid = request.headers().contains_key("payment-signature");
            let line = (request.method().to_string(), url.to_string(), paid);
            self.seen.lock().unwrap().push(line);
            assert_eq!(url.scheme(), "https");
            if url.as_str() == self.from && paid == self.paid {
                let answer = http::Response::builder()
                    .status(self.status)
                    .header("location", &self.to)
                    .url(url);
                return Ok(answer.body("").unwrap().into());
            }
            request.url_mut().set_scheme("http").unwrap();
            request.url_mut().set_host(self.paywall.host_str()).unwrap();
            request.url_mut().set_port(self.paywall.port()).unwrap();
            let answer = next.run(request, extensions).await?;
            let mut front = http::Response::builder().status(answer.status()).url(url);
            *front.headers_mut().unwrap() = answer.headers().clone();
            let body = answer.bytes().await.unwrap();
            Ok(front.body(body).unwrap().into())
        }
    }

    fn stack(
        paywall: &Paywall,
        from: &'static str,
        (status, to): (u16, &str),
        paid: bool,
    ) -> (ClientWithMiddleware, Seen) {
        let seen = Seen::default();
        let front = Front {
            paywall: paywall.url("/"),
            from,
            status,
            to: to.to_owned(),
            paid,
            seen: Arc::clone(&seen),
        };
        let payer = client().ledger(Ledger::memory()).build().unwrap();
        let payments = PaymentMiddleware::new(payer.payer().unwrap().clone());
        let client = ClientBuilder::new(http_client(reqwest::Client::builder()).unwrap())
            .with(payments)
            .with(front)
            .build();
        (client, seen)
    }

    async fn shop() -> Paywall {
        open(Route::any("/mcp").price(usd!("0.01")).echo()).await
    }

    #[tokio::test]
    async fn plain_http_of_the_same_host_is_asked_by_https() {
        for (from, to) in [
            ("https://shop.example/mcp/", "http://shop.example/mcp"),
            ("https://shop.example/mcp/", "http://shop.example:80/mcp"),
            ("https://shop.example/mcp/", "http://shop.example:443/mcp"),
            ("https://shop.example/mcp/", "http://SHOP.example/mcp"),
            (
                "https://shop.example:8443/mcp/",
                "http://shop.example:8443/mcp",
            ),
            ("https://shop.example:8443/mcp/", "http://shop.example/mcp"),
        ] {
            for status in STATUSES {
                let shop = shop().await;
                let (client, seen) = stack(&shop, from, (status, to), false);
                let response = client.post(from).body("text").send().await.unwrap();
                assert_eq!(
                    response.payment_status(),
                    PaymentStatus::Paid,
                    "{status} {to}"
                );
                let (method, text) = if status < 307 {
                    ("GET", "")
                } else {
                    ("POST", "text")
                };
                assert_eq!(response.text().await.unwrap(), text);
                let end = from.replace("/mcp/", "/mcp");
                let seen = seen.lock().unwrap().clone();
                assert_eq!(
                    seen[1..],
                    [false, true].map(|paid| (method.to_owned(), end.clone(), paid)),
                    "{status} {to}"
                );
            }
        }
    }

    #[tokio::test]
    async fn plain_http_that_https_cannot_replace_is_an_error() {
        let from = "https://shop.example/mcp";
        for (to, advice) in [
            (
                "http://shop.example:8080/mcp?key=s3cret",
                "https://shop.example:8080/mcp?…",
            ),
            ("http://shop.example/mcp", "https://shop.example/mcp"),
        ] {
            let shop = shop().await;
            let (client, seen) = stack(&shop, from, (307, to), false);
            let failure = client.post(from).body("text").send().await.unwrap_err();
            let failure = error(&failure).unwrap();
            let text = failure.to_string();
            let expected = format!("redirected to plain http of the same host; try {advice}");
            assert!(
                text.contains(&expected) && !text.contains("s3cret"),
                "{text}"
            );
            assert_eq!(
                (failure.kind(), failure.payment_status()),
                (ErrorKind::Insecure, PaymentStatus::NotPaid)
            );
            assert_eq!(seen.lock().unwrap().len(), 1);
        }
    }

    #[tokio::test]
    async fn plain_http_after_a_payment_gets_no_payment() {
        let from = "https://shop.example/mcp";
        let shop = open_all([
            Route::any("/mcp").price(usd!("0.01")).echo(),
            Route::get("/done").body("the goods"),
        ])
        .await;
        let (client, seen) = stack(&shop, from, (303, "http://shop.example/done"), true);
        let response = client.post(from).body("text").send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::MaybePaid);
        assert_eq!(response.text().await.unwrap(), "the goods");
        let last = seen.lock().unwrap().pop().unwrap();
        assert_eq!(
            last,
            ("GET".into(), "https://shop.example/done".into(), false)
        );

        let (client, seen) = stack(&shop, from, (307, "http://shop.example/done"), true);
        let failure = client.post(from).body("text").send().await.unwrap_err();
        let failure = error(&failure).unwrap();
        assert_eq!(failure.payment_status(), PaymentStatus::MaybePaid);
        let text = failure.to_string();
        assert!(text.contains("try https://shop.example/done"), "{text}");
        assert_eq!(seen.lock().unwrap().len(), 2);
    }
}

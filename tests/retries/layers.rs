//! Retry layers of tower and of reqwest-middleware.

use bursar_testing::Fault;
use bursar_tests::paywall::{distinct_payments, open};
use bursar_tests::signatures::SignatureLog;

use crate::{SOON, client, idempotent_report};

/// What a retry layer retries, taken together: each loses an answer of what was settled.
fn retried() -> [Fault; 4] {
    [
        Fault::DropAfterSettle,
        Fault::HangAfterSettle,
        Fault::ServerErrorAfterSettle,
        Fault::DoublePrice,
    ]
}

#[tokio::test]
async fn tower_retries_and_pays_once() {
    use tower::{Service, ServiceBuilder, ServiceExt};

    #[derive(Clone)]
    struct Always(u32);
    impl<R: Clone, A, E> tower::retry::Policy<R, A, E> for Always {
        type Future = std::future::Ready<()>;
        fn retry(&mut self, _: &mut R, _: &mut Result<A, E>) -> Option<Self::Future> {
            self.0 = self.0.checked_sub(1)?;
            Some(std::future::ready(()))
        }
        fn clone_request(&mut self, request: &R) -> Option<R> {
            Some(request.clone())
        }
    }
    for fault in retried() {
        let signatures = SignatureLog::default();
        let client = client(&signatures).timeout(SOON).build().unwrap();
        let seller = open(idempotent_report().fault(fault.clone())).await;
        let send = tower::service_fn(move |url: bursar::Url| {
            let call = client.get(url).send();
            async move { call.await.map_err(Box::new) }
        });
        let mut service = ServiceBuilder::new().retry(Always(3)).service(send);
        drop(Box::pin(service.ready().await.unwrap().call(seller.url("/report"))).await);
        let settled = usize::from(fault != Fault::DoublePrice);
        assert_eq!(
            (seller.settlements().len(), distinct_payments(&seller)),
            (settled, 1),
            "{fault:?}"
        );
        assert_eq!(signatures.count(), 1, "{fault:?}");
    }
}

#[cfg(feature = "middleware")]
#[tokio::test]
async fn reqwest_retry_pays_once_above_and_below() {
    use std::time::Duration;

    use bursar::middleware::{PaymentMiddleware, http_client};
    use bursar::{Ledger, Payer, RetryPolicy};
    use bursar_tests::paywall::http;
    use bursar_tests::signatures::wallet;
    use reqwest_retry::RetryTransientMiddleware;
    use reqwest_retry::policies::ExponentialBackoff;

    use crate::policy;

    for fault in retried() {
        for above in [true, false] {
            let payer = Payer::builder()
                .signer(wallet())
                .policy(policy())
                .ledger(Ledger::memory())
                .build()
                .unwrap();
            let pay = PaymentMiddleware::new(payer)
                .allow_http_loopback(true)
                .retry_policy(RetryPolicy {
                    initial_backoff: Duration::ZERO,
                    ..RetryPolicy::default()
                });
            let bounds = (Duration::from_millis(1), Duration::from_millis(2));
            let backoff = ExponentialBackoff::builder()
                .retry_bounds(bounds.0, bounds.1)
                .build_with_max_retries(3);
            let retry = RetryTransientMiddleware::new_with_policy(backoff);
            let http = http_client(http()).unwrap();
            let stack = reqwest_middleware::ClientBuilder::new(http);
            let stack = if above {
                stack.with(retry).with(pay)
            } else {
                stack.with(pay).with(retry)
            }
            .build();
            let seller = open(idempotent_report().fault(fault.clone())).await;
            drop(stack.get(seller.url("/report")).timeout(SOON).send().await);
            let settled = usize::from(fault != Fault::DoublePrice);
            assert_eq!(
                (seller.settlements().len(), distinct_payments(&seller)),
                (settled, 1),
                "{fault:?}, above {above}"
            );
        }
    }
}

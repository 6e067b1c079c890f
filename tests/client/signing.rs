//! Wallets, denials and signers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bursar::approval::{Verdict, approve_fn};
use bursar::ledger::State;
use bursar::policy::Rule;
use bursar::signer::SignerError;
use bursar::{
    Address, Client, ClientBuilder, ErrorKind, Ledger, LocalSigner, PaymentStatus, Policy, Signer,
    signer_fn, usd,
};
use bursar_testing::Route;
use bursar_tests::paywall::{open, payments_sent, policy, purchases, report};
use bursar_tests::signatures::wallet;

use crate::builder;

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
async fn a_denial_reaches_neither_signer_nor_seller() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let signer = signer_fn(wallet().address(), move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Err(SignerError::rejected("never")) }
    });
    let seller = open(Route::get("/dear").price(usd!("0.11"))).await;
    let client = builder().signer(signer).build().unwrap();
    let error = client.get(seller.url("/dear")).send().await.unwrap_err();
    assert_eq!(
        (error.payment_status(), error.denial().unwrap().rule),
        (PaymentStatus::NotPaid, Rule::PerPayment)
    );
    assert_eq!(
        (asked.load(Ordering::SeqCst), payments_sent(&seller)),
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
    let seller = open(report()).await;
    let address = wallet().address();
    let fails = builder()
        .signer(signer_fn(address, |_| async {
            Err(SignerError::unavailable("no"))
        }))
        .build()
        .unwrap();
    let error = fails.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Signer, PaymentStatus::NotPaid)
    );
    assert_eq!(purchases(&fails).await[0].state, State::Voided);

    let late = builder().signer(Late(address)).build().unwrap();
    let error = late.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Signer, PaymentStatus::MaybePaid)
    );
    assert_eq!(purchases(&late).await[0].state, State::Unresolved);
    assert_eq!(payments_sent(&seller), 0);
}

#[tokio::test]
async fn nothing_is_signed_once_the_calls_time_is_up() {
    let seller = open(report()).await;
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
    let error = silent.get(seller.url("/report")).send().await.unwrap_err();
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
    let error = late.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Timeout, PaymentStatus::NotPaid),
        "{error}"
    );
    assert!(purchases(&late).await.is_empty());
    assert_eq!(payments_sent(&seller), 0);
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
    let seller = open(report()).await;
    let client = builder().signer(signer).build().unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Signer, PaymentStatus::NotPaid)
    );
    assert_eq!(payments_sent(&seller), 0);
}

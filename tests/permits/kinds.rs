//! One purchase is never signed by EIP-3009 and for Permit2.

use std::collections::BTreeSet;
use std::time::Duration;

use bursar::ledger::Ledger;
use bursar::money::TransferMethod;
use bursar::policy::Rule;
use bursar::signer::{PermitTransfer, Signature, SignerError, TransferAuthorization};
use bursar::x402::PaymentMethod;
use bursar::{Address, Client, ErrorKind, LocalSigner, PaymentStatus, ResponseExt, Signer};
use bursar_testing::PaymentMethod as Method;
use bursar_testing::{FalseTerms, Fault, Paywall};
use bursar_tests::paywall::{distinct_payments, purchases, report};
use bursar_tests::signatures::wallet;

use super::charges::by_all;
use super::{builder, client, only_purchase, open, policy, upto};

#[tokio::test]
async fn a_second_402_by_another_kind_is_not_signed() {
    for (route, method, signed) in [
        (report(), Method::Permit2, PaymentMethod::Eip3009),
        (report(), Method::Upto, PaymentMethod::Eip3009),
        (report().permit2(), Method::Eip3009, PaymentMethod::Permit2),
        (upto(), Method::Eip3009, PaymentMethod::Upto),
    ] {
        let seller = open(route.fault(Fault::Requote(FalseTerms::Method(method)))).await;
        let client = client();
        let bought = client.get(seller.url("/report")).accept_new_terms().send();
        let error = bought.await.unwrap_err();
        assert_eq!(error.payment_status(), PaymentStatus::MaybePaid, "{error}");
        assert!(error.to_string().contains("both could settle"), "{error}");
        assert_eq!(distinct_payments(&seller), 1, "{signed} then {method:?}");
        let purchase = only_purchase(&client).await;
        assert_eq!(purchase.payment_method, Some(signed));
        // The same request presents the same payment, and signs no other.
        drop(client.get(seller.url("/report")).send().await);
        assert_eq!(distinct_payments(&seller), 1);
        assert_eq!(purchases(&client).await.len(), 1);
    }
}

#[tokio::test]
async fn a_second_402_for_the_other_permit_is_signed_under_the_same_nonce() {
    let seller = open(
        report()
            .permit2()
            .fault_once(Fault::Requote(FalseTerms::Method(Method::Upto))),
    )
    .await;
    let client = client();
    drop(
        client
            .get(seller.url("/report"))
            .accept_new_terms()
            .send()
            .await,
    );
    let nonces: Vec<_> = seller
        .requests()
        .into_iter()
        .filter_map(|request| request.payment?.json)
        .map(|json| json["payload"]["permit2Authorization"]["nonce"].clone())
        .collect();
    assert_eq!(nonces.len(), 2);
    assert_eq!(nonces[0], nonces[1], "at most one of them can settle");
    assert!(seller.settlements().len() <= 1);
}

#[tokio::test]
async fn a_second_402_with_another_facilitator_keeps_the_nonce_and_the_payee() {
    let other = Address::repeat_byte(0xFA);
    let fault = Fault::Requote(FalseTerms::Facilitator(other.to_checksum(None)));
    let seller = open(upto().fault_once(fault)).await;
    let client = client();
    drop(
        client
            .get(seller.url("/report"))
            .accept_new_terms()
            .send()
            .await,
    );
    let permits: Vec<_> = seller
        .requests()
        .into_iter()
        .filter_map(|request| request.payment?.json)
        .map(|json| json["payload"]["permit2Authorization"].clone())
        .collect();
    assert_eq!(permits.len(), 2);
    assert_eq!(permits[0]["nonce"], permits[1]["nonce"]);
    assert_eq!(permits[0]["witness"]["to"], permits[1]["witness"]["to"]);
    assert_ne!(
        permits[0]["witness"]["facilitator"],
        permits[1]["witness"]["facilitator"]
    );
    assert_eq!(purchases(&client).await.len(), 1);
}

/// A signer that does not answer for transfers, and answers for permits.
struct Hanging(LocalSigner);

impl Signer for Hanging {
    fn address(&self) -> Address {
        self.0.address()
    }

    fn time_limit(&self) -> Duration {
        Duration::from_millis(20)
    }

    async fn sign(&self, _: &TransferAuthorization) -> Result<Signature, SignerError> {
        std::future::pending().await
    }

    async fn sign_permit(&self, permit: &PermitTransfer) -> Result<Signature, SignerError> {
        self.0.sign_permit(permit).await
    }
}

#[tokio::test]
async fn a_signer_that_hung_over_a_transfer_is_not_asked_for_a_permit() {
    let transfer = Fault::Terms(FalseTerms::Method(Method::Eip3009));
    let seller = open(report().permit2().fault(transfer)).await;
    let client = builder().signer(Hanging(wallet())).build().unwrap();
    let buy = || client.get(seller.url("/report")).send();
    for _ in 0..2 {
        // The second request continues the purchase: the transfer is asked for again, and hangs again.
        let error = buy().await.unwrap_err();
        assert_eq!(error.payment_status(), PaymentStatus::MaybePaid, "{error}");
    }
    seller.clear_faults();
    let error = buy().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::OtherMethod, "{error}");
    assert_eq!(distinct_payments(&seller), 0);
    let purchase = only_purchase(&client).await;
    assert_eq!(purchase.payment_method, Some(PaymentMethod::Eip3009));
}

#[tokio::test]
async fn an_offer_of_the_same_kind_is_taken_where_the_first_is_open() {
    // The ordinary offer is preferred, and the seller states new terms for all three methods.
    let seller = open(by_all().fault_once(Fault::Requote(FalseTerms::Price(2)))).await;
    let client = client();
    let bought = client.get(seller.url("/report")).accept_new_terms().send();
    let response = bought.await.unwrap();
    assert_eq!(
        response.payment().unwrap().method,
        PaymentMethod::Eip3009,
        "the two permits were skipped"
    );
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn a_second_kind_is_a_denial_with_a_rule_of_its_own() {
    let seller = open(report().fault(Fault::Requote(FalseTerms::Method(Method::Upto)))).await;
    let client = client();
    let bought = client.get(seller.url("/report")).accept_new_terms().send();
    let error = bought.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(error.denial().unwrap().rule, Rule::OtherMethod);
}

/// The kinds of the payments that reached the seller.
fn kinds(seller: &Paywall) -> BTreeSet<&'static str> {
    let payments = seller.requests().into_iter();
    let payments = payments.filter_map(|request| request.payment?.json);
    payments
        .map(
            |json| match json.pointer("/payload/permit2Authorization").is_some() {
                true => "permit",
                false => "transfer",
            },
        )
        .collect()
}

/// Returns a client whose policy allows these methods.
fn paying_by(methods: &[TransferMethod], ledger: &Ledger) -> Client {
    let policy = policy().transfer_methods(methods.iter().copied());
    let client = builder().policy(policy).ledger(ledger.clone());
    client.build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_policies_at_once_sign_one_kind_for_one_purchase_id() {
    for _ in 0..12 {
        let refusal = Fault::RefusalInTerms("not today".to_owned());
        let seller = open(by_all().fault(refusal)).await;
        let ledger = Ledger::memory();
        let (transfers, permits) = (
            paying_by(&[TransferMethod::Eip3009], &ledger),
            paying_by(&[TransferMethod::Permit2], &ledger),
        );
        let buy = |client: &Client| {
            let report = client.get(seller.url("/report")).purchase_id("order");
            report.accept_new_terms().send()
        };
        for _ in 0..3 {
            let (one, other) = tokio::join!(buy(&transfers), buy(&permits));
            assert!(one.is_err() && other.is_err(), "every payment is refused");
        }
        assert_eq!(kinds(&seller).len(), 1);
        assert_eq!(purchases(&permits).await.len(), 1);
        assert_eq!(seller.settle_presented(), 1, "the chain takes one of them");
    }
}

#[tokio::test]
async fn a_policy_that_allows_another_kind_later_signs_no_second_payment() {
    let refusal = Fault::RefusalInTerms("not today".to_owned());
    let seller = open(by_all().fault(refusal)).await;
    let ledger = Ledger::memory();
    let permits = paying_by(&[TransferMethod::Permit2], &ledger);
    permits.get(seller.url("/report")).send().await.unwrap_err();
    let transfers = paying_by(&[TransferMethod::Eip3009], &ledger);
    for _ in 0..2 {
        let report = transfers.get(seller.url("/report")).accept_new_terms();
        let error = report.send().await.unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::Scheme, "{error}");
        assert_eq!(error.payment_status(), PaymentStatus::MaybePaid);
    }
    assert_eq!((distinct_payments(&seller), kinds(&seller).len()), (1, 1));
    seller.clear_faults();
    let both = paying_by(&TransferMethod::ALL, &ledger);
    let response = both.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(response.payment().unwrap().method, PaymentMethod::Permit2);
    assert_eq!(distinct_payments(&seller), 1);
    assert_eq!(seller.settlements().len(), 1);
}

//! Which schemes and transfer methods a policy allows, and what a denial says.

use bursar::money::TransferMethod;
use bursar::policy::Rule;
use bursar::x402::{PaymentMethod, Scheme};
use bursar::{ErrorKind, PaymentStatus, Policy, PriceOutcome, ResponseExt, usd};
use bursar_tests::paywall::{self, payments_sent, report};

use super::charges::by_all;
use super::{builder, client, open, upto};

#[tokio::test]
async fn nothing_but_exact_by_eip3009_is_signed_by_default() {
    for (route, write) in [
        (
            report().permit2(),
            "`transfer_methods = [\"eip3009\", \"permit2\"]`",
        ),
        (
            upto(),
            "`schemes = [\"exact\", \"upto\"]` and `transfer_methods = [\"eip3009\", \"permit2\"]`",
        ),
    ] {
        let seller = open(route).await;
        let client = builder().policy(paywall::policy()).build().unwrap();
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(error.payment_status(), PaymentStatus::NotPaid);
        let denial = error.denial().unwrap();
        assert_eq!(denial.rule, Rule::Scheme);
        assert!(denial.message.contains(write), "{}", denial.message);
        assert!(
            denial.message.contains("match = \"127.0.0.1\""),
            "{}",
            denial.message
        );
        assert_eq!(payments_sent(&seller), 0);
    }
    // A seller that sells by all of them is paid by the one that is allowed.
    let seller = open(by_all()).await;
    let client = builder().policy(paywall::policy()).build().unwrap();
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(response.payment().unwrap().method, PaymentMethod::Eip3009);
}

#[tokio::test]
async fn what_a_denial_says_allows_the_payment() {
    let toml = |lines: &str| {
        format!(
            "version = 1\nnetworks = [\"base-sepolia\"]\n\n[[host]]\nmatch = \"127.0.0.1\"\n{lines}"
        )
    };
    let seller = open(upto()).await;
    let lines = "schemes = [\"exact\", \"upto\"]\ntransfer_methods = [\"eip3009\", \"permit2\"]\n";
    let policy = Policy::from_toml(&toml(lines)).unwrap();
    let client = builder().policy(policy.clone()).build().unwrap();
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(response.payment().unwrap().method, PaymentMethod::Upto);
    let shown = policy.effective().to_string();
    assert!(shown.contains("schemes = [\"exact\", \"upto\"]"), "{shown}");
    let again = Policy::from_toml(&shown).unwrap();
    assert_eq!(again.effective().to_string(), shown);
    for (wrong, says) in [
        ("schemes = [\"up-to\"]", "upto"),
        ("transfer_methods = [\"permit\"]", "permit2"),
        ("schemes = []", "schemes"),
    ] {
        let error = Policy::from_toml(&toml(wrong)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let misplaced = "version = 1\nnetworks = [\"base-sepolia\"]\n\n[[tag]]\nmatch = \"x\"\nschemes = [\"upto\"]\n";
    let error = Policy::from_toml(misplaced).unwrap_err().to_string();
    assert!(error.contains("`schemes` is a setting of"), "{error}");
}

#[tokio::test]
async fn the_most_specific_host_decides_which_schemes_are_paid() {
    let everywhere = paywall::policy()
        .schemes(Scheme::ALL)
        .transfer_methods(TransferMethod::ALL);
    let seller = open(by_all()).await;
    let none = everywhere
        .clone()
        .host_limits("127.0.0.1", |host| host.transfer_methods([]));
    let client = builder().policy(none).build().unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::Scheme);
    let upto_alone = everywhere.host_limits("127.0.0.1", |host| host.schemes([Scheme::Upto]));
    let client = builder().policy(upto_alone).build().unwrap();
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(response.payment().unwrap().method, PaymentMethod::Upto);
}

#[tokio::test]
async fn a_price_check_says_up_to_and_prefers_a_known_price() {
    let seller = open(upto()).await;
    let client = client();
    let quoted = client.get(seller.url("/report")).quote().await.unwrap();
    let PriceOutcome::Priced(check) = quoted else {
        panic!("it has a price")
    };
    let best = check.best().unwrap();
    assert_eq!(best.to_string(), "up to 0.01 USDC");
    assert_eq!(
        (best.scheme(), best.method()),
        (Scheme::Upto, TransferMethod::Permit2)
    );
    assert_eq!(best.dollars(), Some(usd!("0.01")));
    let explanation = check.offers[0].explanation.as_ref().unwrap();
    assert!(explanation.to_string().contains("scheme"), "{explanation}");
    let several = open(by_all()).await;
    let quoted = client.get(several.url("/report")).quote().await.unwrap();
    let check = quoted.priced().unwrap();
    assert_eq!(
        check.best().unwrap().payment_method(),
        PaymentMethod::Eip3009
    );
}

//! Budgets, explanations and denials as data.

use bursar::policy::{Explanation, Rule};
use bursar::{Error, Payer, Policy, Usd, usd};
use bursar_tests::clock::{HOUR, at};
use bursar_tests::imagined_payment::ImaginedPayment;
use bursar_tests::test_offer::{Accept, offer};
use bursar_tests::tokens::{euro, euros, payee, usdc};
use bursar_tests::wallet_harness::WalletHarness;

use crate::bare;

#[tokio::test]
async fn budget_tells_what_is_left_of_every_standing_limit() {
    let policy = Policy::new()
        .allow_network("base")
        .host_limits("*.example.com", |host| host.lifetime(usd!("2")))
        .each_origin(|origin| origin.lifetime(usd!("1")));
    let wallet = WalletHarness::new(policy);
    wallet.hold(&offer("0.07")).await;
    wallet.buy(&offer("0.03").url("https://b.example")).await;
    let budget = wallet.payer(None).budget().await.unwrap();
    let lines: Vec<String> = budget
        .iter()
        .map(|finding| format!("{}: {} left", finding.name, finding.left.as_ref().unwrap()))
        .collect();
    assert_eq!(
        lines,
        [
            "global per payment: 0.10 USD left",
            "global rolling 1d: 4.90 USD left",
            "global exposure: 0.93 USD left",
            "global payments per 1m: 58 payments left",
            "host *.example.com lifetime: 1.93 USD left",
        ]
    );
}

#[tokio::test]
async fn explain_says_what_each_rule_answers() {
    let policy = Policy::new()
        .allow_network("base")
        .host_limits("*.example.com", |host| {
            host.rolling(HOUR, usd!("0.08"))
                .payee_pinned()
                .max_price_rise(10)
        })
        .ask_above(usd!("0.05"))
        .agent_limits("scout", |agent| agent.lifetime(usd!("3")));
    let wallet = WalletHarness::new(policy.clone());
    let buyer = wallet.payer(Some("scout"));
    let report = |price: Usd| ImaginedPayment::new("https://api.example.com/report", price);
    let passed = "\
pass  permission
pass  userinfo
pass  host
pass  network
pass  asset
pass  scheme
pass  zero_amount
pass  max_price
pass  unpriced_asset
pass  payee_impossible
pass  payee
pass  resource_origin
";
    let said = explain(&buyer, &report(usd!("0.06"))).await.unwrap();
    assert_eq!(
        said.to_string(),
        format!(
            "{passed}\
pass  global per payment                               0.10 USD of 0.10 USD left
pass  global rolling 1d                                5.00 USD of 5.00 USD left
pass  global exposure                                  1.00 USD of 1.00 USD left
pass  global payments per 1m                           60 payments of 60 payments left
pass  host *.example.com rolling 1h                    0.08 USD of 0.08 USD left
pass  agent scout lifetime                             3.00 USD of 3.00 USD left
pass  origin https://api.example.com failures per 10m  3 payments of 3 payments left
pass  same request repeats per 1m                      30 payments of 30 payments left
pass  payee_changed
pass  price_rise
=> asks for approval: above 0.05 USD (global)
"
        )
    );

    wallet
        .hold(&offer("0.05").payee(payee(3)).agent("scout"))
        .await;
    let said = explain(&buyer, &report(usd!("0.04")).payee(payee(4)).tag("x"))
        .await
        .unwrap();
    let refusals: Vec<_> = said
        .answers
        .iter()
        .filter_map(|answer| answer.denial.as_ref())
        .collect();
    let rules: Vec<Rule> = refusals.iter().map(|denial| denial.rule).collect();
    assert_eq!(rules, [Rule::Rolling, Rule::PayeeChanged]);
    assert_eq!(said.denial(), Some(refusals[0]));
    let last = said.to_string().lines().last().unwrap().to_owned();
    assert_eq!(
        last,
        "=> denied: 0.04 USD does not fit: 0.05 USD of 0.08 USD used (host *.example.com rolling 1h); \
         room returns at 2025-03-10T13:01:00Z"
    );
    assert_eq!(wallet.signatures(), 1, "explaining signs nothing");

    let price = |price: Usd| report(price).explain(&policy, wallet.now()).unwrap();
    assert!(price(usd!("0.05")).to_string().ends_with("=> allowed\n"));
    assert_eq!(price(usd!("0.20")).denial().unwrap().rule, Rule::PerPayment);
    let polygon = report(usd!("0.01")).network("polygon".parse().unwrap());
    assert_eq!(
        polygon
            .explain(&policy, wallet.now())
            .unwrap()
            .denial()
            .unwrap()
            .rule,
        Rule::Network
    );
    let in_euros = ImaginedPayment::new("https://a.example", euros("1"));
    assert_eq!(
        in_euros.explain(&policy, wallet.now()),
        None,
        "a token that is not registered"
    );
    let policy = policy.register_asset(euro());
    assert_eq!(
        in_euros
            .explain(&policy, wallet.now())
            .unwrap()
            .denial()
            .unwrap()
            .rule,
        Rule::UnpricedAsset
    );
}

async fn explain(payer: &Payer, payment: &ImaginedPayment) -> Result<Explanation, Error> {
    payer.explain(&payment.request, payment.price.clone()).await
}

#[tokio::test]
async fn explain_pays_with_a_token_that_is_allowed() {
    let celo = "celo".parse().unwrap();
    let usdt = bursar::money::AssetRegistry::stablecoins()
        .find_symbol(celo, "USDT")
        .unwrap();
    let policy = Policy::new()
        .allow_network("celo")
        .allow_asset(celo, usdt.address());
    let said = ImaginedPayment::new("https://a.example", usd!("0.01"))
        .explain(&policy, at("2025-01-01T00:00:00Z"));
    assert_eq!(said.unwrap().denial(), None);
}

#[tokio::test]
async fn a_quotation_explains_every_offer() {
    let wallet = WalletHarness::new(bare().per_payment(usd!("0.10")));
    let price_check = wallet
        .quote(&offer("5").or(Accept::new(usdc("base"), "0.02")))
        .await;
    let denials: Vec<_> = price_check
        .offers
        .iter()
        .map(|offer| {
            offer
                .explanation
                .as_ref()
                .unwrap()
                .denial()
                .map(|denial| denial.rule)
        })
        .collect();
    assert_eq!(denials, [Some(Rule::PerPayment), None]);
    assert_eq!(price_check.best().unwrap().offer(), 1);
    assert_eq!(wallet.signatures(), 0);
}

#[test]
fn a_denial_is_data() {
    let policy = Policy::new().allow_network("base");
    let payment = ImaginedPayment::new("https://a.example", usd!("0.20"));
    let said = payment
        .explain(&policy, at("2025-01-01T00:00:00Z"))
        .unwrap();
    assert_eq!(
        serde_json::to_value(said.denial().unwrap()).unwrap(),
        serde_json::json!({
            "rule": "per_payment",
            "scope": "global",
            "limit": "0.10 USD",
            "used": "0.00 USD",
            "asked": "0.20 USD",
            "room_returns": null,
            "message": "0.20 USD is above the limit of 0.10 USD (global per payment)",
        })
    );
}

#[tokio::test]
async fn a_read_only_payer_judges_with_the_ledger_and_neither_signs_nor_reserves() {
    let wallet = WalletHarness::new(Policy::new().allow_network("base").lifetime(usd!("0.10")));
    wallet.buy(&offer("0.08")).await;
    let ledger = wallet.payer(None).ledger().clone();
    let signer = bursar_tests::signatures::SignatureLog::default();
    let payer = Payer::builder()
        .signer(signer.signer())
        .policy(Policy::new().allow_network("base").lifetime(usd!("0.10")))
        .ledger(ledger.clone())
        .build_read_only()
        .unwrap();
    for (price, allowed) in [("0.02", true), ("0.03", false)] {
        let check = payer
            .quote(offer(price).terms(), &offer(price).request())
            .await
            .unwrap();
        assert_eq!(check.best().is_some(), allowed, "{price}");
    }
    let refused = payer
        .authorize(&offer("0.01").terms(), &offer("0.01").request())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), bursar::ErrorKind::NoWallet, "{refused}");
    assert_eq!((signer.count(), wallet.purchases().await.len()), (0, 1));

    // Without a policy, every payment is denied.
    let nobody = Payer::builder().build_read_only().unwrap();
    let check = nobody
        .quote(offer("0.01").terms(), &offer("0.01").request())
        .await
        .unwrap();
    assert!(check.best().is_none());
}

//! The official vectors for the choice between offers.

use super::*;
use crate::usd;

/// The result for a list of offers: the position of the paid offer, or the reason why none was paid.
#[derive(Debug, PartialEq)]
enum Choice {
    Paid(usize),
    Denied(Rule),
    NotPayable(Vec<Unpayable>),
}

/// `selection_and_spend_controls.json`, where our answer is not the official one.
fn deviation(label: &str) -> Option<Choice> {
    let sepolia = Network::from_chain_id(84_532);
    let unregistered = || Unpayable::Asset {
        network: sepolia,
        asset: "0x1111111111111111111111111111111111111111".to_owned(),
    };
    Some(match label {
        // A token without a dollar value must be limited in its own units.
        "custom_asset_allowed_uncapped" => Choice::Denied(Rule::UnpricedAsset),
        // No setting allows tokens of which nothing is known: decimals and EIP-712 domain would be
        // the seller's word.
        "allow_any_asset" | "spend_controls_off" => Choice::NotPayable(vec![unregistered()]),
        // The registry knows the domain, so the seller need not name it.
        "missing_eip712_domain" => Choice::Paid(0),
        _ => return None,
    })
}

/// Our reason where the official client makes an error, too.
fn our_refusal(label: &str) -> Choice {
    let sepolia = Network::from_chain_id(84_532);
    let unpayable = |reason: Unpayable| Choice::NotPayable(vec![reason]);
    match label {
        "unsupported_scheme" => unpayable(Unpayable::Scheme("foo".to_owned())),
        "unsupported_network" => unpayable(Unpayable::Network(
            "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp".to_owned(),
        )),
        "bad_caip2_reference" => unpayable(Unpayable::Network("eip155:0x2105".to_owned())),
        "custom_asset_rejected_by_default" => unpayable(Unpayable::Asset {
            network: sepolia,
            asset: "0x1111111111111111111111111111111111111111".to_owned(),
        }),
        "paymentFlow_unknown_dropped" => unpayable(Unpayable::Flow("mystery".to_owned())),
        "non_integer_amount" => unpayable(Unpayable::Amount("0.01".to_owned())),
        "negative_amount" => unpayable(Unpayable::Amount("-1".to_owned())),
        "empty_accepts" => Choice::NotPayable(Vec::new()),
        "default_cap_over_1_usd" | "custom_asset_atomic_cap" | "default_asset_symbol_override" => {
            Choice::Denied(Rule::PerPayment)
        }
        unknown => panic!("{unknown}"),
    }
}

/// `selection_and_spend_controls.json`: the choice between offers, and the offers that a cap allows.
///
/// Rows that differ are in `deviation`; [`rules_without_a_row`] has the rules that no row shows.
#[tokio::test]
async fn selection_and_spend_controls() {
    let vectors = vectors!("selection_and_spend_controls");
    let mut deviations = 0;
    for row in rows(&vectors) {
        let label = text(row, "/label");
        let official = row["officialTsResult"]
            .get("selectedIndex")
            .and_then(Value::as_u64);
        let expected = match (deviation(label), official) {
            (Some(ours), _) => {
                deviations += 1;
                assert_ne!(
                    Some(&ours),
                    official.map(selected).as_ref(),
                    "{label} is no deviation"
                );
                ours
            }
            (None, Some(index)) => selected(index),
            (None, None) => our_refusal(label),
        };
        assert_eq!(choice(row).await, expected, "{label}");
    }
    assert_eq!((rows(&vectors).len(), deviations), (24, 4));
}

/// Among offers that are allowed we take the cheapest, where the official client takes the first; and
/// real money beside play money, which `eip155:*` allows there, must be meant here.
#[tokio::test]
async fn rules_without_a_row() {
    let vectors = vectors!("selection_and_spend_controls");
    let mut row = rows(&vectors)
        .iter()
        .find(|row| row["label"] == "cap_skips_expensive_takes_cheap")
        .unwrap()
        .clone();
    row["spendControls"] = json!({ "maxAmountPerPayment": false });
    assert_eq!(choice(&row).await, Choice::Paid(1));
    row["accepts"].as_array_mut().unwrap().reverse();
    assert_eq!(choice(&row).await, Choice::Paid(0));

    let mixed = Policy::new()
        .allow_network("base")
        .allow_network("base-sepolia");
    assert!(matches!(mixed.check(), Err(PolicyError::Mixed { .. })));
    assert!(mixed.mix_testnets().check().is_ok());
}

fn selected(index: u64) -> Choice {
    Choice::Paid(usize::try_from(index).unwrap())
}

/// Returns the choice of a wallet with the row's policy among the row's offers.
async fn choice(row: &Value) -> Choice {
    let payer = Payer::builder()
        .signer(signer())
        .policy(equivalent_policy(row))
        .ledger(Ledger::memory());
    let payer = payer.clock(|| Timestamp::from_secs(NOW)).build().unwrap();
    let required = required(&json!({ "x402Version": 2, "accepts": row["accepts"] }));
    let request = PurchaseRequest::new("GET", "https://api.example.com/premium-data", b"").unwrap();
    let best = payer
        .quote(required.clone(), &request)
        .await
        .unwrap()
        .best()
        .map(Quote::offer);
    match payer.authorize(&required, &request).await {
        Ok(payment) => {
            let json = payment.json().unwrap();
            let sent: Value =
                serde_json::from_str(secrecy::ExposeSecret::expose_secret(&json)).unwrap();
            let paid = rows(&row["accepts"])
                .iter()
                .position(|offer| *offer == sent["accepted"])
                .unwrap();
            assert_eq!(best, Some(paid));
            Choice::Paid(paid)
        }
        Err(error) => {
            assert_eq!(best, None);
            refusal(&error)
        }
    }
}

fn refusal(error: &Error) -> Choice {
    assert_eq!(error.payment_status(), crate::error::PaymentStatus::NotPaid);
    error.denial().map_or_else(
        || Choice::NotPayable(error.unpayable().to_vec()),
        |denial| Choice::Denied(denial.rule),
    )
}

/// The official client's settings in our words. Its defaults are $1 a payment and the tokens of the
/// registry; it knows no limits over time, so ours are dropped.
pub(super) fn equivalent_policy(row: &Value) -> Policy {
    let mut policy = Policy::new().unlimited().mix_testnets();
    for network in rows(&row["registeredNetworks"])
        .iter()
        .filter_map(Value::as_str)
    {
        policy = match network {
            "eip155:*" => every_network()
                .into_iter()
                .fold(policy, Policy::allow_network),
            one => policy.allow_network(one),
        };
    }
    let controls = &row["spendControls"];
    if *controls != false {
        policy = match &controls["maxAmountPerPayment"] {
            Value::Bool(_) => policy,
            Value::String(cap) => policy.per_payment(cap.parse::<Usd>().unwrap()),
            _ => policy.per_payment(usd!("1")),
        };
    }
    controls["allowedAssets"]
        .as_array()
        .into_iter()
        .flatten()
        .fold(policy, allow)
}

fn every_network() -> Vec<Network> {
    AssetRegistry::stablecoins()
        .iter()
        .map(Asset::network)
        .collect()
}

/// An entry of `allowedAssets`: a known token by symbol or an unknown one by address, and its cap.
fn allow(policy: Policy, entry: &Value) -> Policy {
    let sepolia = Network::from_chain_id(84_532);
    let known = AssetRegistry::stablecoins()
        .find_symbol(sepolia, text(entry, "/asset"))
        .cloned();
    let asset =
        known.unwrap_or_else(|| Asset::new(sepolia, address(entry, "/asset"), "X", 6, "X", "1"));
    let policy = policy.register_asset(asset.clone());
    match entry.get("maxAmountPerPayment").and_then(Value::as_str) {
        None => policy,
        Some(cap) => {
            let cap = TokenAmount::from_units(asset.clone(), cap.parse().unwrap());
            let ever = TokenAmount::from_units(asset.clone(), U256::MAX); // a total is required, and no official setting
            policy.asset_limits(&asset, |limits| limits.per_payment(cap).lifetime(ever))
        }
    }
}

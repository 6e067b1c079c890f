//! Purchases through Permit2, by `exact` and by `upto`, from the official servers.

use bursar::ledger::State;
use bursar::money::TransferMethod;
use bursar::policy::Rule;
use bursar::primitives::{U256, address};
use bursar::x402::{PaymentMethod, Scheme};
use bursar::{
    Address, Client, ErrorKind, Ledger, LocalSigner, PaymentStatus, Policy, PriceOutcome,
    ResponseExt,
};
use bursar_tests::paywall::purchases;
use serde_json::{Value, json};

use crate::world::{World, reader};
use crate::{BalanceBefore, Buyer};

/// The official servers with routes that are paid through Permit2.
const SELLERS: [&str; 2] = ["express-v2", "hono"];
const PERMIT2: Address = address!("000000000022D473030F116dDEE9F6B43aC78BA3");

/// Returns a new buyer with ten cents whose policy allows every scheme and method.
async fn buyer(world: &World) -> Buyer {
    with_policy(world, |policy| {
        policy
            .schemes(Scheme::ALL)
            .transfer_methods([TransferMethod::Eip3009, TransferMethod::Permit2])
    })
    .await
}

async fn with_policy(world: &World, policy: fn(Policy) -> Policy) -> Buyer {
    let signer = LocalSigner::random().unwrap();
    let address = signer.address();
    let money = json!([address.to_string(), world.usdc.to_string(), "0x186a0"]);
    world.rpc("anvil_dealERC20", money).await;
    let client = Client::builder()
        .signer(signer)
        .policy(policy(Policy::new().allow_network("base-sepolia")))
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()
        .unwrap();
    Buyer { client, address }
}

/// Approves Permit2 on the chain, as the wallet does once for a token.
async fn approve(world: &World, owner: Address, units: u64) {
    let gas = json!([owner.to_string(), "0xde0b6b3a7640000"]);
    world.rpc("anvil_setBalance", gas).await;
    world
        .rpc("anvil_impersonateAccount", json!([owner.to_string()]))
        .await;
    let words = format!("{}{:064x}", PERMIT2.into_word(), units).replace("0x", "");
    let call = json!({
        "from": owner.to_string(), "to": world.usdc.to_string(), "data": format!("0x095ea7b3{words}"),
    });
    world.send(call).await;
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn official_servers_sell_through_permit2() {
    let world = World::load();
    for name in SELLERS {
        println!("{name}");
        let seller = &world.sellers[name];
        let Buyer { client, address } = buyer(&world).await;
        approve(&world, address, 100_000).await;
        let balance = BalanceBefore::of(&world, address).await;
        let mut spent = 0;
        // The route, the signed amount, and the amount that moves.
        for (path, signed, charged) in [
            ("/permit2", 10_000, 10_000),
            ("/upto", 50_000, 20_000),
            ("/upto?charge=1", 50_000, 1),
            ("/upto?charge=50000", 50_000, 50_000),
        ] {
            let url = format!("{}{path}", seller.url);
            let response = client.get(url).send().await.unwrap();
            assert_eq!(
                (response.status().as_u16(), response.payment_status()),
                (200, PaymentStatus::Paid),
                "{path}"
            );
            let receipt = response.receipt().unwrap();
            let upto = path.starts_with("/upto");
            let method = if upto {
                PaymentMethod::Upto
            } else {
                PaymentMethod::Permit2
            };
            assert_eq!(receipt.payment().method, method);
            assert_eq!(receipt.payment().is_ceiling(), upto);
            assert_eq!(receipt.amount().units(), U256::from(signed));
            assert_eq!(receipt.charged().unwrap().units(), U256::from(charged));
            assert_eq!(
                world.transfers(receipt.transaction()).await,
                [(address, seller.pay_to, U256::from(charged))]
            );
            let report = response.json::<Value>().await.unwrap()["report"].clone();
            assert!(path[1..].starts_with(report.as_str().unwrap()));
            spent += charged;
            balance.decreased_by(spent).await;
        }
        let purchases = purchases(&client).await;
        let mut claimed: Vec<_> = purchases
            .iter()
            .map(|purchase| purchase.claimed_charge)
            .collect();
        claimed.sort_unstable();
        let charges = [1, 20_000, 50_000].map(|units| Some(U256::from(units)));
        assert_eq!(claimed, [&[None], &charges[..]].concat());
        assert!(
            purchases
                .iter()
                .all(|purchase| purchase.state == State::Settled)
        );
    }
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn a_charge_of_nothing_proves_nothing_because_the_permit_stays_open() {
    let world = World::load();
    let seller = &world.sellers["hono"];
    let Buyer { client, address } = buyer(&world).await;
    approve(&world, address, 100_000).await;
    let balance = BalanceBefore::of(&world, address).await;
    let url = format!("{}/upto?charge=0", seller.url);
    let response = client.get(url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.payment_status(), PaymentStatus::MaybePaid);
    balance.decreased_by(0).await;
    assert_eq!(purchases(&client).await[0].state, State::Unresolved);
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn a_wallet_without_an_approval_is_told_so_and_pays_after_it() {
    let world = World::load();
    for (name, path, needed, charged) in [
        ("express-v2", "/permit2", 10_000, 10_000),
        ("hono", "/upto", 50_000, 20_000),
    ] {
        let url = format!("{}{path}", world.sellers[name].url);
        let Buyer { client, address } = buyer(&world).await;
        let balance = BalanceBefore::of(&world, address).await;
        let order = || client.get(&url).purchase_id("order");
        let error = order().send().await.unwrap_err();
        let missing = error.missing_allowance().unwrap();
        assert_eq!(
            (missing.owner, missing.spender, missing.amount.units()),
            (address, PERMIT2, U256::from(needed)),
            "{error}"
        );
        assert_eq!(missing.token.address(), world.usdc);
        balance.decreased_by(0).await;

        approve(&world, address, needed).await;
        let response = order().send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
        balance.decreased_by(charged).await;
        // Once, although the payment was presented twice.
        let purchases = purchases(&client).await;
        assert_eq!(purchases.len(), 1, "{purchases:?}");
        assert_eq!(purchases[0].state, State::Settled);
    }
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn a_permit_presented_twice_is_settled_once() {
    let world = World::load();
    for (name, path, charged) in [
        ("hono", "/permit2", 10_000),
        ("express-v2", "/upto", 20_000),
    ] {
        let url = format!("{}{path}", world.sellers[name].url);
        let Buyer { client, address } = buyer(&world).await;
        approve(&world, address, 100_000).await;
        let balance = BalanceBefore::of(&world, address).await;
        let order = || client.get(&url).purchase_id("order");
        let first = order().send().await.unwrap();
        assert_eq!(first.payment_status(), PaymentStatus::Paid);
        balance.decreased_by(charged).await;
        // The bitmap of Permit2 refuses the nonce, so the official facilitator does.
        let error = order().send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Rejected, PaymentStatus::Paid),
            "{error}"
        );
        balance.decreased_by(charged).await;
    }
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn a_policy_that_names_no_scheme_signs_no_permit_for_an_official_server() {
    let world = World::load();
    for name in SELLERS {
        let Buyer { client, address } = with_policy(&world, |policy| policy).await;
        approve(&world, address, 100_000).await;
        let balance = BalanceBefore::of(&world, address).await;
        for path in ["/permit2", "/upto", "/permit2-sponsored", "/upto-approved"] {
            let url = format!("{}{path}", world.sellers[name].url);
            let error = client.get(&url).send().await.unwrap_err();
            assert_eq!(
                (error.payment_status(), error.denial().unwrap().rule),
                (PaymentStatus::NotPaid, Rule::Scheme),
                "{error}"
            );
            let PriceOutcome::Priced(price) = client.get(&url).quote().await.unwrap() else {
                unreachable!("{url} is not priced");
            };
            assert!(!price.offers.is_empty());
        }
        balance.decreased_by(0).await;
        assert!(purchases(&client).await.is_empty());

        // A route with several offers is paid by EIP-3009, which needs no approval.
        let url = format!("{}/several", world.sellers[name].url);
        let response = client.get(url).send().await.unwrap();
        let receipt = response.receipt().unwrap();
        assert_eq!(receipt.payment().method, PaymentMethod::Eip3009);
        balance.decreased_by(10_000).await;
    }
}

/// Returns the allowance of Permit2 for a wallet.
async fn allowance(world: &World, owner: Address) -> U256 {
    let words = [owner, PERMIT2].map(|address| address.into_word().to_string());
    let data = format!("0xdd62ed3e{}", words.concat().replace("0x", ""));
    let call = json!([{ "to": world.usdc.to_string(), "data": data }, "latest"]);
    let result = world.rpc("eth_call", call).await;
    result.as_str().unwrap().parse().unwrap()
}

/// Returns the number of transactions that a wallet has sent.
async fn transactions(world: &World, owner: Address) -> U256 {
    let account = json!([owner.to_string(), "latest"]);
    let count = world.rpc("eth_getTransactionCount", account).await;
    count.as_str().unwrap().parse().unwrap()
}

/// Returns a new buyer with ten cents, no gas and no approval, whose client reads the chain.
async fn buyer_without_approval(world: &World, policy: fn(Policy) -> Policy) -> Buyer {
    let signer = LocalSigner::random().unwrap();
    let address = signer.address();
    let money = json!([address.to_string(), world.usdc.to_string(), "0x186a0"]);
    world.rpc("anvil_dealERC20", money).await;
    let methods = Policy::new()
        .allow_network("base-sepolia")
        .schemes(Scheme::ALL)
        .transfer_methods([TransferMethod::Permit2]);
    let client = Client::builder()
        .signer(signer)
        .policy(policy(methods))
        .ledger(Ledger::memory())
        .chain(reader(world))
        .allow_http_loopback(true)
        .build()
        .unwrap();
    Buyer { client, address }
}

/// 0.01 ether: the local chain begins with a high base fee.
const HIGHEST_COST: u128 = 10_000_000_000_000_000;

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn official_servers_pay_the_gas_of_an_approval_that_the_policy_allows() {
    let world = World::load();
    for name in SELLERS {
        let seller = &world.sellers[name];
        // The route, the signed amount, the amount that moves, and the transactions of the wallet.
        for (path, signed, charged, sent) in [
            ("/permit2-sponsored", 10_000, 10_000, 0),
            ("/upto-sponsored", 50_000, 20_000, 0),
            ("/upto-sponsored?charge=50000", 50_000, 50_000, 0),
            ("/permit2-approved", 10_000, 10_000, 1),
            ("/upto-approved", 50_000, 20_000, 1),
            ("/upto-approved?charge=1", 50_000, 1, 1),
        ] {
            println!("{name} {path}");
            let policy: fn(Policy) -> Policy = match sent {
                0 => |policy| policy.gas_sponsoring(true),
                _ => |policy| policy.sponsored_transactions(HIGHEST_COST),
            };
            let Buyer { client, address } = buyer_without_approval(&world, policy).await;
            let balance = BalanceBefore::of(&world, address).await;
            assert_eq!(allowance(&world, address).await, U256::ZERO);

            let response = client
                .get(format!("{}{path}", seller.url))
                .send()
                .await
                .unwrap();
            assert_eq!(
                (response.status().as_u16(), response.payment_status()),
                (200, PaymentStatus::Paid)
            );
            let receipt = response.receipt().unwrap();
            assert_eq!(receipt.amount().units(), U256::from(signed));
            assert_eq!(receipt.charged().unwrap().units(), U256::from(charged));
            assert_eq!(
                world.transfers(receipt.transaction()).await,
                [(address, seller.pay_to, U256::from(charged))]
            );
            balance.decreased_by(charged).await;
            // Exactly the signed amount was approved, and the charge used it.
            let left = U256::from(signed - charged);
            assert_eq!(allowance(&world, address).await, left);
            assert_eq!(transactions(&world, address).await, U256::from(sent));

            let purchases = purchases(&client).await;
            assert_eq!(purchases.len(), 1, "{purchases:?}");
            assert_eq!(purchases[0].state, State::Settled);
            assert_eq!(purchases[0].value, U256::from(signed));
            let upto = path.starts_with("/upto");
            let claimed = upto.then(|| U256::from(charged));
            assert_eq!(purchases[0].claimed_charge, claimed);
        }
    }
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn no_approval_is_signed_for_an_official_server_that_the_policy_does_not_name() {
    let world = World::load();
    let seller = &world.sellers["hono"];
    let neither: fn(Policy) -> Policy = |policy| policy;
    let permits: fn(Policy) -> Policy = |policy| policy.gas_sponsoring(true);
    let transactions_only: fn(Policy) -> Policy =
        |policy| policy.sponsored_transactions(HIGHEST_COST);
    // One wei is no gas.
    let too_cheap: fn(Policy) -> Policy = |policy| policy.sponsored_transactions(1);
    for (policy, path, advice) in [
        (
            neither,
            "/permit2-sponsored",
            "write `gas_sponsoring = true`",
        ),
        (
            transactions_only,
            "/upto-sponsored",
            "write `gas_sponsoring = true`",
        ),
        (
            neither,
            "/upto-approved",
            "write `sponsored_transactions = ",
        ),
        (
            permits,
            "/permit2-approved",
            "write `sponsored_transactions = ",
        ),
        (
            too_cheap,
            "/permit2-approved",
            "`sponsored_transactions` allows 0.000000000000000001",
        ),
    ] {
        let Buyer { client, address } = buyer_without_approval(&world, policy).await;
        let balance = BalanceBefore::of(&world, address).await;
        let url = format!("{}{path}", seller.url);
        let error = client.get(url).send().await.unwrap_err();
        assert_eq!(
            (error.payment_status(), error.denial().unwrap().rule),
            (PaymentStatus::NotPaid, Rule::Allowance),
            "{error}"
        );
        assert!(error.to_string().contains(advice), "{error}");
        assert_eq!(error.missing_allowance().unwrap().owner, address);
        balance.decreased_by(0).await;
        assert_eq!(allowance(&world, address).await, U256::ZERO);
        assert!(purchases(&client).await.is_empty());
    }
}

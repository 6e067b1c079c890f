//! Sellers that pay the gas of an approval, by EIP-2612 or by sending a transaction of the wallet.

use std::time::Duration;

use bursar::policy::{ApprovalRequest, Rule, Verdict, approve_fn};
use bursar::primitives::U256;
use bursar::signer::{
    Approval, PermitTransfer, Signature, SignerError, TokenPermit, TransferAuthorization,
};
use bursar::{
    Address, ChainReader, Client, ErrorKind, LocalSigner, Network, PaymentStatus, Policy,
    ResponseExt, Signer, usd,
};
use bursar_testing::{Fault, Node, NodeFault, Paywall, Route};
use bursar_tests::clock::TestClock;
use bursar_tests::paywall::{distinct_payments, purchases, report};
use bursar_tests::signatures::wallet;
use bursar_tests::tokens::usdc;

use super::{builder, policy, upto};

const NETWORK: Network = Network::from_chain_id(84_532);

/// A seller whose chain knows no approval, and a client that reads the chain.
async fn world(route: Route, signer: impl Signer, policy: Policy) -> (Paywall, Node, Client) {
    let seller = Paywall::builder()
        .route(route)
        .allowance(wallet().address(), 0)
        .start()
        .await
        .unwrap();
    let node = seller.node(NETWORK).await.unwrap();
    let chain = ChainReader::new().endpoint(NETWORK, node.url().as_str());
    let client = builder()
        .signer(signer)
        .policy(policy)
        .chain(chain.unwrap())
        .build()
        .unwrap();
    (seller, node, client)
}

#[tokio::test]
async fn a_sponsored_payment_approves_exactly_its_amount() {
    for route in [report().permit2(), upto().charge(usd!("0.004"))] {
        let policy = policy().gas_sponsoring(true);
        let (seller, _node, client) = world(route.sponsors_permits(), wallet(), policy).await;
        let buy = || client.get(seller.url("/report")).allow_duplicate().send();
        buy().await.unwrap();
        let sent = seller.requests().remove(1).payment.unwrap().json.unwrap();
        let info = &sent["extensions"]["eip2612GasSponsoring"]["info"];
        let permit = &sent["payload"]["permit2Authorization"];
        assert_eq!(info["from"], permit["from"]);
        assert_eq!(info["asset"], permit["permitted"]["token"]);
        assert_eq!(info["amount"], "10000");
        assert_eq!(info["deadline"], permit["deadline"]);
        assert_eq!(
            (&info["nonce"], &info["version"]),
            (&"0".into(), &"1".into())
        );
        assert_eq!(
            info["spender"],
            "0x000000000022D473030F116dDEE9F6B43aC78BA3"
        );
        assert!(info["description"].is_string(), "the seller's fields stay");
        // The approval is used up, or replaced by the next one.
        buy().await.unwrap();
        assert_eq!(seller.settlements().len(), 2);
        let approvals = seller.approvals();
        assert_eq!(approvals.len(), 2);
        for approval in approvals {
            assert_eq!(approval.owner, wallet().address());
            assert_eq!(approval.amount, U256::from(10_000));
        }
        let left = seller.allowance_of(&usdc("base-sepolia"), wallet().address());
        assert!(left <= U256::from(10_000), "{left}");
    }
}

#[tokio::test]
async fn nothing_is_sponsored_unless_policy_and_seller_allow_it() {
    let sponsored = || upto().sponsors_permits();
    let elsewhere = policy().host_limits("elsewhere.example", |host| host.gas_sponsoring(true));
    for (route, policy) in [
        (sponsored(), policy()),
        (sponsored(), policy().gas_sponsoring(false)),
        (sponsored(), elsewhere),
        (upto(), policy().gas_sponsoring(true)),
    ] {
        let (seller, _node, client) = world(route, wallet(), policy).await;
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::Allowance, "{error}");
        assert_eq!(distinct_payments(&seller), 0);
        assert!(purchases(&client).await.is_empty());
    }
    let here = policy().host_limits("127.0.0.1", |host| host.gas_sponsoring(true));
    let (seller, _node, client) = world(sponsored(), wallet(), here).await;
    client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn an_approval_that_stands_is_not_signed_again() {
    let policy = policy().gas_sponsoring(true);
    let (seller, node, client) = world(upto().sponsors_permits(), wallet(), policy).await;
    let approved = usdc("base-sepolia");
    seller.set_allowance(&approved, wallet().address(), U256::from(20_000));
    client.get(seller.url("/report")).send().await.unwrap();
    let sent = seller.requests().remove(1).payment.unwrap().json.unwrap();
    let info = &sent["extensions"]["eip2612GasSponsoring"]["info"];
    assert!(info.get("signature").is_none(), "{info}");
    // Without a reading nothing more than the payment is signed.
    node.fault(NodeFault::Unavailable);
    seller.set_allowance(&approved, wallet().address(), U256::ZERO);
    let report = client.get(seller.url("/report")).allow_duplicate();
    let _refused = report.send().await;
    for request in seller.requests() {
        let Some(payment) = request.payment else {
            continue;
        };
        let json = payment.json.unwrap();
        let info = &json["extensions"]["eip2612GasSponsoring"]["info"];
        assert!(info.get("signature").is_none(), "{info}");
    }
}

#[tokio::test]
async fn a_policy_file_allows_sponsoring_for_all_sellers_or_for_one() {
    let begin = "version = 1\nnetworks = [\"base-sepolia\"]\n";
    let methods = "schemes = [\"exact\", \"upto\"]\ntransfer_methods = [\"permit2\"]\n";
    let host = |name: &str| format!("[[host]]\nmatch = \"{name}\"\ngas_sponsoring = true\n");
    for (rest, settled) in [
        ("gas_sponsoring = true".to_owned(), 1),
        ("gas_sponsoring = false".to_owned(), 0),
        (host("127.0.0.1"), 1),
        (host("other.example"), 0),
    ] {
        let policy = Policy::from_toml(&format!("{begin}[global]\n{methods}{rest}")).unwrap();
        let effective = policy.effective().to_string();
        assert!(effective.contains("gas_sponsoring = "), "{effective}");
        let again = Policy::from_toml(&effective).unwrap();
        let (seller, _node, client) = world(upto().sponsors_permits(), wallet(), again).await;
        let bought = client.get(seller.url("/report")).send().await;
        assert_eq!(
            (bought.is_ok(), seller.settlements().len()),
            (settled == 1, settled)
        );
    }
    let tag = format!("{begin}[[tag]]\nmatch = \"a\"\ngas_sponsoring = true\n");
    let error = Policy::from_toml(&tag).unwrap_err().to_string();
    assert!(
        error.contains("`gas_sponsoring` is a setting of"),
        "{error}"
    );
}

/// A signer that signs permits and no approvals.
struct Cautious(LocalSigner);

impl Signer for Cautious {
    fn address(&self) -> Address {
        self.0.address()
    }

    async fn sign(&self, transfer: &TransferAuthorization) -> Result<Signature, SignerError> {
        self.0.sign(transfer).await
    }

    async fn sign_permit(&self, permit: &PermitTransfer) -> Result<Signature, SignerError> {
        self.0.sign_permit(permit).await
    }

    async fn sign_token_permit(&self, permit: &TokenPermit) -> Result<Signature, SignerError> {
        Err(SignerError::rejected(format!(
            "no approval of {}",
            permit.amount()
        )))
    }
}

#[tokio::test]
async fn a_signer_that_refuses_the_approval_pays_nothing() {
    let policy = policy().gas_sponsoring(true);
    let signer = Cautious(wallet());
    let (seller, _node, client) = world(upto().sponsors_permits(), signer, policy).await;
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Signer, "{error}");
    assert_eq!(error.payment_status(), PaymentStatus::NotPaid);
    assert!(
        error.to_string().contains("no approval of 0.01 USDC"),
        "{error}"
    );
    assert_eq!(distinct_payments(&seller), 0);
}

/// A signer that needs almost its whole time for each signature.
struct Slow(LocalSigner, TestClock);

impl Signer for Slow {
    fn address(&self) -> Address {
        self.0.address()
    }

    fn time_limit(&self) -> Duration {
        Duration::from_secs(40)
    }

    async fn sign(&self, transfer: &TransferAuthorization) -> Result<Signature, SignerError> {
        self.0.sign(transfer).await
    }

    async fn sign_permit(&self, permit: &PermitTransfer) -> Result<Signature, SignerError> {
        self.1.advance(Duration::from_secs(39));
        self.0.sign_permit(permit).await
    }

    async fn sign_token_permit(&self, permit: &TokenPermit) -> Result<Signature, SignerError> {
        self.1.advance(Duration::from_secs(39));
        self.0.sign_token_permit(permit).await
    }
}

#[tokio::test]
async fn a_slow_signer_has_its_time_for_the_approval_and_again_for_the_payment() {
    let clock = TestClock::default();
    let route = upto().max_timeout_seconds(300).sponsors_permits();
    let seller = Paywall::builder()
        .route(route)
        .allowance(wallet().address(), 0)
        .clock(clock.clone())
        .start()
        .await
        .unwrap();
    let node = seller.node(NETWORK).await.unwrap();
    let chain = ChainReader::new().endpoint(NETWORK, node.url().as_str());
    let client = builder()
        .signer(Slow(wallet(), clock.clone()))
        .policy(policy().gas_sponsoring(true))
        .chain(chain.unwrap())
        .clock(clock)
        .build()
        .unwrap();
    client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(seller.settlements().len(), 1);
}

/// The cost of an approval on the chain of the paywall: 55,200 units of gas at 1.9 gwei.
const COST: u128 = 104_880_000_000_000;

#[tokio::test]
async fn an_approver_is_told_that_an_approval_is_signed_with_the_payment() {
    let both = || {
        policy()
            .ask_above(usd!("0.001"))
            .gas_sponsoring(true)
            .sponsored_transactions(COST)
    };
    for (route, by) in [
        (
            upto().sponsors_permits(),
            "also signs an approval of Permit2 for this amount, by a permit",
        ),
        (
            upto().sponsors_approvals(),
            "also signs an approval of Permit2 for this amount, by a transaction without a deadline",
        ),
    ] {
        let seller = Paywall::builder()
            .route(route)
            .allowance(wallet().address(), 0);
        let seller = seller.start().await.unwrap();
        let node = seller.node(NETWORK).await.unwrap();
        let chain = ChainReader::new().endpoint(NETWORK, node.url().as_str());
        let approver = approve_fn(|request: ApprovalRequest| {
            let reason = request.to_string();
            async { Verdict::Deny { reason } }
        });
        let client = builder()
            .policy(both())
            .chain(chain.unwrap())
            .approver(approver);
        let client = client.build().unwrap();
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::Approval);
        assert!(error.to_string().contains(by), "{error}");
        assert_eq!(distinct_payments(&seller), 0);
        assert!(seller.approvals().is_empty());
    }
}

/// Returns the `info` of the transaction in the payment of a request.
fn transaction_info(seller: &Paywall, request: usize) -> serde_json::Value {
    let sent = seller.requests().remove(request).payment.unwrap();
    let json = sent.json.unwrap();
    let info = json.pointer("/extensions/erc20ApprovalGasSponsoring/info");
    info.unwrap().clone()
}

#[tokio::test]
async fn a_sponsored_transaction_approves_exactly_the_amount_of_its_payment() {
    let approved = usdc("base-sepolia");
    let charge = || upto().charge(usd!("0.004"));
    for (route, left) in [(report().permit2(), 0_u64), (charge(), 6_000)] {
        let policy = policy().sponsored_transactions(COST);
        let (seller, _node, client) = world(route.sponsors_approvals(), wallet(), policy).await;
        let buy = || client.get(seller.url("/report")).allow_duplicate().send();
        let response = buy().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
        let info = transaction_info(&seller, 1);
        let owner = wallet().address();
        assert_eq!(info["from"], owner.to_string());
        assert_eq!(info["asset"], approved.address().to_string());
        assert_eq!(
            info["spender"],
            "0x000000000022D473030F116dDEE9F6B43aC78BA3"
        );
        assert_eq!(
            (&info["amount"], &info["version"]),
            (&"10000".into(), &"1".into())
        );
        assert!(info["description"].is_string(), "the seller's fields stay");
        let raw = info["signedTransaction"].as_str().unwrap();
        // EIP-1559, for exactly the amount: 10,000 atomic units.
        assert!(raw.starts_with("0x02"), "{raw}");
        assert!(raw.contains(&format!("{:064x}c0", 10_000)), "{raw}");
        assert_eq!(seller.allowance_of(&approved, owner), U256::from(left));
        // The approval is used, so the next purchase has one of its own. It replaces the rest.
        buy().await.unwrap();
        assert_ne!(transaction_info(&seller, 3)["signedTransaction"], raw);
        let amounts: Vec<_> = seller
            .approvals()
            .iter()
            .map(|approval| approval.amount)
            .collect();
        assert_eq!(amounts, [U256::from(10_000); 2]);
        assert_eq!(seller.allowance_of(&approved, owner), U256::from(left));
        assert_eq!(seller.settlements().len(), 2);
        assert_eq!(purchases(&client).await.len(), 2);
    }
}

#[tokio::test]
async fn no_transaction_is_signed_unless_policy_and_seller_allow_it() {
    let sponsored = || upto().sponsors_approvals();
    let to_allow = "write `sponsored_transactions = ";
    let elsewhere = |cost| {
        policy().host_limits("elsewhere.example", move |host| {
            host.sponsored_transactions(cost)
        })
    };
    let never_here = policy()
        .sponsored_transactions(COST)
        .host_limits("127.0.0.1", |host| host.sponsored_transactions(0));
    for (route, policy, text) in [
        (sponsored(), policy(), to_allow),
        (sponsored(), policy().sponsored_transactions(0), to_allow),
        (sponsored(), policy().gas_sponsoring(true), to_allow),
        (sponsored(), elsewhere(COST), to_allow),
        (sponsored(), never_here, to_allow),
        (
            sponsored(),
            policy().sponsored_transactions(COST - 1),
            "could cost 0.00010488 coins of the network, and `sponsored_transactions` allows 0.000104879999999999",
        ),
        (
            upto(),
            policy().sponsored_transactions(COST),
            "--send`; nothing was signed",
        ),
        (
            upto().sponsors_permits(),
            policy().sponsored_transactions(COST),
            "write `gas_sponsoring = true`",
        ),
    ] {
        let (seller, _node, client) = world(route, wallet(), policy).await;
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::Allowance, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.missing_allowance().is_some());
        assert_eq!(distinct_payments(&seller), 0);
        assert!(seller.approvals().is_empty());
        assert!(purchases(&client).await.is_empty());
    }
    let here = policy().host_limits("127.0.0.1", |host| host.sponsored_transactions(COST));
    let (seller, _node, client) = world(sponsored(), wallet(), here).await;
    client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn a_permit_of_the_token_is_preferred_to_a_transaction() {
    let both = || upto().sponsors_permits().sponsors_approvals();
    let transactions = || policy().sponsored_transactions(COST);
    for (policy, by_transaction) in [
        (transactions().gas_sponsoring(true), false),
        (transactions(), true),
    ] {
        let (seller, _node, client) = world(both(), wallet(), policy).await;
        client.get(seller.url("/report")).send().await.unwrap();
        let sent = seller.requests().remove(1).payment.unwrap().json.unwrap();
        let signed =
            |name: &str, field: &str| sent["extensions"][name]["info"].get(field).is_some();
        assert_eq!(
            (
                signed("eip2612GasSponsoring", "signature"),
                signed("erc20ApprovalGasSponsoring", "signedTransaction"),
            ),
            (!by_transaction, by_transaction)
        );
        assert_eq!(seller.settlements().len(), 1);
    }
}

#[tokio::test]
async fn an_approval_that_is_enough_is_not_sent_as_a_transaction_again() {
    let policy = policy().sponsored_transactions(COST);
    let (seller, node, client) = world(upto().sponsors_approvals(), wallet(), policy).await;
    let approved = usdc("base-sepolia");
    seller.set_allowance(&approved, wallet().address(), U256::from(20_000));
    client.get(seller.url("/report")).send().await.unwrap();
    let info = transaction_info(&seller, 1);
    assert!(info.get("signedTransaction").is_none(), "{info}");
    // Without a reading nothing more than the payment is signed.
    node.fault(NodeFault::Unavailable);
    seller.set_allowance(&approved, wallet().address(), U256::ZERO);
    let refused = client
        .get(seller.url("/report"))
        .allow_duplicate()
        .send()
        .await;
    assert!(refused.is_err());
    for request in seller.requests() {
        let Some(payment) = request.payment else {
            continue;
        };
        let json = payment.json.unwrap();
        let info = &json["extensions"]["erc20ApprovalGasSponsoring"]["info"];
        assert!(info.get("signedTransaction").is_none(), "{info}");
    }
}

#[tokio::test]
async fn a_seller_that_sends_the_transaction_and_does_not_settle_moves_nothing() {
    let route = report().permit2().sponsors_approvals();
    let policy = policy().sponsored_transactions(COST);
    let route = route.fault_once(Fault::ApproveUnsettled);
    let (seller, _node, client) = world(route, wallet(), policy).await;
    let buy = || {
        client
            .get(seller.url("/report"))
            .purchase_id("report")
            .send()
    };
    // bursar presents the same payment again, with the same transaction, which the chain has.
    let response = buy().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    assert_eq!(distinct_payments(&seller), 1);
    assert_eq!(
        (seller.approvals().len(), seller.settlements().len()),
        (1, 1)
    );
    let left = seller.allowance_of(&usdc("base-sepolia"), wallet().address());
    assert_eq!(left, U256::ZERO);

    // One that never settles has an allowance for Permit2, and no money.
    let route = report()
        .permit2()
        .sponsors_approvals()
        .fault(Fault::ApproveUnsettled);
    let policy = super::policy().sponsored_transactions(COST);
    let (seller, _node, client) = world(route, wallet(), policy).await;
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(response.payment_status(), PaymentStatus::MaybePaid);
    assert_eq!(
        (seller.approvals().len(), seller.settlements().len()),
        (1, 0)
    );
    let left = seller.allowance_of(&usdc("base-sepolia"), wallet().address());
    assert_eq!(left, U256::from(10_000));
    assert_eq!(purchases(&client).await[0].value, U256::from(10_000));
}

#[tokio::test]
async fn a_purchase_whose_terms_change_signs_no_second_transaction() {
    let policy = policy().sponsored_transactions(COST);
    let route = upto().sponsors_approvals().fault_once(Fault::DoublePrice);
    let (seller, _node, client) = world(route, wallet(), policy).await;
    let bought = client.get(seller.url("/report")).accept_new_terms().send();
    let error = bought.await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::Allowance, "{error}");
    assert!(
        error.to_string().contains("at most one approval"),
        "{error}"
    );
    assert_eq!(error.payment_status(), PaymentStatus::MaybePaid);
    assert_eq!(distinct_payments(&seller), 1);
}

#[tokio::test]
async fn a_signer_without_transactions_is_denied_and_one_that_refuses_pays_nothing() {
    let allowed = || policy().sponsored_transactions(COST);
    let signer = Cautious(wallet());
    let (seller, _node, client) = world(upto().sponsors_approvals(), signer, allowed()).await;
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::Allowance, "{error}");
    assert!(
        error.to_string().contains("cannot sign transactions"),
        "{error}"
    );
    assert!(purchases(&client).await.is_empty());

    let signer = Refusing(wallet());
    let (seller, _node, client) = world(upto().sponsors_approvals(), signer, allowed()).await;
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Signer, PaymentStatus::NotPaid),
        "{error}"
    );
    assert!(
        error.to_string().contains("no transaction for 0.01 USDC"),
        "{error}"
    );
    assert_eq!(distinct_payments(&seller), 0);

    // A transaction by another key approves nothing of this wallet.
    let signer = Foreign(wallet(), LocalSigner::random().unwrap());
    let (seller, _node, client) = world(upto().sponsors_approvals(), signer, allowed()).await;
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Signer, "{error}");
    assert_eq!(distinct_payments(&seller), 0);
}

/// A signer that could sign transactions, and refuses.
struct Refusing(LocalSigner);

impl Signer for Refusing {
    fn address(&self) -> Address {
        self.0.address()
    }

    async fn sign(&self, transfer: &TransferAuthorization) -> Result<Signature, SignerError> {
        self.0.sign(transfer).await
    }

    async fn sign_permit(&self, permit: &PermitTransfer) -> Result<Signature, SignerError> {
        self.0.sign_permit(permit).await
    }

    async fn sign_approval(&self, approval: &Approval) -> Result<Signature, SignerError> {
        let amount = approval.amount();
        Err(SignerError::rejected(format!(
            "no transaction for {amount}"
        )))
    }

    fn signs_approvals(&self) -> bool {
        true
    }
}

/// A signer whose transactions are by another key.
struct Foreign(LocalSigner, LocalSigner);

impl Signer for Foreign {
    fn address(&self) -> Address {
        self.0.address()
    }

    async fn sign(&self, transfer: &TransferAuthorization) -> Result<Signature, SignerError> {
        self.0.sign(transfer).await
    }

    async fn sign_permit(&self, permit: &PermitTransfer) -> Result<Signature, SignerError> {
        self.0.sign_permit(permit).await
    }

    async fn sign_approval(&self, approval: &Approval) -> Result<Signature, SignerError> {
        self.1.sign_approval(approval).await
    }

    fn signs_approvals(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_policy_file_states_the_highest_cost_of_a_transaction() {
    let begin = "version = 1\nnetworks = [\"base-sepolia\"]\n";
    let methods = "schemes = [\"exact\", \"upto\"]\ntransfer_methods = [\"permit2\"]\n";
    let set = |cost: &str| format!("sponsored_transactions = \"{cost}\"\n");
    let host = |name: &str, cost| format!("[[host]]\nmatch = \"{name}\"\n{}", set(cost));
    for (rest, settled) in [
        (set("0.00010488"), 1),
        (set("1"), 1),
        (set("0.000104879999999999"), 0),
        (set("0"), 0),
        (host("127.0.0.1", "0.00010488"), 1),
        (host("other.example", "0.00010488"), 0),
        (format!("{}{}", set("0.001"), host("127.0.0.1", "0")), 0),
    ] {
        let policy = Policy::from_toml(&format!("{begin}[global]\n{methods}{rest}")).unwrap();
        let effective = policy.effective().to_string();
        assert!(
            effective.contains("sponsored_transactions = \""),
            "{effective}"
        );
        let again = Policy::from_toml(&effective).unwrap();
        assert_eq!(again.effective().to_string(), effective);
        let (seller, _node, client) = world(upto().sponsors_approvals(), wallet(), again).await;
        let bought = client.get(seller.url("/report")).send().await;
        assert_eq!(
            (bought.is_ok(), seller.settlements().len()),
            (settled == 1, settled),
            "{rest}"
        );
    }
    for (wrong, text) in [
        ("\"0.0000000000000000001\"", "at most 18 decimals"),
        ("\"-1\"", "is not an amount of the network's coin"),
        ("\"1 ETH\"", "is not an amount of the network's coin"),
        (
            "\"400000000000000000000\"",
            "is not an amount of the network's coin",
        ),
        ("1", "must be an amount of the network's coin such as"),
        ("true", "must be an amount of the network's coin such as"),
    ] {
        let file = format!("{begin}[global]\nsponsored_transactions = {wrong}\n");
        let error = Policy::from_toml(&file).unwrap_err().to_string();
        assert!(error.contains(text), "{wrong}: {error}");
    }
    let tag = format!("{begin}[[tag]]\nmatch = \"a\"\n{}", set("1"));
    let error = Policy::from_toml(&tag).unwrap_err().to_string();
    assert!(
        error.contains("`sponsored_transactions` is a setting of"),
        "{error}"
    );
}

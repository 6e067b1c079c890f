//! Sellers that pay the gas of an approval, by EIP-2612.

use std::time::Duration;

use bursar::policy::Rule;
use bursar::primitives::U256;
use bursar::signer::{PermitTransfer, Signature, SignerError, TokenPermit, TransferAuthorization};
use bursar::{Address, ChainReader, Client, LocalSigner, Network, Policy, Signer, usd};
use bursar_testing::{Node, NodeFault, Paywall, Route};
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
    assert_eq!(error.kind(), bursar::ErrorKind::Signer, "{error}");
    assert_eq!(error.payment_status(), bursar::PaymentStatus::NotPaid);
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

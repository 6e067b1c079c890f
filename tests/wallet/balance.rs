//! The balance is read before a payment is signed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bursar::chain::Reason;
use bursar::policy::Rule;
use bursar::telemetry::{Event, EventKind};
use bursar::{
    ChainReader, Client, ClientBuilder, ErrorKind, LocalSigner, Network, Payer, PaymentStatus,
    Policy, PriceOutcome, PurchaseRequest, ResponseExt, usd,
};
use bursar_testing::{Fault, Paywall};
use bursar_tests::clock::{SECOND, TestClock};
use bursar_tests::paywall::{self, purchases, report};
use bursar_tests::stub_node::StubNode;
use bursar_tests::test_offer::{Accept, offer};
use bursar_tests::tokens::{euro, euros, usdc};
use bursar_tests::wallet_harness::{WalletHarness, settle};

const SEPOLIA: Network = Network::from_chain_id(84_532);

/// A seller, a node of its chain, and one clock for all.
struct World {
    clock: TestClock,
    seller: Paywall,
    node: bursar_testing::Node,
    wallet: bursar::Address,
    client: Client,
}

impl World {
    /// A wallet with this balance in atomic units of USDC. The report costs 10000.
    async fn new(units: u64) -> Self {
        Self::with(units, None, |builder| builder).await
    }

    async fn with(
        units: u64,
        fault: Option<Fault>,
        configure: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Self {
        let clock = TestClock::default();
        let signer = LocalSigner::random().unwrap();
        let wallet = signer.address();
        let route = fault
            .into_iter()
            .fold(report(), bursar_testing::Route::fault);
        let seller = Paywall::builder()
            .route(route)
            .balance(wallet, units)
            .clock(clock.clone());
        let seller = seller.start().await.unwrap();
        let node = seller.node(SEPOLIA).await.unwrap();
        let chain = ChainReader::new().endpoint(SEPOLIA, node.url().as_str());
        let client = paywall::client()
            .signer(signer)
            .policy(
                Policy::new()
                    .allow_network("base-sepolia")
                    .loop_guard(SECOND, 1000),
            )
            .clock(clock.clone())
            .chain(chain.unwrap())
            .reconcile_every(std::time::Duration::ZERO);
        let client = configure(client).build().unwrap();
        Self {
            clock,
            seller,
            node,
            wallet,
            client,
        }
    }

    async fn buy(&self) -> Result<reqwest::Response, bursar::Error> {
        self.client.get(self.seller.url("/report")).send().await
    }
}

#[tokio::test]
async fn a_wallet_with_too_little_is_told_before_anything_is_signed() {
    let world = World::new(4000).await;
    let error = world.buy().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Denied, PaymentStatus::NotPaid)
    );
    let denial = error.denial().unwrap();
    assert_eq!(denial.rule, Rule::InsufficientBalance);
    let shortfall = denial.shortfall.as_deref().unwrap();
    assert_eq!(
        (shortfall.wallet, shortfall.network()),
        (world.wallet, SEPOLIA)
    );
    assert_eq!(
        [
            &shortfall.balance,
            &shortfall.in_flight,
            &shortfall.needed,
            &shortfall.missing()
        ]
        .map(ToString::to_string),
        ["0.004 USDC", "0 USDC", "0.01 USDC", "0.006 USDC"]
    );
    let text = error.to_string();
    for part in [
        world.wallet.to_string().as_str(),
        "has 0.004 USDC on base-sepolia",
        "needs 0.01 USDC",
        "nothing was signed",
        "send 0.006 USDC or more",
        "faucet.circle.com",
    ] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    let json = serde_json::to_value(denial).unwrap();
    assert_eq!(json["shortfall"]["network"], "eip155:84532");
    assert_eq!(json["shortfall"]["missing"], "0.006 USDC");
    assert_eq!(paywall::payments_sent(&world.seller), 0);
    assert!(
        purchases(&world.client).await.is_empty(),
        "nothing is reserved"
    );
}

#[tokio::test]
async fn an_explanation_and_a_quote_have_the_balance_and_hold_nothing() {
    let world = World::new(4000).await;
    let request = PurchaseRequest::new("GET", world.seller.url("/report").as_str(), b"").unwrap();
    let of_balance = |explanation: &bursar::policy::Explanation| {
        let mut answers = explanation.answers.iter();
        let answer = answers.find(|answer| answer.rule == Rule::InsufficientBalance);
        answer.unwrap().clone()
    };
    let price = bursar::usd!("0.01");
    let denied = world.client.explain(&request, price).await.unwrap();
    let answer = of_balance(&denied);
    assert_eq!(denied.denial(), answer.denial.as_ref());
    assert!(answer.denial.unwrap().shortfall.is_some());
    let quoted = world.client.quote(
        world
            .client
            .get(world.seller.url("/report"))
            .build()
            .unwrap(),
    );
    let PriceOutcome::Priced(quoted) = quoted.await.unwrap() else {
        panic!("there is a price")
    };
    assert!(quoted.best().is_none(), "{quoted:?}");

    // A smaller price is covered, and a hundred questions hold nothing.
    for _ in 0..100 {
        let covered = world
            .client
            .explain(&request, bursar::usd!("0.004"))
            .await
            .unwrap();
        let answer = of_balance(&covered);
        let detail = format!("0.004 USDC in {}", world.wallet);
        assert_eq!((answer.denial, answer.detail), (None, Some(detail)));
    }
    world.seller.set_balance(world.wallet, 10_000);
    assert!(
        world
            .client
            .explain(&request, price)
            .await
            .unwrap()
            .denial()
            .is_none()
    );
    assert_eq!(world.buy().await.unwrap().status(), 200);

    // A payer without a key knows the balance of its address.
    let chain = ChainReader::new()
        .endpoint(SEPOLIA, world.node.url().as_str())
        .unwrap();
    let reader = |address| {
        let policy = Policy::new().allow_network("base-sepolia");
        let payer = Payer::builder().policy(policy).chain(chain.clone());
        payer.address(address).build_read_only().unwrap()
    };
    let empty = reader(world.wallet).explain(&request, price).await.unwrap();
    assert_eq!(empty.denial().unwrap().rule, Rule::InsufficientBalance);
    // A node that is gone denies nothing.
    world.seller.set_balance(world.wallet, 10_000);
    let payer = reader(world.wallet);
    drop(world.node);
    let unread = payer.explain(&request, price).await.unwrap();
    assert_eq!(unread.denial(), None);
    assert_eq!(
        of_balance(&unread).detail.as_deref(),
        Some("the balance cannot be read")
    );
}

#[tokio::test]
async fn a_wallet_that_was_topped_up_pays_at_once() {
    let world = World::new(0).await;
    for _ in 0..5 {
        assert!(world.buy().await.unwrap_err().is_denied());
    }
    world.seller.set_balance(world.wallet, 10_000);
    let response = world.buy().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    // The last cent is spent, and the kept reading knows it.
    let error = world.buy().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::InsufficientBalance);
    assert_eq!(paywall::payments_sent(&world.seller), 1);
}

#[tokio::test]
async fn a_kept_balance_costs_no_round_trip_for_ten_seconds() {
    let world = World::new(1_000_000).await;
    world.buy().await.unwrap();
    let calls = world.node.calls();
    for _ in 0..10 {
        world.buy().await.unwrap();
        world.clock.advance(SECOND / 2);
    }
    assert_eq!(world.node.calls(), calls);
    world.clock.advance(SECOND * 6);
    world.buy().await.unwrap();
    assert_eq!(
        world.node.calls(),
        calls + 1,
        "the balance alone is read again"
    );
}

#[tokio::test]
async fn without_an_endpoint_of_the_network_nothing_is_asked() {
    let node = StubNode::with_balances(Network::from_chain_id(8453), |_, _| 0).await;
    let seller = paywall::open(report()).await;
    let client = paywall::client()
        .chain(node.reader(Network::from_chain_id(8453)))
        .build()
        .unwrap();
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    assert_eq!(node.calls("eth_call") + node.calls("eth_chainId"), 0);
}

#[tokio::test]
async fn calls_at_once_share_the_balance() {
    // Three cents for ten calls at once.
    let world = World::new(30_000).await;
    let calls = (0..10).map(|_| {
        let request = world.client.get(world.seller.url("/report")).send();
        tokio::spawn(request)
    });
    let (mut paid, mut denied) = (0, 0);
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Ok(response) => {
                assert_eq!(response.payment_status(), PaymentStatus::Paid);
                paid += 1;
            }
            Err(error) => {
                assert_eq!(error.denial().unwrap().rule, Rule::InsufficientBalance);
                denied += 1;
            }
        }
    }
    assert_eq!((paid, denied), (3, 7));
    assert_eq!(
        paywall::payments_sent(&world.seller),
        3,
        "no seller had to refuse"
    );
}

#[tokio::test]
async fn a_denial_counts_the_payments_in_flight() {
    let node = StubNode::with_balances(usdc("base").network(), |_, _| 25_000).await;
    let reader = node.reader(usdc("base").network());
    let wallet = WalletHarness::with(
        Policy::new().allow_network("base").loop_guard(SECOND, 1000),
        move |builder| builder.chain(reader.clone()),
    );
    let payer = wallet.payer(None);
    let terms = offer("0.01");
    let authorize = async || payer.authorize(&terms.terms(), &terms.request()).await;
    let (first, second) = (authorize().await.unwrap(), authorize().await.unwrap());
    let denial = authorize().await.unwrap_err().denial().unwrap().clone();
    let shortfall = denial.shortfall.clone().unwrap();
    assert_eq!(
        [
            &shortfall.balance,
            &shortfall.in_flight,
            &shortfall.missing()
        ]
        .map(ToString::to_string),
        ["0.025 USDC", "0.02 USDC", "0.005 USDC"]
    );
    assert!(
        denial
            .message
            .contains("0.02 USDC of it in payments that are in flight"),
        "{denial}"
    );
    assert_eq!(denial.left().unwrap().to_string(), "0.005 USDC");
    assert_eq!(wallet.signatures(), 2);
    // The balance of this node never falls, so a payment that ended makes room.
    settle(&first).await;
    assert!(authorize().await.is_ok());
    drop(second);
}

#[tokio::test]
async fn an_offer_that_the_balance_covers_is_chosen() {
    // The cheaper offer is in USDC, of which the wallet has nothing.
    let dollars = usdc("base");
    let (cheap, other) = (dollars.address(), euro());
    let node = StubNode::with_balances(dollars.network(), move |token, _| {
        if token == cheap { 9_999 } else { 1_000_000 }
    })
    .await;
    let reader = node.reader(dollars.network());
    let wallet = WalletHarness::with(
        Policy::new()
            .allow_network("base")
            .register_asset(euro())
            .per_payment(euros("1"))
            .per_day(euros("20")),
        move |builder| builder.chain(reader.clone()),
    );
    let mut terms = offer("0.01");
    terms.accepts.push(Accept::new(other.clone(), "0.5"));
    let payment = wallet.authorize(&terms).await.unwrap();
    assert_eq!(payment.payment().amount.asset(), &other);
    assert_eq!(wallet.signatures(), 1);
}

#[tokio::test]
async fn a_balance_that_cannot_be_read_denies_nothing_and_is_told() {
    let clock = TestClock::default();
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    let node = StubNode::start(SEPOLIA, |_, _| Some(Err("the database is gone".to_owned()))).await;
    let seller = Paywall::builder().route(report()).clock(clock.clone());
    let seller = seller.start().await.unwrap();
    let client = paywall::client()
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .loop_guard(SECOND, 1000),
        )
        .chain(node.reader(SEPOLIA))
        .clock(clock.clone())
        .observer(move |event: &Event<'_>| kept.lock().unwrap().push(event.name()))
        .build()
        .unwrap();
    let unknown = || {
        let events = events.lock().unwrap();
        let unknown = EventKind::BalanceUnknown.name();
        events.iter().filter(|name| **name == unknown).count()
    };
    for _ in 0..3 {
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
    }
    assert_eq!(
        (unknown(), node.calls("eth_call")),
        (1, 1),
        "it is not asked each time"
    );
    clock.advance(SECOND * 31);
    client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!((unknown(), node.calls("eth_call")), (2, 2));
}

#[tokio::test]
async fn a_node_that_never_answers_delays_one_payment_and_denies_none() {
    let clock = TestClock::default();
    let node = StubNode::start(SEPOLIA, |_, _| None).await;
    let seller = Paywall::builder().route(report()).clock(clock.clone());
    let seller = seller.start().await.unwrap();
    let client = paywall::client()
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .loop_guard(SECOND, 1000),
        )
        .chain(node.reader(SEPOLIA).timeout(SECOND / 20))
        .clock(clock)
        .build()
        .unwrap();
    for _ in 0..3 {
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
    }
    assert_eq!(node.calls("eth_call"), 1);
}

#[tokio::test]
async fn one_node_that_lies_cannot_make_a_wallet_look_empty() {
    let honest = StubNode::with_balances(SEPOLIA, |_, _| 10_000).await;
    let liar = StubNode::with_balances(SEPOLIA, |_, _| 0).await;
    let other_chain = StubNode::with_balances(Network::from_chain_id(1), |_, _| u64::MAX).await;
    let reader = |urls: &[&StubNode]| {
        urls.iter().fold(ChainReader::new(), |reader, node| {
            reader.endpoint(SEPOLIA, node.url()).unwrap()
        })
    };
    let asset = usdc("base-sepolia");
    let owner = bursar::Address::repeat_byte(7);
    let all = reader(&[&liar, &honest, &other_chain]);
    assert_eq!(
        all.balance(&asset, owner).await.unwrap().to_string(),
        "0.01 USDC"
    );
    let wrong = reader(&[&other_chain]).balance(&asset, owner).await;
    assert_eq!(wrong.unwrap_err(), Reason::WrongChain(1));
    let none = ChainReader::new().balance(&asset, owner).await;
    assert_eq!(none.unwrap_err(), Reason::NoEndpoint);

    let seller = paywall::open(report()).await;
    let client = paywall::client().chain(all).build().unwrap();
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
}

#[tokio::test]
async fn an_answer_that_is_no_balance_is_no_balance() {
    for answer in ["0x", "0x00", "0x1", "none"] {
        let node = StubNode::start(SEPOLIA, move |_, _| Some(Ok(answer.into()))).await;
        let reader = node.reader(SEPOLIA);
        let balance = reader
            .balance(&usdc("base-sepolia"), bursar::Address::ZERO)
            .await;
        assert!(matches!(balance, Err(Reason::Endpoint(_))), "{answer}");
    }
}

#[tokio::test]
async fn a_payment_that_was_denied_or_not_signed_frees_its_part_of_the_balance() {
    let balance = Arc::new(AtomicU64::new(10_000));
    let shown = Arc::clone(&balance);
    let network = usdc("base").network();
    let node = StubNode::with_balances(network, move |_, _| shown.load(Ordering::SeqCst)).await;
    let reader = node.reader(network);
    // Each payment needs an approval, and there is no approver.
    let wallet = WalletHarness::with(
        Policy::new().allow_network("base").ask_above(usd!("0.005")),
        move |builder| builder.chain(reader.clone()),
    );
    let payer = wallet.payer(None);
    let (large, small) = (offer("0.01"), offer("0.004"));
    for _ in 0..3 {
        let error = payer
            .authorize(&large.terms(), &large.request())
            .await
            .unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::Approval, "{error}");
    }
    let payment = payer.authorize(&small.terms(), &small.request()).await;
    drop(payment.unwrap());
    assert_eq!(node.calls("eth_call"), 1);
    // A payer tells its balance.
    let read = payer.balance(&usdc("base")).await.unwrap();
    assert_eq!(read.to_string(), "0.01 USDC");
    let without = WalletHarness::new(Policy::new().allow_network("base")).payer(None);
    let error = without.balance(&usdc("base")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Builder);
}

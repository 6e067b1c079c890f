//! Unresolved payments are reconciled in the background once they have expired.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bursar::ledger::{Filter, State};
use bursar::telemetry::Event;
use bursar::{
    ChainReader, Client, ClientBuilder, Ledger, LocalSigner, Network, Payer, PaymentStatus, Policy,
    RetryPolicy, usd,
};
use bursar_testing::{Fault, Node, NodeFault, Paywall, Route};
use bursar_tests::clock::{MINUTE, SECOND, TestClock};
use bursar_tests::paywall::{self, payment_status, purchases, report};
use tokio::sync::mpsc;

const SEPOLIA: Network = Network::from_chain_id(84_532);

/// A seller with a fault, two nodes, and a client with room for one payment.
struct World {
    clock: TestClock,
    seller: Paywall,
    nodes: [Node; 2],
    client: Client,
    events: mpsc::UnboundedReceiver<String>,
}

fn reader(nodes: &[Node; 2]) -> ChainReader {
    nodes
        .iter()
        .zip(["one", "another"])
        .fold(ChainReader::new(), |reader, (node, operator)| {
            let url = node.url().as_str();
            reader.endpoint_operated_by(SEPOLIA, url, operator).unwrap()
        })
}

impl World {
    async fn new(
        fault: Option<Fault>,
        ledger: Ledger,
        configure: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Self {
        let clock = TestClock::default();
        let route = fault.into_iter().fold(report().idempotent(), Route::fault);
        let seller = Paywall::builder().route(route).clock(clock.clone());
        let seller = seller.start().await.unwrap();
        let nodes = [
            seller.node(SEPOLIA).await.unwrap(),
            seller.node(SEPOLIA).await.unwrap(),
        ];
        let (sender, events) = mpsc::unbounded_channel();
        let client = paywall::client()
            .policy(
                Policy::new()
                    .allow_network("base-sepolia")
                    .unlimited()
                    .lifetime(usd!("0.01")),
            )
            .ledger(ledger)
            .clock(clock.clone())
            .retry_policy(RetryPolicy::once())
            .chain(reader(&nodes))
            .observer(move |event: &Event<'_>| {
                let amount = event.amount.map(ToString::to_string).unwrap_or_default();
                drop(sender.send(format!("{} {amount}", event.name())));
            });
        let client = configure(client).build().unwrap();
        Self {
            clock,
            seller,
            nodes,
            client,
            events,
        }
    }

    async fn buy(&self, id: &str) -> PaymentStatus {
        let request = self.client.get(self.seller.url("/report"));
        payment_status(request.purchase_id(id).send().await)
    }

    /// Waits for an event of this name, and returns its text.
    async fn event(&mut self, name: &str) -> String {
        loop {
            let event = self.events.recv().await.unwrap();
            if event.starts_with(name) {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn room_returns_by_itself_once_a_payment_expired_unused() {
    let mut world = World::new(Some(Fault::SettlementFailure), Ledger::memory(), |it| it).await;
    assert_eq!(world.buy("first").await, PaymentStatus::MaybePaid);
    world.seller.clear_faults();
    assert_eq!(
        world.buy("second").await,
        PaymentStatus::NotPaid,
        "there is no room"
    );
    // The authorization is valid for a minute, and the rounds are five minutes apart.
    world.clock.advance(MINUTE * 6);
    assert_eq!(
        world.buy("second").await,
        PaymentStatus::NotPaid,
        "it wakes the task"
    );
    assert_eq!(world.event("released").await, "released 0.01 USDC");
    assert_eq!(world.buy("second").await, PaymentStatus::Paid);
    let states: Vec<_> = purchases(&world.client)
        .await
        .iter()
        .map(|it| it.state)
        .collect();
    assert_eq!(states, [State::ReleasedByProof, State::Settled]);
}

#[tokio::test]
async fn a_lost_payment_that_settled_is_confirmed_in_the_background() {
    let mut world = World::new(Some(Fault::DropAfterSettle), Ledger::memory(), |it| it).await;
    assert_eq!(world.buy("first").await, PaymentStatus::MaybePaid);
    world.clock.advance(MINUTE * 6);
    world.client.budget().await.unwrap();
    world.event("confirmed").await;
    let purchase = purchases(&world.client).await.remove(0);
    let settled = world.seller.settlements()[0].transaction;
    assert_eq!(purchase.verified_transaction, Some(settled));
}

#[tokio::test]
async fn rounds_are_bounded_in_frequency_and_ask_about_nothing_that_is_not_due() {
    let configure = |it: ClientBuilder| it.reconcile_every(MINUTE * 10);
    let mut world = World::new(Some(Fault::SettlementFailure), Ledger::memory(), configure).await;
    for node in &world.nodes {
        node.fault(NodeFault::SaysUsed);
    }
    assert_eq!(world.buy("first").await, PaymentStatus::MaybePaid);
    // Only the balance was read: the payment can still settle.
    let begin: usize = world.nodes.iter().map(Node::calls).sum();
    assert!(begin <= 4, "{begin} calls");
    for _ in 0..50 {
        assert_eq!(world.buy("second").await, PaymentStatus::NotPaid);
    }
    for node in &world.nodes {
        node.clear_faults();
    }
    world.clock.advance(MINUTE * 11);
    world.client.budget().await.unwrap();
    world.event("released").await;
    let calls = |world: &World| world.nodes.iter().map(Node::calls).sum::<usize>();
    let after = calls(&world);
    // There is nothing left to ask, however often the client is used.
    for _ in 0..20 {
        world.client.budget().await.unwrap();
        world.clock.advance(MINUTE);
    }
    assert_eq!(calls(&world), after);
}

#[tokio::test]
async fn receipts_are_confirmed_in_the_background_if_that_is_wanted() {
    let configure = |it: ClientBuilder| it.confirm_receipts(true).reconcile_every(SECOND);
    let mut world = World::new(None, Ledger::memory(), configure).await;
    assert_eq!(world.buy("first").await, PaymentStatus::Paid);
    world.clock.advance(MINUTE * 61);
    world.client.budget().await.unwrap();
    world.event("confirmed").await;
    let purchase = purchases(&world.client).await.remove(0);
    assert_eq!(purchase.verified_transaction, purchase.transaction);
    assert!(purchase.proof.is_some());
}

#[tokio::test]
async fn the_next_process_reconciles_the_payments_that_an_earlier_one_left() {
    let ledger = Ledger::memory();
    let world = World::new(Some(Fault::SettlementFailure), ledger.clone(), |it| {
        it.reconcile_every(Duration::ZERO)
    })
    .await;
    assert_eq!(world.buy("first").await, PaymentStatus::MaybePaid);
    world.clock.advance(MINUTE * 6);
    world.client.budget().await.unwrap();
    // The rounds of this client are off. Another client with the ledger begins at once.
    let (sender, mut events) = mpsc::unbounded_channel();
    let next = Payer::builder()
        .signer(LocalSigner::random().unwrap())
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(ledger.clone())
        .clock(world.clock.clone())
        .chain(reader(&world.nodes))
        .observer(move |event: &Event<'_>| sender.send(event.name()).unwrap_or_default())
        .build()
        .unwrap();
    next.budget().await.unwrap();
    assert_eq!(events.recv().await, Some("released"));
    let purchase = ledger.purchases(&Filter::all()).await.unwrap().remove(0);
    assert_eq!(purchase.state, State::ReleasedByProof);
}

#[test]
fn without_a_runtime_a_payer_with_a_chain_is_built_and_dropped() {
    let payer = Payer::builder()
        .signer(LocalSigner::random().unwrap())
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(Ledger::memory())
        .chain(ChainReader::new())
        .build()
        .unwrap();
    drop(payer);
}

#[tokio::test]
async fn the_task_ends_with_the_last_client() {
    /// Tells when the last clone of the observer is dropped, which the task holds only during a round.
    struct Last(Arc<Mutex<Option<mpsc::UnboundedSender<()>>>>);
    impl bursar::telemetry::Observer for Last {
        fn observe(&self, _: &Event<'_>) {}
    }
    impl Drop for Last {
        fn drop(&mut self) {
            drop(self.0.lock().unwrap().take());
        }
    }
    let (sender, mut dropped) = mpsc::unbounded_channel::<()>();
    let last = Last(Arc::new(Mutex::new(Some(sender))));
    let world = World::new(Some(Fault::SettlementFailure), Ledger::memory(), |it| {
        it.observer(last)
    })
    .await;
    for node in &world.nodes {
        node.fault(NodeFault::Hangs);
    }
    assert_eq!(world.buy("first").await, PaymentStatus::MaybePaid);
    world.clock.advance(MINUTE * 6);
    // A round begins, and waits for nodes that never answer.
    world.client.budget().await.unwrap();
    let World { client, nodes, .. } = world;
    let twin = client.clone();
    drop(client);
    assert!(
        dropped
            .try_recv()
            .is_err_and(|error| error == mpsc::error::TryRecvError::Empty)
    );
    drop(twin);
    assert_eq!(dropped.recv().await, None, "the task dropped its parts");
    drop(nodes);
}

//! Programs on Rust's frameworks for language models and HTTP that pay through bursar.
//!
//! Each example is a program of its own: `cargo run --example async_openai`. It buys from a seller on loopback with a wallet
//! that it throws away, so it needs no money. The tests run the functions of the examples against sellers that also
//! misbehave. `frameworks/run` runs all of it, and checks that chapter 20 of bursar's guide shows this code.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use bursar::ledger::Filter;
use bursar::{Client, Ledger, LocalSigner, Policy, Purchase, usd};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Returns a client with a wallet of its own, for sellers on loopback.
pub fn client() -> Result<Client, Box<dyn Error>> {
    let policy = Policy::new()
        .allow_network("base-sepolia")
        .per_payment(usd!("0.05"))
        .per_day(usd!("1"));
    let client = Client::builder()
        .signer(LocalSigner::random()?)
        .policy(policy)
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()?;
    Ok(client)
}

/// Returns the purchases of a client, oldest first.
pub async fn purchases(client: &Client) -> Result<Vec<Purchase>, Box<dyn Error>> {
    let ledger = client.ledger().ok_or("the client has no ledger")?;
    Ok(ledger.purchases(&Filter::all()).await?)
}

/// Prints the purchases of a client.
pub async fn print_purchases(client: &Client) -> Result<(), Box<dyn Error>> {
    for purchase in purchases(client).await? {
        let dollars = purchase.usd.unwrap_or_default();
        println!("paid ${dollars} to {}{}", purchase.origin, purchase.path);
    }
    Ok(())
}

/// A subscriber of `tracing` that notes the names of spans.
#[derive(Clone, Debug, Default)]
pub struct Spans(Arc<Mutex<Vec<&'static str>>>);

impl Spans {
    /// Returns the number of spans with this name.
    pub fn count(&self, name: &str) -> usize {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().filter(|found| **found == name).count()
    }
}

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.push(span.metadata().name());
        Id::from_u64(names.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

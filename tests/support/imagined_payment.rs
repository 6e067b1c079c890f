//! Payments that a policy explains and that no test makes.

use bursar::policy::{AskingPrice, Explanation};
use bursar::{Address, Network, Policy, PurchaseRequest, Timestamp};

/// A request and its price. A test asks a policy about it.
#[derive(Clone, Debug)]
pub struct ImaginedPayment {
    pub request: PurchaseRequest,
    pub price: AskingPrice,
    agent: Option<String>,
}

impl ImaginedPayment {
    pub fn new(url: &str, price: impl Into<AskingPrice>) -> Self {
        Self {
            request: PurchaseRequest::new("GET", url, b"").unwrap(),
            price: price.into(),
            agent: None,
        }
    }

    pub fn network(mut self, network: Network) -> Self {
        self.price = self.price.network(network);
        self
    }

    pub fn payee(mut self, payee: Address) -> Self {
        self.price = self.price.payee(payee);
        self
    }

    pub fn tag(mut self, tag: &str) -> Self {
        self.request = self.request.tag(tag);
        self
    }

    pub fn agent(mut self, agent: &str) -> Self {
        self.agent = Some(agent.to_owned());
        self
    }

    pub fn explain(&self, policy: &Policy, now: Timestamp) -> Option<Explanation> {
        let (price, agent) = (self.price.clone(), self.agent.as_deref());
        policy.explain(&self.request, price, agent, now)
    }
}

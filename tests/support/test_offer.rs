//! Terms of a seller, and the request that they answer.

use bursar::primitives::U256;
use bursar::x402::PaymentRequired;
use bursar::{Address, Asset, PurchaseRequest, Usd};
use serde_json::{Value, json};

use crate::tokens::{payee, usdc};

/// A request of a buyer, and the terms with which the seller answers it.
#[derive(Clone, Debug)]
pub struct TestOffer {
    pub url: String,
    pub method: String,
    /// The seller's offers, in this order.
    pub accepts: Vec<Accept>,
    pub resource: Value,
    pub tag: Option<String>,
    pub agent: Option<String>,
    pub max_price: Option<Usd>,
    pub id: Option<String>,
}

/// One element of `accepts`: a token, an amount and a payee.
#[derive(Clone, Debug)]
pub struct Accept {
    pub asset: Asset,
    pub units: U256,
    pub payee: Address,
    pub max_timeout_seconds: u64,
}

impl Accept {
    pub fn new(asset: Asset, decimal: &str) -> Self {
        let units = asset.parse_units(decimal).unwrap();
        Self {
            asset,
            units,
            payee: payee(0x5e),
            max_timeout_seconds: 60,
        }
    }

    fn json(&self) -> Value {
        json!({
            "scheme": "exact",
            "network": self.asset.network().to_string(),
            "asset": self.asset.address().to_string(),
            "amount": self.units.to_string(),
            "payTo": self.payee.to_string(),
            "maxTimeoutSeconds": self.max_timeout_seconds,
        })
    }
}

/// Returns an offer of `https://api.example.com/report` for this price in USDC on Base.
pub fn offer(dollars: &str) -> TestOffer {
    offer_in(usdc("base"), dollars)
}

/// Returns an offer of `https://api.example.com/report` for this price in a token.
pub fn offer_in(asset: Asset, decimal: &str) -> TestOffer {
    TestOffer {
        url: "https://api.example.com/report".to_owned(),
        method: "GET".to_owned(),
        accepts: vec![Accept::new(asset, decimal)],
        resource: Value::Null,
        tag: None,
        agent: None,
        max_price: None,
        id: None,
    }
}

impl TestOffer {
    pub fn url(mut self, url: &str) -> Self {
        self.url = url.to_owned();
        self
    }

    pub fn method(mut self, method: &str) -> Self {
        self.method = method.to_owned();
        self
    }

    pub fn payee(mut self, payee: Address) -> Self {
        self.accepts[0].payee = payee;
        self
    }

    pub fn max_timeout_seconds(mut self, seconds: u64) -> Self {
        self.accepts[0].max_timeout_seconds = seconds;
        self
    }

    /// Sets the price in atomic units of the token.
    pub fn units(mut self, units: u64) -> Self {
        self.accepts[0].units = U256::from(units);
        self
    }

    /// Adds another element of `accepts`.
    pub fn or(mut self, accept: Accept) -> Self {
        self.accepts.push(accept);
        self
    }

    pub fn tag(mut self, tag: &str) -> Self {
        self.tag = Some(tag.to_owned());
        self
    }

    pub fn agent(mut self, agent: &str) -> Self {
        self.agent = Some(agent.to_owned());
        self
    }

    pub fn max_price(mut self, max: Usd) -> Self {
        self.max_price = Some(max);
        self
    }

    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    pub fn resource(mut self, url: &str, description: &str) -> Self {
        self.resource = json!({ "url": url, "description": description });
        self
    }

    /// Returns the terms of the seller.
    pub fn terms(&self) -> PaymentRequired {
        let accepts: Vec<Value> = self.accepts.iter().map(Accept::json).collect();
        let terms = json!({ "x402Version": 2, "resource": self.resource, "accepts": accepts });
        PaymentRequired::from_json(terms.to_string().as_bytes()).unwrap()
    }

    /// Returns the request of the buyer. It allows duplicates, because most tests buy the same again and again.
    pub fn request(&self) -> PurchaseRequest {
        let mut request = PurchaseRequest::new(&self.method, &self.url, b"")
            .unwrap()
            .allow_duplicate();
        if let Some(tag) = &self.tag {
            request = request.tag(tag);
        }
        if let Some(max) = self.max_price {
            request = request.max_price(max);
        }
        if let Some(id) = &self.id {
            request = request.purchase_id(id);
        }
        request
    }
}

//! A wallet with books in memory, a clock that is turned by hand, and sellers' terms to order.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::ledger::Filter;
use bursar::money::AssetRegistry;
use bursar::payment::{Outcome, PayerBuilder, Payment};
use bursar::policy::{AskingPrice, Explanation};
use bursar::primitives::U256;
use bursar::reqwest::StatusCode;
use bursar::reqwest::header::HeaderMap;
use bursar::x402::PaymentRequired;
use bursar::{
    Address, Asset, Denial, Error, Ledger, LocalSigner, Network, Payer, Policy, PriceCheck,
    Purchase, PurchaseRequest, SignedPayment, Signer, Timestamp, TokenAmount, Usd, signer_fn,
};
use serde_json::{Value, json};

/// Anvil's account 0, known to everybody.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
/// Monday, 10 March 2025, noon in UTC.
pub const START: i64 = 1_741_608_000_000;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(86_400);

pub fn signer() -> LocalSigner {
    LocalSigner::from_hex(&KEY.into()).unwrap()
}

pub fn at(text: &str) -> Timestamp {
    Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

pub fn base() -> Network {
    "base".parse().unwrap()
}

pub fn usdc(network: &str) -> Asset {
    AssetRegistry::stablecoins()
        .find_symbol(network.parse().unwrap(), "USDC")
        .unwrap()
        .clone()
}

/// A token on Base without a dollar value.
pub fn euro() -> Asset {
    let address = "0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42"
        .parse()
        .unwrap();
    Asset::new(base(), address, "EURC", 6, "EURC", "2")
}

pub fn euros(decimal: &str) -> TokenAmount {
    TokenAmount::parse(decimal, euro()).unwrap()
}

pub fn payee(byte: u8) -> Address {
    Address::repeat_byte(byte)
}

/// Something that a seller asks money for, and how the buyer asks for it.
#[derive(Clone, Debug)]
pub struct TestOffer {
    pub url: String,
    pub method: String,
    pub offers: Vec<Offer>,
    pub resource: Value,
    pub tag: Option<String>,
    pub agent: Option<String>,
    pub max_price: Option<Usd>,
    pub id: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Offer {
    pub asset: Asset,
    pub units: U256,
    pub payee: Address,
    pub window: u64,
}

impl Offer {
    pub fn new(asset: Asset, decimal: &str) -> Self {
        let units = asset.parse_units(decimal).unwrap();
        Self {
            asset,
            units,
            payee: payee(0x5e),
            window: 60,
        }
    }

    fn json(&self) -> Value {
        json!({
            "scheme": "exact",
            "network": self.asset.network().to_string(),
            "asset": self.asset.address().to_string(),
            "amount": self.units.to_string(),
            "payTo": self.payee.to_string(),
            "maxTimeoutSeconds": self.window,
        })
    }
}

/// USDC on Base, for `https://api.example.com/report`.
pub fn sale(dollars: &str) -> TestOffer {
    sale_in(usdc("base"), dollars)
}

pub fn sale_in(asset: Asset, decimal: &str) -> TestOffer {
    TestOffer {
        url: "https://api.example.com/report".to_owned(),
        method: "GET".to_owned(),
        offers: vec![Offer::new(asset, decimal)],
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
        self.offers[0].payee = payee;
        self
    }

    pub fn window(mut self, seconds: u64) -> Self {
        self.offers[0].window = seconds;
        self
    }

    pub fn or(mut self, offer: Offer) -> Self {
        self.offers.push(offer);
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

    fn terms(&self) -> PaymentRequired {
        let accepts: Vec<Value> = self.offers.iter().map(Offer::json).collect();
        let terms = json!({ "x402Version": 2, "resource": self.resource, "accepts": accepts });
        PaymentRequired::from_json(terms.to_string().as_bytes()).unwrap()
    }

    fn intent(&self) -> PurchaseRequest {
        // Most tests buy the same again and again, whatever became of it before.
        let mut intent = PurchaseRequest::new(&self.method, &self.url, b"")
            .unwrap()
            .allow_duplicate();
        if let Some(tag) = &self.tag {
            intent = intent.tag(tag);
        }
        if let Some(max) = self.max_price {
            intent = intent.max_price(max);
        }
        if let Some(id) = &self.id {
            intent = intent.purchase_id(id);
        }
        intent
    }
}

/// A payment that nobody makes, to be explained.
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

/// A wallet under a policy. Agents share its books.
pub struct WalletHarness {
    policy: Policy,
    ledger: Ledger,
    clock: Arc<AtomicI64>,
    signatures: Arc<AtomicUsize>,
    equip: Box<dyn Fn(PayerBuilder) -> PayerBuilder + Send + Sync>,
}

impl WalletHarness {
    pub fn new(policy: Policy) -> Self {
        Self::with(policy, |builder| builder)
    }

    /// With an approver.
    pub fn with(
        policy: Policy,
        equip: impl Fn(PayerBuilder) -> PayerBuilder + Send + Sync + 'static,
    ) -> Self {
        Self {
            policy,
            ledger: Ledger::memory(),
            clock: Arc::new(AtomicI64::new(START)),
            signatures: Arc::default(),
            equip: Box::new(equip),
        }
    }

    pub fn payer(&self, agent: Option<&str>) -> Payer {
        let (clock, signatures) = (Arc::clone(&self.clock), Arc::clone(&self.signatures));
        let key = Arc::new(signer());
        let signer = signer_fn(Signer::address(&key), move |authorization| {
            signatures.fetch_add(1, Ordering::SeqCst);
            let key = Arc::clone(&key);
            async move { Signer::sign(&key, &authorization).await }
        });
        let builder = Payer::builder()
            .signer(signer)
            .policy(self.policy.clone())
            .ledger(self.ledger.clone())
            .clock(move || Timestamp::from_millis(clock.load(Ordering::SeqCst)));
        let builder = match agent {
            Some(agent) => builder.agent(agent),
            None => builder,
        };
        (self.equip)(builder).build().unwrap()
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.load(Ordering::SeqCst))
    }

    pub fn advance(&self, time: Duration) {
        self.clock
            .store(self.now().after(time).millis(), Ordering::SeqCst);
    }

    pub fn set_clock(&self, now: Timestamp) {
        self.clock.store(now.millis(), Ordering::SeqCst);
    }

    /// How often the signer was called.
    pub fn signatures(&self) -> usize {
        self.signatures.load(Ordering::SeqCst)
    }

    pub async fn authorize(&self, sale: &TestOffer) -> Result<Payment, Error> {
        self.payer(sale.agent.as_deref())
            .authorize(&sale.terms(), &sale.intent())
            .await
    }

    pub async fn quote(&self, sale: &TestOffer) -> PriceCheck {
        self.payer(sale.agent.as_deref())
            .quote(sale.terms(), &sale.intent())
            .await
            .unwrap()
    }

    /// Buys, and the answer is lost.
    pub async fn hold(&self, sale: &TestOffer) -> SignedPayment {
        let payment = self
            .authorize(sale)
            .await
            .unwrap_or_else(|error| panic!("{sale:?}: {error}"));
        payment.lost("the connection was reset").await;
        payment.payment().clone()
    }

    /// Buys, and the seller settles.
    pub async fn buy(&self, sale: &TestOffer) -> SignedPayment {
        let payment = self
            .authorize(sale)
            .await
            .unwrap_or_else(|error| panic!("{sale:?}: {error}"));
        settle(&payment).await;
        payment.payment().clone()
    }

    /// Is refused, without a signature.
    pub async fn deny(&self, sale: &TestOffer) -> Denial {
        let before = self.signatures();
        let error = match self.authorize(sale).await {
            Ok(payment) => panic!("was paid: {payment:?} for {sale:?}"),
            Err(error) => error,
        };
        assert_eq!(self.signatures(), before, "the signer was called");
        assert_eq!(error.payment_status(), bursar::PaymentStatus::NotPaid);
        error.denial().unwrap_or_else(|| panic!("{error}")).clone()
    }

    pub async fn purchases(&self) -> Vec<Purchase> {
        self.payer(None)
            .ledger()
            .purchases(&Filter::all())
            .await
            .unwrap()
    }
}

/// The seller's receipt.
pub async fn settle(payment: &Payment) {
    let receipt = json!({
        "success": true,
        "transaction": format!("0x{}", "ab".repeat(32)),
        "network": payment.payment().network().to_string(),
        "payer": payment.payment().payer.to_string(),
    });
    let mut headers = HeaderMap::new();
    headers.insert(
        "payment-response",
        STANDARD.encode(receipt.to_string()).parse().unwrap(),
    );
    let outcome = payment.conclude(StatusCode::OK, &headers, None).await;
    assert!(matches!(outcome, Outcome::Settled(_)), "{outcome:?}");
}

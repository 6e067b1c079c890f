//! A wallet under a policy, with a ledger in memory and a clock that the test sets. There is no seller and no HTTP.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::clock::Clock;
use bursar::ledger::Filter;
use bursar::payment::{Outcome, PayerBuilder, Payment};
use bursar::reqwest::StatusCode;
use bursar::reqwest::header::HeaderMap;
use bursar::{
    Denial, Error, Ledger, Payer, PaymentStatus, Policy, PriceCheck, Purchase, SignedPayment,
    Timestamp,
};
use serde_json::json;

use crate::clock::TestClock;
use crate::signatures::SignatureLog;
use crate::test_offer::TestOffer;

/// A wallet under a policy. All agents share its ledger.
pub struct WalletHarness {
    policy: Policy,
    ledger: Ledger,
    clock: TestClock,
    signatures: SignatureLog,
    configure: Box<dyn Fn(PayerBuilder) -> PayerBuilder + Send + Sync>,
}

impl WalletHarness {
    pub fn new(policy: Policy) -> Self {
        Self::with(policy, |builder| builder)
    }

    /// Returns a wallet whose payers are configured further, for example with an approver.
    pub fn with(
        policy: Policy,
        configure: impl Fn(PayerBuilder) -> PayerBuilder + Send + Sync + 'static,
    ) -> Self {
        Self {
            policy,
            ledger: Ledger::memory(),
            clock: TestClock::default(),
            signatures: SignatureLog::default(),
            configure: Box::new(configure),
        }
    }

    pub fn payer(&self, agent: Option<&str>) -> Payer {
        let builder = Payer::builder()
            .signer(self.signatures.signer())
            .policy(self.policy.clone())
            .ledger(self.ledger.clone())
            .clock(self.clock.clone());
        let builder = match agent {
            Some(agent) => builder.agent(agent),
            None => builder,
        };
        (self.configure)(builder).build().unwrap()
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }

    pub fn set_clock(&self, now: Timestamp) {
        self.clock.set(now);
    }

    /// Returns the number of calls of the signer.
    pub fn signatures(&self) -> usize {
        self.signatures.count()
    }

    pub async fn authorize(&self, offer: &TestOffer) -> Result<Payment, Error> {
        self.payer(offer.agent.as_deref())
            .authorize(&offer.terms(), &offer.request())
            .await
    }

    pub async fn quote(&self, offer: &TestOffer) -> PriceCheck {
        self.payer(offer.agent.as_deref())
            .quote(offer.terms(), &offer.request())
            .await
            .unwrap()
    }

    /// Signs a payment, and loses the seller's answer.
    pub async fn hold(&self, offer: &TestOffer) -> SignedPayment {
        let payment = self.sign(offer).await;
        payment.lost("the connection was reset").await;
        payment.payment().clone()
    }

    /// Signs a payment, and the seller settles it.
    pub async fn buy(&self, offer: &TestOffer) -> SignedPayment {
        let payment = self.sign(offer).await;
        settle(&payment).await;
        payment.payment().clone()
    }

    async fn sign(&self, offer: &TestOffer) -> Payment {
        let signed = self.authorize(offer).await;
        signed.unwrap_or_else(|error| panic!("{offer:?}: {error}"))
    }

    /// Checks that the policy denies the purchase and that nothing is signed.
    pub async fn deny(&self, offer: &TestOffer) -> Denial {
        let before = self.signatures();
        let error = match self.authorize(offer).await {
            Ok(payment) => panic!("paid {payment:?} for {offer:?}"),
            Err(error) => error,
        };
        assert_eq!(self.signatures(), before, "the signer was called");
        assert_eq!(error.payment_status(), PaymentStatus::NotPaid);
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

/// Concludes a payment with a receipt of the seller.
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

//! Payments: a signer, a policy and a ledger, and the loop that presents a signed payment over any transport.

mod api_call;
mod authorize;
mod builder;
mod cancel;
mod deadline;
mod drop_guard;
mod evidence;
mod freeze_switch;
mod kept_terms;
// The file is named after the type that it holds.
#[expect(clippy::module_inception, reason = "the file holds the type Payment")]
mod payment;
mod present;
mod reconcile;
mod reply;
mod resume;
mod retry;
mod terms_cache;
mod transport;

use std::fmt;
use std::sync::Arc;

use alloy::primitives::Address;

pub use builder::PayerBuilder;
pub(crate) use deadline::Deadline;
pub use evidence::{Evidence, EvidenceAuthorization, EvidenceRequest};
pub use freeze_switch::FreezeSwitch;
pub use payment::{Outcome, Payment};
pub(crate) use present::{PaidCall, SignedTerms, present};
pub use reconcile::Reconciled;
pub(crate) use reply::ReplyHead;
#[cfg(feature = "mcp")]
pub(crate) use reply::retry_after;
pub use retry::RetryPolicy;
pub(crate) use transport::{AfterSigning, PaymentRecord, Reply, ReplyBody, Transport};

use drop_guard::Left;
use terms_cache::TermsCache;

use crate::asset::AssetRegistry;
use crate::chain::ChainReader;
use crate::ledger::{AnyLedger, Checks, Filter, Finding, Freeze, Purchase};
use crate::policy::{
    AnyApprover, AskingPrice, Denial, Explanation, Facts, Policy, PriceCheck, PricedOffer, Rule,
};
use crate::quote::Quote;
use crate::report::{Report, Selection};
use crate::signer::AnySigner;
use crate::telemetry::{AnyObserver, Event, EventKind};
use crate::x402::PaymentRequired;
use crate::{Clock, Error, PurchaseRequest, Timestamp};

/// A signer that pays under a policy and records every payment in a ledger.
///
/// A [`Client`](crate::Client) has one for HTTP. Use a payer directly when terms arrive in another way. Clones are cheap
/// and share everything.
///
/// ```
/// # use bursar::{Error, LocalSigner, MemoryLedger, Payer, PaymentRequired, Policy, PurchaseRequest};
/// # async fn example(terms: &[u8]) -> Result<(), Error> {
/// let payer = Payer::builder()
///     .signer(LocalSigner::random()?)
///     .policy(Policy::new().network("base-sepolia"))
///     .ledger(MemoryLedger::new())
///     .build()?;
/// let required = PaymentRequired::from_json(terms)?;
/// let request = PurchaseRequest::new("POST", "https://tools.example/call", b"the body")?;
/// let payment = payer.authorize(&required, &request).await?;
/// // Send payment.json() or payment.header() to the seller, and then record the outcome:
/// payment.lost("the connection was reset").await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Payer {
    inner: Arc<Inner>,
}

struct Inner {
    signer: AnySigner,
    policy: Policy,
    assets: AssetRegistry,
    ledger: AnyLedger,
    approver: Option<AnyApprover>,
    clock: Arc<dyn Clock>,
    agent: Option<String>,
    switch: FreezeSwitch,
    chain: Option<ChainReader>,
    observer: AnyObserver,
    left: Left,
    terms: TermsCache,
}

impl fmt::Debug for Payer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payer")
            .field("address", &self.address())
            .field("agent", &self.inner.agent)
            .finish_non_exhaustive()
    }
}

impl Payer {
    /// Returns a builder.
    #[must_use]
    pub fn builder() -> PayerBuilder {
        PayerBuilder::default()
    }

    /// Returns the address that pays.
    #[must_use]
    pub fn address(&self) -> Address {
        self.inner.signer.address()
    }

    /// Returns the policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    fn emit(&self, event: &Event<'_>) {
        self.inner.observer.emit(&Event {
            agent: self.inner.agent.as_deref(),
            ..*event
        });
    }

    /// Returns the error, after an event for the denial in it.
    fn report_denial(&self, request: &PurchaseRequest, error: Error) -> Error {
        if let Some(denial) = error.denial() {
            let kind = EventKind::Denied { rule: denial.rule };
            self.emit(&Event::new(kind, request.origin(), request.tag_name()));
        }
        error
    }

    /// Returns the denial of the program's switch or of the policy's file. The ledger checks its own freeze together
    /// with the limits.
    fn frozen_here(&self) -> Option<Denial> {
        let stopped = |message: String| Denial::new(Rule::Stopped, message);
        if let Some(reason) = self.inner.switch.reason() {
            return Some(stopped(format!(
                "paying is stopped by the program: {reason}"
            )));
        }
        let file = self.inner.policy.freeze_switch()?;
        match file.try_exists() {
            Ok(false) => None,
            Ok(true) => Some(stopped(format!(
                "paying is stopped: {} exists",
                file.display()
            ))),
            Err(error) => Some(stopped(format!(
                "{} cannot be looked for: {error}",
                file.display()
            ))),
        }
    }

    /// Stops all paying from these books, by every client and process that keeps them, until
    /// [`unfreeze`](Self::unfreeze).
    ///
    /// # Errors
    /// When the books cannot be written.
    pub async fn stop(&self, reason: &str) -> Result<(), Error> {
        Ok(self
            .inner
            .ledger
            .stop(Some(&Freeze::new(reason, self.now())))
            .await?)
    }

    /// Lifts the order to stop.
    ///
    /// # Errors
    /// When the books cannot be written.
    pub async fn unfreeze(&self) -> Result<(), Error> {
        Ok(self.inner.ledger.stop(None).await?)
    }

    /// Returns the denial of any freeze, the ledger's included.
    pub(crate) async fn stopped(&self) -> Result<Option<Denial>, Error> {
        if let Some(denial) = self.frozen_here() {
            return Ok(Some(denial));
        }
        Ok(self
            .inner
            .ledger
            .stopped()
            .await?
            .map(|order| order.denial()))
    }

    /// Returns the price of the terms, and the answer of each rule. Signs and reserves nothing.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn quote(
        &self,
        required: PaymentRequired,
        request: &PurchaseRequest,
    ) -> Result<PriceCheck, Error> {
        let mut offers = Vec::with_capacity(required.offers().len());
        let path = self.inner.policy.stored_path(request.url());
        for quote in Quote::read_all(&required, &self.inner.assets) {
            let explanation = match &quote {
                Ok(quote) => {
                    let facts = self.facts(&required, request, quote, &path);
                    Some(self.explain_facts(&facts).await?)
                }
                Err(_) => None,
            };
            offers.push(PricedOffer { quote, explanation });
        }
        Ok(PriceCheck { required, offers })
    }

    async fn explain_facts(&self, facts: &Facts<'_>) -> Result<Explanation, Error> {
        let checks = self.inner.policy.checks(facts);
        let findings = self.inner.ledger.examine(&checks).await?;
        Ok(Explanation::new(&self.inner.policy, facts, findings))
    }

    /// Returns the answer of each rule to a payment that nobody makes, with the ledger as it is.
    ///
    /// ```
    /// # use bursar::{Error, Payer, PurchaseRequest, usd};
    /// # async fn example(payer: &Payer) -> Result<(), Error> {
    /// let request = PurchaseRequest::new("GET", "https://api.example.com/report", b"")?;
    /// let explanation = payer.explain(&request, usd!("0.05")).await?;
    /// println!("{explanation}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When no registered token fits the price, or the ledger cannot be read.
    pub async fn explain(
        &self,
        request: &PurchaseRequest,
        price: impl Into<AskingPrice>,
    ) -> Result<Explanation, Error> {
        let quote = self.inner.policy.asking_quote(&price.into());
        let quote =
            quote.ok_or_else(|| Error::builder("no dollar token is known on the network"))?;
        let path = self.inner.policy.stored_path(request.url());
        let facts = self.facts_of(request, &quote, &path);
        self.explain_facts(&facts).await
    }

    /// How much of each limit is used and left. Limits that hold for each origin, payee and so on
    /// are left out: [`explain`](Self::explain) shows them for one request.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn budget(&self) -> Result<Vec<Finding>, Error> {
        self.record_left().await?;
        let meters = self.inner.policy.standing_meters();
        let refunds_make_room = self.inner.policy.refunds_count();
        let now = self.now();
        let checks = Checks {
            now,
            payment: None,
            meters,
            payee: None,
            price: None,
            refunds_make_room,
        };
        Ok(self.inner.ledger.examine(&checks).await?)
    }

    /// Purchases in the books, oldest first.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, Error> {
        self.record_left().await?;
        Ok(self.inner.ledger.purchases(filter).await?)
    }

    /// Where the money went, of the purchases selected, and what is left of each limit.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn report(&self, selection: &Selection) -> Result<Report, Error> {
        let purchases = self.purchases(&selection.filter()).await?;
        Ok(Report::of(
            &purchases,
            self.budget().await?,
            selection,
            self.now(),
        ))
    }

    fn facts<'a>(
        &'a self,
        required: &'a PaymentRequired,
        request: &'a PurchaseRequest,
        quote: &'a Quote,
        path: &'a str,
    ) -> Facts<'a> {
        Facts {
            resource_url: required.resource_url(),
            ..self.facts_of(request, quote, path)
        }
    }

    fn facts_of<'a>(
        &'a self,
        request: &'a PurchaseRequest,
        quote: &'a Quote,
        path: &'a str,
    ) -> Facts<'a> {
        Facts {
            request,
            path,
            agent: self.inner.agent.as_deref(),
            payer: self.address(),
            quote,
            resource_url: None,
            now: self.now(),
        }
    }
}

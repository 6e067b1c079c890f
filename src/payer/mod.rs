//! The wallet with its policy and its books: terms in, payment out.

mod answer;
mod builder;
mod buy;
mod call;
mod cancel;
mod evidence;
mod freeze_switch;
mod guard;
mod intent;
mod known;
mod payment;
mod price_check;
mod reconcile;
mod retry;

use std::fmt;
use std::sync::Arc;

use alloy::primitives::Address;

pub use builder::PayerBuilder;
pub use evidence::{Evidence, EvidenceAuthorization, EvidenceRequest};
pub use freeze_switch::FreezeSwitch;
pub use intent::Intent;
pub(crate) use intent::fingerprint;
pub use payment::{Outcome, Payment};
pub use price_check::{PriceCheck, PricedOffer};
pub use reconcile::Reconciled;
pub use retry::RetryPolicy;

use guard::Left;
use known::KnownTerms;

use crate::asset::AssetRegistry;
use crate::chain::ChainReader;
use crate::ledger::{AnyLedger, Checks, Filter, Finding, Freeze, Purchase};
use crate::policy::{AnyApprover, Denial, Explanation, Facts, Hypothetical, Policy, Rule};
use crate::quote::Quote;
use crate::report::{Report, Selection};
use crate::signer::AnySigner;
use crate::telemetry::{AnyObserver, Event, EventKind};
use crate::x402::PaymentRequired;
use crate::{Clock, Error, Origin, Timestamp};

/// A wallet that pays under a policy and keeps books, for any transport.
///
/// [`Client`](crate::Client) uses one for HTTP. Use it directly where terms arrive by other ways:
///
/// ```
/// # use bursar::{Error, Intent, LocalSigner, MemoryLedger, Payer, PaymentRequired, Policy};
/// # async fn example(terms: &[u8]) -> Result<(), Error> {
/// let payer = Payer::builder()
///     .signer(LocalSigner::random()?)
///     .policy(Policy::new().network("base-sepolia"))
///     .ledger(MemoryLedger::new())
///     .build()?;
/// let required = PaymentRequired::from_json(terms)?;
/// let intent = Intent::new("POST", "https://tools.example/call", b"the request's body")?;
/// let payment = payer.authorize(&required, &intent).await?;
/// // Send payment.json() or payment.header(); then say what became of it.
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
    known: KnownTerms,
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
    /// Builds a payer.
    #[must_use]
    pub fn builder() -> PayerBuilder {
        PayerBuilder::default()
    }

    /// The address that pays.
    #[must_use]
    pub fn address(&self) -> Address {
        self.inner.signer.address()
    }

    /// The policy.
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

    /// The error, once whoever observes knows of the denial in it.
    fn denied(&self, intent: &Intent, error: Error) -> Error {
        if let Some(denial) = error.denial() {
            let kind = EventKind::Denied { rule: denial.rule };
            self.emit(&Event::new(kind, &intent.origin, intent.tag.as_deref()));
        }
        error
    }

    /// The order to stop paying, by the program's switch or the policy's file. The ledger's own is
    /// asked with the limits.
    fn switched_off(&self) -> Option<Denial> {
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

    /// Any order to stop, the ledger's included.
    pub(crate) async fn stopped(&self) -> Result<Option<Denial>, Error> {
        if let Some(denial) = self.switched_off() {
            return Ok(Some(denial));
        }
        Ok(self
            .inner
            .ledger
            .stopped()
            .await?
            .map(|order| order.denial()))
    }

    /// What the terms would cost, and what each rule says. Signs and holds nothing.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn quote(
        &self,
        required: PaymentRequired,
        intent: &Intent,
    ) -> Result<PriceCheck, Error> {
        let mut offers = Vec::with_capacity(required.offers().len());
        for quote in Quote::read_all(&required, &self.inner.assets) {
            let explanation = match &quote {
                Ok(quote) => Some(self.explain_quote(&required, intent, quote).await?),
                Err(_) => None,
            };
            offers.push(PricedOffer { quote, explanation });
        }
        Ok(PriceCheck { required, offers })
    }

    async fn explain_quote(
        &self,
        required: &PaymentRequired,
        intent: &Intent,
        quote: &Quote,
    ) -> Result<Explanation, Error> {
        let path = self.inner.policy.stored_path(&intent.url);
        let facts = self.facts(required, intent, quote, &path);
        let findings = self
            .inner
            .ledger
            .examine(&self.inner.policy.checks(&facts))
            .await?;
        Ok(Explanation::new(&self.inner.policy, &facts, findings))
    }

    /// What each rule says to a payment that nobody asked for, with the books as they are.
    ///
    /// # Errors
    /// When the URL has no origin, no dollar token lives on the network, or the books cannot be
    /// read.
    pub async fn explain(&self, payment: &Hypothetical) -> Result<Explanation, Error> {
        let origin = Origin::of(&payment.url)
            .ok_or_else(|| Error::builder("the URL is not http or https with a host"))?;
        let quote = self
            .inner
            .policy
            .imagine(payment)
            .ok_or_else(|| Error::builder("no dollar token is known on the network"))?;
        let path = self.inner.policy.stored_path(&payment.url);
        let agent = payment.agent.as_deref().or(self.inner.agent.as_deref());
        let facts = Facts {
            payer: self.address(),
            agent,
            ..payment.facts(&origin, &quote, &path, self.now())
        };
        let findings = self
            .inner
            .ledger
            .examine(&self.inner.policy.checks(&facts))
            .await?;
        Ok(Explanation::new(&self.inner.policy, &facts, findings))
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
        intent: &'a Intent,
        quote: &'a Quote,
        path: &'a str,
    ) -> Facts<'a> {
        Facts {
            url: &intent.url,
            origin: &intent.origin,
            method: intent.method.as_str(),
            path,
            tag: intent.tag.as_deref(),
            agent: self.inner.agent.as_deref(),
            payer: self.address(),
            quote,
            request: intent.fingerprint,
            resource_url: required.resource_url(),
            max_price: intent.max_price.as_ref(),
            now: self.now(),
        }
    }
}

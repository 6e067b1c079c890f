//! Calls by API key, in the same ledger and under the same dollar limits as payments; and `Payer::permit`, which checks
//! any request against the permissions of the policy.

use alloy::primitives::{Address, U256};

use super::Payer;
use super::authorize::no_randomness;
use crate::clock::Timestamp;
use crate::credential::Credential;
use crate::error::{Error, ErrorKind};
use crate::ledger::{
    Calls, NewPurchase, PurchaseId, PurchaseKey, Reservation, Reserved, Terms, Transition,
};
use crate::money::Usd;
use crate::money::{Asset, TokenAmount};
use crate::policy::Facts;
use crate::request::PurchaseRequest;
use crate::telemetry::{Event, EventKind};
use crate::x402::PaymentRequired;
use crate::x402::Quote;

/// A call by API key that the ledger counts.
#[derive(Debug)]
pub(crate) struct RecordedCall {
    key: PurchaseKey,
    cost: Usd,
    /// The lease in the ledger, which tells this call from any other.
    lease: Timestamp,
}

impl RecordedCall {
    /// Returns the declared cost.
    pub(crate) const fn cost(&self) -> Usd {
        self.cost
    }

    fn amount(&self) -> TokenAmount {
        TokenAmount::from_units(
            Asset::declared_dollars().clone(),
            U256::from(self.cost.micros()),
        )
    }
}

impl Payer {
    /// Whether the policy has permissions at all.
    pub(crate) fn restricts(&self) -> bool {
        self.inner.policy.has_permissions()
    }

    /// Checks that the policy permits the request at all, paid or not.
    ///
    /// [`Client`](crate::Client) calls this before it sends anything. Call it before you send a request yourself.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] with [`Rule::Permission`](crate::policy::Rule::Permission).
    pub fn permit(&self, request: &PurchaseRequest) -> Result<(), Error> {
        let agent = self.agent_of(request);
        match self.inner.policy.forbids(request, agent) {
            Some(denial) => Err(self
                .report_denial(request, Error::denied(Box::new(denial)))
                .at(request.url())),
            None => Ok(()),
        }
    }

    /// Returns the lowest price in dollars among the offers that bursar can sign for.
    pub(crate) fn least_price(&self, required: &PaymentRequired) -> Option<Usd> {
        Quote::read_all(required, &self.inner.assets)
            .into_iter()
            .filter_map(|quote| quote.ok()?.dollars())
            .min()
    }

    /// Returns the cost of the plan's next call, after the calls of this month (UTC) in the ledger.
    pub(crate) async fn cost_of_call(&self, credential: &Credential) -> Result<Usd, Error> {
        self.cost_after(credential, self.now(), u64::MAX).await
    }

    /// Returns the cost of a call at this position in the ledger.
    async fn cost_after(
        &self,
        credential: &Credential,
        now: Timestamp,
        seq: u64,
    ) -> Result<Usd, Error> {
        let plan = credential.declared_plan();
        if plan.is_flat() {
            return Ok(plan.next_call(0));
        }
        let calls = Calls {
            credential: credential.name(),
            since: now.start_of_month(),
            before: seq,
            most: plan.last_change(),
        };
        Ok(plan.next_call(self.inner.ledger.calls(&calls).await?))
    }

    /// Records a call before it is made, because it costs as soon as it reaches the seller.
    ///
    /// Calls at the same time see the same number of earlier calls. The ledger decides their order, and bursar records
    /// a call again if its place in the ledger costs more than it was recorded at.
    pub(crate) async fn record_call(
        &self,
        request: &PurchaseRequest,
        credential: &Credential,
    ) -> Result<RecordedCall, Error> {
        let call = self
            .reserve_call(request, credential)
            .await
            .map_err(|error| self.report_denial(request, error))?;
        let amount = call.amount();
        let called = self.event(EventKind::ApiCall, request);
        self.emit(&Event {
            amount: Some(&amount),
            ..called
        });
        Ok(call)
    }

    async fn reserve_call(
        &self,
        request: &PurchaseRequest,
        credential: &Credential,
    ) -> Result<RecordedCall, Error> {
        loop {
            let now = self.now();
            let (call, seq) = self.reserve_call_at(now, request, credential).await?;
            if self.cost_after(credential, now, seq).await? <= call.cost {
                return Ok(call);
            }
            self.inner
                .ledger
                .record(
                    &call.key,
                    &Transition::Voided { lease: call.lease },
                    self.now(),
                )
                .await?;
        }
    }

    async fn reserve_call_at(
        &self,
        now: Timestamp,
        request: &PurchaseRequest,
        credential: &Credential,
    ) -> Result<(RecordedCall, u64), Error> {
        self.inner.ledger.record_pending().await?;
        if let Some(denial) = self.frozen_here() {
            return Err(Error::denied(Box::new(denial)).at(request.url()));
        }
        let cost = self.cost_after(credential, now, u64::MAX).await?;
        let dollars = Asset::declared_dollars();
        let value = U256::from(cost.micros());
        let purchase = PurchaseId::random().map_err(no_randomness)?;
        let quote = Quote::imagined(
            dollars.clone(),
            Address::ZERO,
            value,
            std::time::Duration::ZERO,
        );
        let path = self.inner.policy.stored_path(request);
        let facts = Facts {
            now,
            // The key makes this call, and pays nothing to the seller.
            never_pay: None,
            ..self.facts_of(request, &quote, &path)
        };
        if let Some(denial) = self.inner.policy.deny_call(&facts) {
            return Err(Error::denied(Box::new(denial)).at(request.url()));
        }
        let checks = self.inner.policy.call_limit_check(&facts);
        let entry = NewPurchase {
            id: purchase,
            payer: self.address(),
            fingerprint: request.fingerprint(),
            identifier: String::new(),
            origin: request.origin().clone(),
            method: request.method().as_str().to_owned(),
            path: path.clone(),
            foreign_resource: None,
            version: 0,
            asset: dollars.clone(),
            payment_method: None,
            payee: Address::ZERO,
            value,
            tag: request.tag_name().map(ToOwned::to_owned),
            agent: facts.agent.map(ToOwned::to_owned),
            credential: Some(credential.name().to_owned()),
            terms: None,
        };
        let reservation = Reservation {
            purchase: entry,
            checks,
            lease: std::time::Duration::ZERO,
            terms: Terms::First,
            flight: None,
        };
        match self.inner.ledger.reserve(&reservation).await? {
            Reserved::Held(entry) => {
                self.warn_of_limits(request, &reservation, &quote.amount());
                let call = RecordedCall {
                    key: entry.key(),
                    cost,
                    lease: entry.lease_until,
                };
                Ok((call, entry.seq))
            }
            Reserved::Denied(denial) => Err(Error::denied(denial).at(request.url())),
            Reserved::Known(_)
            | Reserved::InFlight
            | Reserved::Mismatch
            | Reserved::OtherMethod(_)
            | Reserved::OtherPayer(_) => Err(Error::new(
                ErrorKind::Ledger,
                "the ledger holds a fresh random id already",
            )),
        }
    }

    /// Takes back a call that the seller turned away. The call still counts if the ledger cannot be written.
    pub(crate) async fn take_back_call(&self, request: &PurchaseRequest, call: &RecordedCall) {
        let amount = call.amount();
        let turned_away = self.event(EventKind::TurnedAway, request);
        self.emit(&Event {
            amount: Some(&amount),
            ..turned_away
        });
        let freed = Transition::Voided { lease: call.lease };
        if let Err(error) = self
            .inner
            .ledger
            .record(&call.key, &freed, self.now())
            .await
        {
            tracing::warn!(%error, purchase = %call.key.id, "a call by key that was turned away still counts");
        }
    }
}

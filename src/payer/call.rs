//! Calls by key, in the same books and under the same dollar limits as payments.

use alloy::primitives::{Address, U256};

use super::Payer;
use super::buy::no_randomness;
use super::intent::Intent;
use crate::credential::Credential;
use crate::ledger::{
    Filter, NewPurchase, PurchaseId, PurchaseKey, Reservation, Reserved, State, Terms, Transition,
};
use crate::money::{Asset, TokenAmount};
use crate::policy::{Errand, Facts};
use crate::telemetry::{Event, EventKind};
use crate::x402::PaymentRequired;
use crate::x402::Quote;
use crate::{Error, ErrorKind, Timestamp, Usd};

/// A call by key that the books count.
#[derive(Debug)]
pub(crate) struct BookedCall {
    key: PurchaseKey,
    cost: Usd,
    /// As the books have it, to tell this call from any other.
    lease: Timestamp,
}

impl BookedCall {
    /// As declared.
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
    /// Whether there are requests that the policy does not permit.
    pub(crate) fn restricts(&self) -> bool {
        self.inner.policy.has_permissions()
    }

    /// Whether the policy permits the request at all, paid or not. [`Client`](crate::Client) asks
    /// this before it sends anything; ask it before yours, where terms arrive by other ways.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] with [`Rule::Permission`](crate::Rule::Permission).
    pub fn permit(&self, intent: &Intent) -> Result<(), Error> {
        let errand = Errand {
            method: intent.method.as_str(),
            url: &intent.url,
            origin: &intent.origin,
            tag: intent.tag.as_deref(),
            agent: self.inner.agent.as_deref(),
        };
        match self.inner.policy.forbids(&errand) {
            Some(denial) => Err(self
                .denied(intent, Error::denied(Box::new(denial)))
                .at(&intent.url)),
            None => Ok(()),
        }
    }

    /// The least that is asked in dollars, of what can be signed for.
    pub(crate) fn least_price(&self, required: &PaymentRequired) -> Option<Usd> {
        Quote::read_all(required, &self.inner.assets)
            .into_iter()
            .filter_map(|quote| quote.ok()?.dollars())
            .min()
    }

    /// What the plan's next call costs, after those of this month (UTC) that the books hold.
    pub(crate) async fn cost_of_call(&self, credential: &Credential) -> Result<Usd, Error> {
        self.cost_after(credential, self.now(), u64::MAX).await
    }

    /// What a call at a time costs that stands in the books at this position.
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
        let calls = Filter {
            since: Some(now.start_of_month()),
            credential: Some(credential.name().to_owned()),
            state: Some(State::ApiCall),
            ..Filter::all()
        };
        let calls = self.inner.ledger.purchases(&calls).await?;
        let before = calls.iter().filter(|call| call.seq < seq).count();
        Ok(plan.next_call(u64::try_from(before).unwrap_or(u64::MAX)))
    }

    /// Counts a call before it is made: it costs when it reaches the seller, answered or not.
    ///
    /// Calls that are made at the same time see the same number of calls before them. Which of them came
    /// first the books decide: a call whose place in them costs more than it was booked at is booked anew.
    pub(crate) async fn book_call(
        &self,
        intent: &Intent,
        credential: &Credential,
    ) -> Result<BookedCall, Error> {
        let booked = self
            .book(intent, credential)
            .await
            .map_err(|error| self.denied(intent, error))?;
        let amount = booked.amount();
        let called = Event::new(EventKind::ApiCall, &intent.origin, intent.tag.as_deref());
        self.emit(&Event {
            amount: Some(&amount),
            ..called
        });
        Ok(booked)
    }

    async fn book(&self, intent: &Intent, credential: &Credential) -> Result<BookedCall, Error> {
        loop {
            let now = self.now();
            let (call, seq) = self.book_at(now, intent, credential).await?;
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

    async fn book_at(
        &self,
        now: Timestamp,
        intent: &Intent,
        credential: &Credential,
    ) -> Result<(BookedCall, u64), Error> {
        self.inner.ledger.record_pending().await?;
        if let Some(denial) = self.switched_off() {
            return Err(Error::denied(Box::new(denial)).at(&intent.url));
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
        let path = self.inner.policy.stored_path(&intent.url);
        let facts = Facts {
            url: &intent.url,
            origin: &intent.origin,
            method: intent.method.as_str(),
            path: &path,
            tag: intent.tag.as_deref(),
            agent: self.inner.agent.as_deref(),
            payer: self.address(),
            quote: &quote,
            request: intent.fingerprint,
            resource_url: None,
            max_price: intent.max_price.as_ref(),
            now,
        };
        if let Some(denial) = self.inner.policy.deny_call(&facts) {
            return Err(Error::denied(Box::new(denial)).at(&intent.url));
        }
        let checks = self.inner.policy.call_limit_check(&facts);
        let entry = NewPurchase {
            id: purchase,
            payer: self.address(),
            fingerprint: intent.fingerprint,
            identifier: String::new(),
            origin: intent.origin.clone(),
            method: intent.method.as_str().to_owned(),
            path: path.clone(),
            foreign_resource: None,
            version: 0,
            asset: dollars.clone(),
            payee: Address::ZERO,
            value,
            tag: intent.tag.clone(),
            agent: self.inner.agent.clone(),
            credential: Some(credential.name().to_owned()),
            terms: None,
        };
        let reservation = Reservation {
            purchase: entry,
            checks,
            lease: std::time::Duration::ZERO,
            terms: Terms::First,
        };
        match self.inner.ledger.reserve(&reservation).await? {
            Reserved::Held(entry) => Ok((
                BookedCall {
                    key: entry.key(),
                    cost,
                    lease: entry.lease_until,
                },
                entry.seq,
            )),
            Reserved::Denied(denial) => Err(Error::denied(denial).at(&intent.url)),
            Reserved::Known(_) | Reserved::InFlight | Reserved::Mismatch => Err(Error::new(
                ErrorKind::Ledger,
                "the books hold a fresh random id already",
            )),
        }
    }

    /// Takes back a call that the seller turned away. Books that cannot be written go on counting it.
    pub(crate) async fn unbook_call(&self, intent: &Intent, call: &BookedCall) {
        let amount = call.amount();
        let turned_away = Event::new(EventKind::TurnedAway, &intent.origin, intent.tag.as_deref());
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

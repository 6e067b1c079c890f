//! Buying, and waiting for room under a limit.

use std::time::Duration;

use tokio::time::Instant;

use super::authorize::{Attempt, Order, no_randomness};
use super::other_calls::Others;
use super::resume::Earlier;
use super::{Payer, Payment};
use crate::error::{Error, ErrorKind};
use crate::ledger::{self, Place, PurchaseId, Terms};
use crate::limit::Denial;
use crate::policy::{Rule, never_paid};
use crate::request::PurchaseRequest;
use crate::telemetry::EventKind;
use crate::text;
use crate::x402::{PaymentRequired, Quote, Unpayable};

/// Whether a call that has to wait for room waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// The call waits, if its request says so.
    Waits,
    /// The call lets those that wait go first, and does not wait itself.
    Queues,
}

/// How often a waiting call looks for room that another process gave back, or that the clock gave back.
const LOOK: Duration = Duration::from_millis(500);

/// A call that may wait for room, and its place among those that wait.
pub(super) struct Waiting<'a> {
    payer: &'a Payer,
    request: &'a PurchaseRequest,
    /// `None` at the last attempt, which waits for nobody.
    place: Option<Place>,
    end: Option<Instant>,
}

impl<'a> Waiting<'a> {
    /// Returns `None` if the request does not wait.
    pub(super) fn new(payer: &'a Payer, request: &'a PurchaseRequest) -> Option<Self> {
        let wait = request.longest_wait().filter(|wait| !wait.is_zero())?;
        let left = request.time_left();
        let wait = left.map_or(wait, |left| left.min(wait));
        Some(Self {
            payer,
            request,
            place: Some(payer.inner.ledger.join_queue()),
            end: Instant::now().checked_add(wait),
        })
    }

    pub(super) const fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Waits until another attempt makes sense.
    ///
    /// # Errors
    /// Returns the error of the attempt if no room can return in time.
    pub(super) async fn again(&mut self, error: Error) -> Result<(), Error> {
        let (Some(place), Some(denial)) = (&self.place, error.denial()) else {
            return Err(error);
        };
        let left = self.time_left();
        if !denial.is_about_room() || self.is_vain(denial, left) {
            return Err(error);
        }
        place.wait_for(denial);
        let until_room = denial.room_returns.map(|at| self.payer.now().until(at));
        let pause = until_room.filter(|pause| !pause.is_zero()).unwrap_or(LOOK);
        let pause = pause.min(LOOK).min(left);
        drop(tokio::time::timeout(pause, place.woken()).await);
        if self.time_left().is_zero() {
            self.place = None;
            if self.request.time_left().is_some_and(|left| left.is_zero()) {
                let message = format!("the call's time was up while it waited for room: {denial}");
                return Err(Error::new(ErrorKind::Timeout, message));
            }
        }
        Ok(())
    }

    fn time_left(&self) -> Duration {
        self.end.map_or(Duration::MAX, |end| {
            end.saturating_duration_since(Instant::now())
        })
    }

    /// Whether no room can return in time, as far as this process knows.
    fn is_vain(&self, denial: &Denial, left: Duration) -> bool {
        let now = self.payer.now();
        if denial.room_returns.is_some_and(|at| now.until(at) <= left) {
            return false;
        }
        let ledger = &self.payer.inner.ledger;
        let calls = ledger.in_flight();
        match denial.rule {
            // Another process can give room back, too.
            Rule::Exposure => ledger.memory_number().is_some() && calls.is_empty(),
            _ => !calls.has_unsigned(),
        }
    }
}

impl Payer {
    /// As [`authorize`](Self::authorize), with a payment that is cheap to move.
    pub(crate) async fn obtain(
        &self,
        required: &PaymentRequired,
        request: &PurchaseRequest,
    ) -> Result<Box<Payment>, Error> {
        if request.forbids_payment() {
            return Err(
                Error::builder("the request says no_payment, and cannot be authorized")
                    .at(request.url()),
            );
        }
        self.emit(&self.event(EventKind::Challenged, request));
        let obtained = Box::pin(self.resume_or_buy(required, request, Patience::Waits));
        let obtained = text::guarding(request.url(), obtained);
        self.in_span(request, obtained)
            .await
            .map_err(|error| self.report_denial(request, error).at(request.url()))
    }

    /// Returns the payment of an earlier purchase of the request, or buys. Waits for room if the request says so.
    ///
    /// A purchase can become unresolved while the call waits, so each attempt looks for it again.
    pub(super) async fn resume_or_buy(
        &self,
        required: &PaymentRequired,
        request: &PurchaseRequest,
        patience: Patience,
    ) -> Result<Box<Payment>, Error> {
        self.signer()?;
        self.tend();
        if let Some(key) = self.never_pays(request.origin()) {
            let denial = never_paid(request.origin().host(), key);
            return Err(Error::denied(Box::new(denial)));
        }
        let mut waiting = Waiting::new(self, request);
        // A call decides once about the calls of other processes, so that calls do not wait in a chain.
        let mut others = Others::Watched;
        loop {
            let place = waiting.as_ref().and_then(Waiting::place);
            let error = match self
                .resume_or_buy_now(required, request, place, others)
                .await
            {
                Err(error) if patience == Patience::Waits => error,
                done => return done,
            };
            others = Others::Decided;
            match &mut waiting {
                Some(waiting) => waiting.again(error).await?,
                None => return Err(error),
            }
        }
    }

    async fn resume_or_buy_now(
        &self,
        required: &PaymentRequired,
        request: &PurchaseRequest,
        place: Option<&Place>,
        others: Others,
    ) -> Result<Box<Payment>, Error> {
        match self.earlier(request, others).await? {
            Earlier::Payment(payment) => Ok(payment),
            Earlier::Unsigned(request) => self.buy(required, &request, Terms::First, place).await,
            Earlier::Nothing => self.buy(required, request, Terms::First, place).await,
        }
    }

    /// Tries one offer after the other. A call with a place waits for nothing here, but lets earlier calls go first.
    pub(super) async fn buy(
        &self,
        required: &PaymentRequired,
        request: &PurchaseRequest,
        terms: Terms,
        place: Option<&Place>,
    ) -> Result<Box<Payment>, Error> {
        if let Some(denial) = self.frozen_here() {
            return Err(Error::denied(Box::new(denial)));
        }
        self.read_refusals().await?;
        let (quotes, reasons) = self.quotes(required, request);
        let (digits, identifier) = ledger::two_random_hex().map_err(no_randomness)?;
        let purchase = match request.id()? {
            Some(id) => id.clone(),
            None => PurchaseId::of_hex(digits),
        };
        let order = Order {
            required,
            request,
            purchase: &purchase,
            identifier: &identifier,
            terms,
            place,
        };
        let (mut denial, mut waits) = (None, None);
        for quote in &quotes {
            match self.attempt(order, quote).await? {
                Attempt::Signed(payment) => return Ok(payment),
                Attempt::Denied(refusal) if refusal.rule == Rule::Approval => {
                    return Err(Error::denied(refusal));
                }
                Attempt::Denied(refusal) if place.is_some() && refusal.is_about_room() => {
                    waits = waits.or(Some(refusal));
                }
                Attempt::Denied(refusal) => denial = denial.or(Some(refusal)),
            }
        }
        let denial = waits.or(denial);
        Err(denial.map_or_else(|| Error::not_payable(reasons), Error::denied))
    }

    /// Returns the offers that bursar can sign for, the preferred one first, and why it cannot sign for the others.
    fn quotes(
        &self,
        required: &PaymentRequired,
        request: &PurchaseRequest,
    ) -> (Vec<Quote>, Vec<Unpayable>) {
        let (mut quotes, mut reasons) = (Vec::new(), Vec::new());
        for quote in Quote::read_all(required, &self.inner.assets) {
            match quote {
                Ok(mut quote) => {
                    quote.check_signature(request.url(), self.now());
                    quotes.push(quote);
                }
                Err(reason) => reasons.push(reason),
            }
        }
        quotes.sort_by_key(Quote::preference);
        (quotes, reasons)
    }
}

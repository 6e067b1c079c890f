//! One request to one route: the API key, the payment, the sale.

use alloy::primitives::U256;
use bursar::x402::{Flow, Version};
use bursar::{Network, Timestamp};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use serde_json::Value;

use super::{Sale, State};
use crate::answer::{self, Claim, Reply};
use crate::body::Body;
use crate::chain::Token;
use crate::fault::{Fault, Occasion};
use crate::payment::{PresentedPayment, ReceivedRequest, Signed};
use crate::route::{PAYMENT_IDENTIFIER, Route};
use crate::sign_in::{SIGN_IN_WITH_X, SignInFault};
use crate::terms::{Conditions, Price};
use crate::verify::{Reason, verify};

/// A valid payment.
#[derive(Debug)]
pub(super) enum Accepted {
    /// It was settled before, and its answer is stored.
    Before(Box<Sale>),
    /// It can be settled now.
    Now(Token, Signed),
}

impl Accepted {
    pub(super) const fn network_and_payment(&self) -> (Network, &Signed) {
        match self {
            Self::Before(sale) => (sale.settlement.network, &sale.signed),
            Self::Now(token, signed) => (token.network, signed),
        }
    }
}

/// One request to one route.
pub(super) struct Visit<'a> {
    pub(super) state: &'a mut State,
    /// The route's index.
    pub(super) number: usize,
    pub(super) route: &'a Route,
    pub(super) conditions: &'a Conditions,
    /// The price of this request.
    pub(super) price: Price,
    pub(super) received: &'a ReceivedRequest,
    pub(super) now: Timestamp,
}

impl Visit<'_> {
    pub(super) fn answer(self) -> Reply {
        let encoding = self.route.encoding.clone();
        let mut reply = self.reply();
        if let (Some(encoding), Reply::Answer(response) | Reply::Broken(response, _)) =
            (encoding, &mut reply)
        {
            encoding.apply(response);
        }
        reply
    }

    fn reply(mut self) -> Reply {
        if let Some(reply) = self.answer_by_key() {
            return reply;
        }
        if let Some(reply) = self.answer_sign_in() {
            return reply;
        }
        if matches!(self.price, Price::Free) {
            return answer::content(self.route, self.received).into();
        }
        let mut payments = self.received.payments();
        match payments.find(|payment| self.route.supports(payment.version)) {
            None => self.challenge("Payment required"),
            Some(payment) => self.answer_payment(payment),
        }
    }

    /// Answers a request with an API key. Returns `None` if the request must be paid.
    fn answer_by_key(&mut self) -> Option<Reply> {
        let key = self.route.key.as_ref()?;
        match key.is_in(self.received) {
            Some(true) => {}
            None if !matches!(self.price, Price::Free) => return None,
            Some(false) | None => {
                return Some(answer::plain(StatusCode::UNAUTHORIZED, "no such key").into());
            }
        }
        let calls = self.state.calls.entry(self.number).or_default();
        *calls = calls.saturating_add(1);
        Some(match key.quota {
            Some((most, status)) if *calls > most => {
                answer::plain(status, "the key's quota is used up").into()
            }
            _ => answer::content(self.route, self.received).into(),
        })
    }

    /// Answers a request with a sign-in. Returns `None` if the request must be paid.
    fn answer_sign_in(&mut self) -> Option<Reply> {
        let entrance = self.route.entrance.as_ref()?;
        let header = self.received.header(SIGN_IN_WITH_X)?;
        let place = (self.number, entrance);
        let accepted = (self.state.sign_ins).receive(place, self.received, header, self.now);
        match &entrance.fault {
            Some(SignInFault::Status(status)) => return Some(answer::failed(*status).into()),
            Some(SignInFault::Redirects(to)) => {
                let mut redirect = answer::failed(307);
                let to = HeaderValue::try_from(to.as_str()).ok();
                redirect.headers_mut().extend(to.map(|to| (LOCATION, to)));
                return Some(redirect.into());
            }
            Some(SignInFault::DoublesPrice) => {
                if let Some(doublings) = self.state.doublings.get_mut(self.number) {
                    *doublings = doublings.saturating_add(1);
                }
            }
            _ => {}
        }
        accepted.then(|| answer::content(self.route, self.received).into())
    }

    fn answer_payment(&mut self, payment: &PresentedPayment) -> Reply {
        if let Some(refusal) = self.refuse_identifier(payment) {
            return refusal.into();
        }
        let sale_key = (self.number, payment.header.clone());
        let accepted = match self.state.sales.get(&sale_key).cloned() {
            Some(sale) => Ok(Accepted::Before(Box::new(sale))),
            None => self.verify(payment),
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(reason) => return self.challenge(reason),
        };
        let fault = self.next_fault(Occasion::Payment);
        if let Some(fault) = &fault
            && let Some(reply) = self.misbehave_before_settling(fault, &accepted, payment)
        {
            return reply;
        }
        match self.sell(accepted, payment, fault.as_ref()) {
            Ok(sale) => match fault {
                Some(fault) => self.misbehave_after_settling(fault, sale, payment.version),
                None => sale.answer.into(),
            },
            Err(response) => (*response).into(),
        }
    }

    pub(super) fn next_fault(&mut self, occasion: Occasion) -> Option<Fault> {
        self.state.faults.get_mut(self.number)?.next(occasion)
    }

    fn verify(&mut self, payment: &PresentedPayment) -> Result<Accepted, Reason> {
        let offers = self.offers(payment.version);
        let (token, signed) = verify(payment, &offers, &self.extensions(), self.now.secs())?;
        self.state.presented.push((token, signed.clone()));
        let chain = &self.state.chain;
        chain.simulate(token, &signed, signed.ceiling())?;
        Ok(Accepted::Now(token, signed))
    }

    /// Returns the amount that an honest seller charges, in atomic units.
    pub(super) fn charge(&self, signed: &Signed) -> U256 {
        let dollars = match &self.route.charge {
            Some(charge) if signed.is_upto() => charge.of(self.received),
            _ => return signed.ceiling(),
        };
        // The paywall refuses to start with a charge that the token cannot express.
        let units = self.conditions.asset.parse_units(&dollars.to_string());
        units.unwrap_or_else(|| signed.ceiling())
    }

    /// Produces the content and settles the payment. Returns the answer alone if either fails, or if the charge is zero.
    fn sell(
        &mut self,
        accepted: Accepted,
        payment: &PresentedPayment,
        fault: Option<&Fault>,
    ) -> Result<Sale, Box<Response<Body>>> {
        let (token, signed) = match accepted {
            Accepted::Before(sale) => return Ok(*sale),
            Accepted::Now(token, signed) => (token, signed),
        };
        let mut answer = answer::content(self.route, self.received);
        let failed = answer.status().is_client_error() || answer.status().is_server_error();
        if failed && self.conditions.flow == Flow::Authorization {
            return Err(Box::new(answer));
        }
        let amount = match fault {
            Some(Fault::ChargeCeiling) => signed.ceiling(),
            _ => self.charge(&signed),
        };
        if amount.is_zero() && signed.is_upto() {
            let claim = Claim::free(token.network, signed.payer());
            answer.headers_mut().extend([claim.header(payment.version)]);
            return Err(Box::new(answer));
        }
        let settled = if amount > signed.ceiling() {
            Err("invalid_upto_evm_payload_settlement_exceeds_amount")
        } else {
            let chain = &mut self.state.chain;
            chain.settle(token, &signed, amount, self.now)
        };
        let settlement = settled.map_err(|reason| {
            let claim = Claim::failure(reason, token.network, signed.payer());
            self.refuse(&claim, payment.version)
        })?;
        if let Some(Fault::SettleTwice) = fault {
            // The chain refuses, because the nonce is used.
            let chain = &mut self.state.chain;
            drop(chain.settle(token, &signed, signed.ceiling(), self.now));
        }
        let headers = answer.headers_mut();
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("private"));
        let mut claim = Claim::success(&settlement);
        if let (Some(signer), Version::V2) = (&self.route.signer, payment.version) {
            claim = signer.confirm(claim, &settlement, &self.url(), self.now.secs());
        }
        let (name, value) = claim.header(payment.version);
        headers.insert(name, value);
        (self.state.sign_ins).note_buyer(self.received.path(), signed.payer());
        let sale = Sale {
            signed,
            settlement,
            answer,
        };
        self.remember(&sale, payment);
        Ok(sale)
    }

    fn remember(&mut self, sale: &Sale, payment: &PresentedPayment) {
        let header = payment.header.clone();
        let identifier = self.identifier(payment);
        if self.route.idempotent || identifier.is_some() {
            let key = (self.number, header.clone());
            self.state.sales.insert(key, sale.clone());
        }
        if let Some(identifier) = identifier {
            let key = (self.number, identifier);
            self.state.identified.insert(key, header);
        }
    }

    /// Returns the payment identifier, if the route declares that extension.
    fn identifier(&self, payment: &PresentedPayment) -> Option<String> {
        let declared = self.route.extensions.contains_key(PAYMENT_IDENTIFIER);
        payment
            .identifier()
            .filter(|_| declared)
            .map(ToOwned::to_owned)
    }

    /// Refuses a payment whose identifier is missing, malformed or already used by another payment.
    fn refuse_identifier(&self, payment: &PresentedPayment) -> Option<Response<Body>> {
        let declared = self.route.extensions.get(PAYMENT_IDENTIFIER)?;
        let refuse = |status, message| Some(answer::plain(status, message));
        let Some(identifier) = self.identifier(payment) else {
            let required = declared.pointer("/info/required").and_then(Value::as_bool);
            return match required {
                Some(true) => refuse(StatusCode::BAD_REQUEST, "a payment identifier is required"),
                _ => None,
            };
        };
        let well_formed = (16..=128).contains(&identifier.len())
            && identifier
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !well_formed {
            return refuse(
                StatusCode::BAD_REQUEST,
                "the payment identifier is malformed",
            );
        }
        let first = self.state.identified.get(&(self.number, identifier))?;
        if *first == payment.header {
            return None;
        }
        refuse(
            StatusCode::CONFLICT,
            "another payment has this payment identifier",
        )
    }
}

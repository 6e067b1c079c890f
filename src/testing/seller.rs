//! The seller: who asks, what it costs, whether it is paid, and what is answered.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{CACHE_CONTROL, HOST};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::answer::{self, Claim, Reply};
use super::body::Body;
use super::chain::{Chain, Settlement, Token};
use super::fault::{Fault, Faults, Forgery, Occasion};
use super::payment::{Authorization, Presented, Received};
use super::route::{PAYMENT_IDENTIFIER, Route};
use super::terms::{Conditions, Price, Terms, doubled};
use super::verify::{Reason, verify};
use crate::x402::{PAYMENT_REQUIRED, Version};
use crate::{Clock, Flow, Network, Timestamp};

pub(super) struct Seller {
    pub(super) shelves: Vec<(Route, Conditions)>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) changed: watch::Sender<()>,
    state: Mutex<State>,
}

impl fmt::Debug for Seller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seller").field("shelves", &self.shelves).finish_non_exhaustive()
    }
}

/// What changes as requests come.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) chain: Chain,
    pub(super) received: Vec<Received>,
    pub(super) faults: Vec<Faults>,
    /// How often each route has doubled its price.
    doublings: Vec<usize>,
    /// What was delivered, by route and payment header.
    sales: HashMap<(usize, String), Sale>,
    /// The payment header that came first under a payment identifier.
    identified: HashMap<(usize, String), String>,
}

/// A payment that was settled, and the honest answer to it.
#[derive(Clone, Debug)]
struct Sale {
    settlement: Settlement,
    answer: Response<Body>,
}

/// What a payment is good for.
#[derive(Debug)]
enum Due {
    /// It was settled before, and its answer is kept.
    Before(Box<Sale>),
    /// It is valid.
    Now(Token, Authorization),
}

impl Due {
    const fn about(&self) -> (Network, &Authorization) {
        match self {
            Self::Before(sale) => (sale.settlement.network, &sale.settlement.authorization),
            Self::Now(token, authorization) => (token.network, authorization),
        }
    }
}

impl Seller {
    pub(super) fn new(shelves: Vec<(Route, Conditions)>, clock: Arc<dyn Clock>, chain: Chain) -> Self {
        let faults = shelves.iter().map(|(route, _)| route.faults.clone()).collect();
        let doublings = vec![0; shelves.len()];
        let state = State { chain, faults, doublings, ..State::default() };
        Self { shelves, clock, changed: watch::Sender::new(()), state: Mutex::new(state) }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Never held across an await; a panic cannot leave it half-changed in a way that matters.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn answer(&self, received: &Received) -> Reply {
        let reply = {
            let mut state = self.state();
            state.received.push(received.clone());
            self.route(&mut state, received)
        };
        self.changed.send_replace(());
        reply
    }

    fn route(&self, state: &mut State, received: &Received) -> Reply {
        let mut here =
            self.shelves.iter().enumerate().filter(|(_, (route, _))| route.covers(received.path())).peekable();
        if here.peek().is_none() {
            return answer::plain(StatusCode::NOT_FOUND, "the paywall has no such route").into();
        }
        let Some((number, (route, conditions))) = here.find(|(_, (route, _))| route.allows(&received.method)) else {
            return answer::plain(StatusCode::METHOD_NOT_ALLOWED, "the route is for other methods").into();
        };
        let visit = Visit { state, number, route, conditions, received, now: self.now() };
        visit.answer()
    }
}

/// One request to one route.
struct Visit<'a> {
    state: &'a mut State,
    number: usize,
    route: &'a Route,
    conditions: &'a Conditions,
    received: &'a Received,
    now: Timestamp,
}

impl Visit<'_> {
    fn answer(mut self) -> Reply {
        if matches!(self.route.price, Price::Free) {
            return answer::goods(self.route, self.received).into();
        }
        match self.received.payment.as_ref().filter(|payment| self.route.speaks(payment.version)) {
            None => self.challenge("Payment required").into(),
            Some(payment) => self.paid(payment),
        }
    }

    fn paid(&mut self, payment: &Presented) -> Reply {
        if let Some(refusal) = self.misidentified(payment) {
            return refusal.into();
        }
        let sold = self.state.sales.get(&(self.number, payment.header.clone())).cloned();
        let due = match sold.map_or_else(|| self.verify(payment), |sale| Ok(Due::Before(Box::new(sale)))) {
            Ok(due) => due,
            Err(reason) => return self.challenge(reason).into(),
        };
        let fault = self.strike(Occasion::Payment);
        if let Some(refusal) = fault.as_ref().and_then(|fault| self.unsettled(fault, &due, payment.version)) {
            return refusal.into();
        }
        match self.sell(due, payment) {
            Ok(sale) => self.sold(fault, sale, payment.version),
            Err(response) => (*response).into(),
        }
    }

    fn strike(&mut self, occasion: Occasion) -> Option<Fault> {
        self.state.faults.get_mut(self.number)?.strike(occasion)
    }

    fn verify(&self, payment: &Presented) -> Result<Due, Reason> {
        let offers = self.offers(payment.version);
        let (token, authorization) = verify(payment, &offers, &self.route.extensions, self.now.secs())?;
        self.state.chain.simulate(token, &authorization)?;
        Ok(Due::Now(token, authorization))
    }

    /// Does the work and takes the money, or answers why not.
    fn sell(&mut self, due: Due, payment: &Presented) -> Result<Sale, Box<Response<Body>>> {
        let (token, authorization) = match due {
            Due::Before(sale) => return Ok(*sale),
            Due::Now(token, authorization) => (token, authorization),
        };
        let mut answer = answer::goods(self.route, self.received);
        let failed = answer.status().is_client_error() || answer.status().is_server_error();
        if failed && self.conditions.flow == Flow::Authorization {
            return Err(Box::new(answer));
        }
        let settlement =
            self.state.chain.settle(token, authorization, self.now).map_err(|reason| {
                self.refuse(&Claim::failure(reason, token.network, &authorization), payment.version)
            })?;
        answer.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private"));
        let (name, value) = Claim::success(&settlement).header(payment.version);
        answer.headers_mut().insert(name, value);
        let sale = Sale { settlement, answer };
        self.remember(&sale, payment);
        Ok(sale)
    }

    fn remember(&mut self, sale: &Sale, payment: &Presented) {
        let identifier = self.identifier(payment);
        if self.route.idempotent || identifier.is_some() {
            self.state.sales.insert((self.number, payment.header.clone()), sale.clone());
        }
        if let Some(identifier) = identifier {
            self.state.identified.insert((self.number, identifier), payment.header.clone());
        }
    }

    fn identifier(&self, payment: &Presented) -> Option<String> {
        let declared = self.route.extensions.contains_key(PAYMENT_IDENTIFIER);
        payment.identifier().filter(|_| declared).map(ToOwned::to_owned)
    }

    /// The refusal of a payment whose identifier is missing, malformed or another payment's.
    fn misidentified(&self, payment: &Presented) -> Option<Response<Body>> {
        let declared = self.route.extensions.get(PAYMENT_IDENTIFIER)?;
        let Some(identifier) = self.identifier(payment) else {
            let required = declared.pointer("/info/required").and_then(Value::as_bool) == Some(true);
            return required.then(|| answer::plain(StatusCode::BAD_REQUEST, "a payment identifier is required"));
        };
        let canonical = (16..=128).contains(&identifier.len())
            && identifier.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !canonical {
            return Some(answer::plain(StatusCode::BAD_REQUEST, "the payment identifier is malformed"));
        }
        let first = self.state.identified.get(&(self.number, identifier))?;
        (*first != payment.header)
            .then(|| answer::plain(StatusCode::CONFLICT, "the payment identifier is another payment's"))
    }

    /// Faults that leave the payment unsettled.
    fn unsettled(&mut self, fault: &Fault, due: &Due, version: Version) -> Option<Response<Body>> {
        match fault {
            Fault::RejectAgain => {
                if let Some(doublings) = self.state.doublings.get_mut(self.number) {
                    *doublings = doublings.saturating_add(1);
                }
                Some(self.challenge("No matching payment requirements"))
            }
            Fault::RedirectAfterPayment(to) => Some(answer::redirect(to)),
            Fault::SettlementFailure => {
                let (network, authorization) = due.about();
                let claim = Claim::failure("invalid_exact_evm_transaction_failed", network, authorization);
                Some(self.refuse(&claim, version))
            }
            _ => None,
        }
    }

    /// The answer to a payment that was settled.
    fn sold(&self, fault: Option<Fault>, sale: Sale, version: Version) -> Reply {
        let Sale { settlement, mut answer } = sale;
        let name = answer::receipt_header(version);
        match fault {
            Some(Fault::DropAfterSettle) => return Reply::Drop,
            Some(Fault::HangAfterSettle) => return Reply::Hang,
            Some(Fault::ServerErrorAfterSettle) => answer = answer::plain(StatusCode::BAD_GATEWAY, "bad gateway"),
            Some(Fault::BrokenBodyAfterSettle) => answer = answer.map(Body::broken),
            Some(Fault::NoReceipt) => drop(answer.headers_mut().remove(name)),
            Some(Fault::MalformedReceipt) => {
                drop(answer.headers_mut().insert(name, HeaderValue::from_static("not base64!")));
            }
            Some(Fault::ForgedReceipt(Forgery::Failure)) => {
                let (reason, by) = ("invalid_exact_evm_transaction_failed", &settlement.authorization);
                answer = self.refuse(&Claim::failure(reason, settlement.network, by), version);
            }
            Some(Fault::ForgedReceipt(forgery)) => {
                let (name, value) = Claim::success(&settlement).forged(forgery).header(version);
                drop(answer.headers_mut().insert(name, value));
            }
            Some(Fault::SettlementPending) => answer = self.refuse(&Claim::pending(&settlement), version),
            _ => {}
        }
        answer.into()
    }

    /// The answer to a payment that could not be settled: a receipt alone in version 2, which keeps
    /// its terms in a header, and the terms again in version 1.
    fn refuse(&self, claim: &Claim, version: Version) -> Response<Body> {
        let mut response = match version {
            Version::V1 => self.terms(claim.reason(), None),
            Version::V2 => answer::payment_required("{}"),
        };
        let (name, value) = claim.header(version);
        response.headers_mut().insert(name, value);
        response
    }

    /// A 402 with terms.
    fn challenge(&mut self, error: &str) -> Response<Body> {
        let fault = self.strike(Occasion::Terms);
        self.terms(error, fault)
    }

    fn terms(&self, error: &str, fault: Option<Fault>) -> Response<Body> {
        let body = if self.route.speaks(Version::V1) {
            Terms::v1(error, &self.offers(Version::V1)).json()
        } else {
            b"{}".to_vec()
        };
        let mut response = answer::payment_required(body);
        if self.route.speaks(Version::V2) {
            let mut json = Terms::v2(error, &self.resource(), &self.offers(Version::V2), &self.route.extensions).json();
            if let Some(Fault::HugeHeader(length)) = fault {
                // Four characters of base64 hold three bytes.
                json.resize(length.saturating_sub(length.div_ceil(4)).max(json.len()), b' ');
            }
            response.headers_mut().insert(PAYMENT_REQUIRED, answer::header_value(&json));
        }
        response.headers_mut().extend(self.route.challenge_headers.clone());
        match fault {
            Some(Fault::HugeBody402(length)) => response.map(|body| body.padded(length)),
            Some(Fault::HangingBody402) => response.map(Body::hanging),
            Some(Fault::HugeHeader(length)) if !self.route.speaks(Version::V2) => {
                let padding = HeaderValue::try_from(vec![b'x'; length]);
                response.headers_mut().extend(padding.ok().map(|value| (HeaderName::from_static("x-padding"), value)));
                response
            }
            _ => response,
        }
    }

    fn offers(&self, version: Version) -> Vec<Box<RawValue>> {
        let offers = match &self.route.price {
            Price::Free => Vec::new(),
            Price::Dollars(price) => self.conditions.offer(*price, version, &self.resource()).into_iter().collect(),
            Price::Offers(offers) => offers.clone(),
        };
        let times = self.state.doublings.get(self.number).copied().unwrap_or_default();
        let raised = |offer: Box<RawValue>| (0..times).fold(offer, |offer, _| doubled(&offer).unwrap_or(offer));
        offers.into_iter().map(raised).collect()
    }

    /// The URL as the buyer knows it.
    fn resource(&self) -> String {
        let host = self.received.header(HOST.as_str()).unwrap_or("127.0.0.1");
        format!("http://{host}{}", self.received.target)
    }
}

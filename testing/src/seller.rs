//! The seller: who asks, what it costs, whether it is paid, and what is answered.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{AGE, CACHE_CONTROL, HOST, RETRY_AFTER, SET_COOKIE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::answer::{self, Claim, Reply};
use super::body::Body;
use super::breakage::Breakage;
use super::chain::{Chain, Settlement, Token};
use super::false_terms::{Lie, multiply};
use super::fault::{Fault, Faults, Forgery, Occasion};
use super::headers::PAYMENT_REQUIRED;
use super::payment::{Authorization, Presented, Received};
use super::route::{PAYMENT_IDENTIFIER, Route};
use super::terms::{Conditions, Price, Terms};
use super::verify::{Reason, verify};
use bursar::clock::Clock;
use bursar::x402::Flow;
use bursar::x402::Version;
use bursar::{Network, Timestamp};

pub(super) struct Seller {
    pub(super) shelves: Vec<(Route, Conditions)>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) changed: watch::Sender<()>,
    /// Bytes written to all connections.
    pub(super) sent: Arc<AtomicU64>,
    state: Mutex<State>,
}

impl fmt::Debug for Seller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seller")
            .field("shelves", &self.shelves)
            .finish_non_exhaustive()
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
    /// What each route's terms said last.
    stated: Vec<Stated>,
    /// Every payment that was valid when it came, settled or not.
    presented: Vec<(Token, Authorization)>,
    /// What was delivered, by route and payment header.
    sales: HashMap<(usize, String), TestOffer>,
    /// The payment header that came first under a payment identifier.
    identified: HashMap<(usize, String), String>,
    /// Calls by key, by route.
    calls: HashMap<usize, usize>,
    /// Routes that sell no more.
    closed: HashSet<usize>,
}

/// How a route stated its terms.
#[derive(Clone, Debug, Default)]
struct Stated {
    times: u32,
    /// In the last statement.
    lie: Option<Lie>,
}

/// A payment that was settled, and the honest answer to it.
#[derive(Clone, Debug)]
struct TestOffer {
    settlement: Settlement,
    answer: Response<Body>,
}

/// What a payment is good for.
#[derive(Debug)]
enum Due {
    /// It was settled before, and its answer is kept.
    Before(Box<TestOffer>),
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
    pub(super) fn new(
        shelves: Vec<(Route, Conditions)>,
        clock: Arc<dyn Clock>,
        chain: Chain,
    ) -> Self {
        let faults = shelves
            .iter()
            .map(|(route, _)| route.faults.clone())
            .collect();
        let doublings = vec![0; shelves.len()];
        let stated = vec![Stated::default(); shelves.len()];
        let state = State {
            chain,
            faults,
            doublings,
            stated,
            ..State::default()
        };
        let (changed, sent) = (watch::Sender::new(()), Arc::default());
        Self {
            shelves,
            clock,
            changed,
            sent,
            state: Mutex::new(state),
        }
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

    /// Settles everything that was ever presented and that the chain accepts by now, and tells how
    /// many transfers that made.
    pub(super) fn cash_in(&self) -> usize {
        let mut state = self.state();
        let now = self.now();
        let presented = state.presented.clone();
        let valid = presented
            .into_iter()
            .filter(|(_, transfer)| transfer.valid_before > now.secs());
        let made = valid
            .filter(|(token, transfer)| state.chain.settle(*token, *transfer, now).is_ok())
            .count();
        drop(state);
        self.changed.send_replace(());
        made
    }

    /// Closes the first open route that covers the path.
    pub(super) fn close(&self, path: &str) {
        let mut state = self.state();
        let mut routes = self.shelves.iter().enumerate();
        let first = routes
            .find(|(number, (route, _))| route.covers(path) && !state.closed.contains(number));
        state.closed.extend(first.map(|(number, _)| number));
    }

    /// Settles what the buyer no longer waits for.
    pub(super) fn settle_late(&self, token: Token, authorization: Authorization) {
        // A refusal by the chain is told to nobody: nobody is there.
        drop(self.state().chain.settle(token, authorization, self.now()));
        self.changed.send_replace(());
    }

    fn route(&self, state: &mut State, received: &Received) -> Reply {
        let open = |number: &usize| !state.closed.contains(number);
        let shelves = self
            .shelves
            .iter()
            .enumerate()
            .filter(|(number, _)| open(number));
        let mut here = shelves
            .filter(|(_, (route, _))| route.covers(received.path()))
            .peekable();
        if here.peek().is_none() {
            return answer::plain(StatusCode::NOT_FOUND, "the paywall has no such route").into();
        }
        let Some((number, (route, conditions))) =
            here.find(|(_, (route, _))| route.allows(&received.method))
        else {
            return answer::plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "the route is for other methods",
            )
            .into();
        };
        let visit = Visit {
            state,
            number,
            route,
            conditions,
            received,
            now: self.now(),
        };
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
        if let Some(reply) = self.by_key() {
            return reply;
        }
        if matches!(self.route.price, Price::Free) {
            return answer::goods(self.route, self.received).into();
        }
        match self
            .received
            .payment
            .as_ref()
            .filter(|payment| self.route.speaks(payment.version))
        {
            None => self.challenge("Payment required"),
            Some(payment) => self.paid(payment),
        }
    }

    /// The answer to a key; `None` where a payment decides.
    fn by_key(&mut self) -> Option<Reply> {
        let key = self.route.key.as_ref()?;
        match key.is_in(self.received) {
            Some(true) => {}
            None if !matches!(self.route.price, Price::Free) => return None,
            Some(false) | None => {
                return Some(answer::plain(StatusCode::UNAUTHORIZED, "no such key").into());
            }
        }
        let calls = self.state.calls.entry(self.number).or_default();
        *calls = calls.saturating_add(1);
        Some(match key.spent {
            Some((most, status)) if *calls > most => {
                answer::plain(status, "the key is spent").into()
            }
            _ => answer::goods(self.route, self.received).into(),
        })
    }

    fn paid(&mut self, payment: &Presented) -> Reply {
        if let Some(refusal) = self.misidentified(payment) {
            return refusal.into();
        }
        let sold = self
            .state
            .sales
            .get(&(self.number, payment.header.clone()))
            .cloned();
        let due = match sold.map_or_else(
            || self.verify(payment),
            |sale| Ok(Due::Before(Box::new(sale))),
        ) {
            Ok(due) => due,
            Err(reason) => return self.challenge(reason),
        };
        let fault = self.strike(Occasion::Payment);
        if let Some(reply) = fault
            .as_ref()
            .and_then(|fault| self.unsettled(fault, &due, payment))
        {
            return reply;
        }
        match self.sell(due, payment) {
            Ok(sale) => match fault {
                Some(fault) => self.betrayed(fault, sale, payment.version),
                None => sale.answer.into(),
            },
            Err(response) => (*response).into(),
        }
    }

    fn strike(&mut self, occasion: Occasion) -> Option<Fault> {
        self.state.faults.get_mut(self.number)?.strike(occasion)
    }

    fn verify(&mut self, payment: &Presented) -> Result<Due, Reason> {
        let offers = self.offers(payment.version);
        let (token, authorization) = verify(payment, &offers, &self.extensions(), self.now.secs())?;
        self.state.presented.push((token, authorization));
        self.state.chain.simulate(token, &authorization)?;
        Ok(Due::Now(token, authorization))
    }

    /// Does the work and takes the money, or answers why not.
    fn sell(&mut self, due: Due, payment: &Presented) -> Result<TestOffer, Box<Response<Body>>> {
        let (token, authorization) = match due {
            Due::Before(sale) => return Ok(*sale),
            Due::Now(token, authorization) => (token, authorization),
        };
        let mut answer = answer::goods(self.route, self.received);
        let failed = answer.status().is_client_error() || answer.status().is_server_error();
        if failed && self.conditions.flow == Flow::Authorization {
            return Err(Box::new(answer));
        }
        let settlement = self
            .state
            .chain
            .settle(token, authorization, self.now)
            .map_err(|reason| {
                self.refuse(
                    &Claim::failure(reason, token.network, &authorization),
                    payment.version,
                )
            })?;
        answer
            .headers_mut()
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("private"));
        let (name, value) = Claim::success(&settlement).header(payment.version);
        answer.headers_mut().insert(name, value);
        let sale = TestOffer { settlement, answer };
        self.remember(&sale, payment);
        Ok(sale)
    }

    fn remember(&mut self, sale: &TestOffer, payment: &Presented) {
        let identifier = self.identifier(payment);
        if self.route.idempotent || identifier.is_some() {
            self.state
                .sales
                .insert((self.number, payment.header.clone()), sale.clone());
        }
        if let Some(identifier) = identifier {
            self.state
                .identified
                .insert((self.number, identifier), payment.header.clone());
        }
    }

    fn identifier(&self, payment: &Presented) -> Option<String> {
        let declared = self.route.extensions.contains_key(PAYMENT_IDENTIFIER);
        payment
            .identifier()
            .filter(|_| declared)
            .map(ToOwned::to_owned)
    }

    /// The refusal of a payment whose identifier is missing, malformed or another payment's.
    fn misidentified(&self, payment: &Presented) -> Option<Response<Body>> {
        let declared = self.route.extensions.get(PAYMENT_IDENTIFIER)?;
        let Some(identifier) = self.identifier(payment) else {
            let required =
                declared.pointer("/info/required").and_then(Value::as_bool) == Some(true);
            return required.then(|| {
                answer::plain(StatusCode::BAD_REQUEST, "a payment identifier is required")
            });
        };
        let canonical = (16..=128).contains(&identifier.len())
            && identifier
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !canonical {
            return Some(answer::plain(
                StatusCode::BAD_REQUEST,
                "the payment identifier is malformed",
            ));
        }
        let first = self.state.identified.get(&(self.number, identifier))?;
        (*first != payment.header).then(|| {
            answer::plain(
                StatusCode::CONFLICT,
                "the payment identifier is another payment's",
            )
        })
    }

    /// Faults that leave the payment unsettled, for now.
    fn unsettled(&mut self, fault: &Fault, due: &Due, payment: &Presented) -> Option<Reply> {
        let (version, (network, authorization)) = (payment.version, due.about());
        Some(match fault {
            Fault::StatusBeforeSettle(status) => answer::failed(*status).into(),
            Fault::BreakBeforeSettle(breakage) => {
                Reply::Broken(self.delivery(None), breakage.clone())
            }
            Fault::SettleWhenGone => match due {
                Due::Before(_) => return None,
                Due::Now(token, authorization) => Reply::SettleWhenGone(*token, *authorization),
            },
            Fault::DeliverUnsettled => self.delivery(None).into(),
            Fault::InventedReceipt => self
                .delivery(Some(&Claim::invented(network, authorization)))
                .into(),
            Fault::SettlementFailure => {
                let claim = Claim::failure(
                    "invalid_exact_evm_transaction_failed",
                    network,
                    authorization,
                );
                self.refuse(&claim, version).into()
            }
            Fault::PendingUnsettled => self
                .refuse(&Claim::invented(network, authorization).pending(), version)
                .into(),
            Fault::RejectAgain => {
                if let Some(doublings) = self.state.doublings.get_mut(self.number) {
                    *doublings = doublings.saturating_add(1);
                }
                self.challenge(UNMATCHED)
            }
            Fault::Requote(lie) => self.state_terms(UNMATCHED, Some(lie.clone()), 0).into(),
            Fault::QuotePayment => self
                .quoted(
                    payment,
                    Claim::failure(price_check(payment), network, authorization),
                )
                .into(),
            Fault::RedirectAfterPayment(to) => answer::redirect(307, to).into(),
            _ => return None,
        })
    }

    /// The goods, as if they were paid for.
    fn delivery(&self, claim: Option<&Claim>) -> Response<Body> {
        let mut answer = answer::goods(self.route, self.received);
        let version = self
            .received
            .payment
            .as_ref()
            .map_or(Version::V2, |payment| payment.version);
        answer
            .headers_mut()
            .extend(claim.map(|claim| claim.header(version)));
        answer
    }

    /// A refusal with a receipt, and terms in every version, whose texts quote the payment.
    fn quoted(&self, payment: &Presented, claim: Claim) -> Response<Body> {
        let mut response = self.terms(claim.reason(), 0);
        response
            .headers_mut()
            .extend([claim.header(payment.version)]);
        response
    }

    /// The answer to a payment that was settled, or was before.
    fn betrayed(&mut self, fault: Fault, sale: TestOffer, version: Version) -> Reply {
        let TestOffer {
            settlement,
            mut answer,
        } = sale;
        let name = answer::receipt_header(version);
        match fault {
            Fault::DropAfterSettle => return Reply::Broken(answer, Breakage::Close),
            Fault::HangAfterSettle => return Reply::Broken(answer, Breakage::Silence),
            Fault::BreakAfterSettle(breakage) => return Reply::Broken(answer, breakage),
            Fault::ServerErrorAfterSettle => {
                return answer::plain(StatusCode::BAD_GATEWAY, "bad gateway").into();
            }
            Fault::StatusAfterSettle(status) => return answer::failed(status).into(),
            Fault::RequoteAfterSettle(lie) => {
                return self.state_terms(UNMATCHED, Some(lie), 0).into();
            }
            Fault::RedirectAfterSettle { status, to } => {
                return answer::redirect(status, &to).into();
            }
            Fault::SettlementPending => {
                return self
                    .refuse(&Claim::success(&settlement).pending(), version)
                    .into();
            }
            Fault::ForgedReceipt(forgery) => {
                return self.forged(forgery, &settlement, answer, version).into();
            }
            Fault::BrokenBodyAfterSettle => answer = answer.map(Body::broken),
            Fault::EmptyAfterSettle => answer = answer.map(|_| Body::whole("")),
            Fault::NoReceipt => drop(answer.headers_mut().remove(name)),
            Fault::MalformedReceipt => {
                drop(
                    answer
                        .headers_mut()
                        .insert(name, HeaderValue::from_static("not base64!")),
                );
            }
            _ => {}
        }
        answer.into()
    }

    fn forged(
        &self,
        forgery: Forgery,
        settlement: &Settlement,
        mut answer: Response<Body>,
        version: Version,
    ) -> Response<Body> {
        let truth = Claim::success(settlement);
        let lie = truth.clone().forged(forgery);
        match forgery {
            Forgery::Failure => return self.refuse(&lie, version),
            Forgery::WithTerms => answer = self.terms(UNMATCHED, 0),
            Forgery::Contradiction => {
                answer
                    .headers_mut()
                    .extend([lie.header(Version::V2), truth.header(Version::V1)]);
                return answer;
            }
            _ => {}
        }
        let first = self
            .state
            .chain
            .settlements
            .first()
            .filter(|_| forgery == Forgery::OtherPurchase);
        let lie = first.map_or(lie.clone(), |first| lie.of_transaction(first.transaction));
        let (name, value) = lie.header(version);
        answer.headers_mut().insert(name, value);
        answer
    }

    /// The answer to a payment that could not be settled: a receipt alone in version 2, which keeps
    /// its terms in a header, and the terms again in version 1.
    fn refuse(&self, claim: &Claim, version: Version) -> Response<Body> {
        let mut response = match version {
            Version::V1 => self.terms(claim.reason(), 0),
            _ => answer::payment_required("{}"),
        };
        let (name, value) = claim.header(version);
        response.headers_mut().insert(name, value);
        response
    }

    /// A 402 with terms, or what a fault makes of it.
    fn challenge(&mut self, error: &str) -> Reply {
        let fault = self.strike(Occasion::Terms);
        let (lie, padding) = match &fault {
            Some(Fault::Terms(lie)) => (Some(lie.clone()), 0),
            Some(Fault::HugeHeader(length)) => (None, *length),
            _ => (None, 0),
        };
        let response = self.state_terms(error, lie, padding);
        match fault {
            Some(fault) => disturbed(response, fault),
            None => response.into(),
        }
    }

    /// States terms: by these the next payment is measured.
    fn state_terms(&mut self, error: &str, lie: Option<Lie>, padding: usize) -> Response<Body> {
        if let Some(stated) = self.state.stated.get_mut(self.number) {
            *stated = Stated {
                times: stated.times.saturating_add(1),
                lie,
            };
        }
        self.terms(error, padding)
    }

    /// The terms as they were stated last; their header is padded to a length.
    fn terms(&self, error: &str, padding: usize) -> Response<Body> {
        let lie = self.stated().and_then(|stated| stated.lie.as_ref());
        let error = if let Some(Lie::Words(words)) = lie {
            words
        } else {
            error
        };
        let version = |honest: u8| match lie {
            Some(Lie::Protocol(json)) => serde_json::from_str(json).unwrap_or_default(),
            _ => Value::from(honest),
        };
        let body = if self.route.speaks(Version::V1) || matches!(lie, Some(Lie::DearBody(_))) {
            Terms::v1(error, &self.offers(Version::V1))
                .of_version(version(1))
                .json()
        } else {
            b"{}".to_vec()
        };
        let mut response = answer::payment_required(body);
        if self.route.speaks(Version::V2) {
            let (offers, extensions) = (self.offers(Version::V2), self.extensions());
            let terms =
                Terms::v2(error, self.described(lie), &offers, &extensions).of_version(version(2));
            let mut json = terms.json();
            json.resize(answer::unencoded(padding).max(json.len()), b' ');
            response
                .headers_mut()
                .insert(PAYMENT_REQUIRED, answer::header_value(&json));
        } else if padding > 0 {
            let padding = HeaderValue::try_from(vec![b'x'; padding]);
            response.headers_mut().extend(
                padding
                    .ok()
                    .map(|value| (HeaderName::from_static("x-padding"), value)),
            );
        }
        response
            .headers_mut()
            .extend(self.route.challenge_headers.clone());
        response
    }

    fn stated(&self) -> Option<&Stated> {
        self.state.stated.get(self.number)
    }

    fn offers(&self, version: Version) -> Vec<Box<RawValue>> {
        let offers = match &self.route.price {
            Price::Free => Vec::new(),
            Price::Dollars(price) => self
                .conditions
                .offer(*price, version, &self.resource())
                .into_iter()
                .collect(),
            Price::Offers(offers) => offers.clone(),
        };
        let times = self
            .state
            .doublings
            .get(self.number)
            .copied()
            .unwrap_or_default();
        let raised = |offer: Box<RawValue>| {
            (0..times).fold(offer, |offer, _| multiply(&offer, 2, 1).unwrap_or(offer))
        };
        let offers = offers.into_iter().map(raised).collect();
        match self.stated() {
            Some(Stated {
                times,
                lie: Some(lie),
            }) => lie.emit(offers, version, times.saturating_sub(1)),
            _ => offers,
        }
    }

    /// The extensions that the terms declare.
    fn extensions(&self) -> Map<String, Value> {
        let mut all = self.route.extensions.clone();
        match self.stated().and_then(|stated| stated.lie.as_ref()) {
            Some(Lie::Extension) => {
                drop(all.insert(
                    "proof-of-humanity".to_owned(),
                    json!({ "info": { "required": true } }),
                ));
            }
            Some(Lie::Identifier(id)) => {
                drop(all.insert(
                    PAYMENT_IDENTIFIER.to_owned(),
                    json!({ "info": { "required": true, "id": id } }),
                ));
            }
            _ => {}
        }
        all
    }

    /// `resource` of version 2.
    fn described(&self, lie: Option<&Lie>) -> Value {
        let url = if let Some(Lie::Resource(url)) = lie {
            url.to_string()
        } else {
            self.resource()
        };
        let description = if let Some(Lie::Words(words)) = lie {
            words
        } else {
            ""
        };
        json!({ "url": url, "description": description, "mimeType": "" })
    }

    /// The URL as the buyer knows it.
    fn resource(&self) -> String {
        let host = self.received.header(HOST.as_str()).unwrap_or("127.0.0.1");
        format!("http://{host}{}", self.received.target)
    }
}

/// What official sellers say to a payment of other terms than they state.
const UNMATCHED: &str = "No matching payment requirements";

/// An error message as official facilitators word them: with all that the chain was called with.
fn price_check(payment: &Presented) -> String {
    let signature = payment
        .json
        .as_ref()
        .and_then(|json| json.pointer("/payload/signature")?.as_str());
    format!(
        "call failed: signature {} \u{1b}[2J\u{202e}of {}",
        signature.unwrap_or_default(),
        payment.header
    )
}

/// What a fault makes of a 402 with terms.
fn disturbed(mut response: Response<Body>, fault: Fault) -> Reply {
    let header = match fault {
        Fault::BreakTerms(breakage) => return Reply::Broken(response, breakage),
        Fault::HugeBody402(length) => return response.map(|body| body.padded(length)).into(),
        Fault::HangingBody402 => return response.map(Body::hanging).into(),
        Fault::RedirectBeforeTerms { status, to } => return answer::redirect(status, &to).into(),
        Fault::TermsUnder(status) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            return response.into();
        }
        Fault::StaleTerms(age) => (AGE, HeaderValue::from(age)),
        Fault::LongRetryAfter => (RETRY_AFTER, HeaderValue::from(answer::A_YEAR)),
        Fault::TrackingCookie => (SET_COOKIE, HeaderValue::from_static("buyer=4711; Path=/")),
        _ => return response.into(),
    };
    response.headers_mut().extend([header]);
    response.into()
}

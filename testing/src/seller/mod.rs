//! The seller behind a paywall: its routes, and everything that changes as requests come.

mod challenge;
mod connection;
mod misbehavior;
mod visit;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy::primitives::U256;
use bursar::Timestamp;
use bursar::clock::Clock;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;
use tokio::sync::watch;

use crate::answer::{self, Reply};
use crate::body::Body;
use crate::chain::{Chain, Settlement, Token};
use crate::false_terms::FalseTerms;
use crate::fault::Faults;
use crate::payment::{ReceivedRequest, Signed};
use crate::route::Route;
use crate::sign_in::SignIns;
use crate::terms::Conditions;
pub(crate) use connection::serve;
use visit::Visit;

pub(crate) struct Seller {
    pub(crate) routes: Vec<(Route, Conditions)>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) changed: watch::Sender<()>,
    /// The number of bytes written to all connections.
    pub(crate) sent: Arc<AtomicU64>,
    /// The path at which the seller shows its state.
    pub(crate) status_page: Option<String>,
    state: Mutex<State>,
}

impl fmt::Debug for Seller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seller")
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

/// The state that requests change. Vectors have one element for each route.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) chain: Chain,
    pub(crate) received: Vec<ReceivedRequest>,
    pub(crate) faults: Vec<Faults>,
    /// How often each route has doubled its price.
    doublings: Vec<usize>,
    /// The last statement of each route's terms.
    statements: Vec<Statement>,
    /// Every payment that was valid when it came, settled or not.
    presented: Vec<(Token, Signed)>,
    /// Completed sales, by route and payment header.
    sales: HashMap<(usize, String), Sale>,
    /// The first payment header under each payment identifier, by route.
    identified: HashMap<(usize, String), String>,
    /// The number of calls with an API key, by route.
    calls: HashMap<usize, usize>,
    pub(crate) sign_ins: SignIns,
    /// Routes that the test has removed.
    removed: HashSet<usize>,
}

/// How a route has stated its terms.
#[derive(Clone, Debug, Default)]
struct Statement {
    /// How often the terms were stated.
    times: u32,
    /// The false part of the last statement.
    falsehood: Option<FalseTerms>,
}

/// A payment that was settled, and the honest answer to it.
#[derive(Clone, Debug)]
struct Sale {
    signed: Signed,
    settlement: Settlement,
    answer: Response<Body>,
}

impl Seller {
    pub(crate) fn new(
        routes: Vec<(Route, Conditions)>,
        clock: Arc<dyn Clock>,
        chain: Chain,
        status_page: Option<String>,
    ) -> Self {
        let faults = routes.iter().map(|(route, _)| route.faults.clone());
        let state = State {
            chain,
            faults: faults.collect(),
            doublings: vec![0; routes.len()],
            statements: vec![Statement::default(); routes.len()],
            ..State::default()
        };
        Self {
            routes,
            clock,
            changed: watch::Sender::new(()),
            sent: Arc::default(),
            status_page,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Locks the state. No caller holds the lock across an await, and a panic leaves the state usable.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn answer(&self, received: &ReceivedRequest) -> Reply {
        let reply = {
            let mut state = self.state();
            state.received.push(received.clone());
            self.dispatch(&mut state, received)
        };
        self.changed.send_replace(());
        reply
    }

    /// Returns the requests and the settlements as JSON, if the path is that of the status page.
    pub(crate) fn status(&self, path: &str) -> Option<Response<Body>> {
        self.status_page.as_ref().filter(|page| *page == path)?;
        let state = self.state();
        let requests = state.received.iter().map(|request| {
            json!({
                "method": request.method.as_str(),
                "target": request.target,
                "paid": request.payment.is_some(),
            })
        });
        let settlements = state.chain.settlements.iter().map(|settlement| {
            let transfer = &settlement.authorization;
            json!({
                "transaction": settlement.transaction,
                "network": settlement.network.to_string(),
                "asset": settlement.asset,
                "from": transfer.from,
                "to": transfer.to,
                "value": transfer.value.to_string(),
                "nonce": transfer.nonce,
            })
        });
        let page = json!({
            "requests": requests.collect::<Vec<_>>(),
            "settlements": settlements.collect::<Vec<_>>(),
        });
        let mut response = Response::new(Body::whole(page.to_string()));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        Some(response)
    }

    /// Settles the whole amount of every presented payment that has not expired. Returns the number of transfers.
    pub(crate) fn settle_presented(&self) -> usize {
        let mut state = self.state();
        let now = self.now();
        let presented = state.presented.clone();
        let valid = presented
            .into_iter()
            .filter(|(_, signed)| signed.is_valid_at(now.secs()));
        let mut settle = |token, signed: &Signed| {
            state
                .chain
                .settle(token, signed, signed.ceiling(), now)
                .is_ok()
        };
        let made = valid
            .filter(|(token, signed)| settle(*token, signed))
            .count();
        drop(state);
        self.changed.send_replace(());
        made
    }

    /// Removes the first route that matches the path and is not removed yet.
    pub(crate) fn remove_route(&self, path: &str) {
        let mut state = self.state();
        let mut routes = self.routes.iter().enumerate();
        let first = routes
            .find(|(number, (route, _))| route.matches(path) && !state.removed.contains(number));
        state.removed.extend(first.map(|(number, _)| number));
    }

    /// Settles a payment whose buyer has disconnected.
    fn settle_late(&self, token: Token, signed: &Signed, amount: U256) {
        let now = self.now();
        // If the chain refuses, there is no buyer to tell.
        drop(self.state().chain.settle(token, signed, amount, now));
        self.changed.send_replace(());
    }

    /// Answers with the first route that matches path and method.
    fn dispatch(&self, state: &mut State, received: &ReceivedRequest) -> Reply {
        let present = |number: &usize| !state.removed.contains(number);
        let routes = self.routes.iter().enumerate();
        let mut matching = routes
            .filter(|(number, _)| present(number))
            .filter(|(_, (route, _))| route.matches(received.path()))
            .peekable();
        if matching.peek().is_none() {
            return answer::plain(StatusCode::NOT_FOUND, "the paywall has no such route").into();
        }
        let Some((number, (route, conditions))) =
            matching.find(|(_, (route, _))| route.allows(&received.method))
        else {
            return answer::plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "the route has no such method",
            )
            .into();
        };
        let visit = Visit {
            state,
            number,
            route,
            conditions,
            price: route.price.of(received),
            received,
            now: self.now(),
        };
        visit.answer()
    }
}

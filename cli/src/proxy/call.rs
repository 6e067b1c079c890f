//! One call: from the request of a program to the answer of its target.

use std::sync::Arc;
use std::time::Instant;

use bursar::reqwest::header::{CONTENT_TYPE, EXPECT, HeaderMap};
use bursar::reqwest::{self, Method, StatusCode};
use bursar::text::visible;
use bursar::{Client, Origin, PaymentStatus, RequestBuilder, ResponseExt, Usd};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::Proxy;
use super::answer::{self, Body, Ended, Refusal};
use super::body::{self, Paid, Passing};
use super::gate::{self, Program};
use super::headers;
use super::log::Line;
use super::metrics::Metrics;
use super::settings::Settings;
use super::target::{self, Target};
use crate::connections::Guest;

/// The headers with which a program makes its call stricter, or names its purchase.
const MAX_PRICE: &str = "bursar-max-price";
const TAG: &str = "bursar-tag";
const PURCHASE_ID: &str = "bursar-purchase-id";
const ALLOW_DUPLICATE: &str = "bursar-allow-duplicate";
const OPTIONS: [&str; 4] = [MAX_PRICE, TAG, PURCHASE_ID, ALLOW_DUPLICATE];
/// The header of SDKs that names a call, and stays the same when the SDK repeats it.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest id of a purchase, and the longest tag, in bytes.
const LONGEST: usize = 128;

/// The options of one call, from its headers.
#[derive(Debug, Default)]
struct CallOptions {
    max_price: Option<Usd>,
    tag: Option<String>,
    purchase: Option<String>,
    allow_duplicate: bool,
}

/// Facts for the log line of a refused request with a token.
struct Known {
    client: String,
    method: Method,
    path: String,
}

/// Facts for the log line of a call. If it is dropped before the answer, the program has left.
struct Facts {
    metrics: Arc<Metrics>,
    answered: bool,
    client: String,
    agent: Option<String>,
    route: String,
    method: Method,
    origin: Option<String>,
    path: String,
    started: Instant,
}

impl Proxy {
    /// Answers one request.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        guest: &Guest,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let waits = head.headers.contains_key(EXPECT);
        let mut body = Some(body);
        let mut known = None;
        match self.handle(head, &mut body, &mut known, guest).await {
            Ok(answer) => answer,
            Err(refusal) => {
                if let Some(body) = body.filter(|_| !waits) {
                    body::drain(body).await;
                }
                let kind = refusal.kind;
                self.metrics
                    .add("bursar_proxy_refused_total", &[("reason", kind)], 1);
                // Programs without a token must not fill the disk. The metrics count all of them.
                if self.refusals.allows() {
                    let mut line = Line::new("refused")
                        .with("reason", kind)
                        .with("status", refusal.status.as_u16());
                    if let Some(Known {
                        client,
                        method,
                        path,
                    }) = known
                    {
                        line = line
                            .with("client", client)
                            .with("method", method.as_str())
                            .with("path", path)
                            .with("message", refusal.message.as_str());
                    }
                    line.write();
                }
                refusal.answer()
            }
        }
    }

    /// Handles a request. Takes the body if it reads it, and sets `known` if the request has a token.
    async fn handle(
        self: &Arc<Self>,
        head: Parts,
        body: &mut Option<Incoming>,
        known: &mut Option<Known>,
        guest: &Guest,
    ) -> Result<Response<Body>, Refusal> {
        gate::check_form(&head, &self.own)?;
        let path = head.uri.path();
        if path == "/health" {
            return self.health(&head.method);
        }
        let program = gate::authenticate(&head, &self.tokens)?;
        *known = Some(Known {
            client: program.name.clone(),
            method: head.method.clone(),
            path: visible(path).into_owned(),
        });
        guest.admit();
        if path == "/metrics" {
            return self.numbers(&head.method).await;
        }
        let settings = self.settings();
        let (routes, policy) = (&settings.routes, settings.explicit_policy());
        let target = target::find(path, head.uri.query(), &program.name, routes, policy)?;
        if self.is_own(&target) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "route",
                "the target is the proxy itself",
            ));
        }
        let options = CallOptions::read(&head.headers, &program.name)?;
        let passed = headers::for_target(&head.headers, &program.used).map_err(|name| {
            refused_header(format!(
                "`{name}` would change the request after the policy judged it"
            ))
        })?;
        let permit = Arc::clone(&self.calls).try_acquire_owned().map_err(|_| {
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "too many calls at once",
            )
        })?;
        let (bytes, kept) = body::read(body, settings.body_limit, &self.memory).await?;
        let agent = settings.agent(target.route, &program);
        let client = settings
            .client_of(agent.as_deref(), target.route)
            .map_err(|failure| {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Refusal::new(status, failure.kind, failure.message)
            })?;
        let request = build(&client, &head, &target, passed, bytes, &settings)?;
        let request = options.apply(request, target.route, settings.max_price);
        let metrics = Arc::clone(&self.metrics);
        let mut facts = Facts::new(metrics, &program, agent, &target, &head);
        let sent = request.send().await;
        facts.answered = true;
        drop(kept);
        let (answer, ended) = match sent {
            Ok(response) => self.pass(response, &client, permit).await,
            Err(error) => answer::of_error(&error, &client).await,
        };
        self.note(&facts, &answer, &ended);
        Ok(answer)
    }

    /// Passes an answer on, unless the program could misunderstand it.
    async fn pass(
        &self,
        response: reqwest::Response,
        client: &Client,
        permit: OwnedSemaphorePermit,
    ) -> (Response<Body>, Ended) {
        let (status, payment) = (response.status(), response.payment_status());
        // After a 101, which nobody asked for, the program would speak another protocol with the proxy.
        if response.redirect_target().is_some() || status.is_informational() {
            let status = match payment {
                PaymentStatus::NotPaid => StatusCode::BAD_GATEWAY,
                _ => StatusCode::FAILED_DEPENDENCY,
            };
            return answer::of_failure(response, status).await;
        }
        let is_error = status.is_client_error() || status.is_server_error();
        if is_error && payment == PaymentStatus::MaybePaid {
            return answer::of_failure(response, StatusCode::FAILED_DEPENDENCY).await;
        }
        let mut passed = headers::for_program(response.headers(), status.is_redirection());
        let ended = answer::describe_response(&mut passed, &response);
        let is_stream = is_stream(response.headers());
        let paid = client.payer().zip(response.payment());
        let paid = paid
            .filter(|_| status.is_success())
            .map(|(payer, payment)| Paid {
                payer: payer.clone(),
                payment: payment.clone(),
                is_stream,
                metrics: Arc::clone(&self.metrics),
            });
        let (_, body) = Response::<reqwest::Body>::from(response).into_parts();
        let body = Passing::new(body, paid, permit);
        let mut answer = Response::new(body.boxed_unsync());
        *answer.status_mut() = status;
        *answer.headers_mut() = passed;
        (answer, ended)
    }

    fn note(&self, facts: &Facts, answer: &Response<Body>, ended: &Ended) {
        let time = facts.started.elapsed();
        let status = answer.status();
        self.metrics.observe_time(time);
        let labels = [
            ("client", facts.client.as_str()),
            ("route", facts.route.as_str()),
            ("status", status.as_str()),
            ("payment", ended.payment.name()),
        ];
        self.metrics.add("bursar_proxy_requests_total", &labels, 1);
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Line::new("call")
            .with("client", facts.client.as_str())
            .with("agent", facts.agent.clone())
            .with("route", facts.route.as_str())
            .with("method", facts.method.as_str())
            .with("target", facts.origin.clone())
            .with("path", facts.path.as_str())
            .with("status", status.as_u16())
            .with("payment", ended.payment.name())
            .with("amount", ended.amount.clone())
            .with(
                "purchase_id",
                ended.purchase.as_ref().map(|id| id.as_str().to_owned()),
            )
            .with("transaction", ended.transaction.clone())
            .with("error", ended.error)
            .with("message", ended.message.clone())
            .with("ms", milliseconds)
            .write();
    }

    /// Whether the target is this server. It would wait for itself.
    fn is_own(&self, target: &Target<'_>) -> bool {
        let Some(origin) = Origin::of(&target.url) else {
            return false;
        };
        let loopback = origin.host() == "localhost"
            || origin
                .address()
                .is_some_and(|address| address.is_loopback());
        loopback && origin.port() == self.address.port()
    }
}

impl Facts {
    fn new(
        metrics: Arc<Metrics>,
        program: &Program,
        agent: Option<String>,
        target: &Target<'_>,
        head: &Parts,
    ) -> Self {
        Self {
            metrics,
            answered: false,
            client: program.name.clone(),
            agent,
            route: target.label().to_owned(),
            method: head.method.clone(),
            origin: Origin::of(&target.url).map(|origin| origin.to_string()),
            path: visible(target.url.path()).into_owned(),
            started: Instant::now(),
        }
    }
}

impl Drop for Facts {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        self.metrics.add("bursar_proxy_abandoned_total", &[], 1);
        Line::new("abandoned")
            .with("client", self.client.as_str())
            .with("route", self.route.as_str())
            .with("target", self.origin.clone())
            .with(
                "message",
                "the program left before the answer; an identical request presents a payment that was signed",
            )
            .write();
    }
}

impl CallOptions {
    /// Reads the headers of the proxy's own. An unknown one is refused: a misspelled limit must not be ignored.
    fn read(headers: &HeaderMap, client: &str) -> Result<Self, Refusal> {
        let unknown = headers.keys().find(|name| {
            let name = name.as_str().replace('_', "-");
            name.starts_with("bursar-") && !OPTIONS.contains(&name.as_str())
        });
        if let Some(name) = unknown {
            let message = format!(
                "`{name}` is unknown; the headers are {}",
                OPTIONS.join(", ")
            );
            return Err(refused_header(message));
        }
        let mut options = Self::default();
        if let Some(price) = single(headers, MAX_PRICE)? {
            let price = price.trim_start_matches('$').trim_end_matches(" USD");
            options.max_price = Some(
                price
                    .parse()
                    .map_err(|error| refused_header(format!("`{MAX_PRICE}`: {error}")))?,
            );
        }
        if let Some(tag) = single(headers, TAG)? {
            if tag.is_empty() || tag.len() > LONGEST {
                return Err(refused_header(format!(
                    "`{TAG}`: expected 1 to {LONGEST} bytes"
                )));
            }
            options.tag = Some(tag.to_owned());
        }
        options.allow_duplicate = match single(headers, ALLOW_DUPLICATE)? {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                return Err(refused_header(format!(
                    "`{ALLOW_DUPLICATE}`: expected true or false"
                )));
            }
        };
        options.purchase = match single(headers, PURCHASE_ID)? {
            Some(id) => Some(id.to_owned()),
            None => single(headers, IDEMPOTENCY_KEY)?
                .filter(|key| !key.is_empty())
                .map(|key| purchase_id(client, key)),
        };
        Ok(options)
    }

    /// Adds the options of the call and those of its route. The lower price holds, and the tag of the route.
    fn apply(
        self,
        mut request: RequestBuilder,
        route: Option<&bursar::config::ProxyRoute>,
        most: Option<Usd>,
    ) -> RequestBuilder {
        let prices = [
            self.max_price,
            most,
            route.and_then(|route| route.max_price),
        ];
        if let Some(max) = prices.into_iter().flatten().min() {
            request = request.max_price(max);
        }
        if let Some(tag) = route.and_then(|route| route.tag.clone()).or(self.tag) {
            request = request.tag(tag);
        }
        if let Some(id) = self.purchase {
            request = request.purchase_id(id);
        }
        if let Some(time) = route.and_then(|route| route.timeout) {
            request = request.timeout(time);
        }
        if self.allow_duplicate {
            request = request.allow_duplicate();
        }
        request
    }
}

/// Returns the value of a header that a request has at most once.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if values.next().is_none() => Ok(Some(text.trim())),
        _ => Err(refused_header(format!(
            "`{name}` is given twice, or is no text"
        ))),
    }
}

/// Returns the id of a purchase for the key of a program. Two programs may choose the same key.
fn purchase_id(client: &str, key: &str) -> String {
    let id = format!("{client}:{key}");
    if id.len() <= LONGEST && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return id;
    }
    let hash: String = Sha256::digest(key.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{client}:sha256-{hash}")
}

fn refused_header(message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "header", message)
}

/// Builds the request for the target.
fn build(
    client: &Client,
    head: &Parts,
    target: &Target<'_>,
    headers: HeaderMap,
    body: Bytes,
    settings: &Settings,
) -> Result<RequestBuilder, Refusal> {
    let mut request = reqwest::Request::new(head.method.clone(), target.url.clone());
    *request.headers_mut() = headers;
    let keys = settings.keys_of(target.route);
    if let Some(place) = keys.taken_place(&request) {
        return Err(refused_header(format!(
            "{place} cannot be set for this target, because the operator has an API key for it"
        )));
    }
    let headers = std::mem::take(request.headers_mut());
    let request = client
        .request(head.method.clone(), target.url.clone())
        .headers(headers);
    Ok(if body.is_empty() {
        request
    } else {
        request.body(body)
    })
}

/// Whether an answer is a stream of events.
fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        let kind = kind.trim_start().to_ascii_lowercase();
        kind.starts_with("text/event-stream")
    })
}

impl Proxy {
    fn health(&self, method: &Method) -> Result<Response<Body>, Refusal> {
        only_get(method)?;
        let (status, text) = if *self.stopping.borrow() {
            (StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"stopping\"}")
        } else {
            (StatusCode::OK, "{\"status\":\"ok\"}")
        };
        Ok(answer::text(status, "application/json", text))
    }

    async fn numbers(&self, method: &Method) -> Result<Response<Body>, Refusal> {
        only_get(method)?;
        let settings = self.settings();
        // A ledger that cannot be read has no limits to show, and the counters show that it fails.
        let limits = settings.client().budget().await.unwrap_or_default();
        let in_flight = self
            .max_calls
            .saturating_sub(self.calls.available_permits());
        let text = self.metrics.text(in_flight, &limits);
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        Ok(answer::text(StatusCode::OK, kind, text))
    }
}

fn only_get(method: &Method) -> Result<(), Refusal> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "form",
        "the proxy answers this path to GET only",
    ))
}

#[cfg(test)]
mod tests {
    use bursar::reqwest::header::HeaderName;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<CallOptions, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        CallOptions::read(&headers, "me").map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn a_program_names_its_purchase_and_lowers_its_price_by_headers() {
        let options = read(&[
            ("bursar-max-price", "$0.02"),
            ("bursar-tag", "chat"),
            ("idempotency-key", "order-1"),
            ("bursar-allow-duplicate", "true"),
        ]);
        let options = options.unwrap();
        assert_eq!(options.max_price, Some(bursar::usd!("0.02")));
        assert_eq!(options.purchase.as_deref(), Some("me:order-1"));
        assert!(options.allow_duplicate && options.tag.as_deref() == Some("chat"));
        let own = read(&[("idempotency-key", "a"), ("bursar-purchase-id", "b")]).unwrap();
        assert_eq!(own.purchase.as_deref(), Some("b"));
    }

    #[test]
    fn a_key_that_is_no_purchase_id_is_hashed_and_stays_the_same() {
        let long = "x".repeat(300);
        for key in ["with a space", long.as_str()] {
            let id = purchase_id("me", key);
            assert_eq!(id, purchase_id("me", key));
            assert!(id.parse::<bursar::PurchaseId>().is_ok(), "{id}");
            assert_ne!(id, purchase_id("you", key));
        }
    }

    #[test]
    fn a_header_of_the_proxy_that_it_does_not_know_is_refused() {
        for pairs in [
            &[("bursar-max-prize", "0.01")][..],
            &[("bursar_max_price", "0.01"), ("bursar_x", "1")],
            &[("bursar-max-price", "cheap")],
            &[("bursar-max-price", "-1")],
            &[("bursar-max-price", "1"), ("bursar-max-price", "2")],
            &[("bursar-allow-duplicate", "yes")],
            &[("bursar-tag", "")],
        ] {
            assert_eq!(read(pairs).unwrap_err(), 400, "{pairs:?}");
        }
    }

    #[test]
    fn a_stream_of_events_is_known_by_its_type() {
        let of = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            is_stream(&headers)
        };
        assert!(of("text/event-stream") && of("Text/Event-Stream; charset=utf-8"));
        assert!(!of("application/json"));
    }
}

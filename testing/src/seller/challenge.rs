//! The terms of a route: the 402 answer, honest or false.

use bursar::x402::Version;
use http::header::{AGE, HOST, RETRY_AFTER, SET_COOKIE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Statement;
use super::visit::Visit;
use crate::answer::{self, Reply};
use crate::body::Body;
use crate::chain::ALLOWANCE_REQUIRED;
use crate::false_terms::{FalseTerms, multiply};
use crate::fault::{Fault, Occasion};
use crate::headers::PAYMENT_REQUIRED;
use crate::route::PAYMENT_IDENTIFIER;
use crate::sign_in::SIGN_IN_WITH_X;
use crate::terms::{Price, Terms};

/// The error of official sellers for a payment that matches none of their offers.
pub(super) const UNMATCHED: &str = "No matching payment requirements";

impl Visit<'_> {
    /// Returns a 402 with terms, changed by the route's next fault.
    pub(super) fn challenge(&mut self, error: &str) -> Reply {
        let fault = self.next_fault(Occasion::Terms);
        let (falsehood, padding) = match &fault {
            Some(Fault::Terms(falsehood)) => (Some(falsehood.clone()), 0),
            Some(Fault::HugeHeader(length)) => (None, *length),
            _ => (None, 0),
        };
        let response = self.state_terms(error, falsehood, padding);
        match fault {
            Some(fault) => apply(response, fault),
            None => response.into(),
        }
    }

    /// States new terms. The next payment must match them.
    pub(super) fn state_terms(
        &mut self,
        error: &str,
        falsehood: Option<FalseTerms>,
        padding: usize,
    ) -> Response<Body> {
        if let Some(statement) = self.state.statements.get_mut(self.number) {
            *statement = Statement {
                times: statement.times.saturating_add(1),
                falsehood,
            };
        }
        let url = self.url();
        (self.state.sign_ins).state(self.number, self.route, &url, self.now);
        self.terms(error, padding)
    }

    /// Returns a 402 with the terms of the last statement, or a 412 if an allowance of Permit2 is missing. Pads their header to `padding` bytes.
    pub(super) fn terms(&self, error: &str, padding: usize) -> Response<Body> {
        let falsehood = self.falsehood();
        let error = match falsehood {
            Some(FalseTerms::Text(text)) => text,
            _ => error,
        };
        let mut response = answer::payment_required(self.version_1_body(error));
        if error == ALLOWANCE_REQUIRED {
            *response.status_mut() = StatusCode::PRECONDITION_FAILED;
        }
        if self.route.supports(Version::V2) {
            let (offers, mut extensions) = (self.offers(Version::V2), self.extensions());
            let signer = self.route.signer.as_ref();
            extensions.extend(
                signer.map(|signer| signer.extension(&offers, &self.url(), self.now.secs())),
            );
            let terms = Terms::v2(error, self.resource(), &offers, &extensions);
            let mut json = terms.of_version(self.protocol_version(2)).json();
            json.resize(answer::unencoded(padding).max(json.len()), b' ');
            response
                .headers_mut()
                .insert(PAYMENT_REQUIRED, answer::header_value(&json));
        } else if padding > 0
            && let Ok(value) = HeaderValue::try_from(vec![b'x'; padding])
        {
            response
                .headers_mut()
                .insert(HeaderName::from_static("x-padding"), value);
        }
        response
            .headers_mut()
            .extend(self.route.challenge_headers.clone());
        response
    }

    /// Returns the body of a 402: version 1's terms, if the route states them.
    fn version_1_body(&self, error: &str) -> Vec<u8> {
        let false_body = matches!(self.falsehood(), Some(FalseTerms::ExpensiveBody(_)));
        if !self.route.supports(Version::V1) && !false_body {
            return b"{}".to_vec();
        }
        let offers = self.offers(Version::V1);
        let terms = Terms::v1(error, &offers);
        terms.of_version(self.protocol_version(1)).json()
    }

    /// Returns `x402Version`.
    fn protocol_version(&self, honest: u8) -> Value {
        match self.falsehood() {
            Some(FalseTerms::ProtocolVersion(json)) => {
                serde_json::from_str(json).unwrap_or_default()
            }
            _ => Value::from(honest),
        }
    }

    fn statement(&self) -> Option<&Statement> {
        self.state.statements.get(self.number)
    }

    fn falsehood(&self) -> Option<&FalseTerms> {
        self.statement()?.falsehood.as_ref()
    }

    /// Returns the offers of the last statement.
    pub(super) fn offers(&self, version: Version) -> Vec<Box<RawValue>> {
        let offers = match &self.price {
            Price::Free | Price::ByRequest(_) => Vec::new(),
            Price::Dollars(price) => self.conditions.offers(*price, version, &self.url()),
            Price::Offers(offers) => offers.clone(),
        };
        let doublings = self.state.doublings.get(self.number);
        let doublings = doublings.copied().unwrap_or_default();
        let raised = |offer: Box<RawValue>| {
            (0..doublings).fold(offer, |offer, _| multiply(&offer, 2, 1).unwrap_or(offer))
        };
        let offers = offers.into_iter().map(raised).collect();
        match self.statement() {
            Some(Statement {
                times,
                falsehood: Some(falsehood),
            }) => falsehood.apply(offers, version, times.saturating_sub(1)),
            _ => offers,
        }
    }

    /// Returns the extensions that the terms declare.
    pub(super) fn extensions(&self) -> Map<String, Value> {
        let mut all = self.route.extensions.clone();
        if let Some(challenge) = self.state.sign_ins.stated(self.number) {
            all.insert(SIGN_IN_WITH_X.to_owned(), challenge.clone());
        }
        let (name, info) = match self.falsehood() {
            Some(FalseTerms::UnknownExtension) => {
                ("proof-of-humanity", json!({ "required": true }))
            }
            Some(FalseTerms::PresetIdentifier(id)) => {
                (PAYMENT_IDENTIFIER, json!({ "required": true, "id": id }))
            }
            _ => return all,
        };
        all.insert(name.to_owned(), json!({ "info": info }));
        all
    }

    /// Returns `resource` of version 2.
    fn resource(&self) -> Value {
        let (url, description) = match self.falsehood() {
            Some(FalseTerms::Resource(url)) => (url.to_string(), ""),
            Some(FalseTerms::Text(text)) => (self.url(), text.as_str()),
            _ => (self.url(), self.route.description.as_str()),
        };
        json!({ "url": url, "description": description, "mimeType": "" })
    }

    /// Returns the URL that the buyer asked for.
    pub(super) fn url(&self) -> String {
        let host = self.received.header(HOST.as_str()).unwrap_or("127.0.0.1");
        format!("http://{host}{}", self.received.target)
    }
}

/// Applies a fault to a 402 with terms.
fn apply(mut response: Response<Body>, fault: Fault) -> Reply {
    let header = match fault {
        Fault::BreakTerms(breakage) => return Reply::Broken(response, breakage),
        Fault::HugeBody402(length) => return response.map(|body| body.padded(length)).into(),
        Fault::HangingBody402 => return response.map(Body::hanging).into(),
        Fault::RedirectBeforeTerms { status, to } => return answer::redirect(status, &to).into(),
        Fault::TermsWithStatus(status) => {
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

//! Answers: the 402, the goods, the receipt.

use alloy::primitives::{Address, B256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;
use url::Url;

use super::body::Body;
use super::chain::Settlement;
use super::fault::Forgery;
use super::payment::{Authorization, Received};
use super::route::{Content, Route};
use super::terms::legacy_name;
use crate::Network;
use crate::x402::{RECEIPTS, Version};

/// What the server does with a request.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(Response<Body>),
    /// Closes the connection.
    Drop,
    /// Says nothing, until the buyer goes.
    Hang,
}

impl From<Response<Body>> for Reply {
    fn from(response: Response<Body>) -> Self {
        Self::Answer(response)
    }
}

pub(super) fn plain(status: StatusCode, words: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::whole(words));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// A 402 with a JSON body, not to be cached.
pub(super) fn payment_required(json: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::whole(json));
    *response.status_mut() = StatusCode::PAYMENT_REQUIRED;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What the route delivers.
pub(super) fn goods(route: &Route, received: &Received) -> Response<Body> {
    let mut response = Response::new(match &route.content {
        Content::Bytes(bytes) => Body::whole(bytes.clone()),
        Content::Chunks(chunks) => Body::chunked(chunks.iter().cloned()),
        Content::Echo => Body::whole(received.body.clone()),
    });
    *response.status_mut() = route.status;
    response.headers_mut().clone_from(&route.headers);
    if matches!(route.content, Content::Echo)
        && let Some(kind) = received.headers.get(CONTENT_TYPE)
    {
        response.headers_mut().entry(CONTENT_TYPE).or_insert_with(|| kind.clone());
    }
    response
}

pub(super) fn redirect(to: &Url) -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(location) = HeaderValue::try_from(to.as_str()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Base64 of JSON.
pub(super) fn header_value(json: &[u8]) -> HeaderValue {
    HeaderValue::try_from(STANDARD.encode(json)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

pub(super) fn receipt_header(version: Version) -> HeaderName {
    let [v2, v1] = RECEIPTS;
    match version {
        Version::V1 => v1,
        Version::V2 => v2,
    }
}

/// What a receipt says.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    success: bool,
    transaction: Option<B256>,
    network: Network,
    payer: Address,
    reason: Option<&'static str>,
}

impl Claim {
    pub(super) const fn success(settlement: &Settlement) -> Self {
        Self {
            success: true,
            transaction: Some(settlement.transaction),
            network: settlement.network,
            payer: settlement.authorization.from,
            reason: None,
        }
    }

    pub(super) const fn failure(reason: &'static str, network: Network, authorization: &Authorization) -> Self {
        Self { success: false, transaction: None, network, payer: authorization.from, reason: Some(reason) }
    }

    /// The transaction was sent, and not seen included.
    pub(super) const fn pending(settlement: &Settlement) -> Self {
        Self { success: false, reason: Some("settlement_pending"), ..Self::success(settlement) }
    }

    pub(super) fn forged(self, forgery: Forgery) -> Self {
        match forgery {
            Forgery::Payer => Self { payer: Address::repeat_byte(0xde), ..self },
            Forgery::Network => Self { network: Network::from_chain_id(1), ..self },
            Forgery::NoTransaction => Self { transaction: None, ..self },
            Forgery::Failure => Self { success: false, transaction: None, ..self },
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        self.reason.unwrap_or("settlement_failed")
    }

    pub(super) fn header(&self, version: Version) -> (HeaderName, HeaderValue) {
        let network = match version {
            Version::V1 => legacy_name(self.network),
            Version::V2 => self.network.to_string(),
        };
        let mut claim = json!({
            "success": self.success,
            "transaction": self.transaction.map(|hash| hash.to_string()).unwrap_or_default(),
            "network": network,
            "payer": self.payer.to_checksum(None),
        });
        if let (Some(reason), Some(claim)) = (self.reason, claim.as_object_mut()) {
            claim.insert("errorReason".to_owned(), reason.into());
        }
        (receipt_header(version), header_value(claim.to_string().as_bytes()))
    }
}

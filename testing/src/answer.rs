//! Answers of the seller: the 402, the content, the receipt.

use std::borrow::Cow;

use alloy::primitives::{Address, B256, U256, keccak256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::body::Body;
use crate::breakage::Breakage;
use crate::chain::{Settlement, Token};
use crate::fault::Forgery;
use crate::headers::RECEIPTS;
use crate::payment::{ReceivedRequest, Signed};
use crate::route::{Content, Route};
use crate::terms::legacy_name;
use bursar::Network;
use bursar::x402::Version;

/// A year, in seconds.
pub(crate) const A_YEAR: u32 = 31_536_000;

/// The reaction of the server to a request.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Response<Body>),
    /// Sends an answer that breaks on its way.
    Broken(Response<Body>, Breakage),
    /// Sends nothing, and settles when the buyer has disconnected.
    SettleAfterDisconnect(Token, Signed, U256),
}

impl From<Response<Body>> for Reply {
    fn from(response: Response<Body>) -> Self {
        Self::Answer(response)
    }
}

/// Returns the answer of a fault in plain text. Statuses 429 and 503 ask to wait for a year.
pub(crate) fn failed(status: u16) -> Response<Body> {
    let mut response = plain(
        StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
        "something went wrong",
    );
    if matches!(status, 429 | 503) {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(A_YEAR));
    }
    response
}

pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Returns a 402 with a JSON body that caches must not store.
pub(crate) fn payment_required(json: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::whole(json));
    *response.status_mut() = StatusCode::PAYMENT_REQUIRED;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns the content that the route sells.
pub(crate) fn content(route: &Route, received: &ReceivedRequest) -> Response<Body> {
    let mut response = match &route.content {
        Content::ByRequest(handler) => handler.call(received).into_response(),
        content => {
            let mut response = Response::new(match content {
                Content::Bytes(bytes) => Body::whole(bytes.clone()),
                Content::Chunks(chunks) => Body::chunked(chunks.iter().cloned()),
                _ => Body::whole(received.body.clone()),
            });
            *response.status_mut() = route.status;
            response
        }
    };
    response.headers_mut().extend(route.headers.clone());
    if matches!(route.content, Content::Echo)
        && let Some(kind) = received.headers.get(CONTENT_TYPE)
    {
        response
            .headers_mut()
            .entry(CONTENT_TYPE)
            .or_insert_with(|| kind.clone());
    }
    if let Some(time) = route.delay {
        response.extensions_mut().insert(Delay(time));
    }
    response
}

/// The time that the seller needs for its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delay(pub(crate) std::time::Duration);

pub(crate) fn redirect(status: u16, to: &Url) -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::TEMPORARY_REDIRECT);
    if let Ok(location) = HeaderValue::try_from(to.as_str()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Returns the number of bytes that `length` characters of base64 hold.
pub(crate) const fn unencoded(length: usize) -> usize {
    length.saturating_sub(length.div_ceil(4))
}

/// Encodes JSON as a base64 header value.
pub(crate) fn header_value(json: &[u8]) -> HeaderValue {
    HeaderValue::try_from(STANDARD.encode(json)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

pub(crate) fn receipt_header(version: Version) -> HeaderName {
    let [v2, v1] = RECEIPTS;
    match version {
        Version::V1 => v1,
        _ => v2,
    }
}

/// The content of a receipt.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    success: bool,
    transaction: Option<B256>,
    network: Network,
    payer: Address,
    reason: Option<Cow<'static, str>>,
    /// `amount` as JSON.
    amount: Option<Value>,
    extensions: Option<Value>,
    /// The minimum length of the header, in bytes.
    length: usize,
}

impl Claim {
    pub(crate) fn success(settlement: &Settlement) -> Self {
        Self {
            success: true,
            transaction: Some(settlement.transaction),
            network: settlement.network,
            payer: settlement.authorization.from,
            reason: None,
            // Official sellers name the amount of `upto` alone.
            amount: settlement
                .permit
                .filter(|permit| permit.facilitator.is_some())
                .map(|_| settlement.authorization.value.to_string().into()),
            extensions: None,
            length: 0,
        }
    }

    /// Claims a transaction that does not exist, for the whole amount.
    pub(crate) fn invented(network: Network, signed: &Signed) -> Self {
        Self {
            success: true,
            transaction: Some(keccak256(signed.nonce())),
            reason: None,
            amount: signed
                .is_upto()
                .then(|| signed.ceiling().to_string().into()),
            ..Self::failure("", network, signed.payer())
        }
    }

    /// Claims that nothing was charged, and so nothing was sent to the chain.
    pub(crate) fn free(network: Network, payer: Address) -> Self {
        Self {
            success: true,
            reason: None,
            amount: Some("0".into()),
            ..Self::failure("", network, payer)
        }
    }

    pub(crate) fn failure(
        reason: impl Into<Cow<'static, str>>,
        network: Network,
        payer: Address,
    ) -> Self {
        Self {
            success: false,
            transaction: None,
            network,
            payer,
            reason: Some(reason.into()),
            amount: None,
            extensions: None,
            length: 0,
        }
    }

    /// Claims that the transaction is sent and not yet included in a block.
    pub(crate) fn pending(self) -> Self {
        Self {
            success: false,
            reason: Some("settlement_pending".into()),
            ..self
        }
    }

    /// Adds extensions.
    pub(crate) fn extended(self, extensions: Value) -> Self {
        Self {
            extensions: Some(extensions),
            ..self
        }
    }

    /// Claims the transaction of another purchase.
    pub(crate) fn of_transaction(self, transaction: B256) -> Self {
        Self {
            transaction: Some(transaction),
            ..self
        }
    }

    /// Claims this amount, in JSON, or no amount.
    pub(crate) fn of_amount(self, amount: Option<Value>) -> Self {
        Self { amount, ..self }
    }

    pub(crate) fn forged(self, forgery: Forgery) -> Self {
        match forgery {
            Forgery::Payer => Self {
                payer: Address::repeat_byte(0xde),
                ..self
            },
            Forgery::Network => Self {
                network: Network::from_chain_id(1),
                ..self
            },
            Forgery::NoTransaction => Self {
                transaction: None,
                ..self
            },
            Forgery::Transaction => Self {
                transaction: self.transaction.map(keccak256),
                ..self
            },
            Forgery::Amount => Self {
                amount: Some("1".into()),
                ..self
            },
            Forgery::NoAmount => Self {
                amount: None,
                ..self
            },
            Forgery::Failure | Forgery::FailureDelivered | Forgery::Contradiction => {
                let reason = Some("invalid_exact_evm_transaction_failed".into());
                Self {
                    success: false,
                    transaction: None,
                    reason,
                    ..self
                }
            }
            Forgery::Huge => Self {
                length: 100_000,
                ..self
            },
            Forgery::AboveCeiling | Forgery::OtherPurchase | Forgery::WithTerms => self,
        }
    }

    pub(crate) fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or("settlement_failed")
    }

    pub(crate) fn header(&self, version: Version) -> (HeaderName, HeaderValue) {
        let network = match version {
            Version::V1 => legacy_name(self.network),
            _ => self.network.to_string(),
        };
        let mut claim = json!({
            "success": self.success,
            "transaction": self.transaction.map(|hash| hash.to_string()).unwrap_or_default(),
            "network": network,
            "payer": self.payer.to_checksum(None),
        });
        if let Some(claim) = claim.as_object_mut() {
            let reason = self
                .reason
                .as_deref()
                .map(|reason| ("errorReason".to_owned(), reason.into()));
            let amount = self
                .amount
                .clone()
                .map(|amount| ("amount".to_owned(), amount));
            let extensions = self.extensions.clone();
            let extensions = extensions.map(|extensions| ("extensions".to_owned(), extensions));
            claim.extend(reason.into_iter().chain(amount).chain(extensions));
        }
        let mut json = claim.to_string().into_bytes();
        json.resize(unencoded(self.length).max(json.len()), b' ');
        (receipt_header(version), header_value(&json))
    }

    /// Returns the receipt with the success and the transaction alone, or with empty strings for the rest.
    pub(crate) fn short_header(&self, version: Version, empty: bool) -> (HeaderName, HeaderValue) {
        let transaction = self.transaction.map(|hash| hash.to_string());
        let mut claim = json!({ "success": self.success, "transaction": transaction });
        if empty && let Some(claim) = claim.as_object_mut() {
            claim.insert("network".to_owned(), "".into());
            claim.insert("payer".to_owned(), "".into());
        }
        (
            receipt_header(version),
            header_value(claim.to_string().as_bytes()),
        )
    }
}

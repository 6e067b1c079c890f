//! What somebody wants to buy.

use std::time::Duration;

use alloy::primitives::{B256, KECCAK256_EMPTY, keccak256};
use http::Method;
use tokio::time::Instant;
use url::{Position, Url};

use crate::ledger::PurchaseId;
use crate::policy::Amount;
use crate::{Error, Origin};

/// What somebody wants to buy: a request, and how it is to be booked.
#[derive(Clone, Debug)]
pub struct Intent {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) origin: Origin,
    pub(super) fingerprint: B256,
    pub(super) purchase_id: Option<PurchaseId>,
    pub(super) tag: Option<String>,
    pub(super) max_price: Option<Amount>,
    /// Whether the body is known, and the fingerprint therefore tells requests apart.
    pub(super) known: bool,
    pub(super) duplicate: bool,
    /// When the call must be over; nothing is signed after it.
    until: Option<Instant>,
}

impl Intent {
    /// A request by method, URL and body. The body is hashed, to tell requests apart.
    ///
    /// # Errors
    /// When the method or the URL is not one.
    pub fn new(method: &str, url: &str, body: &[u8]) -> Result<Self, Error> {
        let method = method.parse().map_err(|_| Error::builder("not a method"))?;
        let url: Url = url.parse().map_err(|error| {
            Error::builder("not a URL").because(Box::new(error) as crate::error::BoxError)
        })?;
        Self::of(method, url, Some(body))
    }

    pub(crate) fn of(method: Method, url: Url, body: Option<&[u8]>) -> Result<Self, Error> {
        let origin = Origin::of(&url)
            .ok_or_else(|| Error::builder("the URL is not http or https with a host").at(&url))?;
        let fingerprint = fingerprint(method.as_str(), &url, body);
        let known = body.is_some();
        Ok(Self {
            method,
            url,
            origin,
            fingerprint,
            purchase_id: None,
            tag: None,
            max_price: None,
            known,
            duplicate: false,
            until: None,
        })
    }

    /// What makes the request the same request.
    pub(crate) const fn id(&self) -> B256 {
        self.fingerprint
    }

    /// As a part of another request: of one that was redirected here.
    pub(crate) const fn fingerprint(mut self, fingerprint: B256) -> Self {
        self.fingerprint = fingerprint;
        self
    }

    /// For a call that must be over by then.
    pub(crate) const fn until(mut self, end: Option<Instant>) -> Self {
        self.until = end;
        self
    }

    /// How long the call may still take, where that is bounded.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.until
            .map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Under the caller's own id: a second request with it is the same purchase.
    #[must_use]
    pub fn purchase_id(mut self, id: PurchaseId) -> Self {
        self.purchase_id = Some(id);
        self
    }

    /// Buys again even while an identical purchase is unresolved. Without it that purchase is taken
    /// up: the same payment is presented again, and no other is signed.
    #[must_use]
    pub const fn allow_duplicate(mut self) -> Self {
        self.duplicate = true;
        self
    }

    /// Booked under a tag, which the policy may limit.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Not above this price.
    #[must_use]
    pub fn max_price(mut self, max: impl Into<Amount>) -> Self {
        self.max_price = Some(max.into());
        self
    }
}

/// What makes a request the same request: method, URL without fragment, body.
pub(crate) fn fingerprint(method: &str, url: &Url, body: Option<&[u8]>) -> B256 {
    let url = &url[..Position::AfterQuery];
    let body = match body {
        None => B256::ZERO,
        Some([]) => KECCAK256_EMPTY,
        Some(body) => keccak256(body),
    };
    let mut preimage = Vec::with_capacity(url.len().saturating_add(48));
    preimage.extend_from_slice(method.as_bytes());
    preimage.push(0);
    preimage.extend_from_slice(url.as_bytes());
    preimage.push(0);
    preimage.extend_from_slice(body.as_slice());
    keccak256(preimage)
}

//! Terms that a seller has settled, for paying it with the first request of the next purchase.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use url::Url;

use super::Payer;
use crate::clock::Timestamp;
use crate::origin::Origin;
use crate::path;
use crate::request::PurchaseRequest;
use crate::x402::PaymentRequired;

/// The most paths that the cache holds. Beyond them, the one that expires first is removed.
const MOST: usize = 1024;

/// The largest terms that the cache holds, in bytes.
const LARGEST: usize = 32 * 1024;

/// Terms belong to one path and method, so the price of one path never pays another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    origin: Origin,
    method: Method,
    path: String,
}

impl Key {
    fn of(request: &PurchaseRequest) -> Self {
        Self {
            origin: request.origin().clone(),
            method: request.method().clone(),
            path: path::normalized(request.url().path()).into_owned(),
        }
    }
}

#[derive(Debug)]
struct Cached {
    /// `None` blocks the path: the seller named other terms than the cached ones.
    terms: Option<Arc<PaymentRequired>>,
    /// When the seller named the terms, or the path was blocked.
    named: Timestamp,
    until: Timestamp,
}

/// The terms in the memory of this process, of a payer and of those that were made from it.
#[derive(Debug, Default)]
pub(super) struct TermsCache {
    paths: Mutex<HashMap<Key, Cached>>,
}

impl TermsCache {
    /// Every change is one assignment, so a panic elsewhere leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Cached>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns terms that are not older than `lifetime`, which is that of the policy of today.
    fn get(
        &self,
        request: &PurchaseRequest,
        lifetime: Duration,
        now: Timestamp,
    ) -> Option<Arc<PaymentRequired>> {
        let paths = self.lock();
        let cached = paths
            .get(&Key::of(request))
            .filter(|cached| cached.until > now && cached.named.after(lifetime) > now)?;
        cached.terms.clone()
    }

    /// Caches terms, or blocks the path with `None`. Terms do not replace terms that are still valid, so using them
    /// does not extend their lifetime.
    fn insert(
        &self,
        request: &PurchaseRequest,
        terms: Option<Arc<PaymentRequired>>,
        (named, until): (Timestamp, Timestamp),
        now: Timestamp,
    ) {
        let mut paths = self.lock();
        let key = Key::of(request);
        if terms.is_some() && paths.get(&key).is_some_and(|cached| cached.until > now) {
            return;
        }
        if paths.len() >= MOST && !paths.contains_key(&key) {
            paths.retain(|_, cached| cached.until > now);
            let first = paths
                .iter()
                .min_by_key(|(_, cached)| cached.until)
                .map(|(key, _)| key.clone());
            if let Some(first) = first.filter(|_| paths.len() >= MOST) {
                paths.remove(&first);
            }
        }
        let cached = Cached {
            terms,
            named,
            until,
        };
        paths.insert(key, cached);
    }

    fn remove(&self, request: &PurchaseRequest) {
        self.lock().remove(&Key::of(request));
    }
}

impl Payer {
    /// Whether the policy caches terms of the URL's origin.
    pub(crate) fn caches_terms(&self, url: &Url) -> bool {
        let policy = &self.inner.policy;
        policy.remembers_terms()
            && Origin::of(url).is_some_and(|origin| policy.terms_lifetime(&origin).is_some())
    }

    /// Returns the terms to pay with the first request, if the cache holds fresh ones.
    pub(crate) fn cached_terms(&self, request: &PurchaseRequest) -> Option<Arc<PaymentRequired>> {
        let lifetime = self.inner.policy.terms_lifetime(request.origin())?;
        self.inner.terms.get(request, lifetime, self.now())
    }

    /// Caches terms that the seller has just settled. Their lifetime began when the seller named them.
    pub(super) fn cache_terms(
        &self,
        request: &PurchaseRequest,
        terms: Arc<PaymentRequired>,
        named: Timestamp,
    ) {
        let Some(lifetime) = self.inner.policy.terms_lifetime(request.origin()) else {
            return;
        };
        if terms.size() > LARGEST {
            return;
        }
        let valid = (named, named.after(lifetime));
        self.inner
            .terms
            .insert(request, Some(terms), valid, self.now());
    }

    /// Removes terms that the seller did not settle. The next request asks for the price.
    pub(crate) fn remove_cached_terms(&self, request: &PurchaseRequest) {
        self.inner.terms.remove(request);
    }

    /// Blocks a path for one lifetime, because the seller named other terms than the cached ones.
    pub(super) fn block_cached_terms(&self, request: &PurchaseRequest) {
        let Some(lifetime) = self.inner.policy.terms_lifetime(request.origin()) else {
            return;
        };
        let now = self.now();
        self.inner
            .terms
            .insert(request, None, (now, now.after(lifetime)), now);
    }
}

//! Terms that a seller has settled at, for paying it with the first request of the next purchase.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use url::Url;

use super::{Intent, Payer};
use crate::x402::PaymentRequired;
use crate::{Origin, Timestamp};

/// Paths that are remembered at most; beyond it the one that ends first is forgotten.
const MOST: usize = 1024;

/// Terms larger than this are asked for every time, in bytes.
const LARGEST: usize = 32 * 1024;

/// What terms are kept for: one path's price never pays another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shelf {
    origin: Origin,
    method: String,
    path: String,
}

impl Shelf {
    fn of(intent: &Intent) -> Self {
        Self {
            origin: intent.origin.clone(),
            method: intent.method.as_str().to_owned(),
            path: intent.url.path().to_owned(),
        }
    }
}

#[derive(Debug)]
struct Known {
    /// `None` where they did not hold when they were paid: they are not tried again until then.
    terms: Option<Arc<PaymentRequired>>,
    until: Timestamp,
}

/// Terms in this process's memory, per payer.
#[derive(Debug, Default)]
pub(super) struct KnownTerms {
    shelves: Mutex<HashMap<Shelf, Known>>,
}

impl KnownTerms {
    /// A panic elsewhere cannot leave a shelf half-written: every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, HashMap<Shelf, Known>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, intent: &Intent, now: Timestamp) -> Option<Arc<PaymentRequired>> {
        let shelves = self.lock();
        let known = shelves
            .get(&Shelf::of(intent))
            .filter(|known| known.until > now)?;
        known.terms.clone()
    }

    /// Puts the terms there, or keeps them away, until then. What is there stays: an end is not put off by
    /// using what it ends.
    fn put(
        &self,
        intent: &Intent,
        terms: Option<Arc<PaymentRequired>>,
        now: Timestamp,
        until: Timestamp,
    ) {
        let mut shelves = self.lock();
        let shelf = Shelf::of(intent);
        if terms.is_some() && shelves.get(&shelf).is_some_and(|known| known.until > now) {
            return;
        }
        if shelves.len() >= MOST && !shelves.contains_key(&shelf) {
            shelves.retain(|_, known| known.until > now);
            let first = shelves
                .iter()
                .min_by_key(|(_, known)| known.until)
                .map(|(shelf, _)| shelf.clone());
            if let Some(first) = first.filter(|_| shelves.len() >= MOST) {
                shelves.remove(&first);
            }
        }
        shelves.insert(shelf, Known { terms, until });
    }

    fn drop_terms(&self, intent: &Intent) {
        self.lock().remove(&Shelf::of(intent));
    }
}

impl Payer {
    /// Whether the policy has terms of the URL's origin remembered.
    pub(crate) fn remembers_terms(&self, url: &Url) -> bool {
        let policy = &self.inner.policy;
        policy.remembers_terms()
            && Origin::of(url).is_some_and(|origin| policy.terms_lifetime(&origin).is_some())
    }

    /// The terms to pay with the first request, where they are fresh.
    pub(crate) fn known_terms(&self, intent: &Intent) -> Option<Arc<PaymentRequired>> {
        self.inner.known.find(intent, self.now())
    }

    /// Remembers terms that the seller has just settled at, from when it named them.
    pub(crate) fn remember(&self, intent: &Intent, terms: Arc<PaymentRequired>, named: Timestamp) {
        let Some(lifetime) = self.inner.policy.terms_lifetime(&intent.origin) else {
            return;
        };
        if terms.size() > LARGEST {
            return;
        }
        self.inner
            .known
            .put(intent, Some(terms), self.now(), named.after(lifetime));
    }

    /// The seller did not settle at the terms that were remembered: the next request asks.
    pub(crate) fn forget(&self, intent: &Intent) {
        self.inner.known.drop_terms(intent);
    }

    /// The seller named other terms than those remembered: its path is asked for a lifetime.
    pub(crate) fn distrust(&self, intent: &Intent) {
        let Some(lifetime) = self.inner.policy.terms_lifetime(&intent.origin) else {
            return;
        };
        let now = self.now();
        self.inner.known.put(intent, None, now, now.after(lifetime));
    }
}

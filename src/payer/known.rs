//! Terms that a seller has settled at, for paying it with the first request of the next purchase, and
//! an authorization signed ahead for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use url::Url;

use super::{Intent, Payer};
use crate::ledger::{self, PurchaseId};
use crate::signer::{Signature, TransferAuthorization};
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
    ahead: Option<Ahead>,
}

/// Terms in this process's memory, per payer.
#[derive(Debug, Default)]
pub(super) struct KnownTerms {
    shelves: Mutex<HashMap<Shelf, Known>>,
}

/// An authorization that was signed before anybody asked for it. It leaves the process only once its
/// purchase has passed the policy and is held and recorded in the books, like any other.
pub(super) struct Ahead {
    pub(super) purchase: PurchaseId,
    authorization: TransferAuthorization,
    signature: Signature,
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead")
            .field("purchase", &self.purchase)
            .finish_non_exhaustive()
    }
}

impl Ahead {
    /// The authorization and its signature, if they are what is `wanted` but for their time, and at least
    /// half of that is left.
    pub(super) fn fits(
        self,
        wanted: &TransferAuthorization,
        now: Timestamp,
        validity: Duration,
    ) -> Option<(TransferAuthorization, Signature)> {
        let Self {
            authorization,
            signature,
            ..
        } = self;
        let left = authorization.valid_before().saturating_sub(now.secs());
        let enough = left >= validity.as_secs().div_ceil(2)
            && authorization.valid_before() <= wanted.valid_before();
        let same = wanted.clone().valid_as(&authorization) == authorization;
        (enough && same).then_some((authorization, signature))
    }
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
        shelves.insert(
            shelf,
            Known {
                terms,
                until,
                ahead: None,
            },
        );
    }

    fn drop_terms(&self, intent: &Intent) {
        self.lock().remove(&Shelf::of(intent));
    }

    /// What was signed ahead, once.
    pub(super) fn take_ahead(&self, intent: &Intent) -> Option<Ahead> {
        self.lock().get_mut(&Shelf::of(intent))?.ahead.take()
    }

    /// The terms that nothing is signed ahead for.
    fn lacking(&self, intent: &Intent, now: Timestamp) -> Option<Arc<PaymentRequired>> {
        let shelves = self.lock();
        let known = shelves
            .get(&Shelf::of(intent))
            .filter(|known| known.until > now && known.ahead.is_none())?;
        known.terms.clone()
    }

    fn keep_ahead(&self, intent: &Intent, terms: &Arc<PaymentRequired>, ahead: Ahead) {
        if let Some(known) = self.lock().get_mut(&Shelf::of(intent))
            && known
                .terms
                .as_ref()
                .is_some_and(|kept| Arc::ptr_eq(kept, terms))
        {
            known.ahead = Some(ahead);
        }
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
        self.sign_ahead(intent);
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

    /// Signs the next purchase on a task of its own, where the policy says so. It is neither held nor in the
    /// books, and stays in this process until it is.
    pub(crate) fn sign_ahead(&self, intent: &Intent) {
        if !self.inner.policy.signs_ahead(&intent.origin) {
            return;
        }
        let Some(terms) = self.inner.known.lacking(intent, self.now()) else {
            return;
        };
        let (payer, intent) = (self.clone(), intent.clone());
        drop(tokio::spawn(async move {
            // What is ready goes first: the rest of the answer, and whoever waits for it.
            tokio::task::yield_now().await;
            if let Some(ahead) = payer.ahead(&terms, &intent).await {
                payer.inner.known.keep_ahead(&intent, &terms, ahead);
            }
        }));
    }

    /// An authorization for what would be bought, unless the policy denies it or wants it approved.
    async fn ahead(&self, terms: &PaymentRequired, intent: &Intent) -> Option<Ahead> {
        if self.switched_off().is_some() {
            return None;
        }
        let path = self.inner.policy.stored_path(&intent.url);
        let quotes = self.quotes(terms).0;
        let quote = quotes.iter().find(|quote| {
            let facts = self.facts(terms, intent, quote, &path);
            self.inner.policy.deny(&facts).is_none() && self.inner.policy.ask(&facts).is_none()
        })?;
        let purchase = PurchaseId::random().ok()?;
        let nonce = ledger::nonce(self.address(), quote.asset(), &purchase, 0);
        let authorization = self.authorization(quote, &intent.origin, nonce);
        let signature = self.inner.signer.sign(&authorization).await;
        let signature = signature
            .inspect_err(|error| tracing::debug!(%error, "nothing was signed ahead"))
            .ok()?;
        Some(Ahead {
            purchase,
            authorization,
            signature,
        })
    }
}

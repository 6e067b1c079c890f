//! The purchases that a batch of changes reads, and its changes in order.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::ledger::{Purchase, PurchaseId, PurchaseKey, State};

/// The purchases of a batch: as the database has them, and as the changes before this one left them.
#[derive(Default)]
pub(super) struct Book {
    /// The stored purchases, by their keys.
    stored: HashMap<PurchaseKey, Purchase>,
    /// The stored holds that lapsed by the latest time of the batch.
    lapsed: Vec<Purchase>,
    changed: Vec<Changed>,
    places: HashMap<PurchaseKey, usize>,
    writes: Vec<Write>,
    /// The number of purchases in the ledger.
    purchases: u64,
}

struct Changed {
    before: Option<Purchase>,
    now: Purchase,
}

/// A change of one purchase, which becomes one event.
pub(super) struct Write {
    pub(super) purchase: Purchase,
    pub(super) before: Option<State>,
}

impl Book {
    /// `purchases` is the number of purchases in the ledger.
    pub(super) fn new(purchases: u64, stored: Vec<Purchase>, lapsed: Vec<Purchase>) -> Self {
        let stored = stored.into_iter().map(|stored| (stored.key(), stored));
        Self {
            stored: stored.collect(),
            lapsed,
            purchases,
            ..Self::default()
        }
    }

    /// Returns a purchase that was read or changed.
    pub(super) fn find(&self, key: &PurchaseKey) -> Option<&Purchase> {
        let changed = self.places.get(key).and_then(|at| self.changed.get(*at));
        changed
            .map(|changed| &changed.now)
            .or_else(|| self.stored.get(key))
    }

    /// Returns the purchases with this id, of every payer.
    pub(super) fn with_id(&self, id: &PurchaseId) -> Vec<Purchase> {
        let is_unchanged = |purchase: &&Purchase| !self.places.contains_key(&purchase.key());
        let stored = self.stored.values().filter(is_unchanged);
        let all = stored.chain(self.changed.iter().map(|changed| &changed.now));
        all.filter(|purchase| purchase.id == *id).cloned().collect()
    }

    /// Returns holds that lapsed and that this batch did not change.
    pub(super) fn lapsed(&self) -> impl Iterator<Item = &Purchase> {
        let lapsed = self.lapsed.iter();
        lapsed.filter(|hold| !self.places.contains_key(&hold.key()))
    }

    /// Returns the purchases that the batch changed, as they are now, and the [lapsed](Self::lapsed) holds.
    pub(super) fn current(&self) -> impl Iterator<Item = &Purchase> {
        let changed = self.changed.iter().map(|changed| &changed.now);
        changed.chain(self.lapsed())
    }

    /// Returns the purchases that the batch changed, as they were before it.
    pub(super) fn replaced(&self) -> impl Iterator<Item = &Purchase> {
        self.changed
            .iter()
            .filter_map(|changed| changed.before.as_ref())
    }

    /// Returns the purchases that the batch added, in order.
    pub(super) fn added(&self) -> impl Iterator<Item = &Purchase> {
        let changed = self.changed.iter();
        changed
            .filter(|changed| changed.before.is_none())
            .map(|changed| &changed.now)
    }

    /// Whether the batch changed a purchase in a way that another rule than a sum could see: `sees` selects the
    /// purchases that the rule looks at.
    pub(super) fn disturbs(&self, now: Timestamp, sees: impl Fn(&Purchase) -> bool) -> bool {
        let changed = self.changed.iter().any(|changed| {
            changed.before.as_ref().is_some_and(|before| {
                let after = &changed.now;
                (sees(before) || sees(after))
                    && (before.counts(now), before.payee, before.value)
                        != (after.counts(now), after.payee, after.value)
            })
        });
        changed || self.lapsed().any(|hold| hold.counts(now) && sees(hold))
    }

    /// Whether the batch changed a purchase that `sees` selects.
    pub(super) fn changed(&self, sees: impl Fn(&Purchase) -> bool) -> bool {
        self.changed.iter().any(|changed| sees(&changed.now))
    }

    /// Returns the number of the next new purchase.
    pub(super) const fn next_seq(&self) -> u64 {
        self.purchases.saturating_add(1)
    }

    /// Returns the number of purchases in the ledger after the changes.
    pub(super) const fn purchases(&self) -> u64 {
        self.purchases
    }

    /// Adds a stored purchase, unless it was read before.
    pub(super) fn read(&mut self, stored: Purchase) {
        self.stored.entry(stored.key()).or_insert(stored);
    }

    /// Adds a change. A new purchase has the [next](Self::next_seq) number.
    pub(super) fn write(&mut self, purchase: Purchase) {
        let key = purchase.key();
        let before = match self.find(&key) {
            Some(before) => Some(before.state),
            None => self.stored_or_lapsed(&key).map(|before| before.state),
        };
        if before.is_none() {
            self.purchases = self.next_seq();
        }
        match self
            .places
            .get(&key)
            .and_then(|at| self.changed.get_mut(*at))
        {
            Some(changed) => changed.now = purchase.clone(),
            None => {
                self.places.insert(key.clone(), self.changed.len());
                self.changed.push(Changed {
                    before: self.stored_or_lapsed(&key),
                    now: purchase.clone(),
                });
            }
        }
        self.writes.push(Write { purchase, before });
    }

    fn stored_or_lapsed(&self, key: &PurchaseKey) -> Option<Purchase> {
        let lapsed = || self.lapsed.iter().find(|hold| hold.key() == *key);
        self.stored.get(key).or_else(lapsed).cloned()
    }

    pub(super) fn is_unchanged(&self) -> bool {
        self.writes.is_empty()
    }

    pub(super) fn into_writes(self) -> Vec<Write> {
        self.writes
    }
}

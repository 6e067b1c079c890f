//! The entries, and what finds them without reading them all.

use std::collections::{BTreeSet, HashMap};

use alloy::primitives::{Address, B256, U256};

use super::totals::Totals;
use crate::ledger::sum::Sum;
use crate::ledger::{Checks, Freeze, Purchase, PurchaseKey, State, Tally};
use crate::{Network, Origin, Timestamp};

/// Positions in [`Kept::purchases`], in the order in which they were first reserved.
type Places = BTreeSet<usize>;

#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) stopped: Option<Freeze>,
    purchases: Vec<Purchase>,
    by_key: HashMap<PurchaseKey, usize>,
    /// Reserved, lapsed or not.
    held: Places,
    /// Signed and unresolved, by the moment at which it can no longer be cashed.
    by_expiry: BTreeSet<(Timestamp, usize)>,
    unresolved_by_request: HashMap<B256, Places>,
    /// All but what is freed or released.
    sellers: HashMap<Origin, HashMap<(Network, Address), Bought>>,
    totals: Totals,
}

#[derive(Debug, Default)]
struct Bought {
    all: Places,
    /// By method and path.
    resources: HashMap<String, Places>,
}

impl Kept {
    pub(super) fn purchases(&self) -> &[Purchase] {
        &self.purchases
    }

    pub(super) fn find(&self, key: &PurchaseKey) -> Option<&Purchase> {
        self.by_key
            .get(key)
            .and_then(|place| self.purchases.get(*place))
    }

    pub(super) fn next_seq(&self) -> u64 {
        u64::try_from(self.purchases.len())
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }

    pub(super) fn held(&self) -> impl Iterator<Item = &Purchase> {
        self.at(&self.held)
    }

    pub(super) fn unresolved_after(&self, now: Timestamp) -> impl Iterator<Item = &Purchase> {
        self.by_expiry
            .range((now, usize::MAX)..)
            .filter_map(|(_, place)| self.purchases.get(*place))
    }

    pub(super) fn unresolved_of(&self, fingerprint: B256) -> impl Iterator<Item = &Purchase> {
        self.unresolved_by_request
            .get(&fingerprint)
            .into_iter()
            .flat_map(|places| self.at(places))
    }

    pub(super) fn bought(
        &self,
        origin: &Origin,
        asset: (Network, Address),
    ) -> impl Iterator<Item = &Purchase> {
        self.seller(origin, asset)
            .into_iter()
            .flat_map(|bought| self.at(&bought.all))
    }

    pub(super) fn bought_at(
        &self,
        origin: &Origin,
        asset: (Network, Address),
        method: &str,
        path: &str,
    ) -> impl DoubleEndedIterator<Item = &Purchase> {
        let seller = self.seller(origin, asset);
        let places = seller.and_then(|bought| bought.resources.get(&resource(method, path)));
        places.into_iter().flat_map(|places| self.at(places))
    }

    fn seller(&self, origin: &Origin, asset: (Network, Address)) -> Option<&Bought> {
        self.sellers
            .get(origin)
            .and_then(|tokens| tokens.get(&asset))
    }

    fn at<'a>(&'a self, places: &'a Places) -> impl DoubleEndedIterator<Item = &'a Purchase> {
        places.iter().filter_map(|place| self.purchases.get(*place))
    }

    /// Writes the entry at its `seq`, over what was there: the one place where anything changes.
    pub(super) fn put(&mut self, entry: Purchase) {
        let place = usize::try_from(entry.seq)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        self.totals.change(self.purchases.get(place), &entry);
        if let Some(known) = self.purchases.get(place) {
            if known.state == State::Reserved {
                self.held.remove(&place);
            }
            if known.is_unresolved() && !(entry.is_unresolved() && same_times(known, &entry)) {
                self.by_expiry.remove(&(known.expires_at, place));
                if let Some(places) = self.unresolved_by_request.get_mut(&known.fingerprint) {
                    places.remove(&place);
                    if places.is_empty() {
                        self.unresolved_by_request.remove(&known.fingerprint);
                    }
                }
            }
            if is_bought(known) && !(is_bought(&entry) && same_seller(known, &entry)) {
                self.unlist(place);
            }
        }
        if entry.state == State::Reserved {
            self.held.insert(place);
        }
        if entry.is_unresolved() {
            self.by_expiry.insert((entry.expires_at, place));
            self.unresolved_by_request
                .entry(entry.fingerprint)
                .or_default()
                .insert(place);
        }
        let known = self.purchases.get(place);
        if is_bought(&entry)
            && !known.is_some_and(|known| is_bought(known) && same_seller(known, &entry))
        {
            let tokens = self.sellers.entry(entry.origin.clone()).or_default();
            let bought = tokens.entry((entry.network, entry.asset)).or_default();
            bought.all.insert(place);
            bought
                .resources
                .entry(resource(&entry.method, &entry.path))
                .or_default()
                .insert(place);
        }
        match self.purchases.get_mut(place) {
            Some(known) => *known = entry,
            None => {
                self.by_key.insert(entry.key(), place);
                self.purchases.push(entry);
            }
        }
    }

    fn unlist(&mut self, place: usize) {
        let Some(known) = self.purchases.get(place) else {
            return;
        };
        let tokens = self.sellers.get_mut(&known.origin);
        let bought = tokens.and_then(|tokens| tokens.get_mut(&(known.network, known.asset)));
        if let Some(bought) = bought {
            bought.all.remove(&place);
            if let Some(places) = bought
                .resources
                .get_mut(&resource(&known.method, &known.path))
            {
                places.remove(&place);
            }
        }
    }

    /// Sees to it that every limit of these checks has a running total.
    pub(super) fn keep_totals(&mut self, checks: &Checks) {
        for tally in checks.tallies() {
            self.totals.keep(tally, &self.purchases);
        }
    }

    /// What was signed, or called by a key. `None` for what no total is kept of.
    pub(super) fn total(&self, tally: Tally<'_>) -> Option<Sum> {
        self.totals.of(tally)
    }

    /// What [`total`](Self::total) adds up, oldest first.
    pub(super) fn by_time(
        &self,
        tally: Tally<'_>,
    ) -> Option<impl Iterator<Item = (Timestamp, U256)>> {
        self.totals.by_time(tally)
    }
}

fn is_bought(entry: &Purchase) -> bool {
    !matches!(entry.state, State::Voided | State::ReleasedByProof)
}

fn same_times(known: &Purchase, next: &Purchase) -> bool {
    known.expires_at == next.expires_at && known.fingerprint == next.fingerprint
}

fn same_seller(known: &Purchase, next: &Purchase) -> bool {
    known.asset == next.asset
        && known.network == next.network
        && known.origin == next.origin
        && known.method == next.method
        && known.path == next.path
}

fn resource(method: &str, path: &str) -> String {
    [method, path].join(" ")
}

//! The purchases in memory, with indices that find them without reading all of them.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use alloy::primitives::{Address, B256};

use super::index::Index;
use crate::clock::Timestamp;
use crate::ledger::denials::DenialCounts;
use crate::ledger::{Freeze, Purchase, PurchaseId, PurchaseKey, State};
use crate::limit::LimitCheck;
use crate::money::Network;
use crate::origin::Origin;

/// Positions in [`Store::purchases`], in the order of the first reservations.
type Places = BTreeSet<usize>;

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) freeze: Option<Freeze>,
    pub(super) denials: DenialCounts,
    #[expect(
        clippy::vec_box,
        reason = "a large list grows without moving the purchases"
    )]
    purchases: Vec<Box<Purchase>>,
    /// Nearly always one position: of each payer that used the id.
    by_id: HashMap<PurchaseId, Vec<usize>>,
    /// Purchases that are reserved, including holds that lapsed, by the end of their lease.
    held: BTreeSet<(Timestamp, usize)>,
    /// Undelivered purchases by their request and their expiry.
    undelivered: BTreeSet<(B256, Timestamp, usize)>,
    /// The calls by the name of their API key and their time, without those that were turned away.
    calls: HashMap<String, BTreeSet<(Timestamp, usize)>>,
    /// All purchases that are not voided or released.
    sellers: HashMap<Origin, HashMap<(Network, Address), Bought>>,
    index: Index,
    /// The number of purchases that were read, for tests.
    #[cfg(test)]
    pub(super) reads: std::cell::Cell<u64>,
}

#[derive(Debug, Default)]
struct Bought {
    all: Places,
    /// Positions by method and path.
    resources: HashMap<String, Places>,
}

impl Store {
    pub(super) fn purchases(&self) -> impl DoubleEndedIterator<Item = &Purchase> {
        self.purchases.iter().map(AsRef::as_ref)
    }

    /// Returns the purchases with a higher number, oldest first.
    pub(super) fn after(&self, seq: Option<u64>) -> impl DoubleEndedIterator<Item = &Purchase> {
        let place = usize::try_from(seq.unwrap_or(0)).unwrap_or(usize::MAX);
        let places = place.min(self.purchases.len())..self.purchases.len();
        places.filter_map(|place| self.get(place))
    }

    /// Returns the calls with an API key since this time.
    pub(super) fn calls(
        &self,
        credential: &str,
        since: Timestamp,
    ) -> impl Iterator<Item = &Purchase> {
        let calls = self.calls.get(credential).into_iter();
        calls
            .flat_map(move |calls| calls.range((since, 0)..))
            .filter_map(|(_, place)| self.get(*place))
    }

    pub(super) fn find(&self, key: &PurchaseKey) -> Option<&Purchase> {
        self.with_id(&key.id)
            .find(|purchase| purchase.payer == key.payer)
    }

    /// Returns the purchases with this id, of every payer.
    pub(super) fn with_id(&self, id: &PurchaseId) -> impl Iterator<Item = &Purchase> {
        let places = self.by_id.get(id).into_iter().flatten();
        places.filter_map(|place| self.get(*place))
    }

    pub(super) fn next_seq(&self) -> u64 {
        u64::try_from(self.purchases.len())
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }

    /// Returns the holds whose lease has ended.
    pub(super) fn lapsed(&self, now: Timestamp) -> impl Iterator<Item = &Purchase> {
        let ended = self.held.range(..=(now, usize::MAX));
        ended.filter_map(|(_, place)| self.get(*place))
    }

    /// Returns the undelivered purchases of a request that expire later, the first of them first.
    pub(super) fn undelivered_of(
        &self,
        fingerprint: B256,
        after: Timestamp,
    ) -> impl Iterator<Item = &Purchase> {
        let range = (
            Bound::Excluded((fingerprint, after, usize::MAX)),
            Bound::Included((fingerprint, Timestamp::MAX, usize::MAX)),
        );
        let open = (after < Timestamp::MAX).then(|| self.undelivered.range(range));
        open.into_iter()
            .flatten()
            .filter_map(|(_, _, place)| self.get(*place))
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

    /// Returns the purchases of this origin in any token.
    pub(super) fn bought_from(&self, origin: &Origin) -> impl Iterator<Item = &Purchase> {
        let tokens = self.sellers.get(origin).into_iter();
        tokens
            .flat_map(HashMap::values)
            .flat_map(|bought| self.at(&bought.all))
    }

    fn seller(&self, origin: &Origin, asset: (Network, Address)) -> Option<&Bought> {
        self.sellers
            .get(origin)
            .and_then(|tokens| tokens.get(&asset))
    }

    fn at<'a>(&'a self, places: &'a Places) -> impl DoubleEndedIterator<Item = &'a Purchase> {
        places.iter().filter_map(|place| self.get(*place))
    }

    /// Writes the purchase at its `seq`, over the stored one. Every change goes through here.
    pub(super) fn put(&mut self, purchase: Purchase) {
        let place = usize::try_from(purchase.seq)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        let known = self.purchases.get(place).map(AsRef::as_ref);
        self.index.change(place, known, &purchase);
        let (held, undelivered) = (known.and_then(lease), known.and_then(open));
        let left = known.is_some_and(|known| {
            is_bought(known) && !(is_bought(&purchase) && same_seller(known, &purchase))
        });
        if held != lease(&purchase) {
            if let Some(lease) = held {
                self.held.remove(&(lease, place));
            }
            if let Some(lease) = lease(&purchase) {
                self.held.insert((lease, place));
            }
        }
        if undelivered != open(&purchase) {
            if let Some((request, until)) = undelivered {
                self.undelivered.remove(&(request, until, place));
            }
            if let Some((request, until)) = open(&purchase) {
                self.undelivered.insert((request, until, place));
            }
        }
        if left {
            self.unlist(place);
        }
        self.list_call(place, &purchase);
        let known = self.purchases.get(place);
        if is_bought(&purchase)
            && !known.is_some_and(|known| is_bought(known) && same_seller(known, &purchase))
        {
            let tokens = self.sellers.entry(purchase.origin.clone()).or_default();
            let bought = tokens
                .entry((purchase.network, purchase.asset))
                .or_default();
            bought.all.insert(place);
            bought
                .resources
                .entry(resource(&purchase.method, &purchase.path))
                .or_default()
                .insert(place);
        }
        match self.purchases.get_mut(place) {
            Some(known) => **known = purchase,
            None => {
                let places = self.by_id.entry(purchase.id.clone()).or_default();
                places.push(place);
                self.purchases.push(Box::new(purchase));
            }
        }
    }

    fn list_call(&mut self, place: usize, purchase: &Purchase) {
        let Some(credential) = &purchase.credential else {
            return;
        };
        let calls = self.calls.entry(credential.clone()).or_default();
        if let Some(known) = self.purchases.get(place) {
            calls.remove(&(known.reserved_at, place));
        }
        if is_bought(purchase) {
            calls.insert((purchase.reserved_at, place));
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

    /// Begins to index the scopes that the limits of a check need.
    pub(super) fn track(&mut self, check: &LimitCheck) {
        for query in check.queries() {
            let purchases = self.purchases.iter().map(AsRef::as_ref);
            self.index.track(&query, purchases);
        }
    }

    pub(super) const fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn get(&self, place: usize) -> Option<&Purchase> {
        #[cfg(test)]
        self.reads.set(self.reads.get().saturating_add(1));
        self.purchases.get(place).map(AsRef::as_ref)
    }
}

/// Returns the end of the lease of a hold.
fn lease(purchase: &Purchase) -> Option<Timestamp> {
    (purchase.state == State::Reserved).then_some(purchase.lease_until)
}

/// Returns the request and the expiry of an undelivered purchase.
fn open(purchase: &Purchase) -> Option<(B256, Timestamp)> {
    let (request, until) = (purchase.fingerprint, purchase.expires_at);
    purchase.is_undelivered().then_some((request, until))
}

fn is_bought(purchase: &Purchase) -> bool {
    !matches!(purchase.state, State::Voided | State::ReleasedByProof)
}

fn same_seller(known: &Purchase, next: &Purchase) -> bool {
    known.asset == next.asset
        && known.network == next.network
        && known.origin == next.origin
        && known.method == next.method
        && known.path == next.path
}

fn resource(method: &str, path: &str) -> String {
    [method, &path.to_ascii_lowercase()].join(" ")
}

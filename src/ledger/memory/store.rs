//! The purchases in memory, with indices that find them without reading all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use alloy::primitives::{Address, B256};

use super::index::{Charges, Index};
use crate::clock::Timestamp;
use crate::ledger::denials::DenialCounts;
use crate::ledger::{Freeze, LedgerError, Purchase, PurchaseId, PurchaseKey, State, Transition};
use crate::limit::{Chargeable, LimitCheck};
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
    /// All purchases that are not voided or released. A policy allows few tokens.
    sellers: HashMap<Origin, BTreeMap<(Network, Address), Bought>>,
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
        self.get(self.place(key)?)
    }

    fn place(&self, key: &PurchaseKey) -> Option<usize> {
        let mut places = self.by_id.get(&key.id).into_iter().flatten().copied();
        places.find(|place| {
            let purchase = self.get(*place);
            purchase.is_some_and(|purchase| purchase.payer == key.payer)
        })
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
            .flat_map(BTreeMap::values)
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

    /// Writes the purchase at its `seq`, over the stored one.
    pub(super) fn put(&mut self, purchase: Box<Purchase>) {
        let place = usize::try_from(purchase.seq)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        let (mut was, is) = (Listing::default(), Listing::of(&purchase));
        let known = self.purchases.get(place);
        let stays = known.is_some_and(|known| has_same_keys(known, &purchase));
        if let Some(known) = known {
            was = Listing::of(known);
        }
        if !stays {
            self.list(place, &was, &Listing::default());
            was = Listing::default();
            self.index.place(place, &purchase.payment());
        }
        match self.purchases.get_mut(place) {
            Some(known) => *known = purchase,
            None => {
                let places = self.by_id.entry(purchase.id.clone()).or_default();
                places.push(place);
                self.purchases.push(purchase);
            }
        }
        self.list(place, &was, &is);
    }

    /// Moves a purchase to its next state. No transition changes the keys of a purchase.
    ///
    /// # Errors
    /// The purchase is not in the ledger, or its state does not allow the change. Nothing is changed then.
    pub(super) fn apply(
        &mut self,
        key: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let found = self.place(key).and_then(|place| {
            let purchase = self.purchases.get_mut(place)?;
            Some((place, purchase))
        });
        let (place, purchase) =
            found.ok_or_else(|| LedgerError::UnknownPurchase(key.id.clone()))?;
        let was = Listing::of(purchase);
        purchase.apply(transition, now)?;
        let is = Listing::of(purchase);
        self.list(place, &was, &is);
        Ok(())
    }

    /// Changes the lists in which the purchase at `place` is. Every change goes through here.
    fn list(&mut self, place: usize, was: &Listing, is: &Listing) {
        let Some(purchase) = self.purchases.get(place) else {
            return;
        };
        self.index.change(place, &was.charges, &is.charges);
        if was.held != is.held {
            if let Some(lease) = was.held {
                self.held.remove(&(lease, place));
            }
            if let Some(lease) = is.held {
                self.held.insert((lease, place));
            }
        }
        if was.undelivered != is.undelivered {
            if let Some((request, until)) = was.undelivered {
                self.undelivered.remove(&(request, until, place));
            }
            if let Some((request, until)) = is.undelivered {
                self.undelivered.insert((request, until, place));
            }
        }
        if was.bought != is.bought {
            if let Some(credential) = &purchase.credential {
                let calls = self.calls.entry(credential.clone()).or_default();
                if let Some(at) = was.bought {
                    calls.remove(&(at, place));
                }
                if let Some(at) = is.bought {
                    calls.insert((at, place));
                }
            }
            let tokens = self.sellers.entry(purchase.origin.clone()).or_default();
            let bought = tokens
                .entry((purchase.network, purchase.asset))
                .or_default();
            let resource = resource(&purchase.method, &purchase.path);
            let resource = bought.resources.entry(resource).or_default();
            for places in [&mut bought.all, resource] {
                if is.bought.is_some() {
                    places.insert(place);
                } else {
                    places.remove(&place);
                }
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

/// The places of a purchase in the lists of its keys.
#[derive(Debug, Default)]
struct Listing {
    charges: Charges,
    /// The end of the lease of a hold.
    held: Option<Timestamp>,
    /// The request and the expiry of an undelivered purchase.
    undelivered: Option<(B256, Timestamp)>,
    /// The time of the reservation of a purchase that is not voided or released.
    bought: Option<Timestamp>,
}

impl Listing {
    fn of(purchase: &Purchase) -> Self {
        let (request, until) = (purchase.fingerprint, purchase.expires_at);
        Self {
            charges: Charges::of(purchase),
            held: (purchase.state == State::Reserved).then_some(purchase.lease_until),
            undelivered: purchase.is_undelivered().then_some((request, until)),
            bought: (!purchase.is_void()).then_some(purchase.reserved_at),
        }
    }
}

/// Whether both are in the same lists, as far as their states allow.
fn has_same_keys(known: &Purchase, next: &Purchase) -> bool {
    known.payment() == next.payment()
        && known.method == next.method
        && known.path == next.path
        && known.credential == next.credential
}

fn resource(method: &str, path: &str) -> String {
    [method, &path.to_ascii_lowercase()].join(" ")
}

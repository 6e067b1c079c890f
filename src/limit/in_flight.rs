//! The payments that calls of this process have in flight.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy::primitives::{Address, B256, U256};

use super::{Charge, Chargeable, LimitQuery, Moment, PaymentView};
use crate::money::Network;
use crate::origin::Origin;

/// The payments that calls of this process have in flight. Clones share them.
///
/// The ledger counts these payments as unresolved. Their calls have not ended, so their room can return at any moment.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<BTreeMap<u64, Held>>>);

/// A payment as limits see it. A copy of the purchase would be much larger.
struct Held {
    origin: Origin,
    path: Box<str>,
    network: Network,
    asset: Address,
    payee: Address,
    request: B256,
    tag: Option<Box<str>>,
    agent: Option<Box<str>>,
    charge: Option<Charge>,
    is_signed: bool,
}

impl Held {
    fn new(purchase: &impl Chargeable) -> Self {
        let payment = purchase.payment();
        Self {
            origin: payment.origin.clone(),
            path: payment.path.into(),
            network: payment.network,
            asset: payment.asset,
            payee: payment.payee,
            request: payment.request,
            tag: payment.tag.map(Into::into),
            agent: payment.agent.map(Into::into),
            charge: purchase.charge(Moment::ExpiresAt),
            is_signed: false,
        }
    }

    fn payment(&self) -> PaymentView<'_> {
        PaymentView {
            origin: &self.origin,
            path: &self.path,
            network: self.network,
            asset: self.asset,
            payee: self.payee,
            request: self.request,
            tag: self.tag.as_deref(),
            agent: self.agent.as_deref(),
        }
    }
}

impl InFlight {
    /// Every change is one step, so a panic elsewhere leaves the map whole.
    fn held(&self) -> MutexGuard<'_, BTreeMap<u64, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, call: u64, purchase: &impl Chargeable) {
        let held = Held::new(purchase);
        self.held().insert(call, held);
    }

    /// Notes that the payment of a call is signed. Its room under a limit over time does not return.
    pub(crate) fn sign(&self, call: u64) {
        if let Some(held) = self.held().get_mut(&call) {
            held.is_signed = true;
        }
    }

    /// Returns whether the call had a payment in flight.
    pub(crate) fn remove(&self, call: u64) -> bool {
        self.held().remove(&call).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held().is_empty()
    }

    /// Whether a reserved payment is not signed yet. If its signer fails, all of its room returns.
    pub(crate) fn has_unsigned(&self) -> bool {
        self.held().values().any(|held| !held.is_signed)
    }

    /// Returns the part of a limit that is in flight.
    pub(crate) fn units(&self, query: &LimitQuery<'_>) -> U256 {
        let held = self.held();
        let parts = held.values().filter_map(|held| {
            let covered = query.scope().covers(&held.payment());
            query
                .unit
                .measure(held.charge.as_ref()?)
                .filter(|_| covered)
        });
        parts.fold(U256::ZERO, U256::saturating_add)
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(&self.held().len()).finish()
    }
}

//! The conditions that select purchases.

use alloy::primitives::Address;

use super::{Purchase, PurchaseId, State};
use crate::clock::Timestamp;
use crate::origin::Origin;

/// Selects the purchases that [`Ledger::purchases`](super::Ledger::purchases) returns.
///
/// A purchase is selected if it meets all conditions that are set.
///
/// ```
/// use bursar::Timestamp;
/// use bursar::ledger::{Filter, State};
///
/// let mut filter = Filter::all();
/// filter.tag = Some("research".to_owned());
/// filter.state = Some(State::Settled);
/// filter.since = Some(Timestamp::from_secs(1_760_000_000));
/// filter.last = Some(100);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Filter {
    /// Reserved at or after this time.
    pub since: Option<Timestamp>,
    /// Reserved before this time.
    pub until: Option<Timestamp>,
    /// With this id, of any payer.
    pub id: Option<PurchaseId>,
    /// From this seller.
    pub origin: Option<Origin>,
    /// To this payee.
    pub payee: Option<Address>,
    /// With this tag.
    pub tag: Option<String>,
    /// By this agent.
    pub agent: Option<String>,
    /// Calls with the API key of this name.
    pub credential: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// Only purchases whose outcome must still be read from the chain; see
    /// [`Purchase::is_unproven`].
    pub unproven: bool,
    /// At most this many, the newest ones.
    pub last: Option<usize>,
}

impl Filter {
    /// Returns a filter that selects every purchase.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Returns whether the purchase meets all conditions except `last`.
    pub(crate) fn passes(&self, purchase: &Purchase) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        self.since.is_none_or(|since| purchase.reserved_at >= since)
            && self.until.is_none_or(|until| purchase.reserved_at < until)
            && is(self.id.as_ref(), Some(&purchase.id))
            && is(self.origin.as_ref(), Some(&purchase.origin))
            && is(self.payee.as_ref(), Some(&purchase.payee))
            && is(self.tag.as_ref(), purchase.tag.as_ref())
            && is(self.agent.as_ref(), purchase.agent.as_ref())
            && is(self.credential.as_ref(), purchase.credential.as_ref())
            && is(self.state.as_ref(), Some(&purchase.state))
            && (!self.unproven || purchase.is_unproven())
    }
}

//! The conditions that select purchases.

use alloy::primitives::Address;

use super::{Ledger, LedgerError, Purchase, PurchaseId, State};
use crate::clock::Timestamp;
use crate::origin::{HostPattern, Origin};

/// The number of purchases that one read of a long list takes. With the longest terms and payloads,
/// they take 35 MB. Small in tests, which otherwise would read one page only.
pub(super) const PAGE: usize = if cfg!(test) { 7 } else { 500 };

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
    /// From this host, or from the hosts of this pattern.
    pub host: Option<HostPattern>,
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
    /// With a higher [`seq`](Purchase::seq).
    pub(crate) after: Option<u64>,
    /// Only purchases with refunds.
    pub(crate) refunded: bool,
    /// Only [unresolved](Purchase::is_unresolved) purchases.
    pub(crate) unresolved: bool,
    /// Only purchases among which [`Purchase::is_prunable`] selects.
    pub(crate) prunable: bool,
}

impl Filter {
    /// Returns a filter that selects every purchase.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Returns whether the database finds the purchases without a search. Such a read is short.
    #[cfg(feature = "sqlite")]
    pub(super) fn is_short(&self) -> bool {
        let is_open = self.since.is_none()
            && self.until.is_none()
            && self.origin.is_none()
            && self.host.is_none()
            && self.payee.is_none()
            && self.tag.is_none()
            && self.agent.is_none()
            && self.credential.is_none()
            && self.state.is_none()
            && !self.unproven
            && !self.refunded
            && !self.unresolved
            && !self.prunable;
        self.id.is_some() || (is_open && self.last.is_some_and(|last| last <= PAGE))
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
            && self
                .host
                .as_ref()
                .is_none_or(|host| host.matches(purchase.origin.host()))
            && is(self.payee.as_ref(), Some(&purchase.payee))
            && is(self.tag.as_ref(), purchase.tag.as_ref())
            && is(self.agent.as_ref(), purchase.agent.as_ref())
            && is(self.credential.as_ref(), purchase.credential.as_ref())
            && is(self.state.as_ref(), Some(&purchase.state))
            && (!self.unproven || purchase.is_unproven())
            && self.after.is_none_or(|after| purchase.seq > after)
            && (!self.refunded || !purchase.refunds.is_empty())
            && (!self.unresolved || purchase.is_unresolved())
            && (!self.prunable || purchase.is_prunable(Timestamp::MAX))
    }
}

/// The selected purchases of a ledger in parts, oldest first. Memory does not grow with the ledger.
///
/// [`Ledger::pages`] returns it.
#[derive(Debug)]
pub struct Pages {
    ledger: Ledger,
    filter: Filter,
    has_begun: bool,
    has_ended: bool,
}

impl Pages {
    /// Returns the next purchases, oldest first, or `None` after the last ones.
    ///
    /// Clients can pay meanwhile. Each purchase is in one page, as it is when the page is read. Purchases that
    /// are added meanwhile come last.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read. Call it again to try again.
    pub async fn next(&mut self) -> Result<Option<Vec<Purchase>>, LedgerError> {
        if self.has_ended {
            return Ok(None);
        }
        let backend = &self.ledger.backend;
        if !self.has_begun {
            self.ledger.record_pending().await?;
            if let Some(last) = self.filter.last {
                self.filter.after = backend.before_last(&self.filter, last).await?;
            }
            self.has_begun = true;
        }
        let mut page = backend.page(&self.filter).await?;
        self.has_ended = page.len() < PAGE;
        if let Some(last) = &mut self.filter.last {
            // Purchases that were added meanwhile are too many.
            page.truncate(*last);
            *last = last.saturating_sub(page.len());
            self.has_ended |= *last == 0;
        }
        self.filter.after = page.last().map(|purchase| purchase.seq);
        Ok(Some(page).filter(|page| !page.is_empty()))
    }
}

impl Ledger {
    /// Returns the purchases that pass the filter in pages, oldest first.
    ///
    /// Use it for ledgers of any size: it holds one page in memory, and no payment waits for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bursar::ledger::LedgerError> {
    /// use bursar::Ledger;
    /// use bursar::ledger::Filter;
    ///
    /// let ledger = Ledger::memory();
    /// let mut pages = ledger.pages(&Filter::all());
    /// while let Some(purchases) = pages.next().await? {
    ///     for purchase in purchases {
    ///         println!("{} {}", purchase.reserved_at, purchase.state);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pages(&self, filter: &Filter) -> Pages {
        Pages {
            ledger: self.clone(),
            filter: filter.clone(),
            has_begun: false,
            has_ended: false,
        }
    }
}

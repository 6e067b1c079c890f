//! Purchases as limits see them.

use super::{Freeze, Purchase, State};
use crate::clock::Timestamp;
use crate::limit::{Charge, Chargeable, Denial, Moment, PaymentView};

/// The calls with an API key that a count includes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls<'a> {
    /// The name of the key.
    pub(crate) credential: &'a str,
    /// Made at or after this time.
    pub(crate) since: Timestamp,
    /// With a lower number in the ledger.
    pub(crate) before: u64,
    /// Counting ends at this number.
    pub(crate) most: u64,
}

impl Chargeable for Purchase {
    fn payment(&self) -> PaymentView<'_> {
        PaymentView {
            origin: &self.origin,
            // A policy may store paths with their query. Limits on a resource do not look at the query.
            path: self
                .path
                .split_once('?')
                .map_or(self.path.as_str(), |(path, _)| path),
            network: self.network,
            asset: self.asset,
            payee: self.payee,
            request: self.fingerprint,
            tag: self.tag.as_deref(),
            agent: self.agent.as_deref(),
        }
    }

    fn charge(&self, moment: Moment) -> Option<Charge> {
        match self.state {
            State::Voided | State::ReleasedByProof => return None,
            State::Settled | State::ApiCall if moment == Moment::ExpiresAt => return None,
            _ => {}
        }
        Some(Charge {
            network: self.network,
            asset: self.asset,
            value: self.counted(),
            usd: self.counted_usd(),
            refunded: self.refunded(),
            failed: self.failed(),
            is_api_call: self.state == State::ApiCall,
            at: match moment {
                Moment::CountsAt => self.counts_at,
                Moment::ReservedAt => self.reserved_at,
                Moment::ExpiresAt => self.expires_at,
            },
        })
    }
}

impl Freeze {
    pub(crate) fn denial(&self) -> Denial {
        Denial::frozen(&self.reason, self.since)
    }
}

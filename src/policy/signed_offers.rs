//! Offers that the payee must have signed.

use super::rules::{Facts, Refusal};
use super::{Denial, HostRules, Policy, Rule};
use crate::origin::Origin;

impl Policy {
    /// Denies offers that their payee did not sign, in the extension `offer-receipt`.
    ///
    /// A signature that bursar cannot [verify](crate::x402::Verification) counts as none: by another key than the payee's,
    /// by a key that would have to be fetched, or with another algorithm than ES256K. Few sellers sign their offers, so this
    /// is off by default, and useful for single hosts:
    ///
    /// ```
    /// use bursar::Policy;
    ///
    /// let policy = Policy::new()
    ///     .allow_network("base")
    ///     .host_limits("api.example.com", |host| host.require_signed_offers());
    /// ```
    #[must_use]
    pub const fn require_signed_offers(mut self) -> Self {
        self.everywhere.signed_offers = Some(true);
        self
    }

    /// Pays offers with and without a signature. This is the default.
    #[must_use]
    pub const fn accept_unsigned_offers(mut self) -> Self {
        self.everywhere.signed_offers = Some(false);
        self
    }

    /// Returns whether an offer of this origin must be signed.
    pub(super) fn requires_signed_offers(&self, origin: &Origin) -> bool {
        self.setting(origin, |settings| settings.signed_offers) == Some(true)
    }

    pub(super) fn offer_signed(&self, facts: &Facts<'_>) -> Refusal {
        let signature = facts.signature?;
        if signature.is_verified() || !self.requires_signed_offers(facts.request.origin()) {
            return None;
        }
        let message = format!("the policy requires offers that the payee signed; {signature}");
        Some(Denial::new(Rule::SignedOffer, message))
    }
}

impl HostRules {
    /// Denies offers that their payee did not sign. See [`Policy::require_signed_offers`].
    #[must_use]
    pub const fn require_signed_offers(mut self) -> Self {
        self.settings.signed_offers = Some(true);
        self
    }

    /// Pays offers with and without a signature, although the policy requires signed offers elsewhere.
    #[must_use]
    pub const fn accept_unsigned_offers(mut self) -> Self {
        self.settings.signed_offers = Some(false);
        self
    }
}

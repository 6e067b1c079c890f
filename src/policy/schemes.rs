//! The schemes, and the ways to move a token, that a policy allows.

use super::Policy;
use super::rules::{Facts, Refusal, deny_unless};
use crate::limit::Rule;
use crate::money::TransferMethod;
use crate::origin::Origin;
use crate::x402::Scheme;

/// The schemes that a policy allows unless it names others.
pub(super) const SCHEMES: [Scheme; 1] = [Scheme::Exact];
/// The ways to move a token that a policy allows unless it names others.
pub(super) const TRANSFER_METHODS: [TransferMethod; 1] = [TransferMethod::Eip3009];

/// The methods that set the schemes, for all hosts or for one host.
macro_rules! scheme_methods {
    () => {
        /// Allows these schemes alone. The default is [`Scheme::Exact`](crate::x402::Scheme::Exact).
        ///
        /// The price of [`Scheme::Upto`](crate::x402::Scheme::Upto) is a ceiling: the seller charges at most that much.
        /// Limits count the ceiling until the chain proves the charge. `upto` is always paid by Permit2, so allow it as a
        /// [transfer method](Self::transfer_methods) too.
        ///
        /// ```
        /// use bursar::Policy;
        /// use bursar::money::TransferMethod;
        /// use bursar::x402::Scheme;
        ///
        /// let policy = Policy::new()
        ///     .allow_network("base")
        ///     .host_limits("llm.example.com", |host| {
        ///         host.schemes([Scheme::Exact, Scheme::Upto])
        ///             .transfer_methods([TransferMethod::Eip3009, TransferMethod::Permit2])
        ///     });
        /// policy.check()?;
        /// # Ok::<(), bursar::policy::PolicyError>(())
        /// ```
        #[must_use]
        pub fn schemes(mut self, schemes: impl IntoIterator<Item = crate::x402::Scheme>) -> Self {
            self.settings_mut().schemes = Some(schemes.into_iter().collect());
            self
        }

        /// Allows these ways to move a token alone. The default is
        /// [`TransferMethod::Eip3009`](crate::money::TransferMethod::Eip3009).
        ///
        /// [`TransferMethod::Permit2`](crate::money::TransferMethod::Permit2) needs an approval by the wallet, once for
        /// each token. The contract Permit2 can then move as many tokens as were approved, by signatures of the wallet. A
        /// signed permit cannot be cancelled without gas. Approve no more than you are ready to spend.
        #[must_use]
        pub fn transfer_methods(
            mut self,
            methods: impl IntoIterator<Item = crate::money::TransferMethod>,
        ) -> Self {
            self.settings_mut().transfer_methods = Some(methods.into_iter().collect());
            self
        }

        /// Sets whether bursar signs an approval of Permit2 by EIP-2612 for a seller that offers to pay the gas
        /// (`eip2612GasSponsoring`). The default is `false`.
        ///
        /// It needs a [chain reader](crate::ClientBuilder::chain). bursar signs the approval together with a payment by
        /// Permit2 that lacks one, for exactly the amount of the payment. The approval is a power of its own: Permit2 keeps
        /// it if the payment never settles, until another approval replaces it. Nobody but Permit2 can use it, and Permit2
        /// needs a signature of the wallet for each transfer.
        #[must_use]
        pub fn gas_sponsoring(mut self, allowed: bool) -> Self {
            self.settings_mut().gas_sponsoring = Some(allowed);
            self
        }

        /// Sets the highest cost, in wei, of a transaction that approves Permit2 and that bursar signs for a seller that
        /// offers to send it (`erc20ApprovalGasSponsoring`). The default is 0: bursar signs none.
        ///
        /// It needs a [chain reader](crate::ClientBuilder::chain) and a signer that
        /// [signs approvals](crate::Signer::signs_approvals). bursar signs the transaction together with a payment by Permit2
        /// that lacks an approval, for exactly the amount of the payment, and at most one for each purchase. Where the
        /// seller also takes an approval by EIP-2612, and the policy allows [that](Self::gas_sponsoring), bursar signs that
        /// one instead.
        ///
        /// The seller's facilitator adds the coins that the wallet lacks for the gas. A wallet that has coins pays the gas
        /// itself, up to this cost. The transaction has no deadline: until the wallet sends another one, the seller can
        /// send it. It pays nobody, because Permit2 needs a signature of the wallet for each transfer.
        ///
        /// ```
        /// use bursar::Policy;
        /// use bursar::money::TransferMethod;
        ///
        /// let policy = Policy::new().allow_network("base").host_limits("api.example.com", |host| {
        ///     host.transfer_methods([TransferMethod::Permit2])
        ///         .sponsored_transactions(20_000_000_000_000) // 0.00002 ether
        /// });
        /// policy.check()?;
        /// # Ok::<(), bursar::policy::PolicyError>(())
        /// ```
        #[must_use]
        pub fn sponsored_transactions(mut self, max_wei: u128) -> Self {
            self.settings_mut().sponsored_transactions = Some(max_wei);
            self
        }
    };
}
pub(super) use scheme_methods;

impl Policy {
    /// Returns whether bursar may sign an approval of Permit2 by EIP-2612 for this seller.
    pub(crate) fn sponsors_gas(&self, origin: &Origin) -> bool {
        self.setting(origin, |settings| settings.gas_sponsoring)
            .unwrap_or(false)
    }

    /// Returns the highest cost of an approval of Permit2 as a transaction for this seller, in wei. 0 allows none.
    pub(crate) fn sponsored_cost(&self, origin: &Origin) -> u128 {
        self.setting(origin, |settings| settings.sponsored_transactions)
            .unwrap_or_default()
    }

    pub(super) fn scheme_allowed(&self, facts: &Facts<'_>) -> Refusal {
        let origin = facts.request.origin();
        let schemes = self.setting(origin, |settings| settings.schemes.as_deref());
        let schemes = schemes.unwrap_or(&SCHEMES);
        let methods = self.setting(origin, |settings| settings.transfer_methods.as_deref());
        let methods = methods.unwrap_or(&TRANSFER_METHODS);
        let (scheme, method) = (facts.quote.scheme(), facts.quote.method());
        let allowed = (schemes.contains(&scheme), methods.contains(&method));
        deny_unless(allowed == (true, true), Rule::Scheme, || {
            let schemes = with(schemes, scheme, Scheme::name);
            let methods = with(methods, method, TransferMethod::name);
            let write = match allowed {
                (true, _) => format!("`transfer_methods = [{methods}]`"),
                (_, true) => format!("`schemes = [{schemes}]`"),
                _ => format!("`schemes = [{schemes}]` and `transfer_methods = [{methods}]`"),
            };
            let host = origin.host();
            format!(
                "the policy does not allow scheme `{scheme}` by `{method}` for {host}; to allow it, write {write} in a \
                 table `[[host]]` with `match = \"{host}\"`, or in `[global]` for all hosts"
            )
        })
    }
}

/// Returns the names of all that is allowed and of one more, as an array of TOML has them.
fn with<T: Copy + PartialEq>(allowed: &[T], more: T, name: impl Fn(T) -> &'static str) -> String {
    let missing = (!allowed.contains(&more)).then_some(more);
    let names = allowed.iter().copied().chain(missing);
    let names: Vec<String> = names.map(|one| format!("\"{}\"", name(one))).collect();
    names.join(", ")
}

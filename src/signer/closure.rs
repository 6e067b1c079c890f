//! A signer made of a closure.

use std::fmt;
use std::future::Future;

use alloy::primitives::Address;

use super::{Signature, Signer, SignerError, TransferAuthorization};

/// A [`Signer`] made of an address and an async closure. Create it with [`signer_fn`].
pub struct SignerFn<F> {
    address: Address,
    sign: F,
}

/// Creates a signer from an address and an async closure.
///
/// The closure receives its own copy of the authorization. The signer cannot sign cancellations and
/// cannot sign in.
///
/// ```
/// use bursar::{Address, signer_fn};
/// use bursar::signer::SignerError;
///
/// let signer = signer_fn(Address::ZERO, |authorization| async move {
///     Err(SignerError::rejected(format!("will not pay {}", authorization.amount())))
/// });
/// ```
pub const fn signer_fn<F, O>(address: Address, sign: F) -> SignerFn<F>
where
    F: Fn(TransferAuthorization) -> O + Send + Sync + 'static,
    O: Future<Output = Result<Signature, SignerError>> + Send,
{
    SignerFn { address, sign }
}

impl<F, O> Signer for SignerFn<F>
where
    F: Fn(TransferAuthorization) -> O + Send + Sync + 'static,
    O: Future<Output = Result<Signature, SignerError>> + Send,
{
    fn address(&self) -> Address {
        self.address
    }

    async fn sign(&self, authorization: &TransferAuthorization) -> Result<Signature, SignerError> {
        (self.sign)(authorization.clone()).await
    }
}

impl<F> fmt::Debug for SignerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerFn({})", self.address)
    }
}

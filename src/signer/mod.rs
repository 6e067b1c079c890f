//! Who signs: the [`Signer`] trait and the signers that ship with the crate.

mod closure;
mod curve;
mod local;

#[cfg(feature = "alloy-signer")]
mod alloy_adapter;
#[cfg(feature = "keystore")]
mod keystore;
#[cfg(all(fuzzing, feature = "keystore"))]
pub(crate) use keystore::open_cheap;

use std::any::TypeId;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::Address;

pub use crate::eip3009::{
    CancelAuthorization, Signature, SignedCancellation, TransferAuthorization,
};
#[cfg(feature = "alloy-signer")]
pub use alloy_adapter::AlloySigner;
pub use closure::{SignerFn, signer_fn};
pub use local::{KeyError, LocalSigner};

use crate::eip3009::{WrongSignature, check, check_signature};

/// Signs EIP-3009 transfer authorizations for one address.
///
/// A signer is only ever shown a [`TransferAuthorization`] that the policy allowed and the books
/// hold; it never sees a bare hash. Implement it with a plain `async fn`:
///
/// ```
/// use bursar::{Address, Signature, Signer, SignerError, TransferAuthorization};
///
/// struct Vault { address: Address }
///
/// impl Signer for Vault {
///     fn address(&self) -> Address {
///         self.address
///     }
///
///     async fn sign(&self, authorization: &TransferAuthorization) -> Result<Signature, SignerError> {
///         let request = authorization.typed_data_json(); // for eth_signTypedData_v4
///         Err(SignerError::unavailable(format!("no vault to send {} bytes to", request.len())))
///     }
/// }
/// ```
pub trait Signer: Send + Sync + 'static {
    /// The address that pays.
    fn address(&self) -> Address;

    /// What kind of account pays. The default is an externally owned account, whose signature is
    /// recovered and compared before it is used.
    fn account(&self) -> AccountKind {
        AccountKind::Eoa
    }

    /// How long a signature may take, a person's confirmation included. The default is 30 seconds.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Signs the authorization.
    ///
    /// # Errors
    /// Any failure. The money is freed again unless [`SignerError::is_timeout`], when a signature
    /// may exist and counts until it has expired.
    fn sign(
        &self,
        authorization: &TransferAuthorization,
    ) -> impl Future<Output = Result<Signature, SignerError>> + Send;

    /// Signs the cancellation of a nonce of this address. The default says that this signer cannot.
    ///
    /// # Errors
    /// Any failure. It leaves the authorization as it was.
    fn cancel(
        &self,
        cancellation: &CancelAuthorization,
    ) -> impl Future<Output = Result<Signature, SignerError>> + Send {
        let _ = cancellation;
        async {
            Err(SignerError::unavailable(
                "this signer cannot sign cancellations",
            ))
        }
    }
}

/// The kind of account a [`Signer`] signs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountKind {
    /// A key pair: 65-byte ECDSA signatures.
    Eoa,
    /// A contract that checks signatures itself (ERC-1271, ERC-6492): any bytes.
    Contract,
}

/// A signer gave no usable signature.
///
/// The message must not hold key material; bursar repeats it in its own errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SignerError {
    kind: SignerErrorKind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignerErrorKind {
    Rejected,
    Unavailable,
    Timeout,
    WrongSignature,
}

impl SignerError {
    /// The signer refused, for instance by its own policy or a person's word.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self {
            kind: SignerErrorKind::Rejected,
            message: message.into(),
        }
    }

    /// The signer could not be reached or is broken; nothing was signed.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            kind: SignerErrorKind::Unavailable,
            message: message.into(),
        }
    }

    /// The signer did not answer in time; it may have signed.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self {
            kind: SignerErrorKind::Timeout,
            message: message.into(),
        }
    }

    /// Whether the signer refused.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.kind == SignerErrorKind::Rejected
    }

    /// Whether a signature may exist all the same.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.kind == SignerErrorKind::Timeout
    }
}

impl From<WrongSignature> for SignerError {
    fn from(error: WrongSignature) -> Self {
        Self {
            kind: SignerErrorKind::WrongSignature,
            message: error.to_string(),
        }
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The object-safe twin of [`Signer`].
trait DynSigner: Send + Sync {
    fn address(&self) -> Address;
    fn account(&self) -> AccountKind;
    fn time_limit(&self) -> Duration;
    fn sign<'a>(
        &'a self,
        authorization: &'a TransferAuthorization,
    ) -> BoxFuture<'a, Result<Signature, SignerError>>;
    fn cancel<'a>(
        &'a self,
        cancellation: &'a CancelAuthorization,
    ) -> BoxFuture<'a, Result<Signature, SignerError>>;
}

impl<S: Signer> DynSigner for S {
    fn address(&self) -> Address {
        Signer::address(self)
    }

    fn account(&self) -> AccountKind {
        Signer::account(self)
    }

    fn time_limit(&self) -> Duration {
        Signer::time_limit(self)
    }

    fn sign<'a>(
        &'a self,
        authorization: &'a TransferAuthorization,
    ) -> BoxFuture<'a, Result<Signature, SignerError>> {
        Box::pin(Signer::sign(self, authorization))
    }

    fn cancel<'a>(
        &'a self,
        cancellation: &'a CancelAuthorization,
    ) -> BoxFuture<'a, Result<Signature, SignerError>> {
        Box::pin(Signer::cancel(self, cancellation))
    }
}

/// Any signer, shared.
#[derive(Clone)]
pub(crate) struct AnySigner {
    signer: Arc<dyn DynSigner>,
    /// The signer is this crate's own, whose signatures need no check: it signs the very digest that a check
    /// would take, with the key that its address is made of. A check costs twice what the signature does.
    local: bool,
}

impl AnySigner {
    pub(crate) fn new<S: Signer>(signer: S) -> Self {
        let kind = TypeId::of::<S>();
        let local = kind == TypeId::of::<LocalSigner>() || kind == TypeId::of::<Arc<LocalSigner>>();
        Self {
            signer: Arc::new(signer),
            local,
        }
    }

    pub(crate) fn address(&self) -> Address {
        self.signer.address()
    }

    pub(crate) fn time_limit(&self) -> Duration {
        self.signer.time_limit()
    }

    /// Asks for a signature within the signer's time and checks that it is one.
    pub(crate) async fn sign(
        &self,
        authorization: &TransferAuthorization,
    ) -> Result<Signature, SignerError> {
        let signature = self.in_time(self.signer.sign(authorization)).await?;
        match self.signer.account() {
            AccountKind::Eoa if self.local && authorization.from() == self.address() => {
                Ok(signature)
            }
            AccountKind::Eoa => Ok(check_signature(authorization, &signature)?),
            AccountKind::Contract => Ok(signature),
        }
    }

    /// Asks for the signature of a cancellation, as [`sign`](Self::sign) does for a payment.
    pub(crate) async fn cancel(
        &self,
        cancellation: &CancelAuthorization,
    ) -> Result<Signature, SignerError> {
        let signature = self.in_time(self.signer.cancel(cancellation)).await?;
        match self.signer.account() {
            AccountKind::Eoa => Ok(check(
                cancellation.digest(),
                cancellation.authorizer(),
                &signature,
            )?),
            AccountKind::Contract => Ok(signature),
        }
    }

    async fn in_time(
        &self,
        signing: BoxFuture<'_, Result<Signature, SignerError>>,
    ) -> Result<Signature, SignerError> {
        let limit = self.time_limit();
        tokio::time::timeout(limit, signing).await.map_err(|_| {
            SignerError::timeout(format!(
                "the signer did not answer within {} s",
                limit.as_secs()
            ))
        })?
    }
}

impl fmt::Debug for AnySigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.address())
    }
}

impl<S: Signer> Signer for Arc<S> {
    fn address(&self) -> Address {
        S::address(self)
    }

    fn account(&self) -> AccountKind {
        S::account(self)
    }

    fn time_limit(&self) -> Duration {
        S::time_limit(self)
    }

    async fn sign(&self, authorization: &TransferAuthorization) -> Result<Signature, SignerError> {
        S::sign(self, authorization).await
    }
    async fn cancel(&self, cancellation: &CancelAuthorization) -> Result<Signature, SignerError> {
        S::cancel(self, cancellation).await
    }
}

#[cfg(test)]
mod tests;

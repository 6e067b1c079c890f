//! The [`Signer`] trait and the signers of this crate.

mod authorization;
mod closure;
mod curve;
mod local;

#[cfg(feature = "alloy-signer")]
mod alloy_adapter;
#[cfg(feature = "keystore")]
mod keystore;
#[cfg(feature = "keystore")]
mod new_keystore;
#[cfg(all(fuzzing, feature = "keystore"))]
pub(crate) use keystore::open_cheap;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::Address;

pub use crate::eip3009::{
    CancelAuthorization, Signature, SignedCancellation, TransferAuthorization,
};
pub use crate::permit2::{Approval, PermitTransfer, TokenPermit};
pub use crate::sign_in::SignInMessage;
#[cfg(feature = "alloy-signer")]
pub use alloy_adapter::AlloySigner;
pub(crate) use authorization::Authorization;
pub use closure::{SignerFn, signer_fn};
pub use local::{KeyError, LocalSigner};

use crate::eip3009::{WrongSignature, check};

/// A signer of payments for one address.
///
/// bursar asks a signer to sign only a [`TransferAuthorization`] that the policy allowed and the
/// ledger reserved. It never asks for the signature of a bare hash. Payments by Permit2, which a policy must allow, are
/// signed by [`sign_permit`](Self::sign_permit). Implement `sign` as an `async fn`:
///
/// ```
/// use bursar::{Address, Signer};
/// use bursar::signer::{Signature, SignerError, TransferAuthorization};
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
    /// Returns the address that pays.
    fn address(&self) -> Address;

    /// Returns the kind of the account. The default is [`AccountKind::Eoa`].
    fn account(&self) -> AccountKind {
        AccountKind::Eoa
    }

    /// Returns the time limit of a signature, including a person's confirmation. The default is 30
    /// seconds.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Signs an authorization.
    ///
    /// # Errors
    /// Return [`SignerError::rejected`] or [`SignerError::unavailable`] if there is no signature.
    /// bursar then voids the purchase, and it counts against no limit. Return
    /// [`SignerError::timeout`] if a signature may exist. The purchase then counts until the
    /// authorization has expired.
    fn sign(
        &self,
        authorization: &TransferAuthorization,
    ) -> impl Future<Output = Result<Signature, SignerError>> + Send;

    /// Signs a transfer by Permit2. The default returns an error, so nothing is signed.
    ///
    /// bursar calls it only if the [policy](crate::Policy::transfer_methods) allows Permit2.
    ///
    /// # Errors
    /// As for [`sign`](Self::sign).
    fn sign_permit(
        &self,
        permit: &PermitTransfer,
    ) -> impl Future<Output = Result<Signature, SignerError>> + Send {
        let _ = permit;
        async {
            Err(SignerError::unavailable(
                "this signer cannot sign transfers by Permit2",
            ))
        }
    }

    /// Signs an approval of Permit2 by EIP-2612, which the seller's facilitator sends. The default returns an error, so
    /// nothing is signed.
    ///
    /// bursar calls it only if the [policy](crate::Policy::gas_sponsoring) allows gas sponsoring, just before
    /// [`sign_permit`](Self::sign_permit) for the same payment.
    ///
    /// # Errors
    /// As for [`sign`](Self::sign).
    fn sign_token_permit(
        &self,
        permit: &TokenPermit,
    ) -> impl Future<Output = Result<Signature, SignerError>> + Send {
        let _ = permit;
        async {
            Err(SignerError::unavailable(
                "this signer cannot sign approvals by EIP-2612",
            ))
        }
    }

    /// Signs the transaction that approves Permit2. The default returns an error, so nothing is signed.
    ///
    /// bursar calls it for the command `bursar wallet approve --send`. For a payment, bursar calls it only if the
    /// [policy](crate::Policy::sponsored_transactions) allows a cost and [`signs_approvals`](Self::signs_approvals) returns
    /// `true`, just before [`sign_permit`](Self::sign_permit).
    ///
    /// # Errors
    /// As for [`sign`](Self::sign).
    fn sign_approval(
        &self,
        approval: &Approval,
    ) -> impl Future<Output = Result<Signature, SignerError>> + Send {
        let _ = approval;
        async {
            Err(SignerError::unavailable(
                "this signer cannot sign transactions",
            ))
        }
    }

    /// Returns whether [`sign_approval`](Self::sign_approval) can sign. The default is `false`: bursar then denies a payment
    /// that would need such a transaction, and asks for no signature.
    fn signs_approvals(&self) -> bool {
        false
    }

    /// Signs the cancellation of a nonce of this address. The default returns an error.
    ///
    /// # Errors
    /// Return any [`SignerError`] if there is no signature. The payment stays valid.
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

    /// Signs the text of a sign-in with the prefix of EIP-191, as `personal_sign` does. The default returns an error, and
    /// bursar then pays instead of signing in.
    ///
    /// bursar asks for it only where the [policy](crate::Policy::sign_in) allows a sign-in. The signature shows the seller
    /// who comes back. It moves no money.
    ///
    /// # Errors
    /// Return any [`SignerError`] if there is no signature.
    fn sign_in(
        &self,
        message: &SignInMessage,
    ) -> impl Future<Output = Result<Signature, SignerError>> + Send {
        let _ = message;
        async { Err(SignerError::unavailable("this signer cannot sign in")) }
    }
}

/// The kind of account that a [`Signer`] signs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountKind {
    /// A key pair with ECDSA signatures of 65 bytes. bursar checks that the address made each one.
    Eoa,
    /// A contract that checks signatures itself (ERC-1271, ERC-6492). A signature is any bytes. With a
    /// [chain reader](crate::ClientBuilder::chain), bursar asks the contract about each one before it leaves.
    Contract,
}

/// The error of a signer without a usable signature.
///
/// bursar repeats the message in its own errors. Do not put key material into it.
///
/// ```
/// use bursar::signer::SignerError;
///
/// let error = SignerError::rejected("the owner pressed no");
/// assert!(error.is_rejected() && !error.is_timeout());
/// assert_eq!(error.to_string(), "the owner pressed no");
/// ```
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
    /// Creates the error of a signer, or a person, that refused. Nothing was signed.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self {
            kind: SignerErrorKind::Rejected,
            message: message.into(),
        }
    }

    /// Creates the error of a signer that is broken or cannot be reached. Nothing was signed.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            kind: SignerErrorKind::Unavailable,
            message: message.into(),
        }
    }

    /// Creates the error of a signer that did not answer in time. It may have signed.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self {
            kind: SignerErrorKind::Timeout,
            message: message.into(),
        }
    }

    /// Creates the error of a signature that its wallet does not accept. It did not leave this process.
    pub(crate) const fn wrong(message: String) -> Self {
        Self {
            kind: SignerErrorKind::WrongSignature,
            message,
        }
    }

    /// Returns whether the signer refused.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.kind == SignerErrorKind::Rejected
    }

    /// Returns whether a signature may exist.
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

/// The object-safe form of [`Signer`].
trait DynSigner: Send + Sync {
    fn address(&self) -> Address;
    fn account(&self) -> AccountKind;
    fn time_limit(&self) -> Duration;
    fn sign<'a>(
        &'a self,
        authorization: &'a TransferAuthorization,
    ) -> BoxFuture<'a, Result<Signature, SignerError>>;
    fn sign_permit<'a>(
        &'a self,
        permit: &'a PermitTransfer,
    ) -> BoxFuture<'a, Result<Signature, SignerError>>;
    fn sign_token_permit<'a>(
        &'a self,
        permit: &'a TokenPermit,
    ) -> BoxFuture<'a, Result<Signature, SignerError>>;
    fn sign_approval<'a>(
        &'a self,
        approval: &'a Approval,
    ) -> BoxFuture<'a, Result<Signature, SignerError>>;
    fn signs_approvals(&self) -> bool;
    fn cancel<'a>(
        &'a self,
        cancellation: &'a CancelAuthorization,
    ) -> BoxFuture<'a, Result<Signature, SignerError>>;
    fn sign_in<'a>(
        &'a self,
        message: &'a SignInMessage,
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

    fn sign_permit<'a>(
        &'a self,
        permit: &'a PermitTransfer,
    ) -> BoxFuture<'a, Result<Signature, SignerError>> {
        Box::pin(Signer::sign_permit(self, permit))
    }

    fn sign_token_permit<'a>(
        &'a self,
        permit: &'a TokenPermit,
    ) -> BoxFuture<'a, Result<Signature, SignerError>> {
        Box::pin(Signer::sign_token_permit(self, permit))
    }

    fn sign_approval<'a>(
        &'a self,
        approval: &'a Approval,
    ) -> BoxFuture<'a, Result<Signature, SignerError>> {
        Box::pin(Signer::sign_approval(self, approval))
    }

    fn signs_approvals(&self) -> bool {
        Signer::signs_approvals(self)
    }

    fn cancel<'a>(
        &'a self,
        cancellation: &'a CancelAuthorization,
    ) -> BoxFuture<'a, Result<Signature, SignerError>> {
        Box::pin(Signer::cancel(self, cancellation))
    }

    fn sign_in<'a>(
        &'a self,
        message: &'a SignInMessage,
    ) -> BoxFuture<'a, Result<Signature, SignerError>> {
        Box::pin(Signer::sign_in(self, message))
    }
}

/// A shared signer of any type.
#[derive(Clone)]
pub(crate) struct AnySigner {
    signer: Arc<dyn DynSigner>,
    /// The signer again, if it is a [`LocalSigner`], whose key is in this process.
    ///
    /// It signs without waiting, so the ledger can have it sign inside of a transaction. Its signatures need no check: it
    /// signs the digest that a check computes, with the key of its address. A check takes twice as long as the signature.
    local: Option<Arc<LocalSigner>>,
}

impl AnySigner {
    pub(crate) fn new<S: Signer>(signer: S) -> Self {
        let signer = Arc::new(signer);
        let any = || Arc::clone(&signer) as Arc<dyn Any + Send + Sync>;
        let shared = || any().downcast::<Arc<LocalSigner>>().ok();
        let local = any().downcast::<LocalSigner>().ok();
        Self {
            local: local.or_else(|| shared().map(|shared| Arc::clone(&*shared))),
            signer,
        }
    }

    /// Returns the signer if its key is in this process: it signs without waiting.
    pub(crate) const fn local(&self) -> Option<&Arc<LocalSigner>> {
        self.local.as_ref()
    }

    pub(crate) fn address(&self) -> Address {
        self.signer.address()
    }

    pub(crate) fn time_limit(&self) -> Duration {
        self.signer.time_limit()
    }

    /// Returns whether a contract checks the signatures.
    pub(crate) fn is_contract(&self) -> bool {
        self.signer.account() == AccountKind::Contract
    }

    /// Asks for a signature within the signer's time limit, and checks it.
    pub(crate) async fn sign(
        &self,
        authorization: &Authorization,
    ) -> Result<Signature, SignerError> {
        let signing = match authorization {
            Authorization::Transfer(transfer) => self.signer.sign(transfer),
            Authorization::Permit(permit) => self.signer.sign_permit(permit),
        };
        let signature = self.in_time(signing).await?;
        match self.signer.account() {
            AccountKind::Eoa if self.local.is_some() && authorization.from() == self.address() => {
                Ok(signature)
            }
            AccountKind::Eoa => Ok(check(
                authorization.digest(),
                authorization.from(),
                &signature,
            )?),
            AccountKind::Contract => Ok(signature),
        }
    }

    /// Asks for the signature of an approval by EIP-2612 within the signer's time limit, and checks it.
    pub(crate) async fn sign_token_permit(
        &self,
        permit: &TokenPermit,
    ) -> Result<Signature, SignerError> {
        let signature = self.in_time(self.signer.sign_token_permit(permit)).await?;
        Ok(check(permit.digest(), permit.owner(), &signature)?)
    }

    /// Returns whether the signer signs transactions that approve Permit2.
    pub(crate) fn signs_approvals(&self) -> bool {
        self.signer.signs_approvals()
    }

    /// Asks for the signature of a transaction that approves Permit2 within the signer's time limit, and checks it.
    pub(crate) async fn sign_approval(
        &self,
        approval: &Approval,
        owner: Address,
    ) -> Result<Signature, SignerError> {
        let signature = self.in_time(self.signer.sign_approval(approval)).await?;
        Ok(check(approval.digest(), owner, &signature)?)
    }

    /// Asks for the signature of a cancellation within the signer's time limit, and checks it.
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

    /// Asks for the signature of a sign-in within the signer's time limit, and checks it.
    pub(crate) async fn sign_in(&self, message: &SignInMessage) -> Result<Signature, SignerError> {
        let signature = self.in_time(self.signer.sign_in(message)).await?;
        match self.signer.account() {
            AccountKind::Eoa => Ok(check(message.digest(), message.address(), &signature)?),
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

    async fn sign_permit(&self, permit: &PermitTransfer) -> Result<Signature, SignerError> {
        S::sign_permit(self, permit).await
    }

    async fn sign_token_permit(&self, permit: &TokenPermit) -> Result<Signature, SignerError> {
        S::sign_token_permit(self, permit).await
    }

    async fn sign_approval(&self, approval: &Approval) -> Result<Signature, SignerError> {
        S::sign_approval(self, approval).await
    }

    fn signs_approvals(&self) -> bool {
        S::signs_approvals(self)
    }

    async fn cancel(&self, cancellation: &CancelAuthorization) -> Result<Signature, SignerError> {
        S::cancel(self, cancellation).await
    }

    async fn sign_in(&self, message: &SignInMessage) -> Result<Signature, SignerError> {
        S::sign_in(self, message).await
    }
}

#[cfg(test)]
mod tests;

//! EIP-3009: the signed messages, their nonces and their signatures.

mod authorization;
mod cancellation;
mod purchase_id;
mod recover;
mod signature;
mod typed_data;

pub use authorization::TransferAuthorization;
pub use cancellation::{CancelAuthorization, SignedCancellation};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use purchase_id::random_hex;
pub use purchase_id::{PurchaseId, PurchaseIdError};
pub(crate) use purchase_id::{nonce, two_random_hex};
#[cfg(test)]
pub(crate) use recover::check_signature;
#[cfg(test)]
pub(crate) use recover::tests::authorization as test_authorization;
pub(crate) use recover::{WrongSignature, check, recovered};
pub use signature::Signature;
pub(crate) use signature::address_of;
#[cfg(feature = "secp256k1")]
pub(crate) use signature::address_of_point;
pub(crate) use typed_data::{json as typed_json, typed_digest};

//! Purchase ids live in `eip3009`, because a nonce follows from one.

pub use crate::eip3009::{PurchaseId, PurchaseIdError};
pub(crate) use crate::eip3009::{nonce, random_hex};

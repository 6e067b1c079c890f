//! The names that most programs need.
//!
//! ```
//! use bursar::prelude::*;
//!
//! let policy = Policy::new().allow_network("base").per_payment(usd!("0.05"));
//! assert!(policy.check().is_ok());
//! ```

pub use crate::usd;
pub use crate::{
    Client, Error, ErrorKind, Ledger, LocalSigner, PaymentStatus, Policy, PurchaseOptions, Receipt,
    ResponseExt,
};

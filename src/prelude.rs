//! The names that most programs need.
//!
//! ```
//! use bursar::prelude::*;
//!
//! let policy = Policy::new().allow_network("base").per_payment(usd!("0.05"));
//! assert!(policy.check().is_ok());
//! ```

pub use crate::error::{Error, ErrorKind, PaymentStatus};
pub use crate::http::{Client, ResponseExt};
pub use crate::ledger::Ledger;
pub use crate::policy::Policy;
pub use crate::request::PurchaseOptions;
pub use crate::signer::LocalSigner;
pub use crate::usd;
pub use crate::x402::Receipt;

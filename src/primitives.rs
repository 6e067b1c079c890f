//! The types of Ethereum that bursar's API uses, from `alloy-primitives`.
//!
//! ```
//! use bursar::primitives::{Address, U256, address};
//!
//! const SELLER: Address = address!("0x209693Bc6afc0C5328bA36FaF03C514EF312287C");
//! assert_eq!(U256::from(10_000_u64).to_string(), "10000");
//! assert!(!SELLER.is_zero());
//! ```

pub use alloy::primitives::{Address, B256, U256, address};

//! Uniswap's Permit2: the signed messages of the two x402 proxies, and its approval by the wallet.
//!
//! A permit names a proxy as its spender. The proxy can move the token only as the witness of the permit says: to the
//! payee, and for `upto` only when the named facilitator calls it.

mod allowance;
mod approval;
mod token_permit;
mod transfer;

use alloy::primitives::{Address, address};

pub use allowance::MissingAllowance;
pub use approval::{Approval, TransactionTerms};
pub use token_permit::TokenPermit;
pub use transfer::PermitTransfer;
#[cfg(test)]
pub(crate) use transfer::domain_separator;

/// The contract that holds the approvals of payers. It has the same address on every chain.
pub(crate) const PERMIT2: Address = address!("000000000022D473030F116dDEE9F6B43aC78BA3");
/// The proxy that moves exactly the permitted amount, for the scheme `exact`.
pub(crate) const EXACT_PROXY: Address = address!("402085c248EeA27D92E8b30b2C58ed07f9E20001");
/// The proxy that moves at most the permitted amount, for the scheme `upto`.
pub(crate) const UPTO_PROXY: Address = address!("4020A4f3b7b90ccA423B9fabCc0CE57C6C240002");

//! Dollars, tokens, amounts of tokens, and the chains of tokens.

mod address;
mod asset;
mod network;
mod registry;
mod token_amount;
mod usd;

pub(crate) use address::{checksummed, parse_address};
pub use asset::{Asset, TransferMethod};
pub(crate) use asset::{concat_words, pegged_dollars};
pub use network::{Network, ParseNetworkError};
pub use registry::AssetRegistry;
pub use token_amount::TokenAmount;
#[cfg(feature = "toml")]
pub(crate) use token_amount::parse_coins;
pub(crate) use token_amount::{format_coins, format_units};
pub use usd::{ParseUsdError, Usd};

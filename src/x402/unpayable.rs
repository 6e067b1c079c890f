//! The reasons why bursar cannot sign for an offer, and the reading of its numbers.

use std::time::Duration;

use alloy::primitives::U256;
use serde_json::value::RawValue;

use super::quote::CIRCLE_GATEWAY;
use crate::money::{Asset, Network};
use crate::text;

/// The shortest validity period that official facilitators accept, in seconds.
const SHORTEST_WINDOW: u64 = 6;

/// The reason why bursar cannot sign for an offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unpayable {
    /// A field is missing or has the wrong type.
    #[error("the offer cannot be read: {0}")]
    Malformed(String),
    /// The scheme is neither `exact` nor, in version 2, `upto`.
    #[error("scheme `{0}` is not supported; expected `exact`, or `upto` in version 2")]
    Scheme(String),
    /// The network is not an EVM chain.
    #[error("network `{0}` is not a known EVM network")]
    Network(String),
    /// `amount` is not a decimal integer without leading zeros, or exceeds 2²⁵⁶−1.
    #[error("amount `{0}` is not a canonical unsigned 256-bit integer")]
    Amount(String),
    /// The offer has no amount.
    #[error("the offer names no amount")]
    NoAmount,
    /// The offer has a member twice, with different values, such as `amount` and `maxAmountRequired`.
    #[error("the offer contradicts itself: {0}")]
    Contradiction(String),
    /// The offer belongs to the batched scheme of Circle's Gateway.
    #[error(
        "the offer is for Circle Gateway's batched scheme (`{CIRCLE_GATEWAY}`), which bursar does not sign"
    )]
    CircleGateway,
    /// The header of the payment would be longer than most servers take. The seller must shorten its terms.
    #[error(
        "the payment header would have about {length} bytes; many servers take 16 KiB of headers"
    )]
    HeaderTooLong {
        /// The length of the shortest possible header, in bytes.
        length: usize,
    },
    /// The list has more offers than bursar reads.
    #[error("{0} further offers were not read")]
    LeftOut(usize),
    /// The token is not in the registry.
    #[error("token `{asset}` on {network} is not in the asset registry")]
    Asset {
        /// The chain.
        network: Network,
        /// The address as the seller wrote it.
        asset: String,
    },
    /// `payTo` is not an address, or its checksum is wrong.
    #[error("payTo `{0}` is not an address")]
    Payee(String),
    /// bursar cannot sign `extra.assetTransferMethod` for this token.
    #[error(
        "transfer method `{0}` is not supported for this token and version; expected `eip3009`, or `permit2` in version 2"
    )]
    TransferMethod(String),
    /// `extra.facilitatorAddress` of an `upto` offer is missing, not an address, or the zero address.
    #[error(
        "scheme `upto` is not supported without the address of its facilitator; `extra.facilitatorAddress` is `{0}`"
    )]
    Facilitator(String),
    /// `extra.paymentFlow` is unknown.
    #[error("payment flow `{0}` is unknown")]
    Flow(String),
    /// The seller names another EIP-712 domain than the token has. The chain would refuse the signature.
    #[error("the offer has the EIP-712 domain `{found}` for {asset}; the token has `{expected}`")]
    Domain {
        /// The token.
        asset: Asset,
        /// The name or version in the registry.
        expected: String,
        /// The name or version in the offer.
        found: String,
    },
    /// A version 1 offer has the scheme and network of an earlier one. The seller would match its
    /// payment with the earlier offer.
    #[error(
        "an earlier offer has the same scheme and network, and version 1 cannot tell them apart"
    )]
    NotFirst,
    /// `maxTimeoutSeconds` is not a positive number.
    #[error("maxTimeoutSeconds `{0}` is not a positive number")]
    Window(String),
    /// `maxTimeoutSeconds` is shorter than facilitators accept.
    #[error("maxTimeoutSeconds {0} is less than the {SHORTEST_WINDOW} s that facilitators need")]
    WindowTooShort(u64),
}

pub(super) fn read_amount(written: &str) -> Result<U256, Unpayable> {
    parse_canonical(written).ok_or_else(|| Unpayable::Amount(text::excerpt(written)))
}

/// Parses `0|[1-9][0-9]*`, at most 2²⁵⁶−1.
fn parse_canonical(written: &str) -> Option<U256> {
    let digits =
        (1..=78).contains(&written.len()) && written.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = written.len() > 1 && written.starts_with('0');
    (digits && !leading_zero)
        .then(|| U256::from_str_radix(written, 10).ok())
        .flatten()
}

/// Reads whole seconds, also in quotes, and drops a fraction.
pub(super) fn read_window(written: &RawValue) -> Result<Duration, Unpayable> {
    let malformed = || Unpayable::Window(text::excerpt(written.get()));
    let unquoted = written.get().trim_matches('"');
    let number: serde_json::Number = serde_json::from_str(unquoted).map_err(|_| malformed())?;
    let seconds = match number.as_u64() {
        Some(whole) => whole,
        None => number
            .as_f64()
            .filter(|seconds| *seconds > 0.0)
            .map(truncate)
            .ok_or_else(malformed)?,
    };
    match seconds {
        0 if number.as_u64() == Some(0) => Err(malformed()),
        0..SHORTEST_WINDOW => Err(Unpayable::WindowTooShort(seconds)),
        _ => Ok(Duration::from_secs(seconds)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and only positive numbers come here"
)]
const fn truncate(seconds: f64) -> u64 {
    seconds as u64
}

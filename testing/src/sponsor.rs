//! `eip2612GasSponsoring`: an approval of Permit2 that the facilitator sends for the buyer.

use alloy::primitives::{Address, U256};
use serde::Deserialize;
use serde_json::Value;

use crate::chain::{Chain, Token};
use crate::permit::{PERMIT2, Permit};
use crate::typed_data::{Domain, bind, hash_struct, number, recover};

/// The name of the extension.
pub(crate) const EXTENSION: &str = "eip2612GasSponsoring";
const PERMIT_TYPE: &str =
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)";

#[derive(Deserialize)]
struct Info {
    from: Address,
    asset: Address,
    spender: Address,
    amount: String,
    nonce: String,
    deadline: String,
    signature: String,
    version: String,
}

/// Runs the approval in a payment, if there is one. The error is a code of the official facilitator.
///
/// The facilitator approves and settles in one transaction. Here the approval comes first, as the simulation needs it.
pub(crate) fn approve(
    chain: &mut Chain,
    token: Token,
    domain: &Domain<'_>,
    permit: &Permit,
    payment: &Value,
    now: u64,
) -> Result<(), &'static str> {
    const FORMAT: &str = "invalid_eip2612_extension_format";
    let info = payment.pointer(&format!("/extensions/{EXTENSION}/info"));
    let Some(info) = info.filter(|info| info.get("signature").is_some()) else {
        return Ok(());
    };
    let info = Info::deserialize(info).map_err(|_| FORMAT)?;
    let units = |text: &str| U256::from_str_radix(text, 10).map_err(|_| FORMAT);
    let (amount, nonce, deadline) = (
        units(&info.amount)?,
        units(&info.nonce)?,
        units(&info.deadline)?,
    );
    let signature = info.signature.strip_prefix("0x").unwrap_or_default();
    let signature: [u8; 65] = alloy::primitives::hex::decode(signature)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(FORMAT)?;
    for (holds, error) in [
        (info.version == "1", FORMAT),
        (info.from == permit.from, "eip2612_from_mismatch"),
        (info.asset == token.contract, "eip2612_asset_mismatch"),
        (info.spender == PERMIT2, "eip2612_spender_not_permit2"),
        (amount == permit.amount, "permit2_2612_amount_mismatch"),
        (deadline >= U256::from(now), "eip2612_deadline_expired"),
    ] {
        if !holds {
            return Err(error);
        }
    }
    let words = [
        info.from.into_word(),
        PERMIT2.into_word(),
        number(amount),
        number(nonce),
        number(deadline),
    ];
    let digest = bind(domain.separator(), hash_struct(PERMIT_TYPE, words));
    let used = chain.token_permits.entry((token, info.from)).or_default();
    if recover(digest, &signature) != Some(info.from) || nonce != U256::from(*used) {
        return Err("permit2_simulation_failed");
    }
    *used = used.saturating_add(1);
    chain.token_allowances.insert((token, info.from), amount);
    Ok(())
}

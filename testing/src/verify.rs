//! What the official seller and facilitator check of a payment, in their order and in their words.

use alloy::primitives::{Address, U256};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::chain::Token;
use super::payment::{Authorization, Presented};
use super::typed_data::{Domain, recover};
use bursar::Network;
use bursar::money::AssetRegistry;
use bursar::x402::Version;

/// Why a payment is refused, spelled as official sellers spell it.
pub(super) type Reason = &'static str;

/// Facilitators want this long to settle, in seconds.
const SETTLING_TIME: u64 = 6;

/// The offer that the payment takes up, and what it authorizes, all checked but for what the chain
/// knows.
pub(super) fn verify(
    payment: &Presented,
    offers: &[Box<RawValue>],
    extensions: &Map<String, Value>,
    now: u64,
) -> Result<(Token, Authorization), Reason> {
    let json = payment.json.as_ref().ok_or("invalid_payload")?;
    if json.get("x402Version").and_then(Value::as_u64) != Some(u64::from(payment.version.number()))
    {
        return Err("invalid_x402_version");
    }
    let offer =
        taken_up(json, offers, payment.version).ok_or("No matching payment requirements")?;
    if payment.version == Version::V2 {
        check_echo(extensions, json.get("extensions"))?;
    }
    let offer = Requirements::deserialize(&offer).map_err(|_| "invalid_payment_requirements")?;
    let authorization = payment.authorization.ok_or("invalid_payload")?;
    let token = check_signature(&offer, payment, &authorization)?;
    check_terms(&offer, payment.version, &authorization, now)?;
    check_domain(&offer, token)?;
    Ok((token, authorization))
}

/// The fields of an offer that an `exact` payment is measured by.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Requirements {
    scheme: String,
    network: String,
    #[serde(alias = "maxAmountRequired")]
    amount: String,
    asset: Address,
    pay_to: Address,
    #[serde(default)]
    extra: Option<Extra>,
}

#[derive(Deserialize)]
struct Extra {
    name: Option<String>,
    version: Option<String>,
}

impl Requirements {
    /// The EIP-712 domain as the seller states it.
    fn domain(&self) -> Option<(&str, &str)> {
        let extra = self.extra.as_ref()?;
        Some((extra.name.as_deref()?, extra.version.as_deref()?))
    }
}

/// The offer that the buyer means. Version 2 echoes it; version 1 names scheme and network, and
/// means the first of these.
fn taken_up(json: &Value, offers: &[Box<RawValue>], version: Version) -> Option<Value> {
    let mut offers = offers
        .iter()
        .filter_map(|offer| serde_json::from_str::<Value>(offer.get()).ok());
    match version {
        Version::V1 => {
            let same = |offer: &Value, field: &str| {
                offer
                    .get(field)
                    .is_some_and(|value| Some(value) == json.get(field))
            };
            offers.find(|offer| same(offer, "scheme") && same(offer, "network"))
        }
        _ => {
            let accepted = json.get("accepted")?;
            offers.find(|offer| is_echo(offer, accepted))
        }
    }
}

/// Every field the same, but for `extra`, to which a buyer may add.
fn is_echo(offer: &Value, accepted: &Value) -> bool {
    let (Some(mut offer), Some(mut accepted)) =
        (offer.as_object().cloned(), accepted.as_object().cloned())
    else {
        return false;
    };
    let (ours, theirs) = (offer.remove("extra"), accepted.remove("extra"));
    offer == accepted
        && ours.is_none_or(|ours| theirs.is_some_and(|theirs| contains(&theirs, &ours)))
}

/// Whether `whole` has everything that `part` has.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part))),
        _ => whole == part,
    }
}

/// A buyer may leave extensions out altogether, and add to those it sends.
fn check_echo(declared: &Map<String, Value>, sent: Option<&Value>) -> Result<(), Reason> {
    let Some(sent) = sent.and_then(Value::as_object) else {
        return Ok(());
    };
    let kept = sent.iter().all(|(name, extension)| {
        let info = declared
            .get(name)
            .and_then(|declaration| declaration.get("info"));
        info.is_none_or(|info| {
            extension
                .get("info")
                .is_some_and(|echo| contains(echo, info))
        })
    });
    if kept {
        Ok(())
    } else {
        Err("extension_echo_mismatch")
    }
}

/// The token, if the payer signed for it.
fn check_signature(
    offer: &Requirements,
    payment: &Presented,
    authorization: &Authorization,
) -> Result<Token, Reason> {
    if offer.scheme != "exact" {
        return Err("invalid_exact_evm_scheme");
    }
    let (name, version) = offer
        .domain()
        .ok_or("invalid_exact_evm_missing_eip712_domain")?;
    let network: Network = offer
        .network
        .parse()
        .map_err(|_| "invalid_exact_evm_network_mismatch")?;
    let signature = payment
        .signature()
        .ok_or("invalid_exact_evm_failed_to_parse_signature")?;
    let domain = Domain {
        name,
        version,
        chain_id: network.chain_id(),
        contract: offer.asset,
    };
    if recover(domain.digest(authorization), &signature) != Some(authorization.from) {
        return Err("invalid_exact_evm_signature");
    }
    Ok(Token {
        network,
        contract: offer.asset,
    })
}

fn check_terms(
    offer: &Requirements,
    version: Version,
    authorization: &Authorization,
    now: u64,
) -> Result<(), Reason> {
    if authorization.to != offer.pay_to {
        return Err("invalid_exact_evm_recipient_mismatch");
    }
    if authorization.valid_before < now.saturating_add(SETTLING_TIME) {
        return Err("invalid_exact_evm_payload_authorization_valid_before");
    }
    if authorization.valid_after > now {
        return Err("invalid_exact_evm_payload_authorization_valid_after");
    }
    if U256::from_str_radix(&offer.amount, 10).ok() != Some(authorization.value) {
        return Err(match version {
            Version::V1 => "invalid_exact_evm_authorization_value",
            _ => "invalid_exact_evm_payload_authorization_value_mismatch",
        });
    }
    Ok(())
}

/// A seller's mistake about a token's domain, which its contract would refuse.
fn check_domain(offer: &Requirements, token: Token) -> Result<(), Reason> {
    let known = AssetRegistry::stablecoins().find(token.network, token.contract);
    match (known, offer.domain()) {
        (Some(asset), Some((name, _))) if asset.eip712_name() != name => {
            Err("invalid_exact_evm_token_name_mismatch")
        }
        (Some(asset), Some((_, version))) if asset.eip712_version() != version => {
            Err("invalid_exact_evm_token_version_mismatch")
        }
        _ => Ok(()),
    }
}

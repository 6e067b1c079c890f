//! The checks of official sellers and facilitators, in their order and with their error codes.

use alloy::primitives::{Address, U256};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::chain::Token;
use crate::payment::{Authorization, PresentedPayment, Signed, SignedPermit};
use crate::permit::{EXACT_PROXY, Permit, UPTO_PROXY};
use crate::sign_in::{DYNAMIC, SIGN_IN_WITH_X};
use crate::sponsorship;
use crate::typed_data::{Domain, recover};
use bursar::Network;
use bursar::money::AssetRegistry;
use bursar::x402::Version;

/// The reason why a payment is refused, as official sellers write it.
pub(crate) type Reason = &'static str;

/// The time that facilitators need to settle, in seconds.
pub(crate) const SETTLING_TIME: u64 = 6;

/// The longest description that Coinbase's facilitator takes, in UTF-16 code units.
const LONGEST_DESCRIPTION: usize = 500;

/// Verifies a payment against the offers. Returns its token and the signed message.
///
/// The caller must check the nonce and the balance with the chain.
pub(crate) fn verify(
    payment: &PresentedPayment,
    offers: &[Box<RawValue>],
    extensions: &Map<String, Value>,
    now: u64,
) -> Result<(Token, Signed), Reason> {
    let json = payment.json.as_ref().ok_or("invalid_payload")?;
    if json.get("x402Version").and_then(Value::as_u64) != Some(u64::from(payment.version.number()))
    {
        return Err("invalid_x402_version");
    }
    let offer =
        matching_offer(json, offers, payment.version).ok_or("No matching payment requirements")?;
    if payment.version == Version::V2 {
        check_echo(extensions, json.get("extensions"))?;
    }
    let description = json.pointer("/resource/description");
    let description = description.and_then(Value::as_str).unwrap_or_default();
    if description.encode_utf16().count() > LONGEST_DESCRIPTION {
        return Err("invalid_payload");
    }
    let offer = Requirements::read(&offer).ok_or("invalid_payment_requirements")?;
    // The facilitator looks at the payload, and not at the transfer method of the offer.
    let is_permit = json.pointer("/payload/permit2Authorization").is_some();
    if offer.scheme == "upto" || (offer.scheme == "exact" && is_permit) {
        return check_permit(&offer, payment, now);
    }
    let authorization = payment.authorization.ok_or("invalid_payload")?;
    let token = check_signature(&offer, payment, &authorization)?;
    check_terms(&offer, payment.version, &authorization, now)?;
    check_domain(&offer, token)?;
    Ok((token, Signed::Transfer(authorization)))
}

/// Verifies a payment through Permit2.
fn check_permit(
    offer: &Requirements,
    payment: &PresentedPayment,
    now: u64,
) -> Result<(Token, Signed), Reason> {
    let upto = offer.scheme == "upto";
    let permit = payment.permit.ok_or("unsupported_payload_type")?;
    if payment.version == Version::V1 || (upto && permit.facilitator.is_none()) {
        return Err("unsupported_payload_type");
    }
    let permit = Permit {
        facilitator: permit.facilitator.filter(|_| upto),
        ..permit
    };
    let (proxy, wrong_network) = if upto {
        (UPTO_PROXY, "invalid_upto_evm_network_mismatch")
    } else {
        (EXACT_PROXY, "invalid_exact_evm_network_mismatch")
    };
    let network: Network = offer.network.parse().map_err(|_| wrong_network)?;
    if permit.spender != proxy {
        return Err("invalid_permit2_spender");
    }
    if permit.to != offer.pay_to {
        return Err("invalid_permit2_recipient_mismatch");
    }
    if upto && permit.facilitator != offer.facilitator() {
        return Err("upto_facilitator_mismatch");
    }
    if permit.deadline < now.saturating_add(SETTLING_TIME) {
        return Err("permit2_deadline_expired");
    }
    if permit.valid_after > now {
        return Err("permit2_not_yet_valid");
    }
    if U256::from_str_radix(&offer.amount, 10).ok() != Some(permit.amount) {
        return Err("permit2_amount_mismatch");
    }
    if permit.token != offer.asset {
        return Err("permit2_token_mismatch");
    }
    let signature = payment.signature().ok_or("invalid_permit2_signature")?;
    if recover(permit.digest(network.chain_id()), &signature) != Some(permit.from) {
        return Err("invalid_permit2_signature");
    }
    let token = Token {
        network,
        contract: offer.asset,
    };
    let separator = offer.domain().map(|(name, version)| {
        let domain = Domain {
            name,
            version,
            chain_id: network.chain_id(),
            contract: offer.asset,
        };
        domain.separator()
    });
    let json = payment.json.as_ref().ok_or("invalid_payload")?;
    let sponsorship = sponsorship::read(json, &permit, separator, now)?;
    let signed = SignedPermit {
        permit,
        signature,
        sponsorship,
    };
    Ok((token, Signed::Permit(Box::new(signed))))
}

/// The fields of an offer that decide whether a payment matches it.
struct Requirements {
    scheme: String,
    network: String,
    amount: String,
    asset: Address,
    pay_to: Address,
    extra: Option<Extra>,
}

#[derive(Deserialize)]
struct Extra {
    name: Option<String>,
    version: Option<String>,
    #[serde(rename = "facilitatorAddress")]
    facilitator: Option<Value>,
}

impl Requirements {
    /// Reads an offer, also one with names in snake case or an amount that is a number.
    fn read(offer: &Value) -> Option<Self> {
        let first = |names: &[&str]| names.iter().find_map(|name| offer.get(name));
        let text = |names: &[&str]| match first(names)? {
            Value::String(text) => Some(text.clone()),
            number => number.as_u64().map(|number| number.to_string()),
        };
        Some(Self {
            scheme: text(&["scheme"])?,
            network: text(&["network"])?,
            amount: text(&["amount", "maxAmountRequired", "max_amount_required"])?,
            asset: text(&["asset"])?.parse().ok()?,
            pay_to: text(&["payTo", "pay_to"])?.parse().ok()?,
            extra: first(&["extra"]).and_then(|extra| Extra::deserialize(extra).ok()),
        })
    }

    /// Returns the facilitator that the seller names.
    fn facilitator(&self) -> Option<Address> {
        let facilitator = self.extra.as_ref()?.facilitator.as_ref()?;
        facilitator.as_str()?.parse().ok()
    }

    /// Returns name and version of the EIP-712 domain that the seller states.
    fn domain(&self) -> Option<(&str, &str)> {
        let extra = self.extra.as_ref()?;
        Some((extra.name.as_deref()?, extra.version.as_deref()?))
    }
}

/// Returns the offer that the payment is for.
///
/// A payment of version 2 repeats the offer. A payment of version 1 names scheme and network, and is for the first offer
/// with these.
fn matching_offer(json: &Value, offers: &[Box<RawValue>], version: Version) -> Option<Value> {
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

/// Returns whether all fields are equal. A buyer may add fields to `extra`.
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

/// Returns whether `whole` contains all fields of `part`, at every depth.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part))),
        _ => whole == part,
    }
}

/// Checks the extensions that the buyer repeats. A buyer may leave out all of them, and may add fields.
fn check_echo(declared: &Map<String, Value>, sent: Option<&Value>) -> Result<(), Reason> {
    let Some(sent) = sent.and_then(Value::as_object) else {
        return Ok(());
    };
    let kept = sent.iter().all(|(name, extension)| {
        let info = declared
            .get(name)
            .and_then(|declaration| declaration.get("info"));
        let mut info = info.cloned();
        if name == SIGN_IN_WITH_X
            && let Some(info) = info.as_mut().and_then(Value::as_object_mut)
        {
            DYNAMIC.iter().for_each(|field| drop(info.remove(*field)));
        }
        info.is_none_or(|info| {
            extension
                .get("info")
                .is_some_and(|echo| contains(echo, &info))
        })
    });
    if kept {
        Ok(())
    } else {
        Err("extension_echo_mismatch")
    }
}

/// Returns the token, if the payer signed for it.
fn check_signature(
    offer: &Requirements,
    payment: &PresentedPayment,
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

/// Checks the seller's domain against the registry. The contract would refuse a payment with a wrong domain.
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

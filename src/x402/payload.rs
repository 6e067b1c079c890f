//! The content of the header that carries a payment.

use std::borrow::Cow;

use alloy::primitives::{Address, U256, hex};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::extensions::Sponsor;
use super::members::Members;
use super::required::LONGEST_DESCRIPTION;
use super::{Additions, By, Carrier, Extensions, Offer, PaymentRequired, Version, codec};
use crate::eip3009::{Signature, TransferAuthorization};
use crate::money::checksummed;
use crate::permit2::PermitTransfer;

/// The length of the longest payment header, in bytes. Many servers, such as Node.js, take 16 KiB of headers in sum.
pub(super) const MAX_PAYMENT: usize = 15 * 1024;
/// The length of the longest `resource`, and of the longest `extensions`, that a payment repeats. The ledger keeps each
/// payment, and a seller could otherwise fill the disk.
const LONGEST_REPEATED: usize = 4 * 1024;
/// The length of a payment's JSON without the parts that the seller wrote, at most.
const OWN_LENGTH: usize = 900;

/// A signed authorization: the `payload` of a payment.
///
/// The keys have the order of the official client, so that headers equal the published vectors.
pub(crate) enum PaymentProof<'a> {
    Transfer(&'a TransferAuthorization, &'a Signature),
    Permit(Box<SignedPermit>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignedPermit {
    signature: String,
    permit2_authorization: PermitFields,
}

/// The fields of a permit as strings, all numbers in decimal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PermitFields {
    from: String,
    permitted: Permitted,
    spender: String,
    nonce: String,
    deadline: String,
    witness: Witness,
}

#[derive(Serialize, Deserialize)]
struct Permitted {
    token: String,
    amount: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Witness {
    to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    facilitator: Option<String>,
    valid_after: String,
}

impl<'a> PaymentProof<'a> {
    pub(crate) const fn transfer(
        authorization: &'a TransferAuthorization,
        signature: &'a Signature,
    ) -> Self {
        Self::Transfer(authorization, signature)
    }

    pub(crate) fn permit(permit: &PermitTransfer, signature: &Signature) -> Self {
        Self::Permit(Box::new(SignedPermit {
            signature: signature.to_hex(),
            permit2_authorization: PermitFields {
                from: checksummed(permit.from()),
                permitted: Permitted {
                    token: checksummed(permit.asset().address()),
                    amount: permit.value().to_string(),
                },
                spender: checksummed(permit.spender()),
                nonce: permit.nonce().to_string(),
                deadline: permit.deadline().to_string(),
                witness: Witness {
                    to: checksummed(permit.to()),
                    facilitator: permit.facilitator().map(checksummed),
                    valid_after: permit.valid_after().to_string(),
                },
            },
        }))
    }

    const fn is_permit(&self) -> bool {
        matches!(self, Self::Permit(_))
    }

    /// Appends the JSON. Nothing that a transfer writes has a character that JSON escapes.
    fn write(&self, json: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let (transfer, signature) = match self {
            Self::Transfer(transfer, signature) => (transfer, signature),
            Self::Permit(signed) => return serde_json::to_writer(json, signed),
        };
        json.extend_from_slice(br#"{"authorization":{"from":""#);
        json.extend_from_slice(checksummed(transfer.from()).as_bytes());
        json.extend_from_slice(br#"","to":""#);
        json.extend_from_slice(checksummed(transfer.to()).as_bytes());
        json.extend_from_slice(br#"","value":""#);
        match u64::try_from(transfer.value()) {
            Ok(value) => write_decimal(value, json),
            Err(_) => json.extend_from_slice(transfer.value().to_string().as_bytes()),
        }
        json.extend_from_slice(br#"","validAfter":""#);
        write_decimal(transfer.valid_after(), json);
        json.extend_from_slice(br#"","validBefore":""#);
        write_decimal(transfer.valid_before(), json);
        json.extend_from_slice(br#"","nonce":"0x"#);
        write_hex(transfer.nonce().as_slice(), json)?;
        json.extend_from_slice(br#""},"signature":"0x"#);
        write_hex(signature.as_bytes(), json)?;
        json.extend_from_slice(br#""}"#);
        Ok(())
    }
}

fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    loop {
        // A digit is less than ten.
        let digit = u8::try_from(number % 10).unwrap_or_default();
        out.push(b'0'.saturating_add(digit));
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

fn write_hex(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let start = out.len();
    out.resize(start.saturating_add(bytes.len().saturating_mul(2)), b'0');
    hex::encode_to_slice(bytes, out.get_mut(start..).unwrap_or_default())
        .map_err(serde::ser::Error::custom)
}

/// The fields of a payment header that bursar wrote earlier.
pub(crate) struct Presented {
    pub(crate) version: Version,
    pub(crate) by: By,
    pub(crate) to: Address,
    pub(crate) value: U256,
    pub(crate) valid_before: u64,
}

/// Decodes a payment header that bursar wrote, so the names are exactly its own.
pub(crate) fn decode_authorization(header: &str) -> Option<Presented> {
    #[derive(Deserialize)]
    struct Payment {
        #[serde(rename = "x402Version")]
        version: u8,
        payload: Payload,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload {
        authorization: Option<Signed>,
        permit2_authorization: Option<PermitFields>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Signed {
        to: String,
        value: String,
        valid_before: String,
    }
    let json = codec::decode(header)?;
    let Payment { version, payload } = serde_json::from_slice(&json).ok()?;
    let version = if version == Version::V1.number() {
        Version::V1
    } else {
        Version::V2
    };
    match (payload.authorization, payload.permit2_authorization) {
        (Some(signed), None) => Some(Presented {
            version,
            by: By::Eip3009,
            to: signed.to.parse().ok()?,
            value: signed.value.parse().ok()?,
            valid_before: signed.valid_before.parse().ok()?,
        }),
        (None, Some(permit)) => {
            let facilitator = permit.witness.facilitator.map(|text| text.parse());
            let deadline: u64 = permit.deadline.parse().ok()?;
            Some(Presented {
                version,
                by: match facilitator.transpose().ok()? {
                    None => By::Permit2,
                    Some(facilitator) => By::Upto { facilitator },
                },
                to: permit.witness.to.parse().ok()?,
                value: permit.permitted.amount.parse().ok()?,
                // Permit2 accepts a permit in the second of its deadline too.
                valid_before: deadline.checked_add(1)?,
            })
        }
        _ => None,
    }
}

/// Returns the JSON of a payment. It repeats the chosen offer, `resource` and `extensions` as the
/// seller wrote them.
///
/// It leaves out a long `resource` and long `extensions`, unless an extension is required. It cuts a description that is
/// too long for Coinbase's facilitator. Sellers compare neither.
pub(crate) fn encode_payment(
    required: &PaymentRequired,
    offer: usize,
    proof: &PaymentProof<'_>,
    added: Additions<'_>,
) -> Result<Vec<u8>, serde_json::Error> {
    let missing = || serde::ser::Error::custom("the chosen offer is not among the seller's");
    let offer = required.offers().get(offer).ok_or_else(missing)?;
    if required.version() == Version::V1 {
        let terms = offer.terms().map_err(serde::ser::Error::custom)?;
        return version_1(&terms.scheme, &terms.network, |json| proof.write(json));
    }
    let repeated = repeated(required, offer);
    let mut json = Vec::with_capacity(repeated.length);
    json.extend_from_slice(br#"{"x402Version":2,"payload":"#);
    proof.write(&mut json)?;
    if let Some(declared) = repeated.extensions {
        json.extend_from_slice(br#","extensions":"#);
        serde_json::to_writer(&mut json, &Extensions { declared, added })?;
    }
    if let Some(resource) = &repeated.resource {
        json.extend_from_slice(br#","resource":"#);
        json.extend_from_slice(resource.get().as_bytes());
    }
    json.extend_from_slice(br#","accepted":"#);
    json.extend_from_slice(offer.json().as_bytes());
    json.push(b'}');
    // Version 1 has no permits.
    if required.carrier == Carrier::Body && !proof.is_permit() {
        json.push(ALSO_VERSION_1);
    }
    Ok(json)
}

/// The parts of the terms that a payment of version 2 repeats next to the offer, and the length of its header.
pub(super) struct Repeated<'a> {
    resource: Option<Cow<'a, RawValue>>,
    extensions: Option<&'a RawValue>,
    pub(super) length: usize,
}

/// Returns as much as fits into a header that common servers take. A payment of version 1 repeats nothing.
pub(super) fn repeated<'a>(required: &'a PaymentRequired, offer: &Offer) -> Repeated<'a> {
    let mut repeated = Repeated {
        resource: required.raw_resource().map(shortened),
        extensions: required.raw_extensions(),
        length: 0,
    };
    if required.version() == Version::V1 {
        return repeated;
    }
    repeated.resource = repeated
        .resource
        .filter(|resource| resource.get().len() <= LONGEST_REPEATED);
    repeated.extensions = repeated.extensions.filter(|extensions| {
        extensions.get().len() <= LONGEST_REPEATED || are_required(extensions)
    });
    let length = |repeated: &Repeated<'_>| {
        let resource = repeated.resource.as_ref().map_or(0, |raw| raw.get().len());
        let extensions = repeated.extensions.map_or(0, |raw| raw.get().len());
        let parts = [resource, extensions, offer.json().len()];
        let json = parts.into_iter().fold(OWN_LENGTH, usize::saturating_add);
        json.div_ceil(3).saturating_mul(4)
    };
    if length(&repeated) > MAX_PAYMENT {
        repeated.resource = None;
    }
    if length(&repeated) > MAX_PAYMENT && !repeated.extensions.is_some_and(are_required) {
        repeated.extensions = None;
    }
    repeated.length = length(&repeated);
    repeated
}

/// Returns whether the seller's facilitator pays the gas of such an approval, and a payment repeats that extension.
pub(crate) fn offers_gas(required: &PaymentRequired, offer: usize, by: Sponsor) -> bool {
    let offer = required.offers().get(offer);
    let extensions = offer.and_then(|offer| repeated(required, offer).extensions);
    extensions.is_some_and(|declared| by.is_declared(declared))
}

fn version_1(
    scheme: &str,
    network: &str,
    payload: impl FnOnce(&mut Vec<u8>) -> Result<(), serde_json::Error>,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut json = br#"{"x402Version":1,"scheme":"#.to_vec();
    serde_json::to_writer(&mut json, scheme)?;
    json.extend_from_slice(br#","network":"#);
    serde_json::to_writer(&mut json, network)?;
    json.extend_from_slice(br#","payload":"#);
    payload(&mut json)?;
    json.push(b'}');
    Ok(json)
}

/// White space at the end of a payment's JSON, for terms of version 2 in a body. It stays with the payment in the
/// ledger, so that a payment that is sent again has the same headers.
const ALSO_VERSION_1: u8 = b' ';

/// Returns the same authorization as a payment of version 1, for a seller that states terms of version 2 in a body.
///
/// Such sellers often read `X-PAYMENT` only. The nonce is the same, so at most one of the two can settle.
pub(crate) fn version_1_header(header: &str) -> Option<String> {
    // Most payments are not of this kind, so only the last of their letters are decoded.
    let last = header
        .len()
        .checked_sub(4)
        .and_then(|end| header.get(end..));
    if codec::decode(last.unwrap_or(header))?.last() != Some(&ALSO_VERSION_1) {
        return None;
    }
    let json = codec::decode(header)?;
    let payment = Members::read(&json).ok()?;
    let payload = payment.get(&["payload"]).ok()??;
    let accepted = payment.object("accepted")?;
    let text = |name: &str| accepted.words(&[name]);
    let json = version_1(&text("scheme")?, &text("network")?, |json| {
        json.extend_from_slice(payload.get().as_bytes());
        Ok(())
    });
    let json = json.ok()?;
    Some(codec::encode_header(&json))
}

/// Returns whether one of the extensions says that a payment needs it.
fn are_required(extensions: &RawValue) -> bool {
    let json: String = extensions.get().split_whitespace().collect();
    json.contains(r#""required":true"#)
}

/// Returns the resource with a description that Coinbase's facilitator takes.
fn shortened(resource: &RawValue) -> Cow<'_, RawValue> {
    let cut = || {
        let mut fields: Map<String, Value> = serde_json::from_str(resource.get()).ok()?;
        let Some(Value::String(description)) = fields.get_mut("description") else {
            return None;
        };
        let mut units = 0_usize;
        let (end, _) = description.char_indices().find(|(_, character)| {
            units = units.saturating_add(character.len_utf16());
            units > LONGEST_DESCRIPTION
        })?;
        description.truncate(end);
        to_raw_value(&fields).ok()
    };
    let may_be_long = resource.get().len() > LONGEST_DESCRIPTION;
    let cut = if may_be_long { cut() } else { None };
    cut.map_or(Cow::Borrowed(resource), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;
    use serde_json::json;

    use super::*;
    use crate::money::{AssetRegistry, Network};

    /// The writer knows that nothing needs an escape, so serde is asked.
    #[test]
    fn a_payload_is_the_json_that_serde_writes_for_any_numbers_and_signature() {
        let network = Network::from_chain_id(84_532);
        let asset = AssetRegistry::stablecoins().find_symbol(network, "USDC");
        let (from, to) = (Address::repeat_byte(0xab), Address::repeat_byte(0x0c));
        let values = [
            U256::ZERO,
            U256::from(9),
            U256::from(10),
            U256::from(u64::MAX),
            U256::from(u64::MAX) + U256::ONE,
            U256::MAX,
        ];
        for (number, value) in (0_u8..).zip(values) {
            let nonce = B256::repeat_byte(0xf0 | number);
            let valid = (0, u64::MAX - u64::from(number));
            let (asset, parties) = (asset.unwrap().clone(), (from, to));
            let transfer = TransferAuthorization::new(asset, parties, value, valid, nonce);
            let signature = Signature::new(vec![0xe7; usize::from(number) * 65]);
            let mut written = Vec::new();
            let proof = PaymentProof::transfer(&transfer, &signature);
            proof.write(&mut written).unwrap();
            let expected = json!({
                "authorization": {
                    "from": from.to_checksum(None),
                    "to": to.to_checksum(None),
                    "value": value.to_string(),
                    "validAfter": "0",
                    "validBefore": valid.1.to_string(),
                    "nonce": nonce.to_string(),
                },
                "signature": signature.to_hex(),
            });
            assert_eq!(String::from_utf8(written).unwrap(), expected.to_string());
        }
    }
}

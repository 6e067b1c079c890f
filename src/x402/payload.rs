//! The content of the header that carries a payment.

use alloy::primitives::{Address, U256};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::members::{Members, is_spelling};
use super::required::LONGEST_DESCRIPTION;
use super::{Carrier, Extensions, Offer, PaymentRequired, Version, codec};
use crate::eip3009::{Signature, TransferAuthorization};
use crate::money::checksummed;

/// The length of the longest payment header, in bytes. Node.js, Tomcat and nginx refuse longer headers by default.
pub(super) const MAX_PAYMENT: usize = 16 * 1024;
/// The length of a payment's JSON without the parts that the seller wrote, at most.
const OWN_LENGTH: usize = 700;

/// A signed authorization: the `payload` of a payment with the scheme `exact`.
///
/// The keys have the order of the official client, so that headers equal the published vectors.
#[derive(Serialize)]
pub(crate) struct ExactPayload {
    authorization: Authorization,
    signature: String,
}

/// The fields of the authorization as strings: numbers in decimal, the nonce in hexadecimal.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    from: String,
    to: String,
    value: String,
    valid_after: String,
    valid_before: String,
    nonce: String,
}

impl ExactPayload {
    pub(crate) fn new(authorization: &TransferAuthorization, signature: &Signature) -> Self {
        Self {
            authorization: Authorization {
                from: checksummed(authorization.from()),
                to: checksummed(authorization.to()),
                value: authorization.value().to_string(),
                valid_after: authorization.valid_after().to_string(),
                valid_before: authorization.valid_before().to_string(),
                nonce: authorization.nonce().to_string(),
            },
            signature: signature.to_hex(),
        }
    }
}

/// The fields of a payment header that bursar wrote earlier.
pub(crate) struct Presented {
    pub(crate) version: Version,
    pub(crate) to: Address,
    pub(crate) value: U256,
    pub(crate) valid_before: u64,
}

/// Decodes a payment header that bursar wrote.
pub(crate) fn decode_authorization(header: &str) -> Option<Presented> {
    #[derive(Deserialize)]
    struct Payment {
        #[serde(rename = "x402Version")]
        version: u8,
        payload: Payload,
    }
    #[derive(Deserialize)]
    struct Payload {
        authorization: Signed,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Signed {
        to: String,
        value: String,
        valid_before: String,
    }
    let json = codec::decode_header(header.as_bytes()).ok()?;
    let Payment { version, payload } = serde_json::from_slice(&json).ok()?;
    let Signed {
        to,
        value,
        valid_before,
    } = payload.authorization;
    let version = if version == Version::V1.number() {
        Version::V1
    } else {
        Version::V2
    };
    Some(Presented {
        version,
        to: to.parse().ok()?,
        value: value.parse().ok()?,
        valid_before: valid_before.parse().ok()?,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct V1<'a, P> {
    x402_version: u8,
    scheme: &'a str,
    network: &'a str,
    payload: &'a P,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct V2<'a> {
    x402_version: u8,
    payload: &'a ExactPayload,
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<Extensions<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a RawValue>,
    accepted: &'a RawValue,
}

/// Returns the JSON of a payment. It repeats the chosen offer, `resource` and `extensions` as the
/// seller wrote them.
///
/// It leaves out `resource`, and then `extensions`, where the header would be too long for common servers. It cuts a
/// description that is too long for Coinbase's facilitator. Sellers compare neither.
pub(crate) fn encode_payment(
    required: &PaymentRequired,
    offer: usize,
    proof: &ExactPayload,
    identifier: &str,
) -> Result<Vec<u8>, serde_json::Error> {
    let missing = || serde::ser::Error::custom("the chosen offer is not among the seller's");
    let offer = required.offers().get(offer).ok_or_else(missing)?;
    if required.version() == Version::V1 {
        let terms = offer.terms().map_err(serde::ser::Error::custom)?;
        return version_1(&terms.scheme, &terms.network, proof);
    }
    let shortened = required.raw_resource().and_then(shortened);
    let mut payment = V2 {
        x402_version: 2,
        payload: proof,
        extensions: required.raw_extensions().map(|declared| Extensions {
            declared,
            identifier,
        }),
        resource: shortened.as_deref().or(required.raw_resource()),
        accepted: offer.raw(),
    };
    let mut json = serde_json::to_vec(&payment)?;
    let is_long = |json: &[u8]| {
        required.carrier() != Carrier::Json && header_length(json.len()) > MAX_PAYMENT
    };
    if is_long(&json) {
        payment.resource = None;
        json = serde_json::to_vec(&payment)?;
    }
    if is_long(&json) && may_leave_out(payment.extensions) {
        payment.extensions = None;
        json = serde_json::to_vec(&payment)?;
    }
    if required.carrier() == Carrier::Body {
        json.push(ALSO_VERSION_1);
    }
    Ok(json)
}

fn version_1(
    scheme: &str,
    network: &str,
    payload: &impl Serialize,
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&V1 {
        x402_version: 1,
        scheme,
        network,
        payload,
    })
}

/// White space at the end of a payment's JSON, for terms of version 2 in a body. It stays with the payment in the
/// ledger, so that a payment that is sent again has the same headers.
const ALSO_VERSION_1: u8 = b' ';

/// Returns the same authorization as a payment of version 1, for a seller that states terms of version 2 in a body.
///
/// Such sellers often read `X-PAYMENT` only. The nonce is the same, so at most one of the two can settle.
pub(crate) fn version_1_header(header: &str) -> Option<String> {
    let json = codec::decode(header)?;
    if json.last() != Some(&ALSO_VERSION_1) {
        return None;
    }
    let payment = Members::read(&json).ok()?;
    let payload = payment.get(&["payload"]).ok()??;
    let accepted = payment.get(&["accepted"]).ok()??;
    let accepted = Members::read(accepted.get().as_bytes()).ok()?;
    let text = |name: &str| accepted.words(&[name]);
    let json = version_1(&text("scheme")?, &text("network")?, &payload).ok()?;
    Some(codec::encode_header(&json))
}

/// Returns the length of the shortest header that pays the offer, if it is longer than common servers take.
pub(super) fn excessive_length(required: &PaymentRequired, offer: &Offer) -> Option<usize> {
    if required.carrier() == Carrier::Json || required.version() == Version::V1 {
        return None;
    }
    let declared = required.raw_extensions().map(|declared| Extensions {
        declared,
        identifier: "",
    });
    let extensions = declared.map_or(0, |extensions| extensions.declared.get().len());
    let own = OWN_LENGTH.saturating_add(offer.json().len());
    let longest = header_length(own.saturating_add(extensions));
    if longest <= MAX_PAYMENT {
        return None;
    }
    let length = if may_leave_out(declared) {
        header_length(own)
    } else {
        longest
    };
    (length > MAX_PAYMENT).then_some(length)
}

const fn header_length(json: usize) -> usize {
    json.div_ceil(3).saturating_mul(4)
}

/// Returns whether a payment may leave out the extensions: none of them says that it is required.
fn may_leave_out(extensions: Option<Extensions<'_>>) -> bool {
    let required = |extension: &Value| {
        [
            extension.get("required"),
            extension.pointer("/info/required"),
        ]
        .contains(&Some(&Value::Bool(true)))
    };
    let declared = extensions.map_or("{}", |extensions| extensions.declared.get());
    let declared: Map<String, Value> = serde_json::from_str(declared).unwrap_or_default();
    !declared.values().any(required)
}

/// Returns the resource with its description cut, if that is too long.
fn shortened(resource: &RawValue) -> Option<Box<RawValue>> {
    let members = Members::read(resource.get().as_bytes()).ok()?;
    let description = members.words(&["description"])?;
    if description.encode_utf16().count() <= LONGEST_DESCRIPTION {
        return None;
    }
    let mut left = LONGEST_DESCRIPTION;
    let fits = |character: &char| {
        let rest = left.checked_sub(character.len_utf16());
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    let cut: String = description.chars().take_while(fits).collect();
    let cut = serde_json::value::to_raw_value(&cut).ok()?;
    let members = members.0.iter().map(|(name, raw)| {
        let raw = if is_spelling(name, "description") {
            &cut
        } else {
            *raw
        };
        Some(format!("{}:{raw}", serde_json::to_string(&**name).ok()?))
    });
    let members: Option<Vec<String>> = members.collect();
    RawValue::from_string(format!("{{{}}}", members?.join(","))).ok()
}

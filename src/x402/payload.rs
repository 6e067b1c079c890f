//! The content of the header that carries a payment.

use alloy::primitives::{Address, U256};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Extensions, PaymentRequired, Version, codec};
use crate::eip3009::{Signature, TransferAuthorization};
use crate::money::checksummed;

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
struct V1<'a> {
    x402_version: u8,
    scheme: &'a str,
    network: &'a str,
    payload: &'a ExactPayload,
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
pub(crate) fn encode_payment(
    required: &PaymentRequired,
    offer: usize,
    proof: &ExactPayload,
    identifier: &str,
) -> Result<Vec<u8>, serde_json::Error> {
    let missing = || serde::ser::Error::custom("the chosen offer is not among the seller's");
    let offer = required.offers().get(offer).ok_or_else(missing)?;
    let x402_version = required.version().number();
    match required.version() {
        Version::V1 => {
            let terms = offer.terms().map_err(serde::ser::Error::custom)?;
            serde_json::to_vec(&V1 {
                x402_version,
                scheme: &terms.scheme,
                network: &terms.network,
                payload: proof,
            })
        }
        Version::V2 => serde_json::to_vec(&V2 {
            x402_version,
            payload: proof,
            extensions: required.raw_extensions().map(|declared| Extensions {
                declared,
                identifier,
            }),
            resource: required.raw_resource(),
            accepted: offer.raw(),
        }),
    }
}

//! What a seller says became of a payment.

use alloy::primitives::{Address, B256};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::{RECEIPTS, WireError, codec};
use crate::Network;

/// The decoded `PAYMENT-RESPONSE` (or `X-PAYMENT-RESPONSE`) header: the seller's claim, which
/// nothing authenticates.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SettlementResponse {
    /// Whether the seller says that the payment was settled.
    pub success: bool,
    /// Hash of the transaction, empty when there is none. Present without success while a
    /// settlement is pending.
    #[serde(default, deserialize_with = "text")]
    pub transaction: String,
    /// Network of the transaction, CAIP-2 or a version 1 name.
    #[serde(default, deserialize_with = "text")]
    pub network: String,
    /// Who paid.
    #[serde(default)]
    pub payer: Option<String>,
    /// What was charged, in atomic units, where the scheme lets it differ from what was signed.
    #[serde(default)]
    pub amount: Option<String>,
    /// Machine-readable reason of a failure, such as `insufficient_funds`.
    #[serde(default)]
    pub error_reason: Option<String>,
    /// Human-readable reason of a failure; untrusted text.
    #[serde(default)]
    pub error_message: Option<String>,
    /// Extensions, such as a signed `offer-receipt`.
    #[serde(default)]
    pub extensions: Option<Value>,
}

/// A string; `null` reads as empty.
fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

impl SettlementResponse {
    /// Reads the value of a receipt header.
    ///
    /// # Errors
    /// When it is longer than 64 KiB, not base64 or not a settlement response.
    pub fn from_header(value: &[u8]) -> Result<Self, WireError> {
        Ok(serde_json::from_slice(&codec::decode_header(value)?)?)
    }

    /// Reads a receipt that is JSON, within the bounds of a header.
    #[cfg(feature = "mcp")]
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, WireError> {
        if json.len() > codec::MAX_HEADER {
            return Err(WireError::HeaderTooLong { length: json.len() });
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// The receipt among a response's headers, under either name; the first that reads wins, unless
    /// another one contradicts it.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Result<Self, WireError>> {
        let values = RECEIPTS.into_iter().flat_map(|name| headers.get_all(name));
        let (claims, errors): (Vec<_>, Vec<_>) = values
            .map(|value| Self::from_header(value.as_bytes()))
            .partition(Result::is_ok);
        let mut claims = claims.into_iter().flatten();
        let Some(first) = claims.next() else {
            return errors.into_iter().next();
        };
        if claims.any(|other| first.contradicts(&other)) {
            return Some(Err(WireError::Contradiction));
        }
        Some(Ok(first))
    }

    /// Whether the other says something else of the money.
    fn contradicts(&self, other: &Self) -> bool {
        self.success != other.success || !self.transaction.eq_ignore_ascii_case(&other.transaction)
    }

    /// The claim that a matching receipt made, put together again.
    pub(crate) fn success(transaction: B256, network: Network, payer: Address) -> Self {
        Self {
            success: true,
            transaction: transaction.to_string(),
            network: network.to_string(),
            payer: Some(payer.to_string()),
            amount: None,
            error_reason: None,
            error_message: None,
            extensions: None,
        }
    }

    /// Whether the transaction was sent but its inclusion not yet seen: not a failure, and to be
    /// presented again, never signed anew.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.success
            && self.error_reason.as_deref() == Some("settlement_pending")
            && !self.transaction.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x402::encode_header;

    fn read(receipts: &[(usize, &str)]) -> Option<Result<SettlementResponse, WireError>> {
        let mut headers = HeaderMap::new();
        for (name, json) in receipts {
            headers.append(
                &RECEIPTS[*name],
                encode_header(json.as_bytes()).parse().unwrap(),
            );
        }
        SettlementResponse::from_headers(&headers)
    }

    #[test]
    fn receipts_agree_or_none_is_believed() {
        let (yes, no) = (
            r#"{"success":true,"transaction":"0xAB"}"#,
            r#"{"success":false,"transaction":""}"#,
        );
        let (same, other) = (
            r#"{"success":true,"transaction":"0xab"}"#,
            r#"{"success":true,"transaction":"0xcd"}"#,
        );
        assert!(read(&[]).is_none());
        for agreed in [
            &[(0, yes)][..],
            &[(1, yes)],
            &[(0, yes), (1, same)],
            &[(0, "no"), (1, yes)],
            &[(0, yes), (0, "no")],
        ] {
            assert!(read(agreed).unwrap().unwrap().success, "{agreed:?}");
        }
        assert!(matches!(
            read(&[(0, "no"), (1, "[]")]),
            Some(Err(WireError::Json(_)))
        ));
        for contrary in [
            [(0, yes), (1, no)],
            [(0, no), (1, yes)],
            [(0, yes), (0, no)],
            [(1, yes), (0, other)],
        ] {
            assert!(
                matches!(read(&contrary), Some(Err(WireError::Contradiction))),
                "{contrary:?}"
            );
        }
        let twice = [(0, yes), (0, no), (1, yes)];
        assert!(matches!(read(&twice), Some(Err(WireError::Contradiction))));
    }
}

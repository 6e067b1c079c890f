//! The seller's report of a settlement.

use alloy::primitives::{Address, B256};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::members::Members;
use super::{Failure, RECEIPTS, WireError, codec};
use crate::money::Network;

/// The decoded `PAYMENT-RESPONSE` or `X-PAYMENT-RESPONSE` header.
///
/// It is a claim of the seller. Nothing authenticates it.
///
/// ```
/// use bursar::x402::SettlementResponse;
///
/// // The value of the header: base64 of `{"success":false,"errorReason":"insufficient_funds"}`.
/// let header = b"eyJzdWNjZXNzIjpmYWxzZSwiZXJyb3JSZWFzb24iOiJpbnN1ZmZpY2llbnRfZnVuZHMifQ==";
/// let response = SettlementResponse::from_header(header)?;
/// assert!(!response.success);
/// assert_eq!(response.error_reason.as_deref(), Some("insufficient_funds"));
/// # Ok::<(), bursar::x402::WireError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SettlementResponse {
    /// Whether the payment was settled, according to the seller.
    pub success: bool,
    /// The hash of the transaction, or an empty string. A pending settlement has a transaction without
    /// success.
    pub transaction: String,
    /// The network of the transaction, in CAIP-2 or as a version 1 name.
    pub network: String,
    /// The address that paid.
    pub payer: Option<String>,
    /// The charged amount in atomic units, for a scheme in which it can differ from the signed amount.
    pub amount: Option<String>,
    /// The machine-readable reason of a failure, such as `insufficient_funds`.
    pub error_reason: Option<String>,
    /// The human-readable reason of a failure. It is untrusted text.
    pub error_message: Option<String>,
    /// Extensions, such as a signed `offer-receipt`.
    pub extensions: Option<Value>,
}

/// A receipt as official sellers write it, which is quick to read.
#[derive(Deserialize)]
#[serde(
    remote = "SettlementResponse",
    rename_all = "camelCase",
    deny_unknown_fields
)]
struct Usual {
    success: bool,
    #[serde(default)]
    transaction: String,
    #[serde(default)]
    network: String,
    payer: Option<String>,
    amount: Option<String>,
    error_reason: Option<String>,
    error_message: Option<String>,
    extensions: Option<Value>,
}

impl Usual {
    fn read(json: &[u8]) -> Option<SettlementResponse> {
        let mut json = serde_json::Deserializer::from_str(std::str::from_utf8(json).ok()?);
        let receipt = Self::deserialize(&mut json).ok()?;
        json.end().ok().map(|()| receipt)
    }
}

impl SettlementResponse {
    /// Reads the value of a receipt header: base64 of JSON, as
    /// [`PaymentRequired::from_header`](super::PaymentRequired::from_header) reads it, or plain JSON.
    ///
    /// # Errors
    /// Returns an error if the header is longer than 64 KiB, is neither base64 nor JSON, or is not a settlement
    /// response.
    pub fn from_header(value: &[u8]) -> Result<Self, WireError> {
        Self::read(&codec::decode_header(value)?)
    }

    /// Reads a receipt that is JSON, within the bounds of a header.
    #[cfg(feature = "mcp")]
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, WireError> {
        if json.len() > codec::MAX_HEADER {
            return Err(WireError::HeaderTooLong { length: json.len() });
        }
        Self::read(json)
    }

    /// Reads names in snake case and the older names of a transaction too. The texts of a failure may be anything.
    fn read(json: &[u8]) -> Result<Self, WireError> {
        let json = codec::unquoted(json);
        // Other names, and a name that occurs twice, are read member by member.
        if let Some(receipt) = Usual::read(&json) {
            return Ok(receipt);
        }
        let members = Members::read(&json)?;
        let text = |names: &[&str]| -> Result<Option<String>, WireError> {
            Ok(members.text(names)?.map(|text| text.to_string()))
        };
        let success = match members.get(&["success"])?.map(RawValue::get) {
            Some("true" | "\"true\"") => true,
            Some("false" | "\"false\"") => false,
            _ => {
                return Err(WireError::Unreadable(
                    "the receipt does not say `success`".to_owned(),
                ));
            }
        };
        let extensions = members.get(&["extensions"])?;
        Ok(Self {
            success,
            transaction: text(&["transaction", "txhash", "transactionhash"])?.unwrap_or_default(),
            network: text(&["network", "networkid"])?.unwrap_or_default(),
            payer: text(&["payer"])?,
            amount: members.words(&["amount"]),
            error_reason: members
                .words(&["errorreason"])
                .or_else(|| members.words(&["error"])),
            error_message: members.words(&["errormessage"]),
            extensions: extensions.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        })
    }

    /// Returns the receipt in a response's headers, under either name.
    ///
    /// The first readable receipt counts. Several receipts that contradict each other are an error.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Result<Self, WireError>> {
        let values = RECEIPTS.into_iter().flat_map(|name| headers.get_all(name));
        let (mut first, mut error) = (None::<Self>, None);
        for value in values {
            match (Self::from_header(value.as_bytes()), &first) {
                (Ok(claim), None) => first = Some(claim),
                (Ok(claim), Some(first)) if first.contradicts(&claim) => {
                    return Some(Err(WireError::Contradiction));
                }
                (Ok(_), Some(_)) => {}
                (Err(failure), _) => error = error.or(Some(failure)),
            }
        }
        first.map(Ok).or(error.map(Err))
    }

    /// Returns whether the other receipt reports another outcome, another transaction or another charge.
    fn contradicts(&self, other: &Self) -> bool {
        let charges = self.amount.as_ref().zip(other.amount.as_ref());
        charges.is_some_and(|(one, other)| one != other)
            || self.success != other.success
            || !self.transaction.eq_ignore_ascii_case(&other.transaction)
    }

    /// Recreates the response of a successful settlement.
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

    /// Returns whether the receipt leaves open that the payment settles: the seller sent the transaction
    /// and has not seen it in a block, or could not ask the chain.
    ///
    /// Such a payment has not failed. bursar presents the same payment again and signs no other.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.failure() == Some(Failure::Uncertain)
    }

    /// Returns the consequence of the reason, unless the receipt reports a success.
    pub(crate) fn failure(&self) -> Option<Failure> {
        (!self.success).then(|| Failure::of(self.reason().unwrap_or_default()))
    }

    /// Returns the reason of a failure: the code, or else the text.
    pub(crate) fn reason(&self) -> Option<&str> {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        [&self.error_reason, &self.error_message]
            .into_iter()
            .find(|text| given(text))?
            .as_deref()
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
    fn contradicting_receipts_are_refused() {
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

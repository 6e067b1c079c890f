//! A seller's terms: `PaymentRequired` and its offers.

use std::borrow::Cow;
use std::ops::Deref;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Version, WireError, codec};

/// The number of offers that bursar reads. It ignores further offers.
const MAX_OFFERS: usize = 32;

/// A seller's terms, from the `PAYMENT-REQUIRED` header (version 2) or the body of the 402.
///
/// Every field is a claim of the seller. Use [`Quote::read`](crate::x402::Quote::read) to verify an offer.
///
/// ```
/// use bursar::x402::PaymentRequired;
///
/// let required = PaymentRequired::from_json(
///     br#"{"x402Version":2,"resource":{"url":"https://api.example.com/report"},"accepts":[]}"#,
/// )?;
/// assert_eq!(required.resource_url(), Some("https://api.example.com/report"));
/// assert!(required.offers().is_empty());
/// # Ok::<(), bursar::x402::WireError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PaymentRequired {
    version: Version,
    error: Option<String>,
    resource: Option<Box<RawValue>>,
    resource_url: Option<String>,
    description: Option<String>,
    extensions: Option<Box<RawValue>>,
    offers: Vec<Offer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePaymentRequired<'a> {
    x402_version: u64,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    resource: Option<&'a RawValue>,
    #[serde(default, borrow)]
    accepts: Option<Vec<&'a RawValue>>,
    #[serde(default, borrow)]
    extensions: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Resource {
    #[serde(default, deserialize_with = "text_or_nothing")]
    url: Option<String>,
    #[serde(default, deserialize_with = "text_or_nothing")]
    description: Option<String>,
}

impl PaymentRequired {
    /// Reads the value of a `PAYMENT-REQUIRED` header: base64 of JSON.
    ///
    /// # Errors
    /// Returns an error if the header is longer than 64 KiB, is not base64, or is not a message of
    /// version 1 or 2.
    pub fn from_header(value: &[u8]) -> Result<Self, WireError> {
        Self::from_json(&codec::decode_header(value)?)
    }

    /// Reads JSON: the body of a version 1 answer, or `structuredContent` of an MCP tool.
    ///
    /// # Errors
    /// Returns an error if the JSON is not a message of version 1 or 2.
    pub fn from_json(json: &[u8]) -> Result<Self, WireError> {
        let wire: WirePaymentRequired<'_> = serde_json::from_slice(json)?;
        let version = match wire.x402_version {
            1 => Version::V1,
            2 => Version::V2,
            other => return Err(WireError::Version(other)),
        };
        let resource: Resource = wire
            .resource
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default();
        let offers = wire
            .accepts
            .unwrap_or_default()
            .into_iter()
            .take(MAX_OFFERS);
        let offers: Vec<Offer> = offers
            .map(|raw| Offer {
                raw: raw.to_owned(),
            })
            .collect();
        let resource_url = resource
            .url
            .or_else(|| offers.iter().find_map(|offer| offer.described().resource));
        let description = resource.description.or_else(|| {
            offers
                .iter()
                .find_map(|offer| offer.described().description)
        });
        let error = wire
            .error
            .and_then(|raw| serde_json::from_str(raw.get()).ok());
        Ok(Self {
            version,
            error,
            resource: wire.resource.map(RawValue::to_owned),
            resource_url,
            description,
            extensions: wire.extensions.map(RawValue::to_owned),
            offers,
        })
    }

    /// Returns the protocol version of the terms.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Returns the seller's reason. It is untrusted text.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Returns the URL that the seller names for the resource. It is untrusted text.
    #[must_use]
    pub fn resource_url(&self) -> Option<&str> {
        self.resource_url.as_deref()
    }

    /// Returns the seller's description. It is untrusted text.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Returns the offers in the seller's order, at most 32.
    #[must_use]
    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }

    /// Returns the approximate number of bytes that it keeps in memory.
    pub(crate) fn size(&self) -> usize {
        let raw = |raw: &Option<Box<RawValue>>| raw.as_ref().map_or(0, |raw| raw.get().len());
        let offers = self
            .offers
            .iter()
            .map(|offer| offer.json().len().saturating_mul(2));
        offers.fold(
            raw(&self.resource).saturating_add(raw(&self.extensions)),
            usize::saturating_add,
        )
    }

    /// Returns whether both have equal offers. White space and the order of keys do not matter.
    pub(crate) fn offers_alike(&self, other: &Self) -> bool {
        let read = |offer: &Offer| serde_json::from_str::<Value>(offer.json()).ok();
        self.version == other.version
            && self
                .offers
                .iter()
                .map(read)
                .eq(other.offers.iter().map(read))
    }

    pub(crate) fn raw_resource(&self) -> Option<&RawValue> {
        self.resource.as_deref()
    }

    pub(crate) fn raw_extensions(&self) -> Option<&RawValue> {
        self.extensions.as_deref()
    }
}

/// One way to pay, as the seller wrote it: an element of `accepts`.
#[derive(Clone, Debug)]
pub struct Offer {
    raw: Box<RawValue>,
}

/// The fields of an offer that bursar uses, as text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Terms<'a> {
    #[serde(borrow)]
    pub(crate) scheme: Text<'a>,
    #[serde(borrow)]
    pub(crate) network: Text<'a>,
    #[serde(default, borrow)]
    pub(crate) amount: Option<Text<'a>>,
    #[serde(default, borrow)]
    pub(crate) max_amount_required: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) asset: Text<'a>,
    #[serde(borrow)]
    pub(crate) pay_to: Text<'a>,
    #[serde(borrow)]
    pub(crate) max_timeout_seconds: &'a RawValue,
    #[serde(default, borrow)]
    pub(crate) extra: Option<Extra<'a>>,
}

/// A string that is borrowed from the JSON, unless it has escapes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The fields of `extra` for an `exact` payment on an EVM chain.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Extra<'a> {
    #[serde(default, borrow)]
    pub(crate) name: Option<Text<'a>>,
    #[serde(default, borrow)]
    pub(crate) version: Option<Text<'a>>,
    #[serde(default, borrow)]
    pub(crate) asset_transfer_method: Option<Text<'a>>,
    #[serde(default, borrow)]
    pub(crate) payment_flow: Option<Text<'a>>,
}

/// The fields of version 1 that describe the resource in every offer.
#[derive(Deserialize, Default)]
struct Described {
    #[serde(default, deserialize_with = "text_or_nothing")]
    resource: Option<String>,
    #[serde(default, deserialize_with = "text_or_nothing")]
    description: Option<String>,
}

impl Offer {
    /// Reads the fields of the offer.
    ///
    /// # Errors
    /// Returns the parser's message, shortened.
    pub(crate) fn terms(&self) -> Result<Terms<'_>, String> {
        serde_json::from_str(self.raw.get())
            .map_err(|error: serde_json::Error| crate::text::excerpt(&error.to_string()))
    }

    fn described(&self) -> Described {
        serde_json::from_str(self.raw.get()).unwrap_or_default()
    }

    /// Returns the JSON of the offer as received.
    #[must_use]
    pub fn json(&self) -> &str {
        self.raw.get()
    }

    pub(crate) fn raw(&self) -> &RawValue {
        &self.raw
    }
}

/// Reads a string, and `None` from any other value. A wrong description must not spoil an offer.
fn text_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_missing_fields_are_tolerated() {
        let read = PaymentRequired::from_json(
            br#"{"x402Version":2,"error":null,"resource":{"url":"https://a.example/x","description":null,"tags":7},
               "accepts":[{"scheme":"exact"},{"scheme":"exact","network":"eip155:1","amount":"1","asset":"0x","payTo":"0x",
               "maxTimeoutSeconds":60,"extra":null,"outputSchema":null}],"extensions":null}"#,
        )
        .unwrap();
        assert_eq!(read.resource_url(), Some("https://a.example/x"));
        assert!(read.raw_extensions().is_none());
        assert!(read.offers()[0].terms().is_err());
        assert!(read.offers()[1].terms().is_ok());
    }

    #[test]
    fn json_that_is_not_x402_is_refused() {
        for json in [
            "",
            "[]",
            "{}",
            r#"{"x402Version":3,"accepts":[]}"#,
            r#"{"x402Version":"2"}"#,
            r#"{"x402Version":2,"accepts":{}}"#,
        ] {
            assert!(
                PaymentRequired::from_json(json.as_bytes()).is_err(),
                "{json}"
            );
        }
    }

    #[test]
    fn an_offer_with_a_repeated_field_is_refused() {
        let json = br#"{"x402Version":2,"accepts":[{"scheme":"exact","network":"eip155:1","amount":"1","amount":"2","asset":"0x","payTo":"0x","maxTimeoutSeconds":60}]}"#;
        assert!(
            PaymentRequired::from_json(json).unwrap().offers()[0]
                .terms()
                .is_err()
        );
    }

    #[test]
    fn strings_with_escapes_are_read() {
        let json = br#"{"x402Version":2,"accepts":[{"scheme":"ex\u0061ct","network":"eip155:1","amount":"1","asset":"0x","payTo":"0x","maxTimeoutSeconds":60,"extra":{"name":"US\u0044C"}}]}"#;
        let required = PaymentRequired::from_json(json).unwrap();
        let terms = required.offers()[0].terms().unwrap();
        assert_eq!(
            (&*terms.scheme, terms.extra.unwrap().name.as_deref()),
            ("exact", Some("USDC"))
        );
    }
}

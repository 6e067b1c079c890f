//! A seller's terms: `PaymentRequired` and its offers.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::members::{Members, Text, is_same};
use super::{Offer, Version, WireError, codec, signed};
use crate::text;

/// The number of offers that bursar reads. A quote says how many offers it left out.
const MAX_OFFERS: usize = 256;
/// The length of the longest description that the facilitator of Coinbase takes, in UTF-16 code units.
pub(super) const LONGEST_DESCRIPTION: usize = 500;
/// The name of the extension with which a seller offers a sign-in.
const SIGN_IN_WITH_X: &str = "sign-in-with-x";
/// The members that can hold the terms, as `detail` does in an error of FastAPI.
const ENVELOPES: &str = "error data detail details payment paymentrequired paymentrequirements x402 body result response";
/// The number of envelopes that bursar opens, one inside the other.
const MOST_ENVELOPES: u8 = 3;

/// The way on which terms came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// The terms came without headers, as in MCP.
    Json,
    /// The terms came in the `PAYMENT-REQUIRED` header.
    Header,
    /// The terms came in the body of a 402.
    Body,
}

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
    /// The extension `sign-in-with-x`, as the seller wrote it.
    sign_in: Option<Declared>,
    /// The signed offers of the extension `offer-receipt`, as the seller wrote them.
    signed_offers: Option<Declared>,
    offers: Vec<Offer>,
    /// The number of offers that bursar did not read.
    pub(super) left_out: usize,
    /// Whether there is another list of other offers.
    pub(super) two_lists: bool,
    pub(super) carrier: Carrier,
}

/// A part of an extension, which can have the query of the request. `Debug` does not show it.
#[derive(Clone)]
struct Declared(Box<RawValue>);

impl fmt::Debug for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Declared({} bytes)", self.0.get().len())
    }
}

impl PaymentRequired {
    /// Reads the value of a `PAYMENT-REQUIRED` header: base64 of JSON, in any of its alphabets and with or without
    /// padding, or plain JSON.
    ///
    /// # Errors
    /// Returns an error if the header is longer than 64 KiB, is neither base64 nor JSON, or is not a message of
    /// version 1 or 2.
    pub fn from_header(value: &[u8]) -> Result<Self, WireError> {
        let required = Self::from_json(&codec::decode_header(value)?)?;
        Ok(required.carried_by(Carrier::Header))
    }

    /// Reads JSON: the body of a version 1 answer, or `structuredContent` of an MCP tool.
    ///
    /// Names in snake case are read too, and terms inside `error`, `data`, `detail` and similar members.
    ///
    /// # Errors
    /// Returns an error if the JSON is not a message of version 1 or 2, or if a member occurs twice with different
    /// values.
    pub fn from_json(json: &[u8]) -> Result<Self, WireError> {
        let mut required = Self::parse(json)?;
        required.signed_offers = signed::raw_offers(required.raw_extensions()).map(Declared);
        Ok(required.with_sign_in().without_query())
    }

    /// Keeps the challenge of a sign-in as it is: the wallet signs the URL in it, which can have the query.
    fn with_sign_in(mut self) -> Self {
        let declared = self.extensions.as_deref();
        let declared = declared.filter(|raw| raw.get().contains(SIGN_IN_WITH_X));
        // Of two challenges that differ, bursar answers none.
        self.sign_in = declared
            .and_then(|raw| Members::of(raw).ok()?.get(&["signinwithx"]).ok()?)
            .map(|declared| Declared(declared.to_owned()));
        self
    }

    /// Strikes the query of the request from everything that is not an offer. A payment repeats the offer as it is.
    fn without_query(mut self) -> Self {
        if text::current().is_none() {
            return self;
        }
        for text in [
            &mut self.error,
            &mut self.resource_url,
            &mut self.description,
        ] {
            *text = text.take().map(|text| text::struck(&text).into_owned());
        }
        for raw in [&mut self.resource, &mut self.extensions]
            .into_iter()
            .flatten()
        {
            let struck = serde_json::from_str(raw.get()).ok().and_then(|mut value| {
                let changed = cut_query(&mut value)
                    | leave_out_sign_in(&mut value)
                    | text::strike_json(&mut value, &[]);
                changed.then(|| RawValue::from_string(value.to_string()).ok())?
            });
            *raw = struck.unwrap_or_else(|| raw.clone());
        }
        self
    }

    fn parse(json: &[u8]) -> Result<Self, WireError> {
        let json = codec::unquoted(json);
        if let Some(required) = Usual::read(&json) {
            return Ok(required);
        }
        let members = opened(Members::read(&json)?, MOST_ENVELOPES)?;
        let version = read_version(&members)?;
        let (list, other) = (
            members.get(&["accepts"])?,
            members.get(&["paymentrequirements"])?,
        );
        let mut offers = list.or(other).map_or(Ok(Vec::new()), read_list)?;
        let left_out = offers.len().saturating_sub(MAX_OFFERS);
        offers.truncate(MAX_OFFERS);
        // Official software takes nothing but objects. A URL in place of the resource is read and not repeated.
        let is_object = |raw: &&RawValue| raw.get().starts_with('{');
        let resource = members.get(&["resource"])?.filter(is_object);
        let extensions = members.get(&["extensions"])?.filter(is_object);
        let about = resource.and_then(|raw| Members::of(raw).ok());
        let described = |name: &str, in_offer: &str| {
            let stated = about.as_ref().and_then(|about| about.words(&[name]));
            stated.or_else(|| offers.iter().find_map(|offer| offer.described(in_offer)))
        };
        Ok(Self {
            version,
            error: members.words(&["error"]),
            resource_url: described("url", "resource").or_else(|| members.words(&["resource"])),
            description: described("description", "description"),
            resource: resource.map(RawValue::to_owned),
            extensions: extensions.map(RawValue::to_owned),
            sign_in: None,
            signed_offers: None,
            offers,
            left_out,
            two_lists: list
                .zip(other)
                .is_some_and(|(list, other)| !is_same(list, other)),
            carrier: Carrier::Json,
        })
    }

    pub(crate) const fn carried_by(mut self, carrier: Carrier) -> Self {
        self.carrier = carrier;
        self
    }

    /// Returns remarks about terms that bursar pays but other software may not take.
    ///
    /// ```
    /// use bursar::x402::PaymentRequired;
    ///
    /// let description = "x".repeat(501);
    /// let terms = format!(r#"{{"x402Version":2,"resource":{{"description":"{description}"}},"accepts":[]}}"#);
    /// let warnings = PaymentRequired::from_json(terms.as_bytes())?.warnings();
    /// assert!(warnings[0].starts_with("the description has 501 characters"));
    /// # Ok::<(), bursar::x402::WireError>(())
    /// ```
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let text = self.description().unwrap_or_default();
        let length = text.encode_utf16().count();
        if length <= LONGEST_DESCRIPTION {
            return Vec::new();
        }
        vec![format!(
            "the description has {length} characters, and Coinbase's facilitator refuses payments that repeat more than \
             {LONGEST_DESCRIPTION}; bursar repeats the first {LONGEST_DESCRIPTION}"
        )]
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

    /// Returns the offers in the seller's order, at most 256.
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
            [self.raw_sign_in(), self.raw_signed_offers()]
                .into_iter()
                .flatten()
                .map(|raw| raw.get().len())
                .fold(raw(&self.resource), usize::saturating_add)
                .saturating_add(raw(&self.extensions)),
            usize::saturating_add,
        )
    }

    /// Returns whether both have equal offers. White space and the order of keys do not matter.
    pub(crate) fn offers_alike(&self, other: &Self) -> bool {
        let read = |offer: &Offer| {
            serde_json::from_str::<Value>(offer.json()).map_err(|_| offer.json().to_owned())
        };
        self.version == other.version
            && self
                .offers
                .iter()
                .map(read)
                .eq(other.offers.iter().map(read))
    }

    /// Returns the parts that a payment for this offer repeats. The offer is the only one of them.
    pub(crate) fn of_offer(&self, offer: usize) -> Self {
        Self {
            resource: self.resource.clone(),
            extensions: self.extensions.clone(),
            offers: self.offers.get(offer).cloned().into_iter().collect(),
            error: None,
            resource_url: None,
            description: None,
            sign_in: None,
            signed_offers: None,
            ..*self
        }
    }

    pub(crate) fn raw_resource(&self) -> Option<&RawValue> {
        self.resource.as_deref()
    }

    pub(crate) fn raw_extensions(&self) -> Option<&RawValue> {
        self.extensions.as_deref()
    }

    /// Returns whether the seller offers a sign-in: to enter a bought resource again, or, without offers, as the only way in.
    ///
    /// ```
    /// use bursar::x402::PaymentRequired;
    ///
    /// let required = PaymentRequired::from_json(
    ///     br#"{"x402Version":2,"accepts":[],"extensions":{"sign-in-with-x":{"info":{},"supportedChains":[]}}}"#,
    /// )?;
    /// assert!(required.offers_sign_in() && required.offers().is_empty());
    /// # Ok::<(), bursar::x402::WireError>(())
    /// ```
    #[must_use]
    pub const fn offers_sign_in(&self) -> bool {
        self.sign_in.is_some()
    }

    pub(crate) fn raw_sign_in(&self) -> Option<&RawValue> {
        self.sign_in.as_ref().map(|declared| &*declared.0)
    }

    /// Returns the signed offers as the seller sent them. A text without the query would not have that signature.
    pub(super) fn raw_signed_offers(&self) -> Option<&RawValue> {
        self.signed_offers.as_ref().map(|declared| &*declared.0)
    }
}

/// Cuts the query of the request off the URL of a resource, so that it stays a URL with its path. Sellers remember buyers by
/// this path. Returns whether it was cut.
fn cut_query(resource: &mut Value) -> bool {
    let Some(Value::String(stated)) = resource.get_mut("url") else {
        return false;
    };
    let Ok(mut url) = Url::parse(stated) else {
        return false;
    };
    let has_query = matches!(text::struck(stated), Cow::Owned(_)) && url.query().is_some();
    if has_query {
        url.set_query(None);
        *stated = url.into();
    }
    has_query
}

/// Removes the challenge of a sign-in if it has the query of the request. A payment may leave an extension out, but a seller
/// refuses one that repeats the challenge with another URL. Returns whether it was removed.
fn leave_out_sign_in(extensions: &mut Value) -> bool {
    let Some(extensions) = extensions.as_object_mut() else {
        return false;
    };
    let has_query = extensions
        .get(SIGN_IN_WITH_X)
        .is_some_and(|declared| text::strike_json(&mut declared.clone(), &[]));
    has_query && extensions.remove(SIGN_IN_WITH_X).is_some()
}

/// Terms as official sellers of version 2 write them, which is quick to read. Every other or repeated member leaves them to
/// [`Members`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Usual<'a> {
    x402_version: u8,
    #[serde(borrow)]
    error: Option<Text<'a>>,
    #[serde(borrow)]
    resource: &'a RawValue,
    accepts: Vec<Box<RawValue>>,
    #[serde(borrow)]
    extensions: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UsualResource<'a> {
    #[serde(borrow)]
    url: Text<'a>,
    #[serde(borrow)]
    description: Text<'a>,
    #[serde(rename = "mimeType")]
    _mime_type: IgnoredAny,
}

impl Usual<'_> {
    fn read(json: &[u8]) -> Option<PaymentRequired> {
        let usual: Usual<'_> = serde_json::from_str(std::str::from_utf8(json).ok()?).ok()?;
        let about: UsualResource<'_> = serde_json::from_str(usual.resource.get()).ok()?;
        let extensions = usual.extensions.map(RawValue::get).unwrap_or("{}");
        if usual.x402_version != 2
            || usual.accepts.len() > MAX_OFFERS
            || !extensions.starts_with('{')
        {
            return None;
        }
        Some(PaymentRequired {
            version: Version::V2,
            error: usual.error.map(|error| error.0.into_owned()),
            resource: Some(usual.resource.to_owned()),
            resource_url: Some(about.url.0.into_owned()),
            description: Some(about.description.0.into_owned()),
            extensions: usual.extensions.map(RawValue::to_owned),
            sign_in: None,
            signed_offers: None,
            offers: usual.accepts.into_iter().map(|raw| Offer { raw }).collect(),
            left_out: 0,
            two_lists: false,
            carrier: Carrier::Json,
        })
    }
}

/// Returns the object that has the version and the offers: the whole message, or the one message in its envelopes.
fn opened(outer: Members<'_>, depth: u8) -> Result<Members<'_>, WireError> {
    let is_terms = |members: &Members<'_>| {
        members.has("x402version") && (members.has("accepts") || members.has("paymentrequirements"))
    };
    if depth == 0 || is_terms(&outer) {
        return Ok(outer);
    }
    let mut found: Option<(&RawValue, Members<'_>)> = None;
    for member in &outer.0 {
        let raw = member.value;
        let mut envelopes = ENVELOPES.split(' ');
        let Some(Ok(inner)) = envelopes
            .any(|envelope| member.is(envelope))
            .then(|| Members::of(raw))
        else {
            continue;
        };
        let inner = opened(inner, depth.saturating_sub(1))?;
        if !is_terms(&inner) {
            continue;
        }
        if found
            .as_ref()
            .is_some_and(|(first, _)| !is_same(first, raw))
        {
            let message = "the answer has two sets of terms";
            return Err(WireError::Ambiguous(message.to_owned()));
        }
        found = Some((raw, inner));
    }
    Ok(found.map_or(outer, |(_, inner)| inner))
}

/// Reads the version: a number, or a number in quotes.
fn read_version(members: &Members<'_>) -> Result<Version, WireError> {
    let Some(version) = members.text(&["x402version"])? else {
        let single_offer = members.has("payto");
        return Err(WireError::NoVersion { single_offer });
    };
    match version.trim().trim_end_matches(".0").parse() {
        Ok(1) => Ok(Version::V1),
        Ok(2) => Ok(Version::V2),
        Ok(other) => Err(WireError::Version(other)),
        Err(_) => Err(WireError::Unreadable("x402Version is no number".to_owned())),
    }
}

/// Reads a list of offers, or one offer without its list.
fn read_list(raw: &RawValue) -> Result<Vec<Offer>, WireError> {
    if Members::of(raw).is_ok_and(|offer| offer.has("scheme")) {
        let raw = raw.to_owned();
        return Ok(vec![Offer { raw }]);
    }
    let offers: Vec<Box<RawValue>> = serde_json::from_str(raw.get())
        .map_err(|_| WireError::Unreadable("`accepts` is no list".to_owned()))?;
    Ok(offers.into_iter().map(|raw| Offer { raw }).collect())
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
            r#"{"x402Version":"3"}"#,
            r#"{"x402Version":true}"#,
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
            (&*terms.scheme, terms.name.as_deref()),
            ("exact", Some("USDC"))
        );
    }
}

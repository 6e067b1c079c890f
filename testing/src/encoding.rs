//! The ways in which sellers write their terms and receipts.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Response};
use url::form_urlencoded::byte_serialize;

use crate::body::Body;
use crate::headers::{PAYMENT_REQUIRED, RECEIPTS};

/// How a route writes its terms and receipts. Set it with [`Route::encoding`](crate::Route::encoding).
///
/// Official sellers write standard base64 with padding. The other encodings occur in public reports.
///
/// ```
/// use bursar::usd;
/// use bursar_testing::{Encoding, Route};
///
/// let encoding = Encoding::BodyMember("detail".to_owned());
/// let route = Route::get("/report").price(usd!("0.01")).encoding(encoding);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// Base64 without padding.
    Unpadded,
    /// Base64 with `-` and `_`, with padding.
    UrlSafe,
    /// Base64 with `-` and `_`, without padding.
    UrlSafeUnpadded,
    /// Base64 in percent-encoding: `%3D` for `=`.
    PercentEncoded,
    /// Base64 in quotation marks.
    Quoted,
    /// Plain JSON.
    Json,
    /// Version 2's terms as the body, without a header. Receipts stay as they are.
    Body,
    /// Version 2's terms in this member of the body, as the errors of FastAPI have `detail`. Receipts stay as they
    /// are.
    BodyMember(String),
}

impl Encoding {
    /// Writes the terms and the receipts of a response again.
    pub(crate) fn apply(&self, response: &mut Response<Body>) {
        if matches!(self, Self::Body | Self::BodyMember(_)) {
            let terms = response.headers_mut().remove(PAYMENT_REQUIRED);
            if let Some(json) = terms.and_then(|terms| STANDARD.decode(terms).ok()) {
                *response.body_mut() = Body::whole(self.body(json));
            }
            return;
        }
        for name in [PAYMENT_REQUIRED].into_iter().chain(RECEIPTS) {
            if let Some(value) = response.headers_mut().get_mut(name)
                && let Ok(json) = STANDARD.decode(&*value)
                && let Ok(encoded) = HeaderValue::from_bytes(&self.header(&json))
            {
                *value = encoded;
            }
        }
    }

    fn body(&self, json: Vec<u8>) -> Bytes {
        let Self::BodyMember(member) = self else {
            return json.into();
        };
        let member = serde_json::Value::from(member.as_str()).to_string();
        let parts: [&[u8]; 5] = [b"{", member.as_bytes(), b":", &json, b"}"];
        parts.concat().into()
    }

    fn header(&self, json: &[u8]) -> Vec<u8> {
        let standard = || STANDARD.encode(json);
        match self {
            Self::Unpadded => STANDARD_NO_PAD.encode(json).into(),
            Self::UrlSafe => URL_SAFE.encode(json).into(),
            Self::UrlSafeUnpadded => URL_SAFE_NO_PAD.encode(json).into(),
            Self::PercentEncoded => byte_serialize(standard().as_bytes())
                .collect::<String>()
                .into(),
            Self::Quoted => format!("\"{}\"", standard()).into(),
            Self::Json | Self::Body | Self::BodyMember(_) => json.to_vec(),
        }
    }
}

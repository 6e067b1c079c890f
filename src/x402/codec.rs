//! Headers that hold base64 of JSON, with limits on their length.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::WireError;

/// The length of the longest header that bursar decodes, in bytes.
pub(crate) const MAX_HEADER: usize = 64 * 1024;
/// The length of the longest body of a 402 that bursar reads, in bytes after decompression.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// Writes padding. Reads text with or without padding, as the official decoder does.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Returns the JSON of a header: base64 in the standard or the URL-safe alphabet, also in percent-encoding or in quotes,
/// or plain JSON.
pub(crate) fn decode_header(value: &[u8]) -> Result<Vec<u8>, WireError> {
    if value.len() > MAX_HEADER {
        return Err(WireError::HeaderTooLong {
            length: value.len(),
        });
    }
    let value = value.trim_ascii();
    if let Ok(json) = BASE64.decode(value) {
        return Ok(unquoted(&json).into_owned());
    }
    let value = unquoted(value);
    if value.starts_with(b"{") {
        return Ok(value.into_owned());
    }
    let plain = percent_encoding::percent_decode(&value).collect::<Vec<u8>>();
    let plain = unquoted(&plain);
    if plain.starts_with(b"{") {
        return Ok(plain.into_owned());
    }
    // Some proxies join two headers of one name.
    let mut values = plain.split(|byte| *byte == b',').map(alphabet);
    let first = values.next().unwrap_or_default();
    if values.any(|other| other != first) {
        return Err(WireError::Ambiguous(
            "the header has two different values".to_owned(),
        ));
    }
    let json = BASE64.decode(first);
    let json = json.map_err(|error| WireError::Base64(error.to_string()))?;
    Ok(unquoted(&json).into_owned())
}

/// Returns base64 in the standard alphabet, without white space and quotes.
fn alphabet(base64: &[u8]) -> Vec<u8> {
    let letters = base64
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\''));
    letters
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect()
}

/// Returns JSON without a byte order mark, and the text of JSON that is a string.
pub(super) fn unquoted(json: &[u8]) -> Cow<'_, [u8]> {
    let json = json.trim_ascii();
    let json = json
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(json)
        .trim_ascii();
    match serde_json::from_slice::<String>(json) {
        Ok(text) if json.starts_with(b"\"") => text.trim().as_bytes().to_vec().into(),
        _ => json.into(),
    }
}

/// Returns the bytes of a header that bursar wrote.
pub(super) fn decode(header: &str) -> Option<Vec<u8>> {
    BASE64.decode(header).ok()
}

pub(crate) fn encode_header(json: &[u8]) -> String {
    BASE64.encode(json)
}

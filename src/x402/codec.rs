//! Headers that hold base64 of JSON, with limits on their length.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};

use percent_encoding::percent_decode;

use super::WireError;

/// The length of the longest header that bursar decodes, in bytes.
pub(crate) const MAX_HEADER: usize = 64 * 1024;
/// The length of the longest body of a 402 that bursar reads, in bytes after decompression.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// Writes padding. Reads text with or without padding, as the official decoder does.
const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The standard alphabet, with the vector instructions of the processor where base64 knows them.
#[cfg(any(
    target_arch = "x86_64",
    all(target_arch = "aarch64", target_feature = "neon")
))]
static BASE64: std::sync::LazyLock<base64::engine::Simd> =
    std::sync::LazyLock::new(|| base64::engine::Simd::standard(CONFIG));
#[cfg(not(any(
    target_arch = "x86_64",
    all(target_arch = "aarch64", target_feature = "neon")
)))]
static BASE64: base64::engine::GeneralPurpose =
    base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG);

/// Returns the JSON of a header: base64 in the standard or the URL-safe alphabet, also in percent-encoding or in quotes,
/// or plain JSON.
pub(crate) fn decode_header(value: &[u8]) -> Result<Vec<u8>, WireError> {
    if value.len() > MAX_HEADER {
        return Err(WireError::HeaderTooLong {
            length: value.len(),
        });
    }
    let json = BASE64.decode(value).or_else(|_| decode_odd(value))?;
    Ok(match unquoted(&json) {
        Cow::Owned(text) => text,
        Cow::Borrowed(same) if same.len() == json.len() => json,
        Cow::Borrowed(part) => part.to_vec(),
    })
}

fn decode_odd(value: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut value = unquoted(value);
    if !value.starts_with(b"{") && value.contains(&b'%') {
        let plain = Cow::<[u8]>::from(percent_decode(&value));
        value = unquoted(&plain).into_owned().into();
    }
    if value.starts_with(b"{") {
        return Ok(value.into_owned());
    }
    // `b'eyJ…'` is base64 as Python prints it.
    let value = value.strip_prefix(b"b'").unwrap_or(&value);
    let is_letter = |byte: &&u8| !byte.is_ascii_whitespace() && **byte != b'\'';
    let letters = value.iter().filter(is_letter);
    let standard = letters.map(|byte| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    });
    let json = BASE64.decode(standard.collect::<Vec<u8>>());
    json.map_err(|error| WireError::Base64(error.to_string()))
}

/// Returns JSON without a byte order mark, and the text of JSON that is a string.
pub(super) fn unquoted(json: &[u8]) -> Cow<'_, [u8]> {
    let json = json.trim_ascii();
    let json = json
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(json)
        .trim_ascii();
    if json.starts_with(b"\"")
        && let Ok(text) = serde_json::from_slice::<String>(json)
    {
        return text.trim().as_bytes().to_vec().into();
    }
    json.into()
}

/// Returns the bytes of a header that bursar wrote.
pub(super) fn decode(header: &str) -> Option<Vec<u8>> {
    BASE64.decode(header).ok()
}

pub(crate) fn encode_header(json: &[u8]) -> String {
    BASE64.encode(json)
}

#[cfg(test)]
mod tests {
    use base64::alphabet::STANDARD;
    use base64::engine::GeneralPurpose;

    use super::*;

    /// Vector instructions take over at a certain length, and leave the end to others.
    #[test]
    fn base64_of_every_length_is_read_and_written_as_the_scalar_engine_does() {
        let scalar = GeneralPurpose::new(&STANDARD, CONFIG);
        for length in 0..300_usize {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            let text = encode_header(&bytes);
            assert_eq!(text, scalar.encode(&bytes), "{length}");
            let bare = text.trim_end_matches('=');
            for written in [&text, bare, &format!("{bare}!"), &format!("!{bare}")] {
                let read = BASE64.decode(written).ok();
                assert_eq!(read, scalar.decode(written).ok(), "{written}");
            }
            assert_eq!(decode(&text).as_deref(), Some(&*bytes), "{length}");
        }
    }
}

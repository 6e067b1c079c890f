//! Headers that hold base64 of JSON, with limits on their length.

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

pub(crate) fn decode_header(value: &[u8]) -> Result<Vec<u8>, WireError> {
    if value.len() > MAX_HEADER {
        return Err(WireError::HeaderTooLong {
            length: value.len(),
        });
    }
    BASE64
        .decode(value.trim_ascii())
        .map_err(|error| WireError::Base64(error.to_string()))
}

pub(crate) fn encode_header(json: &[u8]) -> String {
    BASE64.encode(json)
}

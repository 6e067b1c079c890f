//! The characters that the fields of a message may have (the grammar of EIP-4361).
//!
//! Every field is one line of printable ASCII, so no field can look like another one. Official software refuses a message
//! outside of the grammar, so no seller could verify it.

use crate::clock::Timestamp;

/// The longest time that is read, in bytes.
const LONGEST_TIME: usize = 40;

/// Whether a text can be a statement. An empty one is allowed.
pub(super) fn is_statement(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte == b' ' || is_unreserved(byte) || is_reserved(byte))
}

/// Whether a text is a URI with a scheme.
pub(super) fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let mut letters = scheme.bytes();
    let is_scheme = letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let (authority, rest) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        None => ("", rest),
    };
    // Brackets are for an IPv6 address only.
    is_scheme
        && is_escaped(text)
        && (authority.bytes().chain(rest.bytes()))
            .all(|byte| byte == b'%' || is_unreserved(byte) || is_reserved(byte))
        && !rest.contains(['[', ']'])
        && rest.matches('#').count() <= 1
}

/// Whether a text can be a request id. An empty one is allowed.
pub(super) fn is_request_id(text: &str) -> bool {
    is_escaped(text)
        && text
            .bytes()
            .all(|byte| byte == b'%' || is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte))
}

/// Whether a text can be a nonce.
pub(super) fn is_nonce(text: &str) -> bool {
    (8..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Reads a date and time of RFC 3339.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let is_part = |byte: u8| byte.is_ascii_digit() || b"-+:.TtZz".contains(&byte);
    let has_form = text.len() <= LONGEST_TIME
        && text.bytes().all(is_part)
        && text.get(4..5) == Some("-")
        && text.get(13..14) == Some(":");
    let read: jiff::Timestamp = has_form.then(|| text.parse().ok())??;
    Some(Timestamp::from_millis(read.as_millisecond()))
}

/// Whether each percent sign begins an escape.
fn is_escaped(text: &str) -> bool {
    text.split('%').skip(1).all(|part| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_reserved(byte: u8) -> bool {
    b":/?#[]@!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The judgement of `@signinwithethereum/siwe` 4.1.0 on the same texts.
    #[test]
    fn a_field_of_a_sign_in_has_the_characters_that_official_software_takes() {
        for (statement, good) in [
            ("Sign in to access your purchased content", true),
            ("", true),
            (" lead", true),
            ("a\nURI: x", false),
            ("say \"hi\"", false),
            ("grüezi", false),
            ("50% off", false),
            ("a\u{0}b", false),
        ] {
            assert_eq!(is_statement(statement), good, "{statement:?}");
        }
        for (uri, good) in [
            ("https://api.example.com/x?y=1#f", true),
            ("http://[::1]:4021/x", true),
            ("ipfs://x", true),
            ("HTTPS://API.example.com/x", true),
            ("https://api.example.com/a%20b", true),
            ("not a uri", false),
            ("/x", false),
            ("https://api.example.com/x?a[]=1", false),
            ("https://api.example.com/x?a=%zz", false),
            ("https://api.example.com/a b", false),
            ("https://api.example.com/x?a=1|2", false),
            ("https://api.example.com/ü", false),
            ("https://api.example.com/x\nNonce: other123", false),
        ] {
            assert_eq!(is_uri(uri), good, "{uri:?}");
        }
        for (id, good) in [("r-1", true), ("", true), ("a b", false), ("a/b", false)] {
            assert_eq!(is_request_id(id), good, "{id:?}");
        }
        for (nonce, good) in [
            ("abcdefgh", true),
            ("abcdefg", false),
            ("abcdefgh-1", false),
            ("abcdefg\n", false),
        ] {
            assert_eq!(is_nonce(nonce), good, "{nonce:?}");
        }
    }

    #[test]
    fn a_time_of_a_sign_in_has_the_form_of_rfc_3339() {
        let noon = Timestamp::from_secs(1_740_672_094);
        for (text, read) in [
            ("2025-02-27T16:01:34.000Z", Some(noon)),
            ("2025-02-27T16:01:34Z", Some(noon)),
            ("2025-02-27t16:01:34z", Some(noon)),
            ("2025-02-27T18:01:34+02:00", Some(noon)),
            ("2025-02-27", None),
            ("2025-02-27 16:01:34Z", None),
            ("20250227T160134Z", None),
            ("2025-02-27T16:01:34", None),
            ("2025-02-27T16:01:34Z[UTC]", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(time(text), read, "{text}");
        }
    }
}

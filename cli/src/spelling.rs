//! Spellings of a path that some servers take for one.

/// Returns a path as the most lenient server reads it: decoded up to three times, without parameters, empty segments and
/// capitals.
pub(crate) fn as_servers_read(path: &str) -> String {
    let mut text = path.to_owned();
    for _ in 0..3 {
        text = decoded(&text);
    }
    let mut read = String::with_capacity(text.len());
    for segment in text.split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        if !name.is_empty() {
            read.push('/');
            read.push_str(&name.to_ascii_lowercase());
        }
    }
    read
}

/// Decodes the escapes of ASCII characters once.
pub(crate) fn decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let byte = after
            .get(..2)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .filter(u8::is_ascii);
        match (byte, after.get(2..)) {
            (Some(byte), Some(behind)) => {
                out.push(char::from(byte));
                rest = behind;
            }
            _ => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

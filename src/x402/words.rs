//! The words of a seller in a body that is not x402.

use serde_json::Value;

/// The members that hold the reason of a failure, in the order in which they are shown.
const MEMBERS: [&str; 17] = [
    "errorReason",
    "error_reason",
    "invalidReason",
    "invalid_reason",
    "error",
    "errors",
    "errorMessage",
    "error_message",
    "invalidMessage",
    "reason",
    "message",
    "msg",
    "detail",
    "details",
    "title",
    "code",
    "description",
];
/// The deepest nesting, and the most texts, that are shown.
const DEEPEST: usize = 4;
const MOST: usize = 3;
/// The longest text without JSON that is read.
const LONGEST: usize = 2048;

/// Returns the words of the seller in a body: the members that name a reason, or its text. The result is untrusted and
/// may be long.
pub(crate) fn words(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok().map(str::trim);
    let text = text.filter(|text| !text.is_empty())?;
    let found = match serde_json::from_str(text) {
        Ok(value) => {
            let mut found = Vec::new();
            collect(&value, DEEPEST, &mut found);
            found.join(": ")
        }
        Err(_) if text.starts_with(['{', '[']) => return None,
        Err(_) if text.starts_with('<') => page_title(text)?,
        Err(_) => text.chars().take(LONGEST).collect(),
    };
    (!found.is_empty()).then_some(found)
}

fn collect(value: &Value, depth: usize, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let text = text.trim();
            let is_new = !text.is_empty() && !found.iter().any(|known| known == text);
            if is_new && found.len() < MOST {
                found.push(text.to_owned());
            }
        }
        Value::Array(items) if depth > 0 => {
            if let Some(first) = items.first() {
                collect(first, depth.saturating_sub(1), found);
            }
        }
        Value::Object(members) if depth > 0 => {
            for value in MEMBERS.iter().filter_map(|name| members.get(*name)) {
                collect(value, depth.saturating_sub(1), found);
            }
        }
        _ => {}
    }
}

/// Returns the title of an HTML page, or its first heading.
fn page_title(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let element = |name: &str| {
        let start = lower.find(&format!("<{name}"))?;
        let begin = start
            .checked_add(lower.get(start..)?.find('>')?)?
            .checked_add(1)?;
        let end = begin.checked_add(lower.get(begin..)?.find("</")?)?;
        let text = page.get(begin..end)?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    element("title").or_else(|| element("h1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found_where_sellers_write_them() {
        let bodies = [
            (r#"{"error":"no funds"}"#, Some("no funds")),
            (
                r#"{"error":{"message":"Insufficient Balance","type":"x","code":"invalid_request_error"}}"#,
                Some("Insufficient Balance: invalid_request_error"),
            ),
            (
                r#"{"error":"failed","message":"failed","details":"node down"}"#,
                Some("failed: node down"),
            ),
            (
                r#"{"detail":[{"msg":"field required"}]}"#,
                Some("field required"),
            ),
            (r#""just text""#, Some("just text")),
            ("plain text", Some("plain text")),
            (r#"{"error":"cut o"#, None),
            (
                "<html><head><TITLE>502 Bad Gateway</TITLE></head></html>",
                Some("502 Bad Gateway"),
            ),
            ("{}", None),
            ("", None),
            ("7", None),
        ];
        for (body, expected) in bodies {
            assert_eq!(words(body.as_bytes()).as_deref(), expected, "{body}");
        }
        assert_eq!(words(b"\xff"), None);
    }
}

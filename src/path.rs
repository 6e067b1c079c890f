//! Paths of URLs, in the one spelling in which bursar compares them.
//!
//! A path travels as the caller wrote it. Many servers decode escapes, drop `;parameters`, join slashes and ignore case
//! before they look for the resource, so `/%72eport`, `//report/` and `/report;v=1` are often `/report`. For limits they are.

use std::borrow::Cow;

/// The beginning of the path of an MCP tool. A tool has one spelling, and no path of HTTP is one.
pub(crate) const TOOL: &str = "/mcp://tool/";
/// How often escapes are decoded: some servers decode twice.
const PASSES: usize = 3;

/// Returns the text with its escapes in one spelling: letters, digits and `-._~` without an escape, other escapes in
/// capitals (RFC 3986, 6.2.2). It names the same resource on every server.
pub(crate) fn normalized(text: &str) -> Cow<'_, str> {
    if text.contains('%') {
        unescaped(text, |byte, _| is_unreserved(byte)).into()
    } else {
        text.into()
    }
}

/// Returns the path as limits and the ledger compare it: decoded as a server may do it, without parameters, empty segments
/// and a slash at the end. Two paths with one result may be one resource.
pub(crate) fn resource(path: &str) -> Cow<'_, str> {
    let is_plain = !path.contains(['%', ';', '\\']) && !path.contains("//") && !path.contains("/.");
    if is_plain && (path == "/" || !path.ends_with('/')) {
        return path.into();
    }
    let decoded = decoded(path);
    let mut joined = String::with_capacity(decoded.len());
    for segment in segments(&decoded).filter(|segment| !matches!(*segment, "" | ".")) {
        joined.push('/');
        joined.push_str(segment);
    }
    if joined.is_empty() {
        return "/".into();
    }
    joined.into()
}

/// Returns the path that a limit on a resource holds, for a path of HTTP or of a tool. It has no capitals, because many
/// servers do not distinguish them.
pub(crate) fn limited(path: &str) -> String {
    if path.starts_with(TOOL) {
        normalized(path).into_owned()
    } else {
        resource(path).to_ascii_lowercase()
    }
}

/// Whether `path`, a [`resource`] or a tool, lies at or below a [`limited`] path.
pub(crate) fn is_within(limit: &str, path: &str) -> bool {
    if limit.starts_with(TOOL) || path.starts_with(TOOL) {
        return limit == path;
    }
    let Some((head, rest)) = path.split_at_checked(limit.len()) else {
        return false;
    };
    head.eq_ignore_ascii_case(limit) && (rest.is_empty() || rest.starts_with('/') || limit == "/")
}

/// Returns every [`limited`] path that `path`, a [`resource`] or a tool, lies at or below: each path once.
#[cfg(feature = "sqlite")]
pub(crate) fn all_around(path: &str) -> Vec<String> {
    if path.starts_with(TOOL) {
        return vec![path.to_owned()];
    }
    let path = path.to_ascii_lowercase();
    let above = path.match_indices('/').filter_map(|(at, _)| match at {
        0 => path.get(..1),
        1 => None,
        at => path.get(..at),
    });
    let mut around: Vec<String> = above.map(ToOwned::to_owned).collect();
    if path != "/" {
        around.push(path);
    }
    around
}

/// Whether an escape in the path hides a slash or a backslash. Servers disagree about such a path.
pub(crate) fn hides_a_slash(path: &str) -> bool {
    let slashes = |text: &str| text.matches(['/', '\\']).count();
    path.contains('%') && slashes(&decoded(path)) > slashes(path)
}

/// Whether the path hides a step upwards or a control character. Servers disagree about such a path, and a limit on one
/// resource could be evaded through another. A URL keeps neither of them in plain form.
pub(crate) fn hides_a_step(path: &str) -> bool {
    if !path.contains(['%', ';']) {
        return false;
    }
    let decoded = decoded(path);
    let mut control = decoded.split('%').skip(1).filter_map(escaped_byte);
    segments(&decoded).any(|segment| segment == "..") || control.any(|byte| byte.is_ascii_control())
}

/// Returns the segments without their parameters.
fn segments(decoded: &str) -> impl Iterator<Item = &str> {
    let segments = decoded.split(['/', '\\']);
    segments.map(|segment| segment.split(';').next().unwrap_or_default())
}

fn decoded(path: &str) -> Cow<'_, str> {
    let mut decoded = Cow::from(path);
    for _ in 0..PASSES {
        if !decoded.contains('%') {
            break;
        }
        decoded = unescaped(&decoded, |byte, rest| match byte {
            b'%' => escaped_byte(rest).is_some(),
            b'"' | b'#' | b'<' | b'>' | b'?' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
            byte => byte.is_ascii_graphic(),
        })
        .into();
    }
    decoded
}

/// Decodes the escapes of bytes that `is_plain`, which also receives the text after the escape.
fn unescaped(text: &str, is_plain: impl Fn(u8, &str) -> bool) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escape = escaped_byte(part).zip(part.split_at_checked(2));
        match escape {
            // Only ASCII is plain.
            Some((byte, (_, rest))) if is_plain(byte, rest) => {
                plain.push(char::from(byte));
                plain.push_str(rest);
            }
            Some((_, (digits, rest))) => {
                plain.push('%');
                plain.push_str(&digits.to_ascii_uppercase());
                plain.push_str(rest);
            }
            None => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// Returns the byte that the first two characters name in hexadecimal.
fn escaped_byte(text: &str) -> Option<u8> {
    let digits = text.get(..2)?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok())?
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "sqlite")]
    use proptest::prelude::*;

    use super::*;

    #[cfg(feature = "sqlite")]
    proptest! {
        #[test]
        fn a_path_is_within_exactly_the_limits_around_it(
            path in "/[abA/%;.25fF]{0,12}", limit in "/[abA/%;.25fF]{0,4}",
        ) {
            let around = all_around(&resource(&path));
            let limit = limited(&limit);
            prop_assert_eq!(around.contains(&limit), is_within(&limit, &resource(&path)));
            let once: std::collections::BTreeSet<_> = around.iter().collect();
            prop_assert_eq!(once.len(), around.len());
        }

        #[test]
        fn no_path_makes_these_functions_panic(path in "\\PC{0,40}") {
            let known = (normalized(&path), resource(&path), hides_a_slash(&path), hides_a_step(&path));
            prop_assert!(known.1.starts_with('/') || known.1 == path);
        }
    }

    #[test]
    fn every_spelling_of_a_path_is_one_resource() {
        for spelling in [
            "/report",
            "/%72eport",
            "/repor%74",
            "/%72%65%70%6F%72%74",
            "/%72%65%70%6f%72%74",
            "/report/",
            "/report//",
            "//report",
            "/./report",
            "/report/.",
            "/%2Freport",
            "/%2freport",
            "/%5Creport",
            "/report%2F",
            "/report;v=1",
            "/report;v=1/",
            "/report%3Bv=1",
            "/;x/report",
            "/%2E%2Freport",
            "/%2572eport",
            "/%252Freport",
            "/%25252Freport",
        ] {
            assert_eq!(resource(spelling), "/report", "{spelling}");
        }
        for other in ["/", "/reports", "/repor", "/a/report", "/%E9report"] {
            assert_ne!(resource(other), "/report", "{other}");
        }
        assert_eq!(resource("/caf%c3%a9"), "/caf%C3%A9");
        assert_eq!(resource("/a%21b"), "/a!b");
        assert_eq!(resource("/a%20b%"), "/a%20b%");
        assert_eq!((resource("/"), resource("//")), ("/".into(), "/".into()));
    }

    #[test]
    fn a_normalized_path_keeps_everything_that_a_server_may_distinguish() {
        for (path, same) in [
            ("/%72eport", "/report"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%7Eb%21", "/a~b%21"),
            ("/Report/;x//", "/Report/;x//"),
            ("/%2572", "/%2572"),
            ("/%zz%4", "/%zz%4"),
        ] {
            assert_eq!(normalized(path), same);
        }
    }

    #[test]
    fn a_limit_holds_for_its_path_and_everything_below_it() {
        for (limit, path, held) in [
            ("/report", "/report", true),
            ("/report", "/REPORT", true),
            ("/report", "/report/2026", true),
            ("/report", "/reports", false),
            ("/report", "/repor", false),
            ("/", "/report", true),
            ("/", "/", true),
            ("/a/b", "/a", false),
            ("/mcp://tool/a", "/mcp://tool/a", true),
            ("/mcp://tool/a", "/mcp://tool/A", false),
            ("/mcp://tool/a", "/mcp://tool/a/b", false),
            ("/", "/mcp://tool/a", false),
            ("/mcp:", "/mcp://tool/a", false),
        ] {
            assert_eq!(is_within(limit, path), held, "{limit} {path}");
        }
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn all_limits_around_a_path_are_those_that_it_is_within() {
        let around = all_around;
        assert_eq!(around("/A/b/c"), ["/", "/a", "/a/b", "/a/b/c"]);
        assert_eq!(around("/"), ["/"]);
        assert_eq!(around("/mcp://tool/A"), ["/mcp://tool/A"]);
        for path in ["/A/b/c", "/", "/mcp://tool/A"] {
            assert!(around(path).iter().all(|limit| is_within(limit, path)));
        }
    }

    #[test]
    fn hidden_slashes_steps_and_control_characters_are_found() {
        for path in ["/a/..%2Fb", "/a%5cb", "/a/%252Fb", "/%2F"] {
            assert!(hides_a_slash(path), "{path}");
        }
        for path in [
            "/a/..%2Fb",
            "/a/..;/b",
            "/a/%252e%252E/b",
            "/a%00",
            "/a%0d%0A",
            "/a%7F",
            "/a%2500",
        ] {
            assert!(hides_a_step(path), "{path}");
        }
        for path in ["/a/b;v=1", "/a%20b", "/a..b%21", "/%C3%A9", "/...;x", "/a%"] {
            assert!(!hides_a_slash(path) && !hides_a_step(path), "{path}");
        }
    }
}

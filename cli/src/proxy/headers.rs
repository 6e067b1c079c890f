//! The headers that pass the proxy. Those of one hop, those about payments and those of the proxy's own stay here, in both
//! directions.

use bursar::reqwest::header::{CONNECTION, HeaderMap, HeaderName, LOCATION};

/// Headers of one hop, or about the way to the proxy. `cookie`: a program's cookies for 127.0.0.1 are those of every
/// server of this machine.
const NOT_FORWARDED: [&str; 17] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-host",
    "x-real-ip",
];
/// Headers of an answer that stay here. `alt-svc` and `refresh` would send the program elsewhere, and a cookie of one
/// seller would go to all others, because they have one address.
const NOT_RETURNED: [&str; 14] = [
    "alt-svc",
    "clear-site-data",
    "connection",
    "keep-alive",
    "nel",
    "refresh",
    "report-to",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers about payments, sign-ins, proxies and browsers.
const OWN_PREFIXES: [&str; 9] = [
    "access-control-",
    "bursar-",
    "payment-",
    "proxy-",
    "sec-",
    "sign-in-with-x",
    "x-forwarded-",
    "x-payment",
    "x402",
];
/// Headers that let some servers take the request for another one. The policy has judged this one.
const REFUSED: [&str; 7] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-uri",
    "x-rewrite-url",
];

/// Returns a name with dashes in place of underscores. Many servers take the two for one.
fn dashed(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

fn is_own(name: &str) -> bool {
    OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Returns the names in the `Connection` headers: they are for one hop, too.
fn of_the_hop(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(CONNECTION);
    let values = values.iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(','));
    names
        .map(|name| name.trim().to_ascii_lowercase().replace('_', "-"))
        .collect()
}

/// Returns the headers of a request for the target. `used` are the headers that had the program's token.
///
/// # Errors
/// Returns the name of a header that would change the request behind the policy.
pub(super) fn for_target(
    headers: &HeaderMap,
    used: &[HeaderName],
) -> Result<HeaderMap, HeaderName> {
    let hop = of_the_hop(headers);
    let mut passed = HeaderMap::new();
    for (name, value) in headers {
        let plain = dashed(name);
        if REFUSED.contains(&plain.as_str()) {
            return Err(name.clone());
        }
        let stays = NOT_FORWARDED.contains(&plain.as_str())
            || is_own(&plain)
            || hop.contains(&plain)
            || used.contains(name);
        if !stays {
            passed.append(name.clone(), value.clone());
        }
    }
    Ok(passed)
}

/// Returns the headers of an answer for the program. `is_redirect` answers have no target: the program must not leave the
/// proxy.
pub(super) fn for_program(headers: &HeaderMap, is_redirect: bool) -> HeaderMap {
    let hop = of_the_hop(headers);
    let mut passed = HeaderMap::new();
    for (name, value) in headers {
        let plain = dashed(name);
        let stays = NOT_RETURNED.contains(&plain.as_str())
            || is_own(&plain)
            || hop.contains(&plain)
            || (is_redirect && name == LOCATION);
        if !stays {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
        pairs.collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn headers_of_the_hop_of_payments_and_of_the_proxy_do_not_reach_the_target() {
        let request = map(&[
            ("authorization", "Bearer t"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("payment-signature", "p"),
            ("x_payment", "p"),
            ("x-payment", "p"),
            ("sign-in-with-x", "s"),
            ("bursar-max-price", "1"),
            ("cookie", "a=b"),
            ("host", "127.0.0.1"),
            ("content-length", "3"),
            ("proxy-authorization", "x"),
            ("sec-fetch-mode", "cors"),
            ("x-forwarded-for", "10.0.0.1"),
            ("te", "trailers"),
            ("accept", "text/event-stream"),
            ("x-stainless-lang", "python"),
        ]);
        let authorization = HeaderName::from_static("authorization");
        let passed = for_target(&request, &[authorization]).unwrap();
        assert_eq!(names(&passed), ["accept", "x-stainless-lang"]);
    }

    #[test]
    fn a_header_that_changes_the_request_behind_the_policy_is_refused_by_the_proxy() {
        for name in ["x-http-method-override", "x_original_url", "x-rewrite-url"] {
            let refused = for_target(&map(&[(name, "DELETE")]), &[]).unwrap_err();
            assert_eq!(refused.as_str(), name);
        }
    }

    #[test]
    fn headers_of_the_hop_of_payments_and_of_other_places_do_not_reach_the_program() {
        let answer = map(&[
            ("connection", "X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("payment-response", "r"),
            ("payment_required", "r"),
            ("x-payment-response", "r"),
            ("sign-in-with-x", "s"),
            ("bursar-payment-status", "not_paid"),
            ("set-cookie", "a=b"),
            ("alt-svc", "h2=\"evil.example\""),
            ("access-control-allow-origin", "*"),
            ("location", "https://evil.example"),
            ("content-type", "text/plain"),
            ("retry-after", "1"),
        ]);
        let passed = for_program(&answer, true);
        assert_eq!(names(&passed), ["content-type", "retry-after"]);
        assert!(for_program(&answer, false).contains_key("location"));
    }
}

//! The checks of a request before the proxy looks at its path: its form, its host, browsers, and the token.

use std::net::SocketAddr;

use bursar::reqwest::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN, UPGRADE};
use bursar::reqwest::{Method, StatusCode};
use hyper::http::request::Parts;
use hyper::{Uri, Version};

use super::answer::Refusal;
use super::tokens::{PREFIX, Tokens};

/// The headers in which SDKs send their API key.
const TOKEN_HEADERS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];
/// A header that only browsers send.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// The names under which the proxy is reached.
pub(super) struct OwnHosts(Vec<String>);

/// A program with a token.
#[derive(Debug)]
pub(super) struct Program {
    /// The name of the token.
    pub(super) name: String,
    /// The headers that have the token. They are never forwarded.
    pub(super) used: Vec<HeaderName>,
}

impl OwnHosts {
    pub(super) fn new(address: SocketAddr) -> Self {
        let port = address.port();
        let names = ["127.0.0.1", "localhost", "[::1]"];
        let mut hosts: Vec<_> = names.map(|name| format!("{name}:{port}")).into();
        hosts.push(address.to_string());
        if port == 80 {
            hosts.extend(names.map(ToOwned::to_owned));
        }
        Self(hosts)
    }

    fn has(&self, host: &str) -> bool {
        self.0.iter().any(|own| own.eq_ignore_ascii_case(host))
    }
}

/// Checks everything that does not need a token.
///
/// A page of a browser reaches loopback addresses too, under the name of its own site if that name leads here (DNS
/// rebinding). Its `Host` is then the name of the site.
pub(super) fn check_form(head: &Parts, own: &OwnHosts) -> Result<(), Refusal> {
    let bad = |message: &str| Refusal::new(StatusCode::BAD_REQUEST, "form", message);
    if head.version == Version::HTTP_10 || head.version == Version::HTTP_09 {
        let message = "HTTP/1.0 cannot show that a body broke off; use HTTP/1.1";
        return Err(Refusal::new(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "form",
            message,
        ));
    }
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "form",
            "the proxy does not tunnel and does not trace; set it as the base URL of an SDK, not as an HTTP proxy",
        ));
    }
    let elsewhere = |uri: &Uri| uri.authority().is_some_and(|to| !own.has(to.as_str()));
    if elsewhere(&head.uri) {
        return Err(bad(
            "the request names another server; set the proxy as the base URL of an SDK, not as an HTTP proxy",
        ));
    }
    if !head.uri.path().starts_with('/') {
        return Err(bad("the request has no path"));
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(|host| own.has(host)) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "host",
            "the header `host` is not a loopback name of the proxy",
        ));
    }
    if head.headers.contains_key(ORIGIN) || head.headers.contains_key(SEC_FETCH_SITE) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "browser",
            "the request comes from a page in a browser; pages may not use the proxy",
        ));
    }
    let upgrades = head.headers.get_all(UPGRADE).iter();
    let mut upgrades = upgrades.filter_map(|upgrade| upgrade.to_str().ok());
    if upgrades.any(|upgrade| upgrade.to_ascii_lowercase().contains("websocket")) {
        return Err(bad("the proxy does not pass WebSockets on"));
    }
    Ok(())
}

/// Finds the token of a request.
pub(super) fn authenticate(head: &Parts, tokens: &Tokens) -> Result<Program, Refusal> {
    let unauthorized = |message: &str| Refusal::new(StatusCode::UNAUTHORIZED, "token", message);
    let mut program: Option<Program> = None;
    let mut token = String::new();
    for name in TOKEN_HEADERS {
        for candidate in candidates(&head.headers, &name) {
            let owner = tokens.name_of(candidate).map_err(|error| {
                Refusal::new(
                    StatusCode::FORBIDDEN,
                    "token",
                    format!("the file of tokens cannot be used: {error}"),
                )
            })?;
            match (owner, &mut program) {
                (Some(owner), None) => {
                    candidate.clone_into(&mut token);
                    program = Some(Program {
                        name: owner,
                        used: vec![name.clone()],
                    });
                }
                (Some(owner), Some(program)) if owner == program.name => {
                    program.used.push(name.clone());
                }
                // A token that ended, or the token of another program, goes to nobody.
                _ if candidate.starts_with(PREFIX) => {
                    return Err(unauthorized(
                        "the token is not one of this proxy, or it has ended; make one with `bursar proxy token NAME`",
                    ));
                }
                _ => {}
            }
        }
    }
    let Some(program) = program else {
        return Err(unauthorized(
            "the request has no token of this proxy; make one with `bursar proxy token NAME`, and set it as the API \
             key of the SDK",
        ));
    };
    let others = head.headers.iter();
    let mut others = others.filter(|(name, _)| !program.used.contains(name));
    let holds = |text: &[u8]| {
        text.windows(token.len())
            .any(|part| part == token.as_bytes())
    };
    if others.any(|(_, value)| holds(value.as_bytes())) || holds(head.uri.to_string().as_bytes()) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "token",
            "the token is also in the URL or in another header, which would go to the target",
        ));
    }
    Ok(program)
}

/// Returns the texts in a header that may be tokens.
fn candidates<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h str> + use<'h> {
    let is_authorization = *name == AUTHORIZATION;
    let values = headers.get_all(name).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.filter_map(move |value| {
        let value = value.trim();
        if !is_authorization {
            return Some(value);
        }
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = hyper::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(method: &str, uri: &str, headers: &[(&str, &str)]) -> u16 {
        let own = OwnHosts::new("127.0.0.1:8402".parse().unwrap());
        match check_form(&head(method, uri, headers), &own) {
            Ok(()) => 200,
            Err(refusal) => refusal.status.as_u16(),
        }
    }

    #[test]
    fn only_a_request_to_a_name_of_the_proxy_passes() {
        for host in [
            "127.0.0.1:8402",
            "localhost:8402",
            "LOCALHOST:8402",
            "[::1]:8402",
        ] {
            assert_eq!(status("GET", "/x", &[("host", host)]), 200, "{host}");
        }
        for host in [
            "127.0.0.1",
            "127.0.0.1:80",
            "localhost",
            "evil.example:8402",
            "localhost.evil.example:8402",
            "127.0.0.1:8402.evil.example",
            "evil@127.0.0.1:8402",
            "",
        ] {
            assert_eq!(status("GET", "/x", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(status("GET", "/x", &[]), 403);
        let twice = [("host", "127.0.0.1:8402"), ("host", "evil.example")];
        assert_eq!(status("GET", "/x", &twice), 403);
    }

    #[test]
    fn a_page_a_tunnel_and_a_forward_request_do_not_pass() {
        let own = ("host", "127.0.0.1:8402");
        for (header, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:8402"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "none"),
        ] {
            assert_eq!(
                status("GET", "/x", &[own, (header, value)]),
                403,
                "{header}: {value}"
            );
            assert_eq!(status("OPTIONS", "/x", &[own, (header, value)]), 403);
        }
        // The fetch of Node sends this one.
        assert_eq!(
            status("POST", "/x", &[own, ("sec-fetch-mode", "cors")]),
            200
        );
        assert_eq!(status("CONNECT", "api.example.com:443", &[own]), 405);
        assert_eq!(status("TRACE", "/x", &[own]), 405);
        assert_eq!(status("GET", "http://api.example.com/x", &[own]), 400);
        assert_eq!(status("GET", "http://127.0.0.1:8402/x", &[own]), 200);
        assert_eq!(status("OPTIONS", "*", &[own]), 400);
        assert_eq!(status("GET", "/x", &[own, ("upgrade", "WebSocket")]), 400);
        assert_eq!(status("GET", "/x", &[own, ("upgrade", "h2c")]), 200);
    }
}

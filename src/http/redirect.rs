//! The targets of redirects.

use std::sync::Arc;

use http::header::LOCATION;
use reqwest::Response;
use url::Url;

use crate::error::{Error, ErrorKind, without_secrets};
use crate::text::{OwnQuery, excerpt, guarded};

/// The most redirects that bursar follows before a payment, as many as reqwest follows.
pub(super) const MAX_HOPS: usize = 10;

/// Returns the URL that an answer redirects to.
///
/// A redirect from https to plain http of the same host and port leads to https, as a browser with HSTS does it:
/// servers behind a proxy that ends TLS write such redirects by mistake.
pub(crate) fn target(response: &Response) -> Option<Url> {
    let (from, mut url) = (response.url(), written(response)?);
    let port = url
        .port()
        .filter(|port| Some(*port) != from.port_or_known_default());
    if is_downgrade(from, &url) && port.is_none() {
        url.set_scheme("https").ok()?;
        url.set_port(from.port()).ok()?;
    }
    if url.fragment().is_none() {
        url.set_fragment(from.fragment());
    }
    Some(url)
}

/// Returns an error for a redirect to plain http of the same host. bursar follows it neither as it is nor by https.
pub(super) fn refuse_downgrade(response: &Response) -> Result<(), Error> {
    match written(response) {
        Some(url) if is_downgrade(response.url(), &url) => {
            let advice = shown(&target(response).unwrap_or(url));
            let advice = advice
                .trim_start_matches("https://")
                .trim_start_matches("http://");
            let message =
                format!("redirected to plain http of the same host; try https://{advice}");
            Err(Error::new(ErrorKind::Insecure, message)
                .with_status(response.status())
                .at(response.url()))
        }
        _ => Ok(()),
    }
}

/// Describes a redirect that bursar did not follow, and the next step.
pub(crate) fn advice(response: &Response) -> Option<String> {
    let target = target(response)?;
    Some(format!(
        "a redirect to {}, which bursar does not follow; send a request there if you trust it",
        guarded(own_query(response), || shown(&target))
    ))
}

/// The query of the request, which its answer must not bring back.
pub(super) fn own_query(response: &Response) -> Option<Arc<OwnQuery>> {
    response.extensions().get().cloned()
}

/// Returns the URL as the seller wrote it, relative to the URL of the answer.
fn written(response: &Response) -> Option<Url> {
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308).then_some(())?;
    let location = response.headers().get(LOCATION)?;
    let location = std::str::from_utf8(location.as_bytes()).ok()?;
    response.url().join(location).ok()
}

fn is_downgrade(from: &Url, to: &Url) -> bool {
    from.scheme() == "https" && to.scheme() == "http" && from.host() == to.host()
}

/// Returns a URL for people, without the parts that may hold a secret.
fn shown(url: &Url) -> String {
    let query = url.query().map_or("", |_| "?…");
    excerpt(&format!("{}{query}", without_secrets(url)))
}

pub(super) fn too_many() -> Error {
    Error::new(
        ErrorKind::Transport,
        format!("more than {MAX_HOPS} redirects"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(from: &str, status: u16, to: &str) -> Response {
        use reqwest::ResponseBuilderExt;
        let answer = http::Response::builder()
            .status(status)
            .header(LOCATION, to)
            .url(from.parse().unwrap())
            .body("");
        answer.unwrap().into()
    }

    #[test]
    fn plain_http_of_the_same_host_becomes_https() {
        for (from, to, target_of) in [
            (
                "https://a.example/mcp/",
                "http://a.example/mcp",
                "https://a.example/mcp",
            ),
            (
                "https://a.example/mcp/",
                "http://a.example:80/mcp",
                "https://a.example/mcp",
            ),
            (
                "https://a.example/mcp/",
                "http://A.example:443/mcp",
                "https://a.example/mcp",
            ),
            (
                "https://a.example:8443/x",
                "http://a.example:8443/y",
                "https://a.example:8443/y",
            ),
            (
                "https://a.example:8443/x",
                "http://a.example/y",
                "https://a.example:8443/y",
            ),
            (
                "https://a.example/x",
                "//a.example/y",
                "https://a.example/y",
            ),
            (
                "https://a.example/x",
                "http://b.example/y",
                "http://b.example/y",
            ),
            (
                "https://a.example/x",
                "http://a.example:8080/y",
                "http://a.example:8080/y",
            ),
            ("http://127.0.0.1:9/x", "/y", "http://127.0.0.1:9/y"),
        ] {
            let answer = answer(from, 307, to);
            assert_eq!(target(&answer).unwrap().as_str(), target_of, "{from} {to}");
        }
        assert_eq!(target(&answer("https://a.example/x", 304, "/y")), None);
        assert_eq!(target(&answer("https://a.example/x", 200, "/y")), None);
    }

    #[test]
    fn an_error_names_the_target_without_its_query() {
        let answer = answer(
            "https://a.example/x",
            303,
            "https://me:pw@b.example/o?sig=abc#f",
        );
        let advice = advice(&answer).unwrap();
        assert!(advice.contains(" https://b.example/o?…,"), "{advice}");
        assert!(refuse_downgrade(&answer).is_ok());
    }
}

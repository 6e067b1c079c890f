//! The server of a tool, as the policy and the ledger know it.

use http::Method;
use serde_json::Value;
use url::Url;

use crate::error::Error;
use crate::json_text::canonical;
use crate::origin::Origin;
use crate::request::PurchaseRequest;

/// The domain of servers without a URL: a name that can never resolve (RFC 2606).
const NOWHERE: &str = "mcp-stdio.invalid";

/// An MCP server, as the policy and the ledger know it: by origin.
///
/// ```
/// use bursar::mcp::Server;
///
/// let remote = Server::at("https://tools.example/mcp")?;
/// let child = Server::local("files")?;
/// assert_eq!(remote.origin().to_string(), "https://tools.example");
/// assert_eq!(child.origin().to_string(), "https://files.mcp-stdio.invalid");
/// # Ok::<(), bursar::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    base: Url,
    origin: Origin,
}

impl Server {
    /// Returns the server at this endpoint. Its origin is the origin of the endpoint.
    ///
    /// # Errors
    /// When the text is not an `http` or `https` URL.
    pub fn at(endpoint: &str) -> Result<Self, Error> {
        let malformed = || {
            Error::builder(
                "not the URL of an MCP endpoint; expected a form like https://tools.example/mcp",
            )
        };
        let base: Url = endpoint.parse().map_err(|_| malformed())?;
        let origin = Origin::of(&base).ok_or_else(malformed)?;
        Ok(Self { base, origin })
    }

    /// Returns a server without a URL, such as a child process. Its host is `NAME.mcp-stdio.invalid`.
    ///
    /// # Errors
    /// When the name is not 1 to 63 of `a-z`, `0-9` and `-`.
    pub fn local(name: &str) -> Result<Self, Error> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let edge = name.starts_with('-') || name.ends_with('-');
        if !(1..=63).contains(&name.len()) || !name.bytes().all(plain) || edge {
            return Err(Error::builder(
                "the name of a local MCP server is 1 to 63 of a-z, 0-9 and -, such as `files`",
            ));
        }
        Self::at(&format!("https://{name}.{NOWHERE}/"))
    }

    /// Returns the origin, which limits and rules apply to.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the URL of the endpoint. Its query may hold a key.
    pub(super) const fn endpoint(&self) -> &Url {
        &self.base
    }

    /// Returns a call of a tool as a request to be paid for.
    pub(super) fn purchase_request(
        &self,
        tool: &str,
        arguments: &Value,
    ) -> Result<PurchaseRequest, Error> {
        let body = canonical(arguments);
        let call = Method::from_bytes(b"CALL").map_err(|_| Error::builder("not a method"))?;
        let url = self.url(tool);
        Ok(PurchaseRequest::from_parts(
            call,
            url,
            Some(body.as_bytes()),
        )?)
    }

    /// `https://tools.example/mcp://tool/NAME`.
    fn url(&self, tool: &str) -> Url {
        let mut url = self.base.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.set_path(&crate::policy::tool_path(tool));
        url
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_the_same_in_any_order_of_its_arguments() {
        let server = Server::at("https://tools.example/mcp?key=1").unwrap();
        let id = |tool: &str, arguments: Value| {
            let request = server.purchase_request(tool, &arguments);
            request.unwrap().fingerprint()
        };
        let one = id(
            "weather",
            json!({ "a": 1, "b": { "c": [1, "x"], "d": null } }),
        );
        assert_eq!(
            one,
            id(
                "weather",
                json!({ "b": { "d": null, "c": [1, "x"] }, "a": 1 })
            )
        );
        for other in [
            json!({}),
            json!({ "a": 1 }),
            json!({ "a": 1, "b": { "c": ["x", 1], "d": null } }),
        ] {
            assert_ne!(one, id("weather", other));
        }
        assert_ne!(
            one,
            id(
                "other",
                json!({ "a": 1, "b": { "c": [1, "x"], "d": null } })
            )
        );
        assert_eq!(
            server.url("weather").as_str(),
            "https://tools.example/mcp://tool/weather"
        );
        assert_eq!(server.url("../a b").path(), "/mcp://tool/..%2Fa%20b");
    }

    #[test]
    fn a_local_server_has_an_origin_of_its_own() {
        assert_eq!(
            Server::local("files").unwrap().origin().to_string(),
            "https://files.mcp-stdio.invalid"
        );
        for name in ["", "-a", "a-", "a.b", "A", "a/b", "ä"] {
            assert!(Server::local(name).is_err(), "{name}");
        }
        for url in ["", "tools", "ftp://a.example", "data:x"] {
            assert!(Server::at(url).is_err(), "{url}");
        }
    }
}

//! Who a request goes to: origins, host patterns, registrable domains.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use url::{Host, Url};

/// Scheme, host and port of a URL: what limits and rules are kept by.
///
/// The host is lower-case ASCII (IDNA) without a trailing dot, the port is always known, so that
/// spellings of one server cannot pass for several.
///
/// ```
/// use bursar::Origin;
///
/// let origin: Origin = "https://API.example.com.:443/report?x=1".parse()?;
/// assert_eq!(origin.to_string(), "https://api.example.com");
/// # Ok::<(), bursar::ParseOriginError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    scheme: &'static str,
    host: Arc<str>,
    port: u16,
}

impl Origin {
    /// The origin of an `http` or `https` URL.
    #[must_use]
    pub fn of(url: &Url) -> Option<Self> {
        let scheme = ["https", "http"]
            .into_iter()
            .find(|scheme| *scheme == url.scheme())?;
        let port = url.port_or_known_default()?;
        let host = match url.host()? {
            // `[::ffff:192.0.2.1]` is 192.0.2.1, also to limits and lists.
            Host::Ipv6(address) => match address.to_canonical() {
                IpAddr::V4(address) => address.to_string().into(),
                IpAddr::V6(address) => format!("[{address}]").into(),
            },
            // As the URL writes it.
            Host::Ipv4(_) => url.host_str()?.into(),
            Host::Domain(name) => without_root(name)?.into(),
        };
        Some(Self { scheme, host, port })
    }

    /// `https` or `http`.
    #[must_use]
    pub const fn scheme(&self) -> &str {
        self.scheme
    }

    /// The host, lower-case ASCII without a trailing dot; IPv6 addresses in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The domain that somebody registered, such as `example.co.uk`, by the public suffix list;
    /// the host itself for addresses and names without one.
    #[must_use]
    pub fn registrable_domain(&self) -> &str {
        if self.address().is_some() {
            return &self.host;
        }
        let host = self.host();
        // The list has its names in Unicode.
        let unicode = if host.contains("xn--") {
            Cow::Owned(idna::domain_to_unicode(host).0)
        } else {
            host.into()
        };
        let Some(domain) = structured_public_domains::registrable_domain(&unicode) else {
            return host;
        };
        let before = host.rmatch_indices('.').nth(domain.matches('.').count());
        before
            .and_then(|(dot, _)| host.get(dot.saturating_add(1)..))
            .unwrap_or(host)
    }

    /// The address, when the host is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .ok()
    }

    /// Whether the URL begins with this origin as it is written, so that no parser could read another into it.
    /// `false` says nothing.
    pub(crate) fn begins(&self, url: &str) -> bool {
        let rest = url
            .strip_prefix(self.scheme)
            .and_then(|rest| rest.strip_prefix("://")?.strip_prefix(&*self.host));
        let rest = match rest {
            Some(rest) if !self.default_port() => rest
                .strip_prefix(':')
                .and_then(|rest| rest.strip_prefix(&self.port.to_string())),
            rest => rest,
        };
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    }

    pub(crate) fn is_loopback(&self) -> bool {
        let name = &*self.host == "localhost" || self.host.ends_with(".localhost");
        name || self
            .address()
            .is_some_and(|address| address.to_canonical().is_loopback())
    }

    fn default_port(&self) -> bool {
        matches!((self.scheme, self.port), ("https", 443) | ("http", 80))
    }
}

/// The host without the dot that stands for the root.
///
/// `None` for an empty label: no such name exists, and `127..` without its dots is another host.
fn without_root(host: &str) -> Option<&str> {
    let name = host.strip_suffix('.').unwrap_or(host);
    name.split('.')
        .all(|label| !label.is_empty())
        .then_some(name)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if self.default_port() {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

impl FromStr for Origin {
    type Err = ParseOriginError;

    fn from_str(text: &str) -> Result<Self, ParseOriginError> {
        let malformed = || ParseOriginError {
            text: crate::text::excerpt(text),
        };
        Url::parse(text)
            .ok()
            .as_ref()
            .and_then(Self::of)
            .ok_or_else(malformed)
    }
}

impl serde::Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not an `http` or `https` URL with a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an origin; expected a form like `https://api.example.com`")]
pub struct ParseOriginError {
    text: String,
}

/// Hosts by name: `api.example.com` alone, or `*.example.com` for everything below a label
/// boundary (and not `example.com` itself). Any scheme, any port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern {
    below: bool,
    host: String,
}

impl HostPattern {
    /// Whether the pattern covers this host.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        if self.below {
            host.strip_suffix(self.host.as_str())
                .is_some_and(|front| front.len() > 1 && front.ends_with('.'))
        } else {
            host == self.host
        }
    }

    /// Returns every pattern that matches `host`: the host itself, and a pattern for each domain above it.
    #[cfg(feature = "sqlite")]
    pub(crate) fn all_matching(host: &str) -> impl Iterator<Item = Self> {
        let pattern = |below, host: &str| Self {
            below,
            host: host.to_owned(),
        };
        let above = host
            .match_indices('.')
            .filter_map(|(dot, _)| host.get(dot.saturating_add(1)..));
        std::iter::once(pattern(false, host)).chain(above.map(move |host| pattern(true, host)))
    }

    /// The host, or what stands after `*.`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) const fn covers_subdomains(&self) -> bool {
        self.below
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.below { "*." } else { "" })?;
        f.write_str(&self.host)
    }
}

impl FromStr for HostPattern {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        let malformed = || ParseHostError {
            text: crate::text::excerpt(text),
        };
        let (below, name) = text
            .strip_prefix("*.")
            .map_or((false, text), |rest| (true, rest));
        let host = Host::parse(name).map_err(|_| malformed())?.to_string();
        // In the parsed host: `%2A` is a star, too.
        let host = without_root(&host)
            .filter(|host| !host.contains('*'))
            .ok_or_else(malformed)?
            .to_owned();
        Ok(Self { below, host })
    }
}

/// The text is not a host pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a host; expected a form like `api.example.com` or `*.example.com`, without scheme or port"
)]
pub struct ParseHostError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> String {
        text.parse::<Origin>()
            .map_or_else(|error| error.to_string(), |origin| origin.to_string())
    }

    #[test]
    fn spellings_of_one_server_are_one_origin() {
        for text in [
            "https://API.example.COM:443/",
            "https://api.example.com./",
            "https://ＡＰＩ.example.com",
            "https://api。example。com",
        ] {
            assert_eq!(origin(text), "https://api.example.com", "{text}");
        }
        assert_eq!(
            origin("https://аpi.example.com/"),
            "https://xn--pi-6kc.example.com"
        );
        assert_eq!(origin("https://0x7f.1/"), "https://127.0.0.1");
        assert_eq!(
            origin("https://api.example.com@evil.com/"),
            "https://evil.com"
        );
        assert_eq!(origin("https://127./"), "https://0.0.0.127");
        for text in [
            "https://./",
            "https://127../",
            "https://a.example../",
            "https://a..example/",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
            assert!(
                text.replace("https://", "")
                    .replace('/', "")
                    .parse::<HostPattern>()
                    .is_err(),
                "{text}"
            );
        }
        assert_eq!(origin("http://a.example:8443"), "http://a.example:8443");
        assert!(
            "https://[::ffff:127.0.0.1]/"
                .parse::<Origin>()
                .unwrap()
                .is_loopback()
        );
        assert!("data:text/plain,x".parse::<Origin>().is_err());
    }

    #[test]
    fn patterns_match_on_label_boundaries() {
        let below: HostPattern = "*.Example.com.".parse().unwrap();
        assert!(below.matches("a.example.com") && below.matches("a.b.example.com"));
        for host in [
            "example.com",
            "evilexample.com",
            "example.com.evil.com",
            ".example.com",
        ] {
            assert!(!below.matches(host), "{host}");
        }
        let exact: HostPattern = "api.example.com".parse().unwrap();
        assert!(exact.matches("api.example.com") && !exact.matches("x.api.example.com"));
        for bad in [
            "",
            "*",
            "*.",
            "a*.example.com",
            "https://a.example",
            "a.example:443",
            "%2a.example.com",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn domains_are_what_somebody_registered() {
        for (url, domain) in [
            ("https://a.b.example.co.uk", "example.co.uk"),
            ("https://10.0.0.1", "10.0.0.1"),
            ("http://localhost:1", "localhost"),
            ("https://a.example.com.", "example.com"),
            ("https://a.b.example.unlisted", "example.unlisted"),
            ("https://a.b.somebody.github.io", "somebody.github.io"),
            ("https://github.io", "github.io"),
            ("https://co.uk", "co.uk"),
            // By the list's own tests: wildcards, their exceptions, and names beyond ASCII.
            ("https://a.b.test.ck", "b.test.ck"),
            ("https://a.www.ck", "www.ck"),
            ("https://a.city.kobe.jp", "city.kobe.jp"),
            ("https://a.b.c.kobe.jp", "b.c.kobe.jp"),
            ("https://www.食狮.公司.cn", "xn--85x722f.xn--55qx5d.cn"),
            ("https://公司.cn", "xn--55qx5d.cn"),
            ("https://www.食狮.com.cn", "xn--85x722f.com.cn"),
            ("https://a.shishi.中国", "shishi.xn--fiqs8s"),
        ] {
            assert_eq!(url.parse::<Origin>().unwrap().registrable_domain(), domain);
        }
    }
}

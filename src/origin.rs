//! Origins, host patterns and registrable domains.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use url::{Host, Url};

/// The scheme, host and port of a URL.
///
/// Limits and rules apply to origins. An origin has one spelling: the host is lower-case ASCII
/// (IDNA) without a trailing dot, and the port is always known.
///
/// ```
/// use bursar::Origin;
///
/// let origin: Origin = "https://API.example.com.:443/report?x=1".parse()?;
/// assert_eq!(origin.to_string(), "https://api.example.com");
/// # Ok::<(), bursar::origin::ParseOriginError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    scheme: &'static str,
    host: Arc<str>,
    port: u16,
}

impl Origin {
    /// Returns the origin of an `http` or `https` URL, or `None` for another URL.
    #[must_use]
    pub fn of(url: &Url) -> Option<Self> {
        let scheme = ["https", "http"]
            .into_iter()
            .find(|scheme| *scheme == url.scheme())?;
        let port = url.port_or_known_default()?;
        let host = match url.host()? {
            Host::Ipv6(address) => spelled(address).into(),
            // The URL has parsed and normalized the address.
            Host::Ipv4(_) => url.host_str()?.into(),
            Host::Domain(name) => without_root(name)?.into(),
        };
        Some(Self { scheme, host, port })
    }

    /// Returns `https` or `http`.
    #[must_use]
    pub const fn scheme(&self) -> &str {
        self.scheme
    }

    /// Returns the host in lower-case ASCII without a trailing dot. An IPv6 address has brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the registrable domain, such as `example.co.uk`, by the public suffix list.
    ///
    /// Returns the host itself if it is an address or has no registrable domain.
    ///
    /// ```
    /// use bursar::Origin;
    ///
    /// let origin: Origin = "https://eu.api.example.co.uk".parse()?;
    /// assert_eq!(origin.registrable_domain(), "example.co.uk");
    /// # Ok::<(), bursar::origin::ParseOriginError>(())
    /// ```
    #[must_use]
    pub fn registrable_domain(&self) -> &str {
        registrable_domain_of(self.host())
    }

    /// Returns the IP address if the host is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        address_of(&self.host)
    }

    /// Returns whether the URL begins with exactly this origin, so that every parser agrees.
    ///
    /// `false` does not mean that the URL has another origin.
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

    /// Whether the host is a loopback address, or a name that should have one. The connection decides for a name.
    pub(crate) fn is_loopback(&self) -> bool {
        let address = self.address().map(|address| address.to_canonical());
        is_loopback_name(&self.host) || address.is_some_and(|address| address.is_loopback())
    }

    fn default_port(&self) -> bool {
        matches!((self.scheme, self.port), ("https", 443) | ("http", 80))
    }
}

/// Returns the host of an IPv6 address. `[::ffff:192.0.2.1]` and `192.0.2.1` are one address, so they share limits and lists.
fn spelled(address: Ipv6Addr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Whether this is a name of the loopback of this machine (RFC 6761, 6.3), with or without the dot of the root.
pub(crate) fn is_loopback_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    name == "localhost" || name.ends_with(".localhost")
}

/// Returns the host without the trailing dot of the root.
///
/// Returns `None` for an empty label. No such name exists, and without its dots `127..` would be
/// another host.
fn without_root(host: &str) -> Option<&str> {
    let name = host.strip_suffix('.').unwrap_or(host);
    name.split('.')
        .all(|label| !label.is_empty())
        .then_some(name)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme)?;
        f.write_str("://")?;
        f.write_str(&self.host)?;
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
            text: crate::text::shown_place(text),
        };
        let origin = Url::parse(text).ok().as_ref().and_then(Self::of);
        // No host has a star, and an origin is no pattern.
        origin
            .filter(|origin| !origin.host.contains('*'))
            .ok_or_else(malformed)
    }
}

impl serde::Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The error of parsing an [`Origin`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an origin; expected a form like `https://api.example.com`")]
pub struct ParseOriginError {
    text: String,
}

fn address_of(host: &str) -> Option<IpAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse().ok()
}

/// Returns the registrable domain of a host as [`Origin::host`] spells it, or the host itself.
pub(crate) fn registrable_domain_of(host: &str) -> &str {
    if address_of(host).is_some() {
        return host;
    }
    // The list holds its names in Unicode.
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

/// A pattern for hosts: `api.example.com` alone, or `*.example.com` for every host below it.
///
/// `*.example.com` does not match `example.com`. A pattern matches any scheme and any port. As in an [`Origin`], a host
/// has one spelling, and nothing is below an address.
///
/// ```
/// use bursar::origin::HostPattern;
///
/// let pattern: HostPattern = "*.example.com".parse()?;
/// assert!(pattern.matches("api.example.com"));
/// assert!(!pattern.matches("example.com"));
/// assert!(!pattern.matches("notexample.com"));
/// # Ok::<(), bursar::origin::ParseHostError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern {
    below: bool,
    host: String,
}

impl HostPattern {
    /// Returns whether the pattern matches this host.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        if self.below {
            host.strip_suffix(self.host.as_str())
                .is_some_and(|front| front.len() > 1 && front.ends_with('.'))
        } else {
            host == self.host
        }
    }

    /// Returns the pattern of one host.
    #[cfg(feature = "sqlite")]
    pub(crate) fn only(host: &str) -> Self {
        Self {
            below: false,
            host: host.to_owned(),
        }
    }

    /// Returns the pattern of all hosts below a domain.
    #[cfg(feature = "sqlite")]
    pub(crate) fn below(domain: &str) -> Self {
        Self {
            below: true,
            host: domain.to_owned(),
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

    /// Returns the host, or the domain after `*.`.
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
            text: crate::text::shown_place(text),
        };
        let (below, name) = text
            .strip_prefix("*.")
            .map_or((false, text), |rest| (true, rest));
        let host = match Host::parse(name).map_err(|_| malformed())? {
            // Nothing is below an address.
            Host::Ipv4(_) | Host::Ipv6(_) if below => return Err(malformed()),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => spelled(address),
            // Check the parsed host, because `%2A` is also a star.
            Host::Domain(name) => without_root(&name)
                .filter(|host| !host.contains('*'))
                .ok_or_else(malformed)?
                .to_owned(),
        };
        Ok(Self { below, host })
    }
}

/// The error of parsing a [`HostPattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a host; expected a form like `api.example.com` or `*.example.com`, without scheme or port"
)]
pub struct ParseHostError {
    text: String,
}

/// A selection of origins: one origin, one host, or every host below a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostMatch {
    Origin(Origin),
    Host(HostPattern),
}

impl HostMatch {
    /// Returns whether the selection includes this origin.
    pub(crate) fn matches(&self, origin: &Origin) -> bool {
        match self {
            Self::Origin(only) => only == origin,
            Self::Host(pattern) => pattern.matches(origin.host()),
        }
    }

    /// Returns a key that sorts selections from the least to the most specific: patterns by the
    /// length of their domain, then hosts, then origins.
    pub(crate) fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Origin(_) => (2, 0),
            Self::Host(pattern) if !pattern.covers_subdomains() => (1, 0),
            Self::Host(pattern) => (0, pattern.host().len()),
        }
    }
}

impl FromStr for HostMatch {
    type Err = ParseHostMatchError;

    fn from_str(text: &str) -> Result<Self, ParseHostMatchError> {
        if !text.contains("://") {
            return Ok(Self::Host(text.parse()?));
        }
        let origin: Origin = text.parse()?;
        // A selection of one path would select the whole origin.
        let bare = Url::parse(text).is_ok_and(|url| {
            let secret = !url.username().is_empty() || url.password().is_some();
            url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !secret
        });
        if bare {
            Ok(Self::Origin(origin))
        } else {
            let text = crate::text::shown_place(text);
            Err(ParseOriginError { text }.into())
        }
    }
}

/// The error of parsing a [`HostMatch`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseHostMatchError {
    #[error(transparent)]
    Origin(#[from] ParseOriginError),
    #[error(transparent)]
    Host(#[from] ParseHostError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> String {
        text.parse::<Origin>()
            .map_or_else(|error| error.to_string(), |origin| origin.to_string())
    }

    #[test]
    fn all_spellings_of_one_server_are_one_origin() {
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
    fn all_spellings_of_a_host_are_one_pattern() {
        for (pattern, url) in [
            ("[::ffff:127.0.0.1]", "https://127.0.0.1/"),
            ("[::FFFF:7f00:1]", "https://127.0.0.1/"),
            ("127.0.0.1", "https://[::ffff:7f00:1]/"),
            ("0x7f.1", "https://127.0.0.1/"),
            ("2130706433", "https://127.0.0.1/"),
            ("0177.0.0.1", "https://127.0.0.1/"),
            ("[0:0:0:0:0:0:0:1]", "https://[::1]/"),
            ("[2001:DB8::0:1]", "https://[2001:db8:0::1]/"),
            ("API.example.com.", "https://api.example.com/"),
            ("ＡＰＩ.example。com", "https://api.example.com/"),
            ("bücher.example", "https://xn--bcher-kva.example/"),
            ("XN--BCHER-KVA.example", "https://bücher.example:443/"),
            ("*.BÜCHER.example.", "https://a.xn--bcher-kva.example/"),
        ] {
            let matched: HostMatch = pattern.parse().unwrap();
            assert!(matched.matches(&url.parse().unwrap()), "{pattern} {url}");
            let origin = format!("https://{pattern}:443");
            if !pattern.contains('*') {
                let matched: HostMatch = origin.parse().unwrap();
                assert!(matched.matches(&url.parse().unwrap()), "{origin} {url}");
            }
        }
        for mistake in [
            "https://*.example.com",
            "https://%2a.example.com",
            "https://api.example.com/v1",
            "https://api.example.com/?x",
            "https://api.example.com/#x",
            "https://me@api.example.com",
            "ftp://api.example.com",
        ] {
            assert!(mistake.parse::<HostMatch>().is_err(), "{mistake}");
        }
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
            "*.127.0.0.1",
            "*.0x7f.1",
            "*.[::1]",
            "::1",
            "[::1]:443",
            "127.0.0.1:80",
            "a.example/report",
            "me@a.example",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_registrable_domain_follows_the_public_suffix_list() {
        for (url, domain) in [
            ("https://a.b.example.co.uk", "example.co.uk"),
            ("https://10.0.0.1", "10.0.0.1"),
            ("http://localhost:1", "localhost"),
            ("https://a.example.com.", "example.com"),
            ("https://a.b.example.unlisted", "example.unlisted"),
            ("https://a.b.someone.github.io", "someone.github.io"),
            ("https://github.io", "github.io"),
            ("https://co.uk", "co.uk"),
            // From the list's own tests: wildcards, their exceptions, and names outside ASCII.
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

    #[test]
    fn an_error_about_a_host_repeats_no_password_and_no_query() {
        for text in [
            "https://me:s3cret@h.example/x?key=s3cret",
            "me:s3cret@h.example",
            "https://me:s3?cret@h.example",
            "h.example?key=s3cret",
            "https://h.example/#s3cret",
        ] {
            let errors = [
                text.parse::<HostPattern>()
                    .map_err(|error| error.to_string())
                    .err(),
                format!("ftp{text}")
                    .parse::<Origin>()
                    .map_err(|error| error.to_string())
                    .err(),
                format!("{text} ")
                    .parse::<HostMatch>()
                    .map_err(|error| error.to_string())
                    .err(),
            ];
            for error in errors.into_iter().flatten() {
                assert!(!error.contains("s3"), "{error}");
                assert!(!error.contains("cret"), "{error}");
            }
        }
        let error = "https://h.example/v1".parse::<HostPattern>().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("`https://h.example/v1` is not")
        );
    }
}

//! The destinations that requests may have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::ClientBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use super::loopback::{guarded, is_loopback};
use crate::error::{Error, ErrorKind, InsecureConnection};
use crate::origin::{Origin, is_loopback_name};

/// The client's own rules for destinations, checked before every request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EgressRules {
    pub(crate) http_loopback: bool,
    pub(crate) deny_private: bool,
    /// Whether reqwest may add the password of a proxy to plain http, which goes through no proxy.
    pub(crate) may_have_proxy: bool,
}

impl EgressRules {
    /// Checks a destination.
    ///
    /// # Errors
    /// When the URL is plain http to another host than an allowed loopback, or has a private address where the client denies
    /// them.
    pub(crate) fn check(self, url: &Url) -> Result<(), Error> {
        let insecure = |message: &str| Err(Error::new(ErrorKind::Insecure, message).at(url));
        let Some(origin) = Origin::of(url) else {
            return Err(Error::builder("the URL is not http or https with a host").at(url));
        };
        // Most requests go by https, to a client that does not ask for the address.
        if origin.scheme() == "https" && !self.deny_private {
            return Ok(());
        }
        if origin.scheme() != "https" && !(self.http_loopback && origin.is_loopback()) {
            let hint = if origin.is_loopback() {
                "; to allow it for this machine's loopback, call allow_http_loopback"
            } else {
                ""
            };
            return insecure(&format!(
                "plain http is refused: anybody on the way could change price and payee{hint}"
            ));
        }
        let loopback = self.http_loopback && origin.is_loopback();
        if self.deny_private
            && !loopback
            && origin.address().is_some_and(|address| !is_public(address))
        {
            return insecure("the address is private, and the client denies private networks");
        }
        Ok(())
    }

    /// Applies the rules to the connections of a client, so that a name cannot have another address between the check
    /// and the connection.
    ///
    /// # Errors
    /// When reqwest cannot start.
    pub(crate) fn apply(&mut self, http: ClientBuilder) -> Result<ClientBuilder, Error> {
        let http = if self.deny_private {
            let loopback = self.http_loopback;
            http.dns_resolver(PublicOnly { loopback }).no_proxy()
        } else {
            http
        };
        if !self.http_loopback {
            return Ok(http);
        }
        let (http, may_have_proxy) = guarded(http)?;
        self.may_have_proxy = may_have_proxy;
        Ok(http)
    }

    /// Checks the sender of an answer. This finds a client that bursar did not build, and that sent plain http elsewhere.
    ///
    /// # Errors
    /// When plain http was answered from another machine, or by a proxy.
    pub(super) fn check_answer(url: &Url, peer: Option<SocketAddr>) -> Result<(), Error> {
        let other = |peer: SocketAddr| {
            !is_loopback(peer.ip()) || url.port().is_some_and(|port| port != peer.port())
        };
        if url.scheme() == "https" || !peer.is_some_and(other) {
            return Ok(());
        }
        let message = "the HTTP client beneath bursar sent plain http to another machine or to a proxy; \
            build it with bursar::middleware::http_client";
        Err(Error::new(ErrorKind::Insecure, message).at(url))
    }
}

/// Resolves to public addresses only. A name of the loopback resolves to loopback addresses only, if they are allowed.
struct PublicOnly {
    loopback: bool,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let loopback = self.loopback;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let local = is_loopback_name(name.as_str());
            let allowed = |address: &SocketAddr| match local {
                true => loopback && is_loopback(address.ip()),
                false => is_public(address.ip()),
            };
            let allowed: Vec<SocketAddr> = found.filter(allowed).collect();
            if allowed.is_empty() {
                return Err(InsecureConnection::new(format!(
                    "`{}` has no {} address, and the client denies private networks",
                    name.as_str(),
                    if local && loopback {
                        "loopback"
                    } else {
                        "public"
                    },
                ))
                .into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether the address is public by IANA's special-purpose registries. An IPv4 address inside an IPv6 address is judged as
/// IPv4.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => {
            embedded_v4(address).map_or_else(|| is_public_v6(address), is_public_v4)
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let global_unicast = (0x2000..=0x3fff).contains(&first);
    let special = matches!(
        (first, second),
        (0x2001, 0..=0x1ff | 0xdb8) | (0x3fff, 0..=0xfff)
    );
    global_unicast && !special
}

/// Returns the IPv4 address inside a 6to4, NAT64 or IPv4-compatible address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0x2002, high, low, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known_in_every_disguise() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "64:ff9b:1::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "64:ff9b::1.1.1.1",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn plain_http_is_for_an_allowed_loopback_only() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        let (closed, open) = (
            EgressRules::default(),
            EgressRules {
                http_loopback: true,
                deny_private: true,
                may_have_proxy: false,
            },
        );
        assert!(closed.check(&url("https://a.example")).is_ok());
        for text in [
            "http://a.example",
            "http://127.0.0.1:80",
            "http://localhost",
        ] {
            assert_eq!(
                closed.check(&url(text)).unwrap_err().kind(),
                ErrorKind::Insecure,
                "{text}"
            );
        }
        assert!(open.check(&url("http://127.0.0.1:80")).is_ok());
        assert!(open.check(&url("http://[::1]:80")).is_ok());
        for text in [
            "http://a.example",
            "http://192.168.0.1",
            "https://192.168.0.1",
            "https://[::ffff:10.0.0.1]",
            "http://127.0.0.1.evil.example",
        ] {
            assert_eq!(
                open.check(&url(text)).unwrap_err().kind(),
                ErrorKind::Insecure,
                "{text}"
            );
        }
    }
}

//! The destinations that requests may have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use crate::error::{Error, ErrorKind};
use crate::origin::Origin;

/// The client's own rules for destinations, checked before every request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EgressRules {
    pub(crate) http_loopback: bool,
    pub(crate) deny_private: bool,
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

    /// Returns a resolver of public addresses only. The connector uses it, so a name cannot resolve to another address
    /// between the check and the connection.
    pub(crate) fn resolver(self) -> Option<Arc<dyn Resolve>> {
        self.deny_private.then(|| {
            Arc::new(PublicOnly {
                loopback: self.http_loopback,
            }) as Arc<dyn Resolve>
        })
    }
}

struct PublicOnly {
    loopback: bool,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let loopback = self.loopback;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed = |address: &SocketAddr| {
                is_public(address.ip()) || (loopback && address.ip().to_canonical().is_loopback())
            };
            let public: Vec<SocketAddr> = found.filter(allowed).collect();
            if public.is_empty() {
                return Err(format!(
                    "`{}` has no public address, and the client denies private networks",
                    name.as_str()
                )
                .into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
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

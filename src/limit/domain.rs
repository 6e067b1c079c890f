//! The total of a registrable domain, from the totals of its hosts.
//!
//! The domain of a host depends on the public suffix list, which changes with each release, so a database must not store
//! totals by domain. But it can store those of the host `example.com` and of the hosts below it. The domain
//! `example.com` has all of them, except hosts that belong to another domain because the list has a suffix between: of
//! `amazonaws.com`, these are the hosts below `s3.amazonaws.com`.

use std::collections::BTreeSet;

use alloy::primitives::U256;

use super::totals::running_sum;
use super::{LimitQuery, Scope, Sum, TotalStore, Usage, sum};
use crate::clock::Timestamp;
use crate::origin::{HostPattern, registrable_domain_of};

/// The domains of the ledger's hosts that lie below one domain, without that domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DomainsBelow(BTreeSet<String>);

impl DomainsBelow {
    /// Whether hosts below `domain` can belong to it. If not, `domain` is an address or a public suffix.
    pub(crate) fn can_have(domain: &str) -> bool {
        // No list has a rule for this name.
        let below = format!("bursar-looks-below.{domain}");
        registrable_domain_of(&below) == domain
    }

    /// Notes a host of the ledger, if it lies below `domain` and belongs to another domain.
    pub(crate) fn note(&mut self, domain: &str, host: &str) {
        if !is_below(domain, host) {
            return;
        }
        let other = registrable_domain_of(host);
        if other == domain || self.0.iter().any(|known| is_below(known, other)) {
            return;
        }
        self.0.retain(|known| !is_below(other, known));
        self.0.insert(other.to_owned());
    }
}

fn is_below(domain: &str, host: &str) -> bool {
    HostPattern::below(domain).matches(host)
}

/// Implements [`Usage::total`] for a registrable domain by the running totals of hosts.
///
/// `below` are the other domains of the ledger below this one, or `None` if the domain has one host only.
pub(crate) fn domain_total<U: Usage, S: TotalStore<Error = U::Error>>(
    usage: &U,
    store: &S,
    query: &LimitQuery<'_>,
    (domain, below): (&str, Option<&DomainsBelow>),
    now: Timestamp,
) -> Result<U256, S::Error> {
    let of_host = |pattern: HostPattern| {
        let limit = query.limit_on(Scope::Host(pattern));
        running_sum(store, &query.of(&limit), now)
    };
    let of_all = |domain: &str| -> Result<Sum, S::Error> {
        let own = of_host(HostPattern::only(domain))?;
        Ok(own.plus(of_host(HostPattern::below(domain))?))
    };
    let total = match below {
        None => of_host(HostPattern::only(domain))?,
        Some(below) => {
            let mut total = of_all(domain)?;
            for other in &below.0 {
                total = total.minus(of_all(other)?);
            }
            total
        }
    };
    let total = total.amount();
    // In tests of this crate only: another program can change the rows of a ledger, and that must not end a program.
    if cfg!(test) {
        assert_eq!(total, sum(usage, query)?, "{query:?}");
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domains_below_a_domain_are_those_below_a_suffix_that_is_below_it() {
        let mut below = DomainsBelow::default();
        let domain = "amazonaws.com";
        assert!(DomainsBelow::can_have(domain));
        for host in [
            "amazonaws.com",
            "api.amazonaws.com",
            "other.com",
            "notamazonaws.com",
        ] {
            below.note(domain, host);
        }
        assert_eq!(below, DomainsBelow::default());
        below.note(domain, "a.shop.s3.amazonaws.com");
        below.note(domain, "b.shop.s3.amazonaws.com");
        below.note(domain, "other.s3.amazonaws.com");
        let found = ["other.s3.amazonaws.com", "shop.s3.amazonaws.com"].map(str::to_owned);
        assert_eq!(below.0, BTreeSet::from(found));
        // The suffix itself holds all that is below it.
        below.note(domain, "s3.amazonaws.com");
        below.note(domain, "third.s3.amazonaws.com");
        assert_eq!(below.0, BTreeSet::from(["s3.amazonaws.com".to_owned()]));
    }

    #[test]
    fn addresses_and_public_suffixes_have_no_hosts_below_them() {
        for alone in [
            "127.0.0.1",
            "[::1]",
            "com",
            "co.uk",
            "s3.amazonaws.com",
            "localhost",
        ] {
            assert!(!DomainsBelow::can_have(alone), "{alone}");
        }
        for domain in ["example.com", "example.co.uk", "shop.s3.amazonaws.com"] {
            assert!(DomainsBelow::can_have(domain), "{domain}");
        }
    }
}

//! Scopes in SQL: the condition of each, and the index that it is read by.
//!
//! A scope whose purchases are found by columns of the table needs a condition in [`condition`], an index in
//! [`INDICES`] and its name in [`index`].

use std::borrow::Cow;

use super::Value;
use super::row::{Stored, reversed};
use crate::limit::{LimitCheck, Moment, Scope};
use crate::path::TOOL;

/// The indices of purchases by scope, in the order of `counts_at`: name, columns of the scope, and further condition.
const INDICES: [(&str, &str, &str); 8] = [
    ("by_counts_at", "", ""),
    ("by_origin", "origin, ", ""),
    ("by_host", "host_reversed, ", ""),
    ("by_payee", "payee, ", ""),
    ("by_asset", "network, asset, ", ""),
    ("by_network", "network, ", ""),
    ("by_tag", "tag, ", " AND tag IS NOT NULL"),
    ("by_agent", "agent, ", " AND agent IS NOT NULL"),
];

/// Returns the name and the SQL of each index of purchases by scope. `condition` begins with `AND` or is empty.
pub(in crate::ledger) fn indices(condition: &str) -> [(&'static str, String); INDICES.len()] {
    INDICES.map(|(name, scope, also)| {
        let sql = format!(
            "CREATE INDEX {name} ON purchases ({scope}counts_at) WHERE live = 1{condition}{also}"
        );
        (name, sql)
    })
}

/// A condition with the values of its placeholders, in order.
pub(in crate::ledger) type Clause = (&'static str, Vec<Value>);

/// Returns the condition of a purchase in the scope.
///
/// For a registrable domain the condition is wider than the scope, see [`charge`](super::query::charge).
pub(in crate::ledger) fn condition(scope: &Scope) -> Clause {
    match scope {
        Scope::Global => ("true", Vec::new()),
        Scope::Origin(origin) => ("origin = ?", vec![origin.written().into()]),
        // As `path::is_within`. A policy may store paths with their query.
        Scope::Resource(origin, path) if !path.starts_with(TOOL) => {
            let (query, below) = (
                format!("{path}?"),
                format!("{}/", path.trim_end_matches('/')),
            );
            let prefixes = [query.clone(), query, below.clone(), below].map(Value::from);
            let mut values = vec![
                origin.written().into(),
                TOOL.to_owned().into(),
                path.clone().into(),
            ];
            values.extend(prefixes);
            (
                "origin = ? AND substr(path, 1, 12) <> ? AND (lower(path) = ? \
                 OR substr(lower(path), 1, length(CAST(? AS TEXT))) = ? \
                 OR substr(lower(path), 1, length(CAST(? AS TEXT))) = ?)",
                values,
            )
        }
        Scope::Resource(origin, path) => {
            let query = format!("{path}?");
            let values = vec![
                origin.written().into(),
                path.clone().into(),
                query.clone().into(),
                query.into(),
            ];
            (
                "origin = ? AND (path = ? OR substr(path, 1, length(CAST(? AS TEXT))) = ?)",
                values,
            )
        }
        Scope::Host(pattern) if pattern.covers_subdomains() => {
            let host = reversed(pattern.host());
            (
                "host_reversed > ? AND host_reversed < ?",
                vec![format!("{host}.").into(), end_of(&host).into()],
            )
        }
        Scope::Host(pattern) => ("host_reversed = ?", vec![reversed(pattern.host()).into()]),
        // The registrable domain of a host depends on the public suffix list, so the table does not have it. Every
        // host that could belong to the domain is read, and then compared.
        Scope::Domain(domain) => {
            let host = reversed(domain);
            (
                "host_reversed >= ? AND host_reversed < ?",
                vec![host.clone().into(), end_of(&host).into()],
            )
        }
        Scope::Payee(payee) => ("payee = ?", vec![payee.written().into()]),
        Scope::Asset(network, asset) => (
            "network = ? AND asset = ?",
            vec![network.written().into(), asset.written().into()],
        ),
        Scope::Network(network) => ("network = ?", vec![network.written().into()]),
        Scope::Request(request) => ("fingerprint = ?", vec![request.written().into()]),
        Scope::Tag(tag) => ("tag = ?", vec![tag.clone().into()]),
        Scope::Agent(agent) => ("agent = ?", vec![agent.clone().into()]),
    }
}

/// Returns a text after `com.example.` and everything that begins with it. `/` is the byte after the dot.
fn end_of(reversed_host: &str) -> String {
    format!("{reversed_host}/")
}

/// The index of sellers, for the rules on payees and prices, and for sign-ins.
pub(in crate::ledger) const BY_SELLER: &str = "by_seller";

/// Returns the names of the indices that a check reads, some of them twice.
pub(in crate::ledger) fn of_check(check: &LimitCheck) -> impl Iterator<Item = &'static str> {
    let sellers = check.payee.is_some() || check.price.is_some();
    let of_limits = check.queries().flat_map(|query| {
        let (scope, moment) = (query.scope(), query.since.moment);
        // A total moves on by the first charge of a scope that may be wider.
        let wider = indexed_scope(scope, moment);
        let of = |scope: &Scope, moment| [true, false].map(|is_part| index(scope, moment, is_part));
        // A total that begins asks first whether its scope is new, and that of a domain for its hosts.
        let new = is_range(scope).then(|| index(scope, Moment::CountsAt, false));
        let read = of(scope, moment).into_iter().chain(of(&wider, moment));
        read.chain(new).collect::<Vec<_>>()
    });
    of_limits.chain(sellers.then_some(BY_SELLER))
}

/// Returns the index whose range has the fewest other purchases. Windows of reservations are short, and few payments
/// expire between two looks at them. Everything else is read by its scope, except the hosts below a domain: their
/// purchases are not in the order of time, so a part of them is read among all purchases of that time.
///
/// `is_part` tells whether the range has a start.
///
/// SQLite is told which index to use, since it would have to guess. Without the index a query fails, and does not
/// read the whole table.
pub(in crate::ledger) const fn index(scope: &Scope, moment: Moment, is_part: bool) -> &'static str {
    match (moment, scope) {
        (Moment::ExpiresAt, _) => "by_expires_at",
        (_, Scope::Request(_)) => "by_request",
        (Moment::ReservedAt, _) => "by_reserved_at",
        (Moment::CountsAt, Scope::Global) => "by_counts_at",
        (Moment::CountsAt, Scope::Origin(_) | Scope::Resource(..)) => "by_origin",
        (Moment::CountsAt, Scope::Domain(_)) if is_part => "by_counts_at",
        (Moment::CountsAt, Scope::Host(pattern)) if is_part && pattern.covers_subdomains() => {
            "by_counts_at"
        }
        (Moment::CountsAt, Scope::Host(_) | Scope::Domain(_)) => "by_host",
        (Moment::CountsAt, Scope::Payee(_)) => "by_payee",
        (Moment::CountsAt, Scope::Asset(..)) => "by_asset",
        (Moment::CountsAt, Scope::Network(_)) => "by_network",
        (Moment::CountsAt, Scope::Tag(_)) => "by_tag",
        (Moment::CountsAt, Scope::Agent(_)) => "by_agent",
    }
}

/// Whether the purchases of the scope are one range of the index that [`index`] names for a range without a start.
pub(in crate::ledger) const fn is_range(scope: &Scope) -> bool {
    !matches!(
        scope,
        Scope::Global | Scope::Resource(..) | Scope::Request(_)
    )
}

/// Returns the scope itself if its purchases are one range of an index in the order of `moment`. Otherwise returns a
/// wider scope of which this is true.
pub(in crate::ledger) fn indexed_scope(scope: &Scope, moment: Moment) -> Cow<'_, Scope> {
    match (moment, scope) {
        (Moment::CountsAt, Scope::Resource(origin, _)) => Cow::Owned(Scope::Origin(origin.clone())),
        (Moment::CountsAt, Scope::Host(pattern)) if pattern.covers_subdomains() => {
            Cow::Owned(Scope::Global)
        }
        (Moment::CountsAt, Scope::Request(_)) | (Moment::ExpiresAt, _) => Cow::Owned(Scope::Global),
        (Moment::ReservedAt, scope) if !matches!(scope, Scope::Request(_)) => {
            Cow::Owned(Scope::Global)
        }
        (_, scope) => Cow::Borrowed(scope),
    }
}

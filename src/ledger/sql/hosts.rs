//! Queries for the hosts of a domain, and whether a scope has purchases.

use super::query::{Part, Query};
use super::row::{integer, reversed};
use super::scope::condition;
use crate::ledger::LedgerError;
use crate::limit::Scope;
use crate::origin::HostPattern;

/// Selects any purchase in the scope. `table` may name an index.
pub(in crate::ledger) fn any(table: &str, part: Part, scope: &Scope) -> Query {
    let (in_scope, keys) = condition(scope);
    let part = part.condition();
    let sql = format!("SELECT seq FROM {table} WHERE {part} AND live = 1 AND {in_scope} LIMIT 1");
    Query {
        sql: sql.into(),
        values: keys,
    }
}

/// Selects the hosts below a domain, with repetitions, as `host_reversed`. `table` may name an index.
pub(in crate::ledger) fn hosts_below(table: &str, part: Part, domain: &str) -> Query {
    let (in_scope, keys) = condition(&Scope::Host(HostPattern::below(domain)));
    let part = part.condition();
    let sql =
        format!("SELECT seq, host_reversed FROM {table} WHERE {part} AND live = 1 AND {in_scope}");
    Query {
        sql: sql.into(),
        values: keys,
    }
}

/// Selects the first host below a domain that comes after another one, as `host_reversed`.
pub(in crate::ledger) fn host_after(
    table: &str,
    part: Part,
    domain: &str,
    last: Option<String>,
) -> Query {
    let Query { sql, mut values } = hosts_below(table, part, domain);
    if let (Some(last), Some(first)) = (last, values.first_mut()) {
        *first = reversed(&last).into();
    }
    Query {
        sql: format!("{sql} ORDER BY host_reversed LIMIT 1").into(),
        values,
    }
}

/// Selects the hosts of the purchases that changed after an event, as `host_reversed`.
pub(in crate::ledger) fn hosts_since(event: u64) -> Result<Query, LedgerError> {
    let sql = "SELECT p.seq, p.host_reversed FROM events e \
               JOIN purchases p ON p.payer = e.payer AND p.purchase = e.purchase WHERE e.seq > ?";
    Ok(Query {
        sql: sql.into(),
        values: vec![integer(event, "seq")?.into()],
    })
}

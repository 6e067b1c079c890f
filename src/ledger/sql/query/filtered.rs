//! Queries for the purchases that pass a filter.

use super::Query;
use crate::ledger::Filter;
use crate::ledger::filter::PAGE;
use crate::ledger::sql::Value;
use crate::ledger::sql::row::Stored;
use crate::ledger::sql::scope::condition;
use crate::limit::Scope;

/// Selects purchases whose outcome the chain must still confirm. The index `unproven` has a condition that this one implies.
const UNPROVEN: &str = "proof IS NULL AND live = 1 AND credential IS NULL AND (state = 'signed' OR state = 'rejected' OR state = 'unresolved' OR (state = 'settled' AND proof IS NULL))";
/// The purchases among which [`Purchase::is_prunable`](crate::ledger::Purchase::is_prunable) selects.
const PRUNABLE: &str = "(state = 'settled' OR state = 'api_call' OR state = 'voided' OR state = 'released_by_proof') \
    AND coalesce(length(payload), 0) + coalesce(length(terms), 0) >= 512";

/// Selects the oldest purchases that pass the filter, at most [`PAGE`].
pub(in crate::ledger) fn page(filter: &Filter) -> Query {
    let (conditions, values) = conditions(filter);
    let sql = format!("SELECT * FROM purchases WHERE {conditions} ORDER BY seq LIMIT {PAGE}");
    Query {
        sql: sql.into(),
        values,
    }
}

/// Selects the number of the purchase before the `last` newest ones that pass the filter.
pub(in crate::ledger) fn before_last(filter: &Filter, last: usize) -> Query {
    let (conditions, mut values) = conditions(filter);
    values.push(i64::try_from(last).unwrap_or(i64::MAX).into());
    let sql =
        format!("SELECT seq FROM purchases WHERE {conditions} ORDER BY seq DESC LIMIT 1 OFFSET ?");
    Query {
        sql: sql.into(),
        values,
    }
}

/// Returns the conditions of the filter except `last`, and their values.
fn conditions(filter: &Filter) -> (String, Vec<Value>) {
    let conditions: [(&str, Option<Value>); 10] = [
        (
            "reserved_at >= ?",
            filter.since.map(|at| at.millis().into()),
        ),
        ("reserved_at < ?", filter.until.map(|at| at.millis().into())),
        (
            "purchase = ?",
            filter.id.as_ref().map(|id| id.written().into()),
        ),
        (
            "seq > ?",
            filter
                .after
                .map(|after| i64::try_from(after).unwrap_or(i64::MAX).into()),
        ),
        (
            "origin = ?",
            filter.origin.as_ref().map(|origin| origin.written().into()),
        ),
        (
            "payee = ?",
            filter.payee.map(|payee| payee.written().into()),
        ),
        ("tag = ?", filter.tag.clone().map(Value::from)),
        ("agent = ?", filter.agent.clone().map(Value::from)),
        ("credential = ?", filter.credential.clone().map(Value::from)),
        (
            "state = ?",
            filter.state.map(|state| state.written().into()),
        ),
    ];
    let set = conditions
        .into_iter()
        .filter_map(|(sql, value)| Some((sql, value?)));
    let (mut terms, mut values): (Vec<_>, Vec<_>) = set.unzip();
    terms.push(if filter.unproven { UNPROVEN } else { "true" });
    if filter.refunded {
        terms.push("refunded <> '0'");
    }
    if filter.unresolved {
        terms.push("(state = 'signed' OR state = 'rejected' OR state = 'unresolved')");
    }
    if filter.prunable {
        terms.push(PRUNABLE);
    }
    if let Some(host) = &filter.host {
        let (of_host, hosts) = condition(&Scope::Host(host.clone()));
        terms.push(of_host);
        values.extend(hosts);
    }
    (terms.join(" AND "), values)
}

//! The counts of denials as rows.

use super::Row;
use super::query::Query;
use super::row::{Cells, integer};
use crate::ledger::LedgerError;
use crate::ledger::denials::{DenialCount, MOST, OTHERS};
use crate::limit::Rule;

/// Adds denials to the count of their rule and host. Of many hosts, the later ones are counted together.
pub(in crate::ledger) fn add(denials: &DenialCount) -> Result<Query, LedgerError> {
    // SQLite cannot tell the two meanings of ON without WHERE, and PostgreSQL takes values in a SELECT for texts.
    let sql = format!(
        "INSERT INTO denials (rule, host, count, first_at, last_at, message) \
         SELECT CAST(? AS TEXT), CASE WHEN EXISTS (SELECT 1 FROM denials WHERE rule = ? AND host = ?) \
         OR (SELECT count(*) FROM denials) < {MOST} THEN CAST(? AS TEXT) ELSE '{OTHERS}' END, \
         CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS TEXT) WHERE true \
         ON CONFLICT (rule, host) DO UPDATE SET count = denials.count + excluded.count, \
         first_at = CASE WHEN excluded.first_at < denials.first_at THEN excluded.first_at ELSE denials.first_at END, \
         message = CASE WHEN excluded.last_at < denials.last_at THEN denials.message ELSE excluded.message END, \
         last_at = CASE WHEN excluded.last_at < denials.last_at THEN denials.last_at ELSE excluded.last_at END"
    );
    let (rule, host) = denials.key();
    let values = vec![
        rule.to_owned().into(),
        rule.to_owned().into(),
        host.clone().into(),
        host.into(),
        integer(denials.count, "count")?.into(),
        denials.first_at.millis().into(),
        denials.last_at.millis().into(),
        denials.message.clone().into(),
    ];
    Ok(Query {
        sql: sql.into(),
        values,
    })
}

/// Selects all denials. There are at most [`MOST`], and one for each rule.
pub(in crate::ledger) fn all() -> Query {
    Query {
        sql: "SELECT CAST(0 AS BIGINT) AS seq, rule, host, count, first_at, last_at, message FROM denials".into(),
        values: Vec::new(),
    }
}

/// Reads a row. Returns `None` for a rule that this version does not know.
pub(in crate::ledger) fn read(row: &impl Row) -> Result<Option<DenialCount>, LedgerError> {
    let cells = Cells::of_denials(row)?;
    let name = cells.string("rule")?;
    let Some(rule) = Rule::of_name(&name) else {
        return Ok(None);
    };
    Ok(Some(DenialCount {
        rule,
        host: Some(cells.string("host")?).filter(|host| host != OTHERS),
        count: cells.integer("count")?,
        first_at: cells.time("first_at")?,
        last_at: cells.time("last_at")?,
        message: cells.string("message")?,
    }))
}

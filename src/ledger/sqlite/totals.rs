//! Running totals in the file, so that no reservation reads all charges of a scope.
//!
//! [`limit`](crate::limit) computes the totals. This file reads them, and writes those that changed at the end of each
//! transaction.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::failed;
use super::file::{File, count_steps};
use super::known::Added;
use crate::clock::Timestamp;
use crate::ledger::{LedgerError, Purchase};
use crate::limit::{Chargeable, LimitQuery, Scope, Sum, Total, Totals, Unit, Window, same_usage};

/// The table of totals. `scope`, `unit` and `window` are the keys of the limit kernel: `Scope::key`, `Unit::key` and
/// `Window::key`.
pub(super) const TABLE: &str = "
CREATE TABLE totals (
    scope TEXT NOT NULL,
    unit TEXT NOT NULL,
    window TEXT NOT NULL,
    after INTEGER NOT NULL,
    next INTEGER NOT NULL,
    sum TEXT NOT NULL,
    used_at INTEGER NOT NULL,
    PRIMARY KEY (scope, unit, window)
) STRICT, WITHOUT ROWID;
";

/// How long a total is kept after a limit last used it, in milliseconds: 30 days.
const UNUSED: i64 = 30 * 86_400_000;
/// The number of totals that a transaction looks at if it added one, and two more for each that it added.
const LOOKED_AT: i64 = 14;

/// Returns the total that a query asks for.
pub(super) fn find(file: File<'_>, query: &LimitQuery<'_>) -> Result<Option<Total>, LedgerError> {
    learn(file, query.scope())?;
    Ok(file.known.borrow().total(query).cloned())
}

/// Keeps a total, to be written at the end of the transaction.
pub(super) fn put(file: File<'_>, scope: &Scope, total: Total) -> Result<(), LedgerError> {
    learn(file, scope)?;
    file.known.borrow_mut().put_total(scope, total);
    Ok(())
}

/// Changes every total that the purchase is in, or was in.
pub(super) fn change(
    file: File<'_>,
    before: Option<&Purchase>,
    next: &Purchase,
) -> Result<(), LedgerError> {
    if before.is_some_and(|before| same_usage(before, next)) {
        return Ok(());
    }
    let scopes = Scope::all_of(&next.payment());
    let moved = before.filter(|before| before.payment() != next.payment());
    let left = moved.map(|before| {
        let mut scopes_before = Scope::all_of(&before.payment());
        scopes_before.retain(|scope| !scopes.contains(scope));
        scopes_before
    });
    for scope in left.iter().flatten() {
        learn(file, scope)?;
        let mut known = file.known.borrow_mut();
        known.change_totals(scope, |totals| totals.change(before, None::<&Purchase>));
    }
    for scope in &scopes {
        learn(file, scope)?;
        let before = before.filter(|before| scope.covers(&before.payment()));
        let mut known = file.known.borrow_mut();
        known.change_totals(scope, |totals| totals.change(before, Some(next)));
    }
    Ok(())
}

/// Writes the totals that changed in this transaction, at its end, and deletes those that no limit uses any more.
pub(super) fn write(file: File<'_>) -> Result<(), LedgerError> {
    let sql = "INSERT INTO totals (scope, unit, window, after, next, sum, used_at) VALUES (?, ?, ?, ?, ?, ?, ?) \
               ON CONFLICT (scope, unit, window) DO UPDATE \
               SET after = excluded.after, next = excluded.next, sum = excluded.sum, used_at = excluded.used_at";
    let mut known = file.known.borrow_mut();
    let newest = known.write_totals(|scope, total| {
        let mut statement = file.database.prepare_cached(sql).map_err(failed)?;
        let [after, next, used_at] =
            [total.after, total.next, total.used_at].map(Timestamp::millis);
        let (unit, window) = (total.unit.key(), total.window.key());
        let values = params![
            scope.key(),
            unit,
            window,
            after,
            next,
            total.sum.to_string(),
            used_at
        ];
        statement.execute(values).map(drop).map_err(failed)
    })?;
    if let Some(added) = newest
        && forget(file.database, &added)? > 0
    {
        known.forget_totals();
    }
    debug_assert!(
        known.agrees_with(&all(file.database)?),
        "the file has the totals that are known"
    );
    Ok(())
}

/// Deletes totals that no limit uses any more. Looks only at the few after the scope of a new total, so that the cost
/// does not grow with their number. More are looked at than are added.
fn forget(database: &Connection, added: &Added) -> Result<usize, LedgerError> {
    let unused_since = added.at.millis().saturating_sub(UNUSED);
    let first = added.scope.key();
    let most = LOOKED_AT.saturating_add(added.count.saturating_mul(2));
    let mut looked_at = 0;
    let mut unused = Vec::new();
    // After the last one comes the first one.
    for range in ["scope >= ?1", "scope < ?1"] {
        let sql = format!(
            "SELECT scope, unit, window, used_at < ?2 FROM totals WHERE {range} ORDER BY scope, unit, window LIMIT ?3"
        );
        let mut statement = database.prepare_cached(&sql).map_err(failed)?;
        let most = most.saturating_sub(looked_at);
        let mut rows = statement
            .query(params![first, unused_since, most])
            .map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            looked_at = looked_at.saturating_add(1);
            if row.get(3).map_err(failed)? {
                let text = |column| row.get::<_, String>(column).map_err(failed);
                unused.push([text(0)?, text(1)?, text(2)?]);
            }
        }
        drop(rows);
        count_steps(&statement);
    }
    let sql = "DELETE FROM totals WHERE scope = ? AND unit = ? AND window = ?";
    for [scope, unit, window] in &unused {
        let mut statement = database.prepare_cached(sql).map_err(failed)?;
        statement.execute([scope, unit, window]).map_err(failed)?;
    }
    Ok(unused.len())
}

/// Reads the totals of a scope, unless they are known.
fn learn(file: File<'_>, scope: &Scope) -> Result<(), LedgerError> {
    if file.known.borrow().knows_totals(scope) {
        return Ok(());
    }
    let mut statement = file
        .database
        .prepare_cached("SELECT * FROM totals WHERE scope = ?")
        .map_err(failed)?;
    let found = read(statement.query([scope.key()]).map_err(failed)?)?;
    let totals = found.into_iter().map(|(_, total)| total).collect();
    file.known
        .borrow_mut()
        .put_totals(scope.clone(), Totals::stored(totals));
    Ok(())
}

fn all(database: &Connection) -> Result<Vec<(String, Total)>, LedgerError> {
    let mut statement = database.prepare("SELECT * FROM totals").map_err(failed)?;
    read(statement.query([]).map_err(failed)?)
}

/// Reads totals, each with the key of its scope.
fn read(mut rows: rusqlite::Rows<'_>) -> Result<Vec<(String, Total)>, LedgerError> {
    let mut totals = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let text = |column| row.get::<_, String>(column).map_err(failed);
        let time = |column| row.get(column).map(Timestamp::from_millis).map_err(failed);
        let total = Total {
            unit: Unit::parse(&text("unit")?).ok_or_else(|| damaged("unit"))?,
            window: Window::parse(&text("window")?).ok_or_else(|| damaged("window"))?,
            after: time("after")?,
            next: time("next")?,
            sum: sum(row)?,
            used_at: time("used_at")?,
        };
        totals.push((text("scope")?, total));
    }
    Ok(totals)
}

fn sum(row: &rusqlite::Row<'_>) -> Result<Sum, LedgerError> {
    let text = row
        .get_ref("sum")
        .map_err(failed)?
        .as_str()
        .map_err(|_| damaged("sum"))?;
    Sum::parse(text).ok_or_else(|| damaged("sum"))
}

fn damaged(column: &str) -> LedgerError {
    LedgerError::Damaged(format!("totals, column {column}"))
}

/// Computes all totals again from the purchases, to compare them with the table.
pub(super) struct Recount {
    totals: HashMap<String, Vec<Recounted>>,
}

struct Recounted {
    total: Total,
    sum: Sum,
    /// Whether no charge is earlier than `total.next`.
    stays: bool,
}

impl Recount {
    pub(super) fn begin(database: &Connection) -> Result<Self, LedgerError> {
        let mut totals: HashMap<_, Vec<_>> = HashMap::new();
        for (scope, total) in all(database)? {
            let recounted = Recounted {
                total,
                sum: Sum::default(),
                stays: true,
            };
            totals.entry(scope).or_default().push(recounted);
        }
        Ok(Self { totals })
    }

    pub(super) fn add(&mut self, purchase: &Purchase) {
        for scope in Scope::all_of(&purchase.payment()) {
            let totals = self.totals.get_mut(&scope.key());
            for Recounted { total, sum, stays } in totals.into_iter().flatten() {
                if let Some((at, part)) = total.part(purchase) {
                    *sum = sum.plus(part);
                    *stays &= at >= total.next;
                }
            }
        }
    }

    /// Returns the names of the totals that differ from the purchases.
    pub(super) fn wrong(self) -> Vec<String> {
        let mut names = Vec::new();
        for (scope, totals) in self.totals {
            let wrong = totals
                .iter()
                .filter(|recounted| recounted.total.sum != recounted.sum || !recounted.stays);
            names.extend(wrong.map(|Recounted { total, .. }| {
                format!("{scope}, {}, {}", total.window.key(), total.unit.key())
            }));
        }
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests;

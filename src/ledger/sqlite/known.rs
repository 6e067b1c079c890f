//! A cache of the file: rows that this connection read or wrote, while no other connection wrote.
//!
//! It is used only under the write lock. A transaction that is not committed clears it.

use std::collections::HashMap;

use rusqlite::Connection;

use super::domains::Domains;
use super::failed;
use crate::clock::Timestamp;
use crate::ledger::hash_chain::Head;
use crate::ledger::sql::row::Columns;
use crate::ledger::{LedgerError, Purchase, PurchaseKey, State};
use crate::limit::{LimitQuery, Scope, Total, Totals};

/// The most purchases, or scopes, in the cache.
const MOST: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Known {
    /// SQLite's number of the last write by another connection. `None` while the cache may differ from the file.
    version: Option<i64>,
    /// Purchases that are reserved or signed. Each is written several times.
    purchases: HashMap<PurchaseKey, (Purchase, Columns)>,
    totals: HashMap<Scope, Totals>,
    /// Scopes with totals that are not written yet.
    unwritten: Vec<Scope>,
    added: Option<Added>,
    pub(super) head: Option<Head>,
    pub(super) last_seq: Option<u64>,
    /// Whether the transaction must be on disk before it is answered, though none of its writes says so.
    must_sync: bool,
    /// Indices that the file has.
    indices: Vec<&'static str>,
    /// Kept when another connection wrote, because they are brought up to date by the events.
    pub(super) domains: Domains,
}

/// The totals that were added and are not written yet.
#[derive(Debug)]
pub(super) struct Added {
    /// The scope and the time of the last one.
    pub(super) scope: Scope,
    pub(super) at: Timestamp,
    pub(super) count: i64,
}

/// The version of the file that a transaction sees.
pub(super) struct Version {
    number: i64,
    /// Whether another connection may have written since the last commit.
    pub(super) others_wrote: bool,
}

impl Known {
    /// Begins a transaction that holds the write lock. Clears the cache if another connection wrote, or if the file
    /// was written in another way.
    pub(super) fn begin(
        &mut self,
        database: &Connection,
        file_written: bool,
    ) -> Result<Version, LedgerError> {
        let mut statement = database
            .prepare_cached("PRAGMA data_version")
            .map_err(failed)?;
        let number = statement.query_row([], |row| row.get(0)).map_err(failed)?;
        let is_full = self.purchases.len() > MOST || self.totals.len() > MOST;
        let committed = self.version.take();
        let others_wrote = committed != Some(number) || file_written;
        if committed.is_none() || file_written || self.domains.len() > MOST {
            self.domains = Domains::default();
        }
        if others_wrote || is_full {
            let domains = std::mem::take(&mut self.domains);
            *self = Self {
                domains,
                ..Self::default()
            };
        }
        Ok(Version {
            number,
            others_wrote,
        })
    }

    /// Ends a transaction that was committed.
    pub(super) const fn keep(&mut self, version: &Version) {
        self.version = Some(version.number);
    }

    pub(super) fn purchase(&self, key: &PurchaseKey) -> Option<&Purchase> {
        self.purchases.get(key).map(|(entry, _)| entry)
    }

    /// Takes the row of a purchase that is about to be written again.
    pub(super) fn take_columns(&mut self, key: &PurchaseKey) -> Option<Columns> {
        self.purchases.remove(key).map(|(_, columns)| columns)
    }

    pub(super) fn put(&mut self, entry: &Purchase, columns: Columns) {
        match entry.state {
            State::Reserved | State::Signed => {
                self.purchases.insert(entry.key(), (entry.clone(), columns))
            }
            _ => self.purchases.remove(&entry.key()),
        };
    }

    /// The transaction takes room that the ledger had given back.
    pub(super) const fn require_sync(&mut self) {
        self.must_sync = true;
    }

    pub(super) const fn take_must_sync(&mut self) -> bool {
        std::mem::replace(&mut self.must_sync, false)
    }

    pub(super) fn has_index(&self, name: &str) -> bool {
        self.indices.contains(&name)
    }

    pub(super) fn put_index(&mut self, name: &'static str) {
        self.indices.push(name);
    }

    pub(super) fn knows_totals(&self, scope: &Scope) -> bool {
        self.totals.contains_key(scope)
    }

    pub(super) fn total(&self, query: &LimitQuery<'_>) -> Option<&Total> {
        self.totals.get(query.scope())?.find(query)
    }

    /// Adds all totals of a scope, as they were read.
    pub(super) fn put_totals(&mut self, scope: Scope, totals: Totals) {
        self.totals.insert(scope, totals);
    }

    /// Adds or replaces one total, in a scope that is known.
    pub(super) fn put_total(&mut self, scope: &Scope, total: Total) {
        self.unwritten.push(scope.clone());
        let used_at = total.used_at;
        if self.totals.entry(scope.clone()).or_default().put(total) {
            let count = self.added.take().map_or(0, |added| added.count);
            self.added = Some(Added {
                scope: scope.clone(),
                at: used_at,
                count: count.saturating_add(1),
            });
        }
    }

    /// Changes the totals of a scope that is known.
    pub(super) fn change_totals(
        &mut self,
        scope: &Scope,
        change: impl FnOnce(&mut Totals) -> bool,
    ) {
        if self.totals.get_mut(scope).is_some_and(change) {
            self.unwritten.push(scope.clone());
        }
    }

    /// Writes the totals that are not written yet. Returns those of them that were added.
    pub(super) fn write_totals(
        &mut self,
        mut write: impl FnMut(&Scope, &Total) -> Result<(), LedgerError>,
    ) -> Result<Option<Added>, LedgerError> {
        for scope in self.unwritten.drain(..) {
            if let Some(totals) = self.totals.get_mut(&scope) {
                totals.store(|total| write(&scope, total))?;
            }
        }
        Ok(self.added.take())
    }

    /// Removes all totals from the cache. Call [`write_totals`](Self::write_totals) first.
    pub(super) fn forget_totals(&mut self) {
        self.totals.clear();
    }

    /// Whether the file has the same totals for every scope in the cache.
    pub(super) fn agrees_with(&self, file: &[(String, Total)]) -> bool {
        self.totals.iter().all(|(scope, totals)| {
            let key = scope.key();
            let mut stored = file.iter().filter(|(scope, _)| *scope == key);
            let count = stored.clone().count();
            let is_known = |total: &Total| totals.iter().any(|known| known == total);
            count == totals.iter().count() && stored.all(|(_, total)| is_known(total))
        })
    }
}

//! What is known of the file without reading it: what this connection read or wrote, while nobody else wrote.
//!
//! It is asked only under the write lock, and forgotten with any transaction that is not committed.

use std::collections::HashMap;

use rusqlite::Connection;

use super::failed;
use super::totals::{Key, Total};
use crate::ledger::hash_chain::Head;
use crate::ledger::sql::row::Columns;
use crate::ledger::{LedgerError, Purchase, PurchaseKey, State};

/// Purchases, or scopes, of which something is known at most.
const MOST: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Known {
    /// SQLite's number of what others have written. `None` while this may not be what is in the file.
    version: Option<i64>,
    /// Purchases under way: each is written several times.
    purchases: HashMap<PurchaseKey, (Purchase, Columns)>,
    totals: HashMap<String, Vec<Kept>>,
    /// Scopes with totals that are not written yet.
    unwritten: Vec<String>,
    pub(super) head: Option<Head>,
    pub(super) last_seq: Option<u64>,
}

/// A total as it is at this point of the transaction.
#[derive(Debug)]
struct Kept {
    key: Key,
    total: Total,
    is_written: bool,
}

/// The version of the file that a transaction sees.
pub(super) struct Version(i64);

impl Known {
    /// At the beginning of a transaction that holds the write lock.
    pub(super) fn begin(&mut self, books: &Connection) -> Result<Version, LedgerError> {
        let mut statement = books
            .prepare_cached("PRAGMA data_version")
            .map_err(failed)?;
        let version = statement.query_row([], |row| row.get(0)).map_err(failed)?;
        let is_full = self.purchases.len() > MOST || self.totals.len() > MOST;
        if self.version.take() != Some(version) || is_full {
            *self = Self::default();
        }
        Ok(Version(version))
    }

    /// The transaction is committed: what was written in it stands.
    pub(super) const fn keep(&mut self, Version(version): Version) {
        self.version = Some(version);
    }

    pub(super) fn purchase(&self, key: &PurchaseKey) -> Option<&Purchase> {
        self.purchases.get(key).map(|(entry, _)| entry)
    }

    /// The row of a purchase that is about to be written anew.
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

    pub(super) fn knows_totals(&self, scope: &str) -> bool {
        self.totals.contains_key(scope)
    }

    pub(super) fn total(&self, key: &Key) -> Option<Total> {
        let totals = self.totals.get(&key.scope)?;
        totals
            .iter()
            .find(|kept| kept.key == *key)
            .map(|kept| kept.total)
    }

    /// All totals of a scope, as they were read.
    pub(super) fn put_totals(&mut self, scope: String, totals: Vec<(Key, Total)>) {
        let totals = totals.into_iter().map(|(key, total)| Kept {
            key,
            total,
            is_written: true,
        });
        self.totals.insert(scope, totals.collect());
    }

    /// To be written, in a scope that is known.
    pub(super) fn put_total(&mut self, key: &Key, total: Total) {
        self.unwritten.push(key.scope.clone());
        let totals = self.totals.entry(key.scope.clone()).or_default();
        match totals.iter_mut().find(|kept| kept.key == *key) {
            Some(kept) => (kept.total, kept.is_written) = (total, false),
            None => totals.push(Kept {
                key: key.clone(),
                total,
                is_written: false,
            }),
        }
    }

    /// Changes all totals of a scope that is known.
    pub(super) fn change_totals(&mut self, scope: &str, change: impl Fn(&Key, Total) -> Total) {
        for Kept {
            key,
            total,
            is_written,
        } in self.totals.get_mut(scope).into_iter().flatten()
        {
            let changed = change(key, *total);
            if changed != *total {
                *total = changed;
                if std::mem::take(is_written) {
                    self.unwritten.push(scope.to_owned());
                }
            }
        }
    }

    /// Writes the totals that are not written yet.
    pub(super) fn write_totals(
        &mut self,
        mut write: impl FnMut(&Key, Total) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        for scope in self.unwritten.drain(..) {
            for kept in self
                .totals
                .get_mut(&scope)
                .into_iter()
                .flatten()
                .filter(|kept| !kept.is_written)
            {
                write(&kept.key, kept.total)?;
                kept.is_written = true;
            }
        }
        Ok(())
    }

    /// After [`write_totals`](Self::write_totals).
    pub(super) fn forget_totals(&mut self) {
        self.totals.clear();
    }

    /// Whether of the scopes that are known these are all totals.
    #[cfg(test)]
    pub(super) fn agrees_with(&self, file: &[(Key, Total)]) -> bool {
        let is_known = |key: &Key, total| {
            self.total(key) == Some(total) || !self.totals.contains_key(&key.scope)
        };
        let known = self.totals.values().flatten();
        file.iter().all(|(key, total)| is_known(key, *total))
            && known
                .into_iter()
                .all(|kept| file.contains(&(kept.key.clone(), kept.total)))
    }
}

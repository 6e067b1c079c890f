//! The indices that only some limits read. Each costs time and log with every write, and most policies read few of them.
//!
//! An index is created before the first change that reads it, and stays. A role that writes purchases does not own the table,
//! so a function of the owner creates it. No result depends on an index: without one, the server reads more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::change::Change;
use super::link::Ask;
use super::pool::Failure;
use super::totals::WRITES;
use super::{Database, pause};
use crate::ledger::sql::query::Query;
use crate::ledger::sql::row::Cells;
use crate::ledger::sql::scope::{BY_SELLER, indices, of_check};
use crate::ledger::sql::tables::TABLES;

/// The indices among [`TABLES`] that only some limits read.
const OTHERS: [&str; 4] = ["by_reserved_at", "by_expires_at", BY_SELLER, "by_request"];
/// The most attempts to create indices.
const ATTEMPTS: u32 = 5;

/// Whether a statement of [`TABLES`] creates an index that only some limits read.
pub(super) fn is_on_demand(statement: &str) -> bool {
    OTHERS
        .iter()
        .any(|name| statement.contains(&format!("CREATE INDEX {name} ")))
}

/// Returns the SQL of a function that creates an index for those who write purchases. Its schema is quoted.
pub(super) fn create(schema: &str) -> String {
    let others = TABLES.split(';').filter(|sql| is_on_demand(sql));
    let by_scope = indices("").map(|(_, sql)| sql);
    let statements: String = others
        .map(str::trim)
        .chain(by_scope.iter().map(String::as_str))
        .filter_map(|sql| {
            let name = sql.split_whitespace().nth(2)?;
            Some(format!("WHEN '{name}' THEN {sql};\n"))
        })
        .collect();
    let writes = WRITES.replace("{schema}", schema);
    format!(
        "CREATE OR REPLACE FUNCTION keep_index(name TEXT) RETURNS VOID LANGUAGE plpgsql SECURITY DEFINER \
         SET search_path = {schema}, pg_temp AS $$ BEGIN \
         IF NOT {writes} THEN RAISE insufficient_privilege USING MESSAGE = 'only those who write purchases create indices'; END IF; \
         IF to_regclass(name) IS NULL THEN CASE name\n{statements}END CASE; END IF; END $$;"
    )
}

/// Returns the names of the indices that only some limits read.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OTHERS.into_iter().chain(indices("").map(|(name, _)| name))
}

/// Selects the names of the indices of all purchases.
fn existing() -> Query {
    Query {
        sql: "SELECT CAST(0 AS BIGINT) AS seq, CAST(c.relname AS TEXT) AS name FROM pg_catalog.pg_index i \
              JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = to_regclass('purchases')"
            .into(),
        values: Vec::new(),
    }
}

/// The indices that this process need not create any more.
#[derive(Default)]
pub(super) struct Indices(Mutex<BTreeSet<&'static str>>);

impl Indices {
    pub(super) fn known(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the names that are new. They are known from here on.
    fn claim(&self, names: impl IntoIterator<Item = &'static str>) -> Vec<&'static str> {
        let mut known = self.known();
        let new = names.into_iter().filter(|name| known.insert(*name));
        new.collect()
    }

    fn forget(&self, names: &[&'static str]) {
        self.known().retain(|name| !names.contains(name));
    }
}

impl Database {
    /// Creates the indices that a change reads.
    pub(super) async fn index(self: &Arc<Self>, change: &Change) {
        if let Some(checks) = change.checks() {
            self.ensure_indices(of_check(checks)).await;
        }
    }

    /// Creates the indices that a search for purchases of a seller reads.
    pub(super) async fn index_sellers(self: &Arc<Self>) {
        self.ensure_indices([BY_SELLER]).await;
    }

    /// Creates indices that this process does not know of. Calls that come meanwhile do not wait for them.
    async fn ensure_indices(self: &Arc<Self>, names: impl IntoIterator<Item = &'static str>) {
        let new = self.indices.claim(names);
        if new.is_empty() {
            return;
        }
        // If the caller stops waiting, the server has not worked for nothing: the task goes on.
        let database = Arc::clone(self);
        drop(tokio::spawn(async move { database.create_indices(&new).await }).await);
    }

    /// Creates each index in a transaction of its own, so that other programs can write in between. One that cannot be
    /// created is not tried again: each attempt would delay payments.
    async fn create_indices(&self, names: &[&'static str]) {
        let Ok(missing) = self.missing_indices(names).await else {
            // The change itself will tell why the server cannot be asked.
            self.indices.forget(names);
            return;
        };
        for (done, name) in missing.iter().enumerate() {
            let mut attempt = 1;
            loop {
                let mut began = false;
                match self.create_index(name, &mut began).await {
                    Ok(()) => break,
                    Err(Failure::Conflict(_)) if attempt < ATTEMPTS => {
                        pause(attempt).await;
                        attempt = attempt.saturating_add(1);
                    }
                    Err(_) if !began => {
                        self.indices.forget(missing.get(done..).unwrap_or_default());
                        return;
                    }
                    Err(failure) => {
                        let error = failure.into_error();
                        tracing::warn!(%error, name, "PostgreSQL: limits are slow without this index");
                        break;
                    }
                }
            }
        }
    }

    async fn missing_indices(&self, names: &[&'static str]) -> Result<Vec<&'static str>, Failure> {
        let mut missing = names.to_vec();
        for row in &self.try_rows(&existing()).await? {
            let existing = Cells::of(row)?.string("name")?;
            missing.retain(|name| **name != *existing);
        }
        Ok(missing)
    }

    /// Creates an index. Sets `began` when the transaction has the lock.
    async fn create_index(&self, name: &str, began: &mut bool) -> Result<(), Failure> {
        let settings = self.write_settings().await?;
        let mut lease = self.pool.get().await?;
        let link = lease.link()?;
        let created = async {
            self.timed(link.begin(settings)).await?;
            *began = true;
            let create = Query {
                sql: "SELECT keep_index(CAST(? AS TEXT))".into(),
                values: vec![name.to_owned().into()],
            };
            self.timed(link.ask(vec![Ask::none(create)])).await?;
            self.timed(link.commit_now()).await
        }
        .await;
        self.end(link, Failure::is_lost(&created)).await;
        created
    }
}

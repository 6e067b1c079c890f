//! The indices that only some limits read. Each costs time and log with every write, and most policies read few of them.
//!
//! An index is created before the first change that reads it, and stays. A role that writes purchases does not own the table,
//! so a function of the owner creates it. No result depends on an index: without one, the server reads more.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::timeout;

use super::change::Change;
use super::link::Ask;
use super::pool::Failure;
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

/// Returns the SQL of a function that creates an index. Its schema is quoted.
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
    format!(
        "CREATE OR REPLACE FUNCTION keep_index(name TEXT) RETURNS VOID LANGUAGE plpgsql SECURITY DEFINER \
         SET search_path = {schema}, pg_temp AS $$ BEGIN \
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
pub(super) struct Indices {
    known: Mutex<BTreeSet<&'static str>>,
    creating: tokio::sync::Mutex<()>,
}

impl Indices {
    pub(super) fn known(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retain_unknown(&self, names: &mut BTreeSet<&'static str>) {
        let known = self.known();
        names.retain(|name| !known.contains(name));
    }
}

impl Database {
    /// Creates the indices that a change reads.
    pub(super) async fn index(&self, change: &Change) {
        if let Some(checks) = change.checks() {
            self.ensure_indices(of_check(checks)).await;
        }
    }

    /// Creates the indices that a search for purchases of a seller reads.
    pub(super) async fn index_sellers(&self) {
        self.ensure_indices([BY_SELLER]).await;
    }

    /// Creates indices, unless this process knows of them. One that cannot be created is not tried again, so that it delays
    /// few payments.
    async fn ensure_indices(&self, names: impl IntoIterator<Item = &'static str>) {
        let mut missing: BTreeSet<&'static str> = names.into_iter().collect();
        self.indices.retain_unknown(&mut missing);
        if missing.is_empty() {
            return;
        }
        // A caller that nobody polls must not keep the others waiting.
        let _first = timeout(self.timeout, self.indices.creating.lock()).await;
        self.indices.retain_unknown(&mut missing);
        for attempt in 1..=ATTEMPTS {
            if missing.is_empty() {
                return;
            }
            let mut began = false;
            match self.create_indices(&missing, &mut began).await {
                Ok(()) => {}
                Err(Failure::Conflict(_)) if attempt < ATTEMPTS => {
                    pause(attempt).await;
                    continue;
                }
                // The change itself will tell why the server cannot be written to.
                Err(Failure::Conflict(_) | Failure::Lost(_)) if !began => return,
                Err(failure) => {
                    let error = failure.into_error();
                    tracing::warn!(%error, ?missing, "PostgreSQL: limits are slow without these indices");
                }
            }
            self.indices.known().append(&mut missing);
        }
    }

    /// Creates indices, unless the database has them. Sets `began` when it begins to create them.
    async fn create_indices(
        &self,
        names: &BTreeSet<&'static str>,
        began: &mut bool,
    ) -> Result<(), Failure> {
        let settings = self.write_settings().await?;
        let mut missing = names.clone();
        for row in &self.try_rows(&existing()).await? {
            missing.remove(&*Cells::of(row)?.string("name")?);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut lease = self.pool.get().await?;
        let link = lease.link()?;
        let created = async {
            self.timed(link.begin(settings)).await?;
            *began = true;
            for name in missing {
                let create = Query {
                    sql: "SELECT keep_index(CAST(? AS TEXT))".into(),
                    values: vec![name.to_owned().into()],
                };
                self.timed(link.ask(vec![Ask::none(create)])).await?;
            }
            self.timed(link.commit_now()).await
        }
        .await;
        self.end(link, Failure::is_lost(&created)).await;
        created
    }
}

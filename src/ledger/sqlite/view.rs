//! The database as the limits of a check see it, inside a transaction.

use alloy::primitives::{Address, U256};

use super::file::{self, File, Line};
use super::totals;
use crate::clock::Timestamp;
use crate::ledger::sql::query::{Part, Present, Query, charge};
use crate::ledger::sql::row::Cells;
use crate::ledger::sql::scope::{index, indexed_scope};
use crate::ledger::{Freeze, LedgerError, Purchase};
use crate::limit::{
    Charge, Denial, LimitQuery, Moment, Scope, Since, Sum, Total, TotalStore, Usage, running_total,
};
use crate::money::Network;
use crate::origin::Origin;

const BY_SELLER: &str = "purchases INDEXED BY by_seller";
const HELD: &str = "purchases INDEXED BY held";

pub(super) struct View<'a> {
    file: File<'a>,
    now: Timestamp,
    present: Present,
    /// The purchase that is being reserved, as it is stored.
    known: Option<&'a Purchase>,
    /// The reservations of other purchases that lapsed.
    lapsed: Vec<Purchase>,
}

impl<'a> View<'a> {
    pub(super) fn new(
        file: File<'a>,
        now: Timestamp,
        known: Option<&'a Purchase>,
    ) -> Result<Self, LedgerError> {
        let present = Present::new(now, known.map(|purchase| purchase.seq))?;
        let lapsed = file::read(file.database, present.lapsed(HELD))?;
        Ok(Self {
            file,
            now,
            present,
            known,
            lapsed,
        })
    }

    /// Returns the reservations of other purchases that lapsed.
    pub(super) fn into_lapsed(self) -> Vec<Purchase> {
        self.lapsed
    }

    fn visit(
        &self,
        query: Query,
        scope: &Scope,
        visit: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        file::each(self.file.database, query, |line| {
            charge(line, scope)?.into_iter().for_each(&mut *visit);
            Ok(())
        })
    }

    /// Returns the queries of all charges in `scope` and `since`.
    pub(super) fn queries(&self, scope: &Scope, since: Since) -> impl Iterator<Item = Query> {
        parts(scope, since.moment)
            .into_iter()
            .map(move |(part, table)| self.present.charges(&table, part, scope, since))
    }

    fn first<T>(
        &self,
        query: Query,
        read: impl FnOnce(&Cells<'_, Line<'_>>) -> Result<T, LedgerError>,
    ) -> Result<Option<T>, LedgerError> {
        file::first(self.file.database, query, |line| read(&Cells::of(line)?))
    }
}

impl Usage for View<'_> {
    type Error = LedgerError;

    fn frozen(&self) -> Result<Option<Denial>, LedgerError> {
        Ok(super::stopped(self.file.database)?
            .as_ref()
            .map(Freeze::denial))
    }

    fn charges(
        &self,
        scope: &Scope,
        since: Since,
        visit: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        self.queries(scope, since)
            .try_for_each(|query| self.visit(query, scope, visit))
    }

    fn total(&self, query: &LimitQuery<'_>) -> Result<U256, LedgerError> {
        running_total(self, self, query, self.now)
    }

    fn first_payee(
        &self,
        origin: &Origin,
        asset: (Network, Address),
    ) -> Result<Option<Address>, LedgerError> {
        self.first(
            self.present.first_payee(BY_SELLER, origin, asset),
            |cells| cells.text("payee"),
        )
    }

    fn last_price(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        asset: (Network, Address),
    ) -> Result<Option<U256>, LedgerError> {
        self.first(
            self.present
                .last_price(BY_SELLER, origin, (method, path), asset),
            |cells| cells.text("value"),
        )
    }
}

impl TotalStore for View<'_> {
    type Error = LedgerError;
    type Purchase = Purchase;

    fn keeps(&self, query: &LimitQuery<'_>) -> bool {
        query.scope().is_stable()
    }

    fn find(&self, query: &LimitQuery<'_>) -> Result<Option<Total>, LedgerError> {
        totals::find(self.file, query)
    }

    fn put(&self, query: &LimitQuery<'_>, total: Total) -> Result<(), LedgerError> {
        totals::put(self.file, query.scope(), total)
    }

    fn between(
        &self,
        query: &LimitQuery<'_>,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<Sum, LedgerError> {
        let (scope, moment) = (query.scope(), query.since.moment);
        let mut sum = Sum::default();
        for (part, table) in parts(scope, moment) {
            let charges = Present::charges_between(&table, part, scope, moment, (after, until));
            self.visit(charges, scope, &mut |charge| {
                sum = sum.plus(query.unit.measure(&charge).unwrap_or_default());
            })?;
        }
        Ok(sum)
    }

    fn next(&self, query: &LimitQuery<'_>, after: Timestamp) -> Result<Timestamp, LedgerError> {
        let moment = query.since.moment;
        let scope = indexed_scope(query.scope(), moment);
        let mut next = Timestamp::MAX;
        for (part, table) in parts(&scope, moment) {
            let first = Present::first_after(&table, part, &scope, moment, after);
            next = self
                .first(first, |cells| cells.time("at"))?
                .map_or(next, |at| next.min(at));
        }
        Ok(next)
    }

    fn not_counted(&self) -> impl Iterator<Item = &Purchase> {
        self.lapsed.iter().chain(self.known)
    }

    fn left_out(&self) -> impl Iterator<Item = &Purchase> {
        std::iter::empty()
    }
}

/// Returns the parts of all purchases to read, each with its table and index. Holds have an index of their own.
fn parts(scope: &Scope, moment: Moment) -> Vec<(Part, String)> {
    let name = index(scope, moment);
    let table = format!("purchases INDEXED BY {name}");
    if moment == Moment::CountsAt && name != "by_request" {
        vec![(Part::Timed, table), (Part::Held, HELD.to_owned())]
    } else {
        vec![(Part::All, table)]
    }
}

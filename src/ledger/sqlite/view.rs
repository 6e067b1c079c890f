//! The database as the limits of a check see it, inside a transaction.

use alloy::primitives::{Address, U256};

use super::file::{self, File, Line};
use super::{domains, totals};
use crate::clock::Timestamp;
use crate::ledger::sql::hosts;
use crate::ledger::sql::query::{Part, Present, Query, charge};
use crate::ledger::sql::row::Cells;
use crate::ledger::sql::scope::{index, indexed_scope, is_range};
use crate::ledger::{Freeze, LedgerError, Purchase};
use crate::limit::{
    BEGINNING, Charge, Denial, LimitQuery, Moment, Scope, Since, Sum, Total, TotalStore, Usage,
    domain_total, leaves_at, running_total,
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
        parts(scope, since.moment, since.after)
            .into_iter()
            .map(move |(part, table)| self.present.charges(&table, part, scope, since))
    }

    /// Whether the scope has no purchases. `false` if it takes long to find out.
    fn is_empty(&self, scope: &Scope) -> Result<bool, LedgerError> {
        if !is_range(scope) {
            return Ok(false);
        }
        for (part, table) in parts(scope, Moment::CountsAt, BEGINNING) {
            let any = hosts::any(&table, part, scope);
            if file::first(self.file.database, any, |_| Ok(()))?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
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
        // Only self-checks need this.
        #[cfg(test)]
        let steps = file::STEPS.get();
        self.queries(scope, since)
            .try_for_each(|query| self.visit(query, scope, visit))?;
        #[cfg(test)]
        file::STEPS.set(steps);
        Ok(())
    }

    fn total(&self, query: &LimitQuery<'_>) -> Result<U256, LedgerError> {
        let Scope::Domain(domain) = query.scope() else {
            return running_total(self, self, query, self.now);
        };
        let below = domains::below(self.file, domain)?;
        let of_domain = (domain.as_str(), below.as_ref());
        domain_total(self, self, query, of_domain, self.now)
    }

    /// Reads the charges in the order of time, and stops at the answer.
    fn leaves_at(
        &self,
        query: &LimitQuery<'_>,
        units: U256,
    ) -> Result<Option<Timestamp>, LedgerError> {
        let (scope, since, database) = (query.scope(), query.since, self.file.database);
        let part_of = |line: &Line<'_>| -> Result<Option<(Timestamp, U256)>, LedgerError> {
            let charge = charge(line, scope)?;
            Ok(charge.and_then(|charge| Some((charge.at, query.unit.measure(&charge)?))))
        };
        let (mut held, mut ordered) = (Vec::new(), None);
        for (part, table) in parts(scope, since.moment, since.after) {
            let Query { sql, values } = self.present.charges(&table, part, scope, since);
            let charges = Query {
                sql: format!("{sql} ORDER BY at").into(),
                values,
            };
            if part == Part::Held {
                file::each(database, charges, |line| {
                    held.extend(part_of(line)?);
                    Ok(())
                })?;
            } else {
                ordered = Some(charges);
            }
        }
        let mut held = held.into_iter().peekable();
        let mut gone = U256::ZERO;
        let mut leaves = |(at, part)| {
            gone = gone.saturating_add(part);
            (gone >= units).then_some(at)
        };
        let mut last = None;
        if let Some(charges) = ordered {
            file::until(database, charges, |line| {
                let Some((at, part)) = part_of(line)? else {
                    return Ok(false);
                };
                while let Some(earlier) = held.next_if(|(first, _)| *first <= at) {
                    last = last.or_else(|| leaves(earlier));
                }
                last = last.or_else(|| leaves((at, part)));
                Ok(last.is_some())
            })?;
        }
        let last = last.or_else(|| held.find_map(leaves));
        // In tests of this crate only: another program can change the rows of a ledger, and that must not end a program.
        if cfg!(test) {
            assert_eq!(last, leaves_at(self, query, units)?, "{query:?}");
        }
        Ok(last)
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
        // Most scopes whose total begins are new. Their purchases are not looked for among those of others.
        if until == Timestamp::MAX && moment != Moment::CountsAt && self.is_empty(scope)? {
            return Ok(sum);
        }
        for (part, table) in parts(scope, moment, after) {
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
        for (part, table) in parts(&scope, moment, after) {
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
}

/// Returns the parts of all purchases to read, each with its table and index. Holds have an index of their own.
fn parts(scope: &Scope, moment: Moment, after: Timestamp) -> Vec<(Part, String)> {
    let name = index(scope, moment, after > BEGINNING);
    let table = format!("purchases INDEXED BY {name}");
    if moment == Moment::CountsAt && name != "by_request" {
        vec![(Part::Timed, table), (Part::Held, HELD.to_owned())]
    } else {
        vec![(Part::All, table)]
    }
}

//! The books inside a transaction, as [`Books`].

use std::cell::RefCell;

use alloy::primitives::{Address, U256};

use super::file::{self, File, Line};
use super::totals::{self, Key, Total};
use crate::ledger::checks::{self, Time};
use crate::ledger::purchase::holds;
use crate::ledger::sql::query::{Part, Present, Query, charge};
use crate::ledger::sql::row::Cells;
use crate::ledger::sum::Sum;
use crate::ledger::{Books, Charge, Freeze, LedgerError, Purchase, Tally};
use crate::policy::limit::{Scope, Span};
use crate::{Network, Origin, Timestamp};

const BY_SELLER: &str = "purchases INDEXED BY by_seller";
const UNDER_WAY: &str = "purchases INDEXED BY under_way";

pub(super) struct View<'a> {
    file: File<'a>,
    now: Timestamp,
    present: Present,
    /// The purchase that is being reserved, as it is known, and holds that lapsed: what is in the totals and does
    /// not count.
    known: Option<&'a Purchase>,
    lapsed: Vec<Purchase>,
    /// Totals that began or moved on since they were written, and whether they began.
    moved: RefCell<Vec<(Key, Total, bool)>>,
}

impl<'a> View<'a> {
    pub(super) fn new(
        file: File<'a>,
        now: Timestamp,
        known: Option<&'a Purchase>,
    ) -> Result<Self, LedgerError> {
        let present = Present::new(now, known.map(|entry| entry.seq))?;
        let lapsed = file::read(file.books, present.lapsed(UNDER_WAY))?;
        Ok(Self {
            file,
            now,
            present,
            known,
            lapsed,
            moved: RefCell::default(),
        })
    }

    /// Holds of others that do not count any more.
    pub(super) fn lapsed(&self) -> &[Purchase] {
        &self.lapsed
    }

    /// Writes the totals that began or moved on.
    pub(super) fn keep_totals(&self) -> Result<(), LedgerError> {
        self.moved
            .take()
            .iter()
            .try_for_each(|(key, total, is_new)| totals::keep(self.file, key, *total, *is_new))
    }

    /// The total with all that is in it, brought to this moment.
    fn kept(&self, key: &Key, tally: Tally<'_>, start: Timestamp) -> Result<Sum, LedgerError> {
        let between = |after, until| self.between(key, tally, (after, until));
        let known = totals::find(self.file, key)?;
        // Beyond its own length a window shares nothing with where it was; what has no length is little.
        let length = self.now.millis().saturating_sub(start.millis());
        let near = |known: &Total| {
            key.time == Time::Expiring
                || start.millis().saturating_sub(known.start.millis()) <= length
        };
        let (total, is_new) = match known {
            // By a clock that is behind: what it sees more is not kept.
            Some(known) if start < known.start => {
                return Ok(known.sum.plus(between(start, known.start)?));
            }
            Some(known) if start == known.start || start < known.next => {
                if !known.was_used_long_ago(self.now) {
                    return Ok(known.sum);
                }
                (known.used(self.now), false)
            }
            Some(known) if near(&known) => {
                let sum = known.sum.minus(between(known.start, start)?);
                (
                    Total::new(start, self.next(key, tally, start)?, sum, self.now),
                    false,
                )
            }
            _ => {
                let sum = between(start, Timestamp::MAX)?;
                (
                    Total::new(start, self.next(key, tally, start)?, sum, self.now),
                    true,
                )
            }
        };
        self.moved.borrow_mut().push((key.clone(), total, is_new));
        Ok(total.sum)
    }

    /// A moment after `start` before which nothing of the scope is: of the scope itself, where that is one range of
    /// an index, and else of one around it.
    fn next(
        &self,
        key: &Key,
        tally: Tally<'_>,
        start: Timestamp,
    ) -> Result<Timestamp, LedgerError> {
        let scope = match (key.time, tally.scope()) {
            (Time::Spent, Scope::Resource(origin, _)) => &Scope::Origin(origin.clone()),
            (Time::Spent, Scope::Host(pattern)) if pattern.covers_subdomains() => &Scope::Global,
            (Time::Spent, Scope::Request(_)) | (Time::Expiring, _) => &Scope::Global,
            (Time::Reserved, scope) if !matches!(scope, Scope::Request(_)) => &Scope::Global,
            (_, scope) => scope,
        };
        let mut next = Timestamp::MAX;
        for (part, table) in parts(scope, tally.span()) {
            let query = Present::first_after(&table, part, scope, key.time, start);
            next = self
                .first(query, |cells| cells.time("at"))?
                .map_or(next, |at| next.min(at));
        }
        Ok(next)
    }

    fn between(
        &self,
        key: &Key,
        tally: Tally<'_>,
        range: (Timestamp, Timestamp),
    ) -> Result<Sum, LedgerError> {
        let scope = tally.scope();
        let mut sum = Sum::default();
        for (part, table) in parts(scope, tally.span()) {
            self.visit(
                Present::charges_between(&table, part, scope, key.time, range),
                scope,
                &mut |charge| {
                    sum = sum.plus(tally.weigh(charge).unwrap_or_default());
                },
            )?;
        }
        Ok(sum)
    }

    fn visit(
        &self,
        query: Query,
        scope: &Scope,
        visit: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        file::each(self.file.books, query, |line| {
            charge(line, scope)?.into_iter().for_each(&mut *visit);
            Ok(())
        })
    }

    pub(super) fn queries(&self, scope: &Scope, span: Span) -> impl Iterator<Item = Query> {
        parts(scope, span)
            .into_iter()
            .map(move |(part, table)| self.present.charges(&table, part, scope, span))
    }

    fn first<T>(
        &self,
        query: Query,
        read: impl FnOnce(&Cells<'_, Line<'_>>) -> Result<T, LedgerError>,
    ) -> Result<Option<T>, LedgerError> {
        file::first(self.file.books, query, |line| read(&Cells::of(line)?))
    }
}

impl Books for View<'_> {
    fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        super::stopped(self.file.books)
    }

    fn charges(
        &self,
        scope: &Scope,
        span: Span,
        visit: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        self.queries(scope, span)
            .try_for_each(|query| self.visit(query, scope, visit))
    }

    fn total(&self, tally: Tally<'_>) -> Result<U256, LedgerError> {
        let Some((key, start)) = Key::of(tally, self.now) else {
            return checks::sum(self, tally);
        };
        let absent = self.lapsed.iter().chain(self.known);
        let absent = absent.filter(|entry| holds(tally.scope(), entry) && key.adds(entry, start));
        let absent = absent.filter_map(|entry| tally.weigh(Charge::of(entry, tally.span())));
        let absent = absent.fold(Sum::default(), Sum::plus);
        let total = self.kept(&key, tally, start)?.minus(absent).amount();
        #[cfg(test)]
        assert_eq!(total, checks::sum(self, tally)?, "{key:?}");
        Ok(total)
    }

    fn first_payee(
        &self,
        origin: &Origin,
        network: Network,
        asset: Address,
    ) -> Result<Option<Address>, LedgerError> {
        self.first(
            self.present
                .first_payee(BY_SELLER, origin, (network, asset)),
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

/// Where to find what counts: of what was spent, what is under way is in an index of its own.
fn parts(scope: &Scope, span: Span) -> Vec<(Part, String)> {
    let table = format!("purchases INDEXED BY {}", index(scope, span));
    match (span, scope) {
        (Span::Ever | Span::SpentAfter(_), Scope::Request(_))
        | (Span::ReservedAfter(_) | Span::Outstanding, _) => {
            vec![(Part::All, table)]
        }
        (Span::Ever | Span::SpentAfter(_), _) => {
            vec![(Part::Done, table), (Part::UnderWay, UNDER_WAY.to_owned())]
        }
    }
}

/// The index whose range holds the fewest others: windows of reservations are short and what is
/// outstanding is little, all else is read by its scope.
///
/// It is named to SQLite, whose own guess would be blind: without the index the query fails rather
/// than reads the whole table.
const fn index(scope: &Scope, span: Span) -> &'static str {
    match (span, scope) {
        (Span::Outstanding, _) => "by_expires_at",
        (Span::ReservedAfter(_), Scope::Request(_)) => "by_request",
        (Span::ReservedAfter(_), _) => "by_reserved_at",
        (Span::Ever | Span::SpentAfter(_), Scope::Global) => "by_counts_at",
        (Span::Ever | Span::SpentAfter(_), Scope::Origin(_) | Scope::Resource(..)) => "by_origin",
        (Span::Ever | Span::SpentAfter(_), Scope::Host(_) | Scope::Domain(_)) => "by_host",
        (Span::Ever | Span::SpentAfter(_), Scope::Payee(_)) => "by_payee",
        (Span::Ever | Span::SpentAfter(_), Scope::Asset(..)) => "by_asset",
        (Span::Ever | Span::SpentAfter(_), Scope::Network(_)) => "by_network",
        (Span::Ever | Span::SpentAfter(_), Scope::Request(_)) => "by_request",
        (Span::Ever | Span::SpentAfter(_), Scope::Tag(_)) => "by_tag",
        (Span::Ever | Span::SpentAfter(_), Scope::Agent(_)) => "by_agent",
    }
}

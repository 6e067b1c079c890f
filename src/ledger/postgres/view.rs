//! The database as the limits of a check see it, inside a transaction.
//!
//! [`Usage`] cannot wait for a server. So a first run of the checks collects their questions, the server answers them in
//! one round trip, and a second run uses the answers. The questions of all reservations of a batch are asked together.
//! Their clocks differ by milliseconds, so a question covers the earliest and the latest start of its window, and
//! each reservation counts the charges of its own window.

use std::cell::RefCell;

use alloy::primitives::{Address, U256};

use super::book::Book;
use super::link::Ask;
use super::totals;
use crate::clock::Timestamp;
use crate::ledger::sql::query::{self, Part, Present, Query, charge};
use crate::ledger::sql::row::{Cells, freeze, reversed};
use crate::ledger::{Freeze, LedgerError, Purchase};
use crate::limit::{
    Charge, Chargeable, Denial, LimitCheck, LimitQuery, Scope, Since, Sum, Unit, Usage, Window,
};
use crate::money::Network;
use crate::origin::{Origin, registrable_domain_of};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Frozen,
    /// The sum of a scope in a window.
    Total(Scope, Unit, Window),
    /// The single charges of a scope.
    Charges(Scope, Since),
    FirstPayee(Origin, (Network, Address)),
    LastPrice(Origin, String, String, (Network, Address)),
}

enum Answer {
    Frozen(Option<Freeze>),
    /// The sum after the latest start, and the charges after the earliest one that are not in the sum.
    Total(Sum, Vec<(Timestamp, U256)>),
    /// Each charge with the number of its purchase.
    Charges(Vec<(u64, Charge)>),
    FirstPayee(Option<Address>),
    LastPrice(Option<U256>),
}

struct Asked {
    question: Question,
    /// The earliest and the latest start of the window of a total.
    after: (Timestamp, Timestamp),
    answer: Answer,
}

/// Collects the questions of a check, and answers them as an empty ledger.
#[derive(Default)]
struct Listener(RefCell<Vec<(Question, Timestamp)>>);

impl Listener {
    fn hear(&self, question: Question, after: Timestamp) {
        self.0.borrow_mut().push((question, after));
    }
}

/// The start of a question that has no window.
const NO_START: Timestamp = Timestamp::from_millis(0);

impl Usage for Listener {
    type Error = LedgerError;

    fn frozen(&self) -> Result<Option<Denial>, LedgerError> {
        self.hear(Question::Frozen, NO_START);
        Ok(None)
    }

    fn charges(
        &self,
        scope: &Scope,
        since: Since,
        _: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        self.hear(Question::Charges(scope.clone(), since), NO_START);
        Ok(())
    }

    fn total(&self, query: &LimitQuery<'_>) -> Result<U256, LedgerError> {
        self.hear(Question::of(query), query.since.after);
        Ok(U256::ZERO)
    }

    fn first_payee(
        &self,
        origin: &Origin,
        asset: (Network, Address),
    ) -> Result<Option<Address>, LedgerError> {
        self.hear(Question::FirstPayee(origin.clone(), asset), NO_START);
        Ok(None)
    }

    fn last_price(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        asset: (Network, Address),
    ) -> Result<Option<U256>, LedgerError> {
        let question = Question::price(origin, method, path, asset);
        self.hear(question, NO_START);
        Ok(None)
    }
}

/// The questions of checks, and the answers of the server.
pub(super) struct Answers {
    /// The latest time of the checks.
    now: Timestamp,
    present: Present,
    check: totals::Check,
    asked: Vec<Asked>,
}

impl Answers {
    /// Returns questions without answers. `now` is the latest time of the checks, and `except` is a purchase that does
    /// not count. `keeps` tells whether the transaction can write totals. A denial asks one more question, see
    /// [`View::missing`].
    pub(super) fn new<'a>(
        checks: impl IntoIterator<Item = &'a LimitCheck>,
        now: Timestamp,
        except: Option<u64>,
        keeps: bool,
    ) -> Result<Self, LedgerError> {
        let mut answers = Self {
            now,
            present: Present::new(now, except)?,
            check: totals::Check { now, except, keeps },
            asked: Vec::new(),
        };
        for check in checks {
            let listener = Listener::default();
            check.evaluate(&listener)?;
            for (question, after) in listener.0.into_inner() {
                match answers.find(&question) {
                    Some(known) => {
                        known.after = (known.after.0.min(after), known.after.1.max(after));
                    }
                    None => answers.asked.push(question.unanswered(after)),
                }
            }
        }
        Ok(answers)
    }

    fn find(&mut self, question: &Question) -> Option<&mut Asked> {
        let mut asked = self.asked.iter_mut();
        asked.find(|known| known.question == *question)
    }

    /// Returns the queries, which store the answers.
    ///
    /// # Errors
    /// A number does not fit the database.
    pub(super) fn asks(&mut self) -> Result<Vec<Ask<'_>>, LedgerError> {
        let (present, check) = (self.present, &self.check);
        let mut asks = Vec::new();
        for asked in &mut self.asked {
            asks.extend(asked.asks(present, check)?);
        }
        Ok(asks)
    }

    /// Returns the query of one more question.
    ///
    /// # Errors
    /// As [`asks`](Self::asks).
    pub(super) fn also(&mut self, missing: Missing) -> Result<Vec<Ask<'_>>, LedgerError> {
        let Missing(mut question, mut after) = missing;
        if let Question::Charges(scope, since) = &mut question {
            // The other reservations of the batch may need the charges of the same scope.
            let starts = self.asked.iter().filter_map(|asked| match &asked.question {
                Question::Total(of, _, window)
                    if of == scope && window.moment == since.moment && asked.has(since.after) =>
                {
                    Some(asked.after.0)
                }
                _ => None,
            });
            since.after = starts.min().unwrap_or(since.after);
            after = since.after;
        }
        self.asked.push(question.unanswered(after));
        let (present, check) = (self.present, &self.check);
        let last = self.asked.last_mut();
        last.map_or(Ok(Vec::new()), |asked| asked.asks(present, check))
    }
}

impl Asked {
    /// Whether the question covers this start.
    fn has(&self, after: Timestamp) -> bool {
        self.after.0 <= after && after <= self.after.1
    }

    fn asks(
        &mut self,
        present: Present,
        check: &totals::Check,
    ) -> Result<Vec<Ask<'_>>, LedgerError> {
        let Self {
            question,
            after: (earliest, latest),
            answer,
        } = self;
        let latest = *latest;
        Ok(match answer {
            Answer::Frozen(found) => {
                let take = |row| {
                    *found = Some(freeze(&row)?);
                    Ok(())
                };
                vec![Ask::each(query::frozen(), take)]
            }
            Answer::Total(sum, rest) => {
                let Question::Total(scope, unit, window) = question else {
                    return Ok(Vec::new());
                };
                let scope = &*scope;
                let unit = *unit;
                let moment = window.moment;
                let since = |after| Since { moment, after };
                let total = if totals::keeps(scope) {
                    totals::total(check, scope, (since(latest), window), unit)?
                } else {
                    present.total(scope, since(latest), unit)
                };
                let mut asks = vec![Ask::each(total, move |row| {
                    let cells = Cells::of(&row)?;
                    if let Scope::Domain(domain) = scope {
                        let host = reversed(&cells.string("host_reversed")?);
                        if registrable_domain_of(&host) != domain {
                            return Ok(());
                        }
                    }
                    *sum = sum.plus(cells.text::<Sum>("total")?);
                    Ok(())
                })];
                if *earliest < latest {
                    let query = present.charges_until(scope, since(*earliest), latest);
                    asks.push(Ask::each(query, move |row| {
                        let charge = charge(&row, scope)?;
                        let part = charge
                            .and_then(|charge| unit.measure(&charge).map(|part| (charge.at, part)));
                        rest.extend(part);
                        Ok(())
                    }));
                }
                asks
            }
            Answer::Charges(charges) => {
                let Question::Charges(scope, since) = question else {
                    return Ok(Vec::new());
                };
                let scope = &*scope;
                let query = present.charges("purchases", Part::All, scope, *since);
                let take = move |row| {
                    let seq = Cells::of(&row)?.integer("seq")?;
                    charges.extend(charge(&row, scope)?.map(|charge| (seq, charge)));
                    Ok(())
                };
                vec![Ask::each(query, take)]
            }
            Answer::FirstPayee(payee) => {
                let Some(query) = question.of_seller(present) else {
                    return Ok(Vec::new());
                };
                let take = |row| {
                    *payee = Some(Cells::of(&row)?.text("payee")?);
                    Ok(())
                };
                vec![Ask::each(query, take)]
            }
            Answer::LastPrice(price) => {
                let Some(query) = question.of_seller(present) else {
                    return Ok(Vec::new());
                };
                let take = |row| {
                    *price = Some(Cells::of(&row)?.text("value")?);
                    Ok(())
                };
                vec![Ask::each(query, take)]
            }
        })
    }
}

impl Question {
    fn of(query: &LimitQuery<'_>) -> Self {
        Self::Total(query.scope().clone(), query.unit, query.window.clone())
    }

    fn price(origin: &Origin, method: &str, path: &str, asset: (Network, Address)) -> Self {
        Self::LastPrice(origin.clone(), method.to_owned(), path.to_owned(), asset)
    }

    fn of_seller(&self, present: Present) -> Option<Query> {
        match self {
            Self::FirstPayee(origin, asset) => {
                Some(present.first_payee("purchases", origin, *asset))
            }
            Self::LastPrice(origin, method, path, asset) => {
                Some(present.last_price("purchases", origin, (method, path), *asset))
            }
            _ => None,
        }
    }

    fn unanswered(self, after: Timestamp) -> Asked {
        let answer = match &self {
            Self::Frozen => Answer::Frozen(None),
            Self::Total(..) => Answer::Total(Sum::default(), Vec::new()),
            Self::Charges(..) => Answer::Charges(Vec::new()),
            Self::FirstPayee(..) => Answer::FirstPayee(None),
            Self::LastPrice(..) => Answer::LastPrice(None),
        };
        Asked {
            question: self,
            after: (after, after),
            answer,
        }
    }
}

/// A question that had no answer.
pub(super) struct Missing(Question, Timestamp);

/// The answers of the server and the changes of the batch, at the time of one check.
pub(super) struct View<'a> {
    answers: &'a Answers,
    book: &'a Book,
    now: Timestamp,
    missing: RefCell<Option<Missing>>,
}

impl<'a> View<'a> {
    pub(super) fn new(answers: &'a Answers, book: &'a Book, now: Timestamp) -> Self {
        Self {
            answers,
            book,
            now,
            missing: RefCell::default(),
        }
    }

    /// Returns the last question that had no answer.
    pub(super) fn missing(self) -> Option<Missing> {
        self.missing.into_inner()
    }

    fn answer(
        &self,
        question: &Question,
        has: impl Fn(&Asked) -> bool,
    ) -> Result<&'a Answer, LedgerError> {
        let asked = self.answers.asked.iter();
        let mut known = asked.filter(|asked| asked.question == *question && has(asked));
        known
            .next()
            .map(|asked| &asked.answer)
            .ok_or_else(not_asked)
    }

    fn or_missing<T>(
        &self,
        answer: Result<T, LedgerError>,
        question: Question,
        after: Timestamp,
    ) -> Result<T, LedgerError> {
        answer.inspect_err(|_| {
            self.missing.replace(Some(Missing(question, after)));
        })
    }

    /// Returns the purchases that the batch changed, as they are now, and holds that lapsed for another check of the
    /// batch and not for this one. The answers of the server do not have them.
    fn own(&self) -> impl Iterator<Item = &'a Purchase> {
        let now = self.now;
        self.book
            .current()
            .filter(move |purchase| purchase.counts(now))
    }

    /// Returns the purchases that the batch changed, as the answers of the server have them.
    fn replaced(&self) -> impl Iterator<Item = &'a Purchase> {
        let now = self.answers.now;
        self.book
            .replaced()
            .filter(move |purchase| purchase.counts(now))
    }
}

fn not_asked() -> LedgerError {
    LedgerError::store("a limit asked for a sum that was not read")
}

impl Usage for View<'_> {
    type Error = LedgerError;

    fn frozen(&self) -> Result<Option<Denial>, LedgerError> {
        let answer = self.answer(&Question::Frozen, |_| true);
        match self.or_missing(answer, Question::Frozen, NO_START)? {
            Answer::Frozen(freeze) => Ok(freeze.as_ref().map(Freeze::denial)),
            _ => Err(not_asked()),
        }
    }

    fn charges(
        &self,
        scope: &Scope,
        since: Since,
        visit: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        let of_scope = |asked: &&Asked| match &asked.question {
            Question::Charges(of, read) => {
                of == scope && read.moment == since.moment && read.after <= since.after
            }
            _ => false,
        };
        let answer = self.answers.asked.iter().find(of_scope);
        let answer = answer.map(|asked| &asked.answer).ok_or_else(not_asked);
        let question = Question::Charges(scope.clone(), since);
        let Answer::Charges(charges) = self.or_missing(answer, question, since.after)? else {
            return Err(not_asked());
        };
        let is_replaced = |seq: &u64| self.book.replaced().any(|purchase| purchase.seq == *seq);
        let stored = charges.iter().filter(|(seq, _)| !is_replaced(seq));
        let own = self
            .own()
            .filter(|purchase| scope.covers(&purchase.payment()))
            .filter_map(|purchase| purchase.charge(since.moment));
        let all = stored.map(|(_, charge)| *charge).chain(own);
        all.filter(|charge| charge.at > since.after).for_each(visit);
        Ok(())
    }

    fn total(&self, query: &LimitQuery<'_>) -> Result<U256, LedgerError> {
        let after = query.since.after;
        let question = Question::of(query);
        let answer = self.answer(&question, |asked| asked.has(after));
        let Answer::Total(sum, rest) = self.or_missing(answer, question, after)? else {
            return Err(not_asked());
        };
        let rest = rest.iter().filter(|(at, _)| *at > after);
        let sum = rest.fold(*sum, |sum, (_, part)| sum.plus(*part));
        let part = |purchase| query.part(purchase).map(|(_, part)| part);
        let sum = self.own().filter_map(part).fold(sum, Sum::plus);
        let replaced = self.replaced().filter_map(part);
        Ok(replaced.fold(sum, Sum::minus).amount())
    }

    fn first_payee(
        &self,
        origin: &Origin,
        asset: (Network, Address),
    ) -> Result<Option<Address>, LedgerError> {
        let question = Question::FirstPayee(origin.clone(), asset);
        let answer = self.answer(&question, |_| true);
        let Answer::FirstPayee(payee) = self.or_missing(answer, question, NO_START)? else {
            return Err(not_asked());
        };
        let mut own = self.own();
        Ok(payee.or_else(|| {
            own.find(|purchase| is_of(purchase, origin, asset))
                .map(|purchase| purchase.payee)
        }))
    }

    fn last_price(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        asset: (Network, Address),
    ) -> Result<Option<U256>, LedgerError> {
        let question = Question::price(origin, method, path, asset);
        let answer = self.answer(&question, |_| true);
        let Answer::LastPrice(price) = self.or_missing(answer, question, NO_START)? else {
            return Err(not_asked());
        };
        // A changed purchase keeps its price, and its place among those of the server.
        let added = self.book.added().filter(|purchase| {
            purchase.counts(self.now)
                && is_of(purchase, origin, asset)
                && purchase.method == method
                && purchase.path.eq_ignore_ascii_case(path)
        });
        Ok(added.last().map(|purchase| purchase.value).or(*price))
    }
}

fn is_of(purchase: &Purchase, origin: &Origin, asset: (Network, Address)) -> bool {
    purchase.origin == *origin && (purchase.network, purchase.asset) == asset
}

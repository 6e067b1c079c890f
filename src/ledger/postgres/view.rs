//! The database as the limits of a check see it, inside a transaction.
//!
//! [`Usage`] cannot wait for a server. So a first run of the check collects its questions, the server answers them in
//! one round trip, and a second run of the check uses the answers.

use std::cell::RefCell;

use alloy::primitives::{Address, U256};
use tokio_postgres::Row;

use super::totals;
use crate::ledger::sql::query::{self, Part, Present, Query, charge};
use crate::ledger::sql::row::{Cells, freeze, reversed};
use crate::ledger::{Freeze, LedgerError};
use crate::limit::{
    Charge, Denial, LimitCheck, LimitQuery, Scope, Since, Sum, Unit, Usage, Window,
};
use crate::money::Network;
use crate::origin::{Origin, registrable_domain_of};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Frozen,
    Total(Scope, Since, Unit, Window),
    Charges(Scope, Since),
    FirstPayee(Origin, (Network, Address)),
    LastPrice(Origin, String, String, (Network, Address)),
}

enum Answer {
    Frozen(Option<Freeze>),
    Total(Sum),
    Charges(Vec<Charge>),
    FirstPayee(Option<Address>),
    LastPrice(Option<U256>),
}

/// Collects the questions of a check, and answers them as an empty ledger.
#[derive(Default)]
struct Listener(RefCell<Vec<Question>>);

impl Listener {
    fn hear(&self, question: Question) {
        let mut heard = self.0.borrow_mut();
        if !heard.contains(&question) {
            heard.push(question);
        }
    }
}

impl Usage for Listener {
    type Error = LedgerError;

    fn frozen(&self) -> Result<Option<Denial>, LedgerError> {
        self.hear(Question::Frozen);
        Ok(None)
    }

    fn charges(
        &self,
        scope: &Scope,
        since: Since,
        _: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        self.hear(Question::Charges(scope.clone(), since));
        Ok(())
    }

    fn total(&self, query: &LimitQuery<'_>) -> Result<U256, LedgerError> {
        self.hear(Question::of(query));
        Ok(U256::ZERO)
    }

    fn first_payee(
        &self,
        origin: &Origin,
        asset: (Network, Address),
    ) -> Result<Option<Address>, LedgerError> {
        self.hear(Question::FirstPayee(origin.clone(), asset));
        Ok(None)
    }

    fn last_price(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        asset: (Network, Address),
    ) -> Result<Option<U256>, LedgerError> {
        self.hear(Question::LastPrice(
            origin.clone(),
            method.to_owned(),
            path.to_owned(),
            asset,
        ));
        Ok(None)
    }
}

/// The database inside a transaction, with the answers to the questions of a check.
pub(super) struct View {
    present: Present,
    check: totals::Check,
    asked: Vec<Asked>,
    /// A question that had no answer.
    missing: RefCell<Option<Question>>,
}

pub(super) struct Asked(Question, Answer);

impl View {
    /// Returns the questions of a check, without answers, and a query for each. A denial asks one more question, see
    /// [`missing`](Self::missing). `keeps` tells whether the transaction can write the totals.
    pub(super) fn of(
        checks: &LimitCheck,
        except: Option<u64>,
        keeps: bool,
    ) -> Result<(Self, Vec<Query>), LedgerError> {
        let present = Present::new(checks.now(), except)?;
        let check = totals::Check {
            now: checks.now(),
            except,
            keeps,
        };
        let listener = Listener::default();
        checks.evaluate(&listener)?;
        let asked = listener.0.into_inner();
        let queries = asked
            .iter()
            .map(|question| question.query(&present, &check))
            .collect::<Result<_, _>>()?;
        let asked = asked.into_iter().map(Question::unanswered).collect();
        Ok((
            Self {
                present,
                check,
                asked,
                missing: RefCell::default(),
            },
            queries,
        ))
    }

    /// Returns the questions, in the order of the queries.
    pub(super) fn questions(&mut self) -> impl Iterator<Item = &mut Asked> {
        self.asked.iter_mut()
    }

    /// Returns the last question that had no answer, and its query.
    pub(super) fn missing(&mut self) -> Option<(&mut Asked, Query)> {
        let question = self.missing.take()?;
        let query = question.query(&self.present, &self.check).ok()?;
        self.asked.push(question.unanswered());
        Some((self.asked.last_mut()?, query))
    }
}

impl Asked {
    /// Adds a row of its query.
    pub(super) fn take(&mut self, row: &Row) -> Result<(), LedgerError> {
        match self {
            Self(_, Answer::Frozen(found)) => *found = Some(freeze(row)?),
            Self(Question::Total(scope, ..), Answer::Total(total)) => {
                let cells = Cells::of(row)?;
                if let Scope::Domain(domain) = scope {
                    let host = reversed(&cells.string("host_reversed")?);
                    if registrable_domain_of(&host) != domain {
                        return Ok(());
                    }
                }
                *total = total.plus(cells.text::<Sum>("total")?);
            }
            Self(Question::Charges(scope, _), Answer::Charges(charges)) => {
                charges.extend(charge(row, scope)?)
            }
            Self(_, Answer::FirstPayee(payee)) => *payee = Some(Cells::of(row)?.text("payee")?),
            Self(_, Answer::LastPrice(price)) => *price = Some(Cells::of(row)?.text("value")?),
            Self(_, Answer::Charges(_) | Answer::Total(_)) => return Err(not_asked()),
        }
        Ok(())
    }
}

impl Question {
    fn of(query: &LimitQuery<'_>) -> Self {
        let (scope, window) = (query.scope().clone(), query.window.clone());
        Self::Total(scope, query.since, query.unit, window)
    }

    fn query(&self, present: &Present, check: &totals::Check) -> Result<Query, LedgerError> {
        Ok(match self {
            Self::Frozen => query::frozen(),
            Self::Total(scope, since, unit, window) if totals::keeps(scope) => {
                totals::total(check, scope, (*since, window), *unit)?
            }
            Self::Total(scope, since, unit, _) => present.total(scope, *since, *unit),
            Self::Charges(scope, since) => present.charges("purchases", Part::All, scope, *since),
            Self::FirstPayee(origin, asset) => present.first_payee("purchases", origin, *asset),
            Self::LastPrice(origin, method, path, asset) => {
                present.last_price("purchases", origin, (method, path), *asset)
            }
        })
    }

    fn unanswered(self) -> Asked {
        let answer = match &self {
            Self::Frozen => Answer::Frozen(None),
            Self::Total(..) => Answer::Total(Sum::default()),
            Self::Charges(..) => Answer::Charges(Vec::new()),
            Self::FirstPayee(..) => Answer::FirstPayee(None),
            Self::LastPrice(..) => Answer::LastPrice(None),
        };
        Asked(self, answer)
    }
}

impl View {
    fn answer(&self, question: &Question) -> Result<&Answer, LedgerError> {
        let known = self
            .asked
            .iter()
            .find(|Asked(known, _)| known == question)
            .map(|Asked(_, answer)| answer);
        known.ok_or_else(|| {
            self.missing.replace(Some(question.clone()));
            not_asked()
        })
    }
}

fn not_asked() -> LedgerError {
    LedgerError::store("a limit asked for a sum that was not read")
}

impl Usage for View {
    type Error = LedgerError;

    fn frozen(&self) -> Result<Option<Denial>, LedgerError> {
        match self.answer(&Question::Frozen)? {
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
        let Answer::Charges(charges) = self.answer(&Question::Charges(scope.clone(), since))?
        else {
            return Err(not_asked());
        };
        charges.iter().copied().for_each(visit);
        Ok(())
    }

    fn total(&self, query: &LimitQuery<'_>) -> Result<U256, LedgerError> {
        match self.answer(&Question::of(query))? {
            Answer::Total(total) => Ok(total.amount()),
            _ => Err(not_asked()),
        }
    }

    fn first_payee(
        &self,
        origin: &Origin,
        asset: (Network, Address),
    ) -> Result<Option<Address>, LedgerError> {
        match self.answer(&Question::FirstPayee(origin.clone(), asset))? {
            Answer::FirstPayee(payee) => Ok(*payee),
            _ => Err(not_asked()),
        }
    }

    fn last_price(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        asset: (Network, Address),
    ) -> Result<Option<U256>, LedgerError> {
        match self.answer(&Question::LastPrice(
            origin.clone(),
            method.to_owned(),
            path.to_owned(),
            asset,
        ))? {
            Answer::LastPrice(price) => Ok(*price),
            _ => Err(not_asked()),
        }
    }
}

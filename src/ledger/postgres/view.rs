//! What the checks ask, fetched first and answered from memory: [`Books`] does not wait.

use std::cell::RefCell;

use alloy::primitives::{Address, U256};
use tokio_postgres::Row;

use crate::ledger::checks::{Measure, sum};
use crate::ledger::sql::query::{self, Part, Present, Query, can_total, charge};
use crate::ledger::sql::row::{Cells, freeze};
use crate::ledger::sum::Sum;
use crate::ledger::{Books, Charge, Checks, Freeze, LedgerError, Tally};
use crate::policy::limit::{Scope, Span};
use crate::{Network, Origin};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Stopped,
    Total(Scope, Span, Measure),
    Charges(Scope, Span),
    FirstPayee(Origin, (Network, Address)),
    LastPrice(Origin, String, String, (Network, Address)),
}

enum Answer {
    Stopped(Option<Freeze>),
    Total(U256),
    Charges(Vec<Charge>),
    FirstPayee(Option<Address>),
    LastPrice(Option<U256>),
}

/// Books that know nothing, and remember what they were asked.
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

impl Books for Listener {
    fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        self.hear(Question::Stopped);
        Ok(None)
    }

    fn charges(
        &self,
        scope: &Scope,
        span: Span,
        _: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        self.hear(Question::Charges(scope.clone(), span));
        Ok(())
    }

    fn total(&self, tally: Tally<'_>) -> Result<U256, LedgerError> {
        self.hear(Question::of(tally));
        Ok(U256::ZERO)
    }

    fn first_payee(
        &self,
        origin: &Origin,
        network: Network,
        asset: Address,
    ) -> Result<Option<Address>, LedgerError> {
        self.hear(Question::FirstPayee(origin.clone(), (network, asset)));
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

/// The books inside a transaction, as far as they are asked.
pub(super) struct View {
    present: Present,
    asked: Vec<Asked>,
    /// A question without an answer, on which the rest depended.
    missing: RefCell<Option<Question>>,
}

pub(super) struct Asked(Question, Answer);

impl View {
    /// What the checks will ask, none of it answered yet, and a query for each. What a denial asks beside is
    /// [`missing`](Self::missing).
    pub(super) fn of(
        checks: &Checks,
        except: Option<u64>,
    ) -> Result<(Self, Vec<Query>), LedgerError> {
        let present = Present::new(checks.now(), except)?;
        let listener = Listener::default();
        checks.assess(&listener)?;
        let asked = listener.0.into_inner();
        let queries = asked
            .iter()
            .map(|question| question.query(&present))
            .collect();
        let asked = asked.into_iter().map(Question::unanswered).collect();
        Ok((
            Self {
                present,
                asked,
                missing: RefCell::default(),
            },
            queries,
        ))
    }

    /// In the order of the queries.
    pub(super) fn questions(&mut self) -> impl Iterator<Item = &mut Asked> {
        self.asked.iter_mut()
    }

    /// What was asked last and had no answer, to be read now.
    pub(super) fn missing(&mut self) -> Option<(&mut Asked, Query)> {
        let question = self.missing.take()?;
        let query = question.query(&self.present);
        self.asked.push(question.unanswered());
        Some((self.asked.last_mut()?, query))
    }
}

impl Asked {
    /// Takes a row of its query.
    pub(super) fn take(&mut self, row: &Row) -> Result<(), LedgerError> {
        match self {
            Self(_, Answer::Stopped(order)) => *order = Some(freeze(row)?),
            Self(_, Answer::Total(total)) => {
                *total = Cells::of(row)?.text::<Sum>("total")?.amount()
            }
            Self(Question::Charges(scope, _), Answer::Charges(charges)) => {
                charges.extend(charge(row, scope)?)
            }
            Self(_, Answer::FirstPayee(payee)) => *payee = Some(Cells::of(row)?.text("payee")?),
            Self(_, Answer::LastPrice(price)) => *price = Some(Cells::of(row)?.text("value")?),
            Self(_, Answer::Charges(_)) => return Err(not_asked()),
        }
        Ok(())
    }
}

impl Question {
    /// What SQL cannot weigh is read charge by charge.
    fn of(tally: Tally<'_>) -> Self {
        let (scope, span, measure) = (tally.scope().clone(), tally.span(), tally.measure());
        if can_total(&scope, measure) {
            Self::Total(scope, span, measure)
        } else {
            Self::Charges(scope, span)
        }
    }

    fn query(&self, present: &Present) -> Query {
        match self {
            Self::Stopped => query::frozen(),
            Self::Total(scope, span, measure) => present.total(scope, *span, *measure),
            Self::Charges(scope, span) => present.charges("purchases", Part::All, scope, *span),
            Self::FirstPayee(origin, asset) => present.first_payee("purchases", origin, *asset),
            Self::LastPrice(origin, method, path, asset) => {
                present.last_price("purchases", origin, (method, path), *asset)
            }
        }
    }

    fn unanswered(self) -> Asked {
        let answer = match &self {
            Self::Stopped => Answer::Stopped(None),
            Self::Total(..) => Answer::Total(U256::ZERO),
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
    LedgerError::store("the checks asked what was not read")
}

impl Books for View {
    fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        match self.answer(&Question::Stopped)? {
            Answer::Stopped(order) => Ok(order.clone()),
            _ => Err(not_asked()),
        }
    }

    fn charges(
        &self,
        scope: &Scope,
        span: Span,
        visit: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        let Answer::Charges(charges) = self.answer(&Question::Charges(scope.clone(), span))? else {
            return Err(not_asked());
        };
        charges.iter().copied().for_each(visit);
        Ok(())
    }

    fn total(&self, tally: Tally<'_>) -> Result<U256, LedgerError> {
        match self.answer(&Question::of(tally))? {
            Answer::Total(total) => Ok(*total),
            Answer::Charges(_) => sum(self, tally),
            _ => Err(not_asked()),
        }
    }

    fn first_payee(
        &self,
        origin: &Origin,
        network: Network,
        asset: Address,
    ) -> Result<Option<Address>, LedgerError> {
        match self.answer(&Question::FirstPayee(origin.clone(), (network, asset)))? {
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

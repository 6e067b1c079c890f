//! What the checks ask, fetched first and answered from memory: [`Books`] does not wait.

use std::cell::RefCell;

use alloy::primitives::{Address, U256};
use tokio_postgres::Row;

use crate::ledger::sql::query::{self, Present, Query, charge};
use crate::ledger::sql::row::{Cells, stop_order};
use crate::ledger::{Books, Charge, Checks, LedgerError, StopOrder};
use crate::policy::limit::{Scope, Span};
use crate::{Network, Origin};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Stopped,
    Charges(Scope, Span),
    FirstPayee(Origin, (Network, Address)),
    LastPrice(Origin, String, String, (Network, Address)),
}

enum Answer {
    Stopped(Option<StopOrder>),
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
    fn stopped(&self) -> Result<Option<StopOrder>, LedgerError> {
        self.hear(Question::Stopped);
        Ok(None)
    }

    fn charges(&self, scope: &Scope, span: Span, _: &mut dyn FnMut(Charge)) -> Result<(), LedgerError> {
        self.hear(Question::Charges(scope.clone(), span));
        Ok(())
    }

    fn first_payee(&self, origin: &Origin, network: Network, asset: Address) -> Result<Option<Address>, LedgerError> {
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
        self.hear(Question::LastPrice(origin.clone(), method.to_owned(), path.to_owned(), asset));
        Ok(None)
    }
}

/// What the checks will ask: none of their questions depends on an answer.
pub(super) struct Questions {
    present: Present,
    asked: Vec<Question>,
}

impl Questions {
    pub(super) fn of(checks: &Checks, except: Option<u64>) -> Result<Self, LedgerError> {
        let listener = Listener::default();
        checks.assess(&listener)?;
        Ok(Self { present: Present::new(checks.now(), except)?, asked: listener.0.into_inner() })
    }

    /// One for each question.
    pub(super) fn queries(&self) -> Vec<Query> {
        let query = |question: &Question| match question {
            Question::Stopped => query::stopped(),
            Question::Charges(scope, span) => self.present.charges("purchases", scope, *span),
            Question::FirstPayee(origin, asset) => self.present.first_payee("purchases", origin, *asset),
            Question::LastPrice(origin, method, path, asset) => {
                self.present.last_price("purchases", origin, (method, path), *asset)
            }
        };
        self.asked.iter().map(query).collect()
    }

    /// The rows of each query, in their order.
    pub(super) fn answered(self, rows: &[Vec<Row>]) -> Result<View, LedgerError> {
        let answer = |(question, rows): (Question, &Vec<Row>)| {
            let answer = match &question {
                Question::Stopped => Answer::Stopped(rows.first().map(stop_order).transpose()?),
                Question::Charges(scope, _) => {
                    let charges = rows.iter().filter_map(|row| charge(row, scope).transpose());
                    Answer::Charges(charges.collect::<Result<_, _>>()?)
                }
                Question::FirstPayee(..) => {
                    Answer::FirstPayee(rows.first().map(|row| Cells::of(row)?.text("payee")).transpose()?)
                }
                Question::LastPrice(..) => {
                    Answer::LastPrice(rows.first().map(|row| Cells::of(row)?.text("value")).transpose()?)
                }
            };
            Ok((question, answer))
        };
        self.asked.into_iter().zip(rows).map(answer).collect::<Result<_, _>>().map(View)
    }
}

/// The books inside a transaction, as far as they were asked.
pub(super) struct View(Vec<(Question, Answer)>);

impl View {
    fn answer(&self, question: &Question) -> Result<&Answer, LedgerError> {
        let known = self.0.iter().find(|(known, _)| known == question).map(|(_, answer)| answer);
        known.ok_or_else(not_asked)
    }
}

fn not_asked() -> LedgerError {
    LedgerError::store("the checks asked what was not read")
}

impl Books for View {
    fn stopped(&self) -> Result<Option<StopOrder>, LedgerError> {
        match self.answer(&Question::Stopped)? {
            Answer::Stopped(order) => Ok(order.clone()),
            _ => Err(not_asked()),
        }
    }

    fn charges(&self, scope: &Scope, span: Span, visit: &mut dyn FnMut(Charge)) -> Result<(), LedgerError> {
        let Answer::Charges(charges) = self.answer(&Question::Charges(scope.clone(), span))? else {
            return Err(not_asked());
        };
        charges.iter().copied().for_each(visit);
        Ok(())
    }

    fn first_payee(&self, origin: &Origin, network: Network, asset: Address) -> Result<Option<Address>, LedgerError> {
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
        match self.answer(&Question::LastPrice(origin.clone(), method.to_owned(), path.to_owned(), asset))? {
            Answer::LastPrice(price) => Ok(*price),
            _ => Err(not_asked()),
        }
    }
}

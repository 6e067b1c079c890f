//! Changes of a ledger in PostgreSQL: one transaction for all changes that wait, repeated after a conflict.
//!
//! A transaction takes two round trips: one locks the end of the chain and reads, the other writes and commits. A
//! denial takes one more, which reads the single charges.

use std::sync::Arc;

use alloy::primitives::B256;
use tokio::time::{Instant, timeout};
use tokio_postgres::Row;

use super::book::Book;
use super::link::{Ask, Link, NotCommitted};
use super::pool::{Failure, Lease};
use super::view::{Answers, View};
use super::{ATTEMPTS, Database, pause, write};
use crate::clock::Timestamp;
use crate::ledger::hash_chain::Head;
use crate::ledger::one_step::Step;
use crate::ledger::sql::query::{self, Present, Query};
use crate::ledger::sql::row::{self, Cells, Stored, integer};
use crate::ledger::{
    LedgerError, Obtained, Plan, Purchase, PurchaseKey, Reservation, Reserved, Resumed, Resumption,
    SignsInStep, Transition,
};
use crate::limit::LimitCheck;

/// A change of the ledger.
pub(super) enum Change {
    Reserve(Arc<Reservation>),
    Buy(Arc<Reservation>, Arc<dyn SignsInStep>),
    Record(PurchaseKey, Box<Transition>, Timestamp),
    Resume(Resumption),
}

/// The result of a change.
pub(super) enum Answer {
    Reserved(Reserved),
    Obtained(Obtained),
    Recorded,
    Resumed(Resumed),
}

/// The result of one change of a batch.
pub(super) enum Done {
    Answer(Result<Answer, LedgerError>),
    /// The change must be made later, and without others if it is `alone`.
    Later {
        alone: bool,
    },
}

/// A batch whose commit was not answered. The hash of its last event identifies it.
struct UnansweredCommit {
    head: Head,
    done: Vec<Done>,
}

/// The locked row of `chain_head`.
pub(super) struct Place {
    pub(super) head: Head,
    pub(super) purchases: u64,
    /// The stored hash of the event that the database must contain.
    witnessed: Option<B256>,
}

/// The reason why a batch was not made.
pub(super) struct NotMade {
    pub(super) error: LedgerError,
    /// Whether the server refused the batch, and none of its changes took effect. Each of them can be made alone.
    pub(super) is_refused: bool,
}

impl Database {
    /// Makes changes, and repeats the transaction until it took effect or cannot take effect. Returns a result for each.
    ///
    /// `locked` is a transaction that has the lock already, for the first attempt.
    pub(super) async fn change_all(
        &self,
        changes: &[&Change],
        mut locked: Option<Lease<'_>>,
    ) -> Result<Vec<Done>, NotMade> {
        let start = Instant::now();
        let mut unanswered = Vec::new();
        let mut attempt: u32 = 0;
        loop {
            let failure = match self.attempt(changes, locked.take(), &mut unanswered).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let again = match &failure {
                Failure::Conflict(_) => true,
                // Without an unanswered commit, nothing took effect. A connection that was lost while
                // it was idle is replaced once.
                Failure::Lost(_) => attempt == 0 || !unanswered.is_empty(),
                Failure::Final(_) => false,
            };
            attempt = attempt.saturating_add(1);
            if !again || attempt == ATTEMPTS || start.elapsed() > self.timeout {
                return Err(NotMade {
                    is_refused: unanswered.is_empty() && matches!(failure, Failure::Final(_)),
                    error: failure.into_error(),
                });
            }
            pause(attempt).await;
        }
    }

    async fn attempt(
        &self,
        changes: &[&Change],
        locked: Option<Lease<'_>>,
        unanswered: &mut Vec<UnansweredCommit>,
    ) -> Result<Vec<Done>, Failure> {
        let settings = match locked {
            Some(_) => None,
            None => Some(self.write_settings().await?.as_str()),
        };
        let mut lease = match locked {
            Some(locked) => locked,
            None => self.pool.get().await?,
        };
        let link = lease.link()?;
        let done = self.attempt_by(link, settings, changes, unanswered).await;
        self.end(link, Failure::is_lost(&done)).await;
        self.queue.waited(link.waited());
        done
    }

    /// Begins a transaction that has the lock, before it is known which changes it will make. Returns `None` if that
    /// fails.
    pub(super) async fn lock(&self) -> Option<Lease<'_>> {
        let settings = self.write_settings().await.ok()?;
        let mut lease = self.pool.get().await.ok()?;
        let link = lease.link().ok()?;
        let begun = self.timed(link.begin(settings)).await;
        if begun.is_err() {
            self.end(link, Failure::is_lost(&begun)).await;
            return None;
        }
        Some(lease)
    }

    async fn attempt_by(
        &self,
        link: &mut Link,
        settings: Option<&str>,
        changes: &[&Change],
        unanswered: &mut Vec<UnansweredCommit>,
    ) -> Result<Vec<Done>, Failure> {
        let expected = self.witness.expected(self.timeout).await?;
        let batch = Batch::of(changes)?;
        let seen = self
            .timed(batch.look(link, settings, expected, unanswered))
            .await?;
        let Seen {
            place,
            mut book,
            undelivered,
            mut answers,
            committed,
        } = seen;
        self.witness.check(expected, place.witnessed)?;
        self.witness.note(place.head);
        if let Some(committed) = committed {
            // A signature must not leave before the witness has its event.
            self.witness.committed(place.head, self.timeout).await;
            return Ok(unanswered.swap_remove(committed).done);
        }
        let mut done = Vec::with_capacity(changes.len());
        for (change, undelivered) in changes.iter().zip(&undelivered) {
            let mut decision = Decision {
                batch: &batch,
                book: &mut book,
                answers: &mut answers,
                is_alone: changes.len() == 1,
            };
            let one = self.timed(decision.make(link, change, undelivered)).await;
            done.push(match one {
                Ok(done) => done,
                Err(Failure::Final(error)) if link.is_sound() => Done::Answer(Err(error)),
                Err(failure) => return Err(failure),
            });
        }
        if book.is_unchanged() {
            return Ok(done);
        }
        let (statements, head) = write::statements(place.head, book)?;
        let asks = statements.into_iter().map(Ask::none).collect();
        match timeout(self.timeout, link.commit(asks)).await {
            Ok(Ok(())) => {
                self.witness.committed(head, self.timeout).await;
                Ok(done)
            }
            Ok(Err(NotCommitted::RolledBack(failure))) => Err(failure),
            Ok(Err(NotCommitted::Unknown(failure))) => {
                unanswered.push(UnansweredCommit { head, done });
                Err(Failure::Lost(failure.into_error()))
            }
            Err(_) => {
                unanswered.push(UnansweredCommit { head, done });
                Err(Failure::late())
            }
        }
    }
}

/// Returns the query for the end of the chain, with the stored hash of the event that the database must contain.
///
/// With `lock`, no other writer changes the ledger until the transaction ends. On servers that do not hold such locks
/// (CockroachDB), the write to the same row makes one of two transactions fail.
pub(super) fn head_query(expected: Head, lock: bool) -> Result<Query, LedgerError> {
    let lock = if lock { "FOR UPDATE" } else { "" };
    Ok(Query {
        sql: format!(
            "SELECT seq, purchases, hash, (SELECT hash FROM events WHERE seq = ?) AS witnessed FROM chain_head {lock}"
        )
        .into(),
        values: vec![integer(expected.events, "seq")?.into()],
    })
}

/// Returns the stored hash in an answer to [`head_query`].
pub(super) fn witnessed(row: &Row) -> Result<Option<B256>, LedgerError> {
    Cells::of_event(row)?.optional_text("witnessed")
}

fn place(rows: &[Row]) -> Result<Place, LedgerError> {
    let [row] = rows else {
        return Err(LedgerError::Damaged(
            "chain_head does not have one row".to_owned(),
        ));
    };
    Ok(Place {
        head: Head::read(row)?,
        purchases: Cells::of_event(row)?.integer("purchases")?,
        witnessed: witnessed(row)?,
    })
}

/// Changes that share a transaction.
struct Batch<'a> {
    changes: &'a [&'a Change],
    /// The latest time of the checks.
    now: Timestamp,
}

/// The rows that the changes may need.
struct Seen {
    place: Place,
    book: Book,
    /// The purchases that each change can resume.
    undelivered: Vec<Vec<Purchase>>,
    answers: Answers,
    /// The unanswered commit that took effect. None is still in progress: this transaction has the lock that it
    /// would need.
    committed: Option<usize>,
}

impl<'a> Batch<'a> {
    fn of(changes: &'a [&'a Change]) -> Result<Self, LedgerError> {
        let checks = changes.iter().filter_map(|change| change.checks());
        let now = checks.map(LimitCheck::now).max();
        Ok(Self {
            changes,
            now: now.unwrap_or(Timestamp::from_millis(0)),
        })
    }

    /// Locks the end of the chain and asks for everything that the changes may need, in one round trip. The transaction
    /// has begun if there are no `settings`.
    async fn look(
        &self,
        link: &mut Link,
        settings: Option<&str>,
        expected: Head,
        unanswered: &[UnansweredCommit],
    ) -> Result<Seen, Failure> {
        let checks = || self.changes.iter().filter_map(|change| change.checks());
        let mut answers = Answers::new(checks(), self.now, None, true)?;
        let mut ids: Vec<String> = self
            .changes
            .iter()
            .filter_map(|change| change.id())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let (mut heads, mut stored, mut lapsed) = (Vec::new(), Vec::new(), Vec::new());
        let mut undelivered: Vec<Vec<Row>> = self.changes.iter().map(|_| Vec::new()).collect();
        let mut events: Vec<Vec<Row>> = unanswered.iter().map(|_| Vec::new()).collect();
        // The query that locks the row comes first.
        let mut asks = vec![Ask::rows(head_query(expected, true)?, &mut heads)];
        if !ids.is_empty() {
            asks.push(Ask::rows(write::purchases(ids), &mut stored));
        }
        for (change, rows) in self.changes.iter().zip(&mut undelivered) {
            if let Change::Resume(wanted) = change {
                asks.push(Ask::rows(query::undelivered("purchases", wanted), rows));
            }
        }
        for (commit, rows) in unanswered.iter().zip(&mut events) {
            let values = vec![integer(commit.head.events, "seq")?.into()];
            let sql = "SELECT seq, hash FROM events WHERE seq = ?".into();
            asks.push(Ask::rows(Query { sql, values }, rows));
        }
        if checks().next().is_some() {
            let query = Present::new(self.now, None)?.lapsed("purchases");
            asks.push(Ask::rows(query, &mut lapsed));
            asks.extend(answers.asks()?);
        }
        match settings {
            Some(settings) => link.begin_and_ask(settings, asks).await?,
            None => link.ask(asks).await?,
        }
        let mut committed = None;
        for (number, (commit, rows)) in unanswered.iter().zip(&events).enumerate() {
            if let Some(row) = rows.first()
                && Head::read(row)? == commit.head
            {
                committed = Some(number);
            }
        }
        let all = |rows: &[Row]| {
            rows.iter()
                .map(row::purchase)
                .collect::<Result<Vec<_>, _>>()
        };
        let place = place(&heads)?;
        Ok(Seen {
            book: Book::new(place.purchases, all(&stored)?, all(&lapsed)?),
            place,
            undelivered: undelivered
                .iter()
                .map(|rows| all(rows))
                .collect::<Result<_, _>>()?,
            answers,
            committed,
        })
    }
}

impl Change {
    pub(super) fn checks(&self) -> Option<&LimitCheck> {
        match self {
            Self::Reserve(reservation) | Self::Buy(reservation, _) => Some(&reservation.checks),
            Self::Record(..) | Self::Resume(_) => None,
        }
    }

    /// Returns the id of the purchase that the change looks up.
    fn id(&self) -> Option<String> {
        match self {
            Self::Reserve(reservation) | Self::Buy(reservation, _) => {
                Some(reservation.purchase.id.written())
            }
            Self::Record(key, ..) => Some(key.id.written()),
            Self::Resume(_) => None,
        }
    }
}

/// The decision for one change, given the changes before it.
struct Decision<'a, 'b> {
    batch: &'a Batch<'b>,
    book: &'a mut Book,
    answers: &'a mut Answers,
    is_alone: bool,
}

impl Decision<'_, '_> {
    async fn make(
        &mut self,
        link: &mut Link,
        change: &Change,
        undelivered: &[Purchase],
    ) -> Result<Done, Failure> {
        let answer = match change {
            Change::Record(key, transition, now) => {
                let stored = self.book.find(key);
                let mut purchase = stored
                    .ok_or_else(|| LedgerError::UnknownPurchase(key.id.clone()))?
                    .clone();
                purchase.apply(transition, *now)?;
                self.book.write(purchase);
                Answer::Recorded
            }
            Change::Resume(wanted) => {
                if self
                    .book
                    .changed(|purchase| purchase.fingerprint == wanted.fingerprint)
                {
                    return Ok(Done::Later { alone: false });
                }
                let resumed = wanted.choose(undelivered.iter().cloned());
                Answer::Resumed(match resumed {
                    Resumed::Again(stored) => {
                        let leased = wanted.leased(&stored);
                        self.book.read(*stored);
                        self.book.write(leased.clone());
                        Resumed::Again(Box::new(leased))
                    }
                    other => other,
                })
            }
            Change::Reserve(reservation) => match self.allow(link, reservation).await? {
                Allowed::Yes(purchase) => {
                    self.hold(reservation, &purchase);
                    Answer::Reserved(Reserved::Held(purchase))
                }
                Allowed::No(answer) => Answer::Reserved(answer),
                Allowed::Later { alone } => return Ok(Done::Later { alone }),
            },
            Change::Buy(reservation, signer) => match self.allow(link, reservation).await? {
                Allowed::Yes(purchase) => {
                    Answer::Obtained(match Step::sign(purchase, &**signer)? {
                        Step::Signed(signed) => {
                            self.hold(reservation, &signed.purchase);
                            Obtained::Signed(signed)
                        }
                        Step::Held(held) => {
                            self.hold(reservation, &held);
                            Obtained::Unsigned(held)
                        }
                        Step::Abandoned => Obtained::Abandoned,
                    })
                }
                Allowed::No(answer) => Answer::Obtained(Obtained::NotHeld(answer)),
                Allowed::Later { alone } => return Ok(Done::Later { alone }),
            },
        };
        Ok(Done::Answer(Ok(answer)))
    }

    /// Writes a purchase that was allowed, after the holds of others that lapsed.
    fn hold(&mut self, reservation: &Reservation, purchase: &Purchase) {
        let lapsed = self.book.lapsed();
        let voided: Vec<_> = lapsed.filter_map(|hold| reservation.lapse(hold)).collect();
        for voided in voided {
            self.book.write(voided);
        }
        self.book.write(purchase.clone());
        // The next check of the batch knows of it, as of a hold of an earlier batch.
        reservation.note_held(purchase);
    }

    /// Checks a reservation. Writes nothing.
    async fn allow(
        &mut self,
        link: &mut Link,
        reservation: &Reservation,
    ) -> Result<Allowed, Failure> {
        let known = self.book.with_id(&reservation.purchase.id);
        let (stored, plan) = reservation.plan(known);
        let mut purchase = match plan {
            Plan::Hold(purchase) => purchase,
            Plan::Answer(answer) => return Ok(Allowed::No(answer)),
        };
        let checks = &reservation.checks;
        let now = checks.now();
        let counted = stored.as_ref().filter(|stored| stored.counts(now));
        let looks_at_seller = checks.payee.is_some() || checks.price.is_some();
        let origin = &reservation.purchase.origin;
        if !self.is_alone
            && (counted.is_some()
                || (looks_at_seller && self.book.disturbs(now, |other| other.origin == *origin)))
        {
            return Ok(Allowed::Later { alone: true });
        }
        let mut other;
        let answers = if let Some(counted) = counted {
            // The purchase that is changed does not count in its own check.
            other = Answers::new([checks], self.batch.now, Some(counted.seq), true)?;
            link.ask(other.asks()?).await?;
            &mut other
        } else {
            &mut *self.answers
        };
        let denial = loop {
            let view = View::new(answers, self.book, now);
            let error = match checks.deny(&view) {
                Ok(denial) => break denial,
                Err(error) => error,
            };
            let missing = view.missing().ok_or(error)?;
            link.ask(answers.also(missing)?).await?;
        };
        if let Some(denial) = denial {
            return Ok(Allowed::No(Reserved::Denied(Box::new(denial))));
        }
        purchase.seq = stored.map_or_else(|| self.book.next_seq(), |stored| stored.seq);
        Ok(Allowed::Yes(purchase))
    }
}

enum Allowed {
    Yes(Box<Purchase>),
    No(Reserved),
    Later { alone: bool },
}

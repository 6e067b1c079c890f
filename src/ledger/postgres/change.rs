//! Changes of a ledger in PostgreSQL: one transaction each, repeated after a conflict.

use alloy::primitives::B256;
use deadpool_postgres::{Object, Transaction};
use futures_util::future::{try_join, try_join_all, try_join3};
use tokio::time::{Instant, timeout};
use tokio_postgres::{IsolationLevel, Row};

use super::pool::{self, Failure};
use super::rows::{answer, each, fetch};
use super::view::View;
use super::{ATTEMPTS, Database, discard_if_lost, pause};
use crate::clock::Timestamp;
use crate::ledger::hash_chain::Head;
use crate::ledger::sql::query::{self, Present, Query};
use crate::ledger::sql::row::{self, Cells, Stored, integer};
use crate::ledger::{
    LedgerError, Plan, Purchase, PurchaseKey, Reservation, Reserved, Resumed, Resumption, State,
    Transition,
};
use crate::limit::LimitCheck;

/// A change of the ledger.
pub(super) enum Change<'a> {
    Reserve(&'a Reservation),
    Record(&'a PurchaseKey, &'a Transition, Timestamp),
    Resume(&'a Resumption),
}

/// The result of a change.
pub(super) enum Changed {
    /// The purchase was written.
    Written(Box<Purchase>),
    /// Nothing was written.
    Nothing(Answer),
}

/// The answer to a change that writes nothing.
pub(super) enum Answer {
    Reserved(Reserved),
    Resumed(Resumed),
}

/// The decision for a change, given the stored purchases.
enum Decision {
    /// Writes the purchase, after the lapsed holds. Each has its state before the change.
    Write {
        lapsed: Vec<(Purchase, State)>,
        purchase: Box<Purchase>,
        before: Option<State>,
    },
    Nothing(Answer),
}

/// A change whose commit was not answered. The hash of its event identifies it.
struct UnansweredCommit {
    head: Head,
    purchase: Box<Purchase>,
}

/// The locked row of `chain_head`.
struct Place {
    head: Head,
    purchases: u64,
    /// The stored hash of the event that the database must contain.
    witnessed: Option<B256>,
}

impl Database {
    /// Makes a change, and repeats it until it took effect or cannot take effect.
    pub(super) async fn change(&self, change: &Change<'_>) -> Result<Changed, LedgerError> {
        let settings = self.write_settings().await?;
        let start = Instant::now();
        let _turn = timeout(self.timeout, self.turn.lock())
            .await
            .map_err(|_| too_many_writers())?;
        let mut unanswered = Vec::new();
        let mut attempt: u32 = 0;
        loop {
            let failure = match self.attempt(settings, change, &mut unanswered).await {
                Ok(answer) => return Ok(answer),
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
                return Err(failure.into_error());
            }
            pause(attempt).await;
        }
    }

    async fn attempt(
        &self,
        settings: &str,
        change: &Change<'_>,
        unanswered: &mut Vec<UnansweredCommit>,
    ) -> Result<Changed, Failure> {
        let expected = self.witness.expected(self.timeout).await?;
        let mut client = self.pool.get().await?;
        let changed = async {
            let transaction = self.timed(begin(&mut client, settings)).await?;
            self.attempt_in(transaction, change, expected, unanswered)
                .await
        }
        .await;
        discard_if_lost(client, &changed);
        changed
    }

    async fn attempt_in(
        &self,
        transaction: Transaction<'_>,
        change: &Change<'_>,
        expected: Head,
        unanswered: &mut Vec<UnansweredCommit>,
    ) -> Result<Changed, Failure> {
        let Seen {
            mut place,
            stored,
            checked,
        } = self.timed(look(&transaction, change, expected)).await?;
        self.witness.check(expected, place.witnessed)?;
        self.witness.note(place.head);
        if let Some(purchase) = self.timed(committed(&transaction, unanswered)).await? {
            return Ok(Changed::Written(purchase));
        }
        let decision = decide(&transaction, change, &stored, checked);
        let (purchase, head) = match self.timed(decision).await? {
            Decision::Nothing(answer) => return Ok(Changed::Nothing(answer)),
            Decision::Write {
                lapsed,
                purchase,
                before,
            } => {
                for (voided, before) in lapsed {
                    let voided = Box::new(voided);
                    let (_, head) = self
                        .timed(write(&transaction, &place, voided, Some(before)))
                        .await?;
                    place.head = head;
                }
                self.timed(write(&transaction, &place, purchase, before))
                    .await?
            }
        };
        match timeout(self.timeout, transaction.commit()).await {
            Ok(Ok(())) => {
                self.witness.committed(head, self.timeout).await;
                Ok(Changed::Written(purchase))
            }
            Ok(Err(error)) if pool::rolled_back(&error) => Err(error.into()),
            no_answer => {
                unanswered.push(UnansweredCommit { head, purchase });
                Err(match no_answer {
                    Ok(Err(error)) => Failure::Lost(Failure::from(error).into_error()),
                    _ => Failure::late(),
                })
            }
        }
    }
}

fn too_many_writers() -> LedgerError {
    LedgerError::store("the ledger could not be written in time: too many other writes are waiting")
}

/// Begins a transaction that writes the chain. It waits for its turn among all writers.
async fn begin<'a>(client: &'a mut Object, settings: &str) -> Result<Transaction<'a>, Failure> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::Serializable)
        .start()
        .await?;
    transaction.batch_execute(settings).await?;
    Ok(transaction)
}

/// Reads and locks the end of the chain. No other writer changes the ledger until the transaction
/// ends.
///
/// On servers that do not hold such locks (CockroachDB), the write to the same row makes one of two
/// transactions fail.
async fn place(transaction: &Transaction<'_>, expected: Head) -> Result<Place, Failure> {
    let rows = fetch(transaction, &head_query(expected, true)?).await?;
    let [row] = rows.as_slice() else {
        return Err(LedgerError::Damaged("chain_head does not have one row".to_owned()).into());
    };
    Ok(Place {
        head: Head::read(row)?,
        purchases: Cells::of_event(row)?.integer("purchases")?,
        witnessed: witnessed(row)?,
    })
}

/// Returns the query for the end of the chain, with the stored hash of the event that the database must contain.
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

/// Returns the purchase of an unanswered commit that took effect.
///
/// None of these commits is still in progress: this transaction has the lock that it would need.
async fn committed(
    transaction: &Transaction<'_>,
    unanswered: &[UnansweredCommit],
) -> Result<Option<Box<Purchase>>, Failure> {
    for commit in unanswered {
        let values = vec![integer(commit.head.events, "seq")?.into()];
        let sql = "SELECT seq, hash FROM events WHERE seq = ?".into();
        if let Some(row) = fetch(transaction, &Query { sql, values }).await?.first()
            && Head::read(row)? == commit.head
        {
            return Ok(Some(commit.purchase.clone()));
        }
    }
    Ok(None)
}

/// The rows that a change may need. bursar sends all queries at once, so that the server answers in
/// one round trip.
struct Seen {
    place: Place,
    /// The rows of the purchase, of those with its id, or of those that can be resumed.
    stored: Vec<Row>,
    /// The answers for the checks of a reservation.
    checked: Option<Checked>,
}

/// The answers for the checks, and the holds that lapsed.
struct Checked {
    view: View,
    lapsed: Vec<Row>,
}

async fn look(
    transaction: &Transaction<'_>,
    change: &Change<'_>,
    expected: Head,
) -> Result<Seen, Failure> {
    let query = match change {
        Change::Reserve(reservation) => query::with_id(&reservation.purchase.id),
        Change::Record(key, ..) => query::purchase(key),
        Change::Resume(wanted) => query::undelivered("purchases", wanted),
    };
    let checked = async {
        match change {
            // The purchase is nearly always a new one.
            Change::Reserve(reservation) => check(transaction, &reservation.checks, None)
                .await
                .map(Some),
            _ => Ok(None),
        }
    };
    // The query that locks the row comes first.
    let (place, stored, checked) = try_join3(
        place(transaction, expected),
        fetch(transaction, &query),
        checked,
    )
    .await?;
    Ok(Seen {
        place,
        stored,
        checked,
    })
}

/// Reads the answers for the checks. `except` is the purchase that is being reserved.
async fn check(
    transaction: &Transaction<'_>,
    checks: &LimitCheck,
    except: Option<u64>,
) -> Result<Checked, Failure> {
    let lapsed = Present::new(checks.now(), except)?.lapsed("purchases");
    let (view, lapsed) = try_join(
        view(transaction, checks, except, true),
        fetch(transaction, &lapsed),
    )
    .await?;
    Ok(Checked { view, lapsed })
}

async fn decide(
    transaction: &Transaction<'_>,
    change: &Change<'_>,
    stored: &[Row],
    checked: Option<Checked>,
) -> Result<Decision, Failure> {
    let first = || stored.first().map(row::purchase).transpose();
    match change {
        Change::Reserve(reservation) => {
            let known = stored.iter().map(row::purchase).collect::<Result<_, _>>()?;
            let (stored, plan) = reservation.plan(known);
            let before = stored.as_ref().map(|stored| (stored.seq, stored.state));
            let mut purchase = match plan {
                Plan::Hold(purchase) => purchase,
                Plan::Answer(answer) => return Ok(Decision::Nothing(Answer::Reserved(answer))),
            };
            let except = before.map(|(seq, _)| seq);
            let Checked { view, lapsed } = match checked.filter(|_| except.is_none()) {
                Some(checked) => checked,
                None => check(transaction, &reservation.checks, except).await?,
            };
            let denial = answer(transaction, view, |view| reservation.checks.deny(view)).await?;
            if let Some(denial) = denial {
                let denied = Reserved::Denied(Box::new(denial));
                return Ok(Decision::Nothing(Answer::Reserved(denied)));
            }
            purchase.seq = before.map_or(0, |(seq, _)| seq);
            let lapsed: Vec<Purchase> =
                lapsed.iter().map(row::purchase).collect::<Result<_, _>>()?;
            let lapsed = lapsed
                .iter()
                .filter_map(|hold| Some((reservation.lapse(hold)?, hold.state)))
                .collect();
            Ok(Decision::Write {
                lapsed,
                purchase,
                before: before.map(|(_, state)| state),
            })
        }
        Change::Record(key, transition, now) => {
            let mut purchase =
                first()?.ok_or_else(|| LedgerError::UnknownPurchase(key.id.clone()))?;
            let before = purchase.state;
            purchase.apply(transition, *now)?;
            Ok(Decision::Write {
                lapsed: Vec::new(),
                purchase: Box::new(purchase),
                before: Some(before),
            })
        }
        Change::Resume(wanted) => Ok(match resumable(wanted, stored)? {
            Resumed::Again(purchase) => Decision::Write {
                lapsed: Vec::new(),
                before: Some(purchase.state),
                purchase: Box::new(wanted.leased(&purchase)),
            },
            other => Decision::Nothing(Answer::Resumed(other)),
        }),
    }
}

/// Chooses among the stored purchases of the same request.
pub(super) fn resumable(wanted: &Resumption, rows: &[Row]) -> Result<Resumed, LedgerError> {
    let stored: Vec<Purchase> = rows.iter().map(row::purchase).collect::<Result<_, _>>()?;
    Ok(wanted.choose(stored))
}

/// Writes the purchase over its stored form, the event of the change, and the new head.
async fn write(
    transaction: &Transaction<'_>,
    place: &Place,
    mut purchase: Box<Purchase>,
    before: Option<State>,
) -> Result<(Box<Purchase>, Head), Failure> {
    let mut purchases = place.purchases;
    if before.is_none() {
        purchases = purchases.saturating_add(1);
        purchase.seq = purchases;
    }
    let columns = row::columns(&purchase)?;
    let event = row::event(place.head, &purchase, &columns, before)?;
    let head = event.head;
    let sql = "UPDATE chain_head SET seq = ?, purchases = ?, hash = ?".into();
    let values = vec![
        event.seq.into(),
        integer(purchases, "purchases")?.into(),
        head.hash.written().into(),
    ];
    let queries = [
        query::write(columns, &event),
        query::append(event),
        Query { sql, values },
    ];
    try_join_all(queries.iter().map(|query| fetch(transaction, query))).await?;
    Ok((purchase, head))
}

/// Reads the answers that the checks will need. `keeps` tells whether the transaction can write the totals.
pub(super) async fn view(
    transaction: &Transaction<'_>,
    checks: &LimitCheck,
    except: Option<u64>,
    keeps: bool,
) -> Result<View, Failure> {
    let (mut view, queries) = View::of(checks, except, keeps)?;
    let answers = view.questions().zip(&queries);
    try_join_all(
        answers.map(|(question, query)| each(transaction, query, |row| question.take(&row))),
    )
    .await?;
    Ok(view)
}

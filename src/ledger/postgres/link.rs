//! One connection: its prepared statements, and transactions in as few round trips as possible.
//!
//! tokio-postgres sends a query when its future is first polled and reads the answers in order. Statements whose futures
//! are polled together therefore share a round trip.
//!
//! A pooler in transaction mode gives each transaction any session of the server. A statement that was prepared in
//! another session is missing there, or is another statement of the same name. So each connection gives its session a
//! random name and reads it in each transaction. If it is not there, the transaction is rolled back, and bursar prepares
//! no more statements.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_util::future::{join, join_all, join3, try_join_all};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, RowStream, SimpleQueryMessage, Statement};

use super::pool::{self, Failure};
use super::rows::{Parameter, Statement as Sql};
use crate::ledger::LedgerError;

/// A statement with the place for its rows.
pub(super) struct Ask<'a> {
    sql: Sql,
    take: Box<dyn FnMut(Row) -> Result<(), LedgerError> + Send + 'a>,
}

impl<'a> Ask<'a> {
    /// Passes the rows to `take`, one by one, so that memory does not grow with them.
    pub(super) fn each(
        sql: impl Into<Sql>,
        take: impl FnMut(Row) -> Result<(), LedgerError> + Send + 'a,
    ) -> Self {
        Self {
            sql: sql.into(),
            take: Box::new(take),
        }
    }

    /// Adds the rows to `rows`.
    pub(super) fn rows(sql: impl Into<Sql>, rows: &'a mut Vec<Row>) -> Self {
        Self::each(sql, |row| {
            rows.push(row);
            Ok(())
        })
    }

    /// Expects no rows.
    pub(super) fn none(sql: impl Into<Sql>) -> Self {
        Self::each(sql, |_| Ok(()))
    }
}

/// The reason why a transaction was not committed.
pub(super) enum NotCommitted {
    /// The server rolled it back, or bursar never asked to commit it.
    RolledBack(Failure),
    /// It may have taken effect.
    Unknown(Failure),
}

pub(super) struct Link {
    client: Client,
    statements: HashMap<String, Statement>,
    /// The name of the session. `None` if sessions are not kept.
    session: Option<String>,
    /// Whether a transaction may be open.
    in_transaction: bool,
    lost_session: bool,
    /// Whether a statement of the transaction failed.
    failed: bool,
    /// The time that the last begin took, with its wait for locks.
    waited: Duration,
}

impl Link {
    pub(super) fn without_session(client: Client) -> Self {
        Self {
            client,
            statements: HashMap::new(),
            session: None,
            in_transaction: false,
            lost_session: false,
            failed: false,
            waited: Duration::ZERO,
        }
    }

    /// Names the session, if the server can store the name.
    pub(super) async fn with_session(client: Client, session: String) -> Result<Self, Failure> {
        let named = client
            .batch_execute(&format!("SET bursar.session = '{session}'"))
            .await;
        let session = match named {
            Ok(()) => Some(session),
            Err(error) if error.as_db_error().is_some() => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            session,
            ..Self::without_session(client)
        })
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.is_open() && !self.in_transaction
    }

    /// Whether no statement of the transaction failed.
    pub(super) const fn is_sound(&self) -> bool {
        !self.failed
    }

    /// Returns the time that the last begin took, with its wait for locks.
    pub(super) const fn waited(&self) -> Duration {
        self.waited
    }

    pub(super) const fn keeps_session(&self) -> bool {
        self.session.is_some()
    }

    pub(super) const fn lost_session(&self) -> bool {
        self.lost_session
    }

    /// Begins a transaction with the statements in `begin`.
    pub(super) async fn begin(&mut self, begin: &str) -> Result<(), Failure> {
        self.in_transaction = true;
        self.failed = false;
        let started = start(&self.client, begin, self.session.as_deref()).await;
        self.started(started)
    }

    /// Begins a transaction and asks, in one round trip.
    pub(super) async fn begin_and_ask(
        &mut self,
        begin: &str,
        asks: Vec<Ask<'_>>,
    ) -> Result<(), Failure> {
        if !self.unprepared(&asks).is_empty() {
            self.begin(begin).await?;
            return self.ask(asks).await;
        }
        self.in_transaction = true;
        self.failed = false;
        let (client, session) = (&self.client, self.session.as_deref());
        let asked = asks
            .into_iter()
            .map(|ask| answer(client, &self.statements, ask));
        let (started, answers) = join(start(client, begin, session), join_all(asked)).await;
        self.started(started)?;
        answers.into_iter().collect()
    }

    /// Asks in a read-only transaction, in one round trip.
    pub(super) async fn read(&mut self, begin: &str, asks: Vec<Ask<'_>>) -> Result<(), Failure> {
        if !self.unprepared(&asks).is_empty() {
            self.begin(begin).await?;
            let answers = self.ask(asks).await;
            self.roll_back().await;
            return answers;
        }
        self.in_transaction = true;
        self.failed = false;
        let (client, session) = (&self.client, self.session.as_deref());
        let asked = asks
            .into_iter()
            .map(|ask| answer(client, &self.statements, ask));
        let (started, answers, ended) = join3(
            start(client, begin, session),
            join_all(asked),
            client.batch_execute("ROLLBACK"),
        )
        .await;
        self.started(started)?;
        self.in_transaction = ended.is_err();
        answers.into_iter().collect()
    }

    /// Asks in the transaction.
    pub(super) async fn ask(&mut self, asks: Vec<Ask<'_>>) -> Result<(), Failure> {
        self.failed = true;
        let unprepared = self.unprepared(&asks);
        self.prepare(unprepared).await?;
        let client = &self.client;
        let asked = asks
            .into_iter()
            .map(|ask| answer(client, &self.statements, ask));
        let answers: Result<(), Failure> = join_all(asked).await.into_iter().collect();
        self.failed = answers.is_err();
        answers
    }

    /// Makes the last changes of the transaction and commits it, in one round trip.
    pub(super) async fn commit(&mut self, asks: Vec<Ask<'_>>) -> Result<(), NotCommitted> {
        use NotCommitted::{RolledBack, Unknown};
        let unprepared = self.unprepared(&asks);
        self.prepare(unprepared).await.map_err(RolledBack)?;
        let client = &self.client;
        let asked = asks
            .into_iter()
            .map(|ask| answer(client, &self.statements, ask));
        let mut asked = pin!(try_join_all(asked));
        // A statement that cannot be sent fails now. The others must not be committed without it.
        let sent = poll_fn(|context| Poll::Ready(asked.as_mut().poll(context))).await;
        if let Poll::Ready(Err(failure)) = sent {
            return Err(RolledBack(failure));
        }
        let answers = async {
            match sent {
                Poll::Ready(done) => done,
                Poll::Pending => asked.await,
            }
        };
        let (answers, committed) = join(answers, client.batch_execute("COMMIT")).await;
        match (answers, committed) {
            (Ok(_), Ok(())) => {
                self.in_transaction = false;
                Ok(())
            }
            // After an error in a transaction, the server turns COMMIT into ROLLBACK.
            (Err(failure @ (Failure::Conflict(_) | Failure::Final(_))), Ok(())) => {
                self.in_transaction = false;
                Err(RolledBack(failure))
            }
            (Ok(_), Err(error)) if pool::rolled_back(&error) => Err(RolledBack(error.into())),
            (Ok(_), Err(error)) => Err(Unknown(error.into())),
            (Err(failure), _) => Err(Unknown(failure)),
        }
    }

    /// Commits a transaction without further changes.
    pub(super) async fn commit_now(&mut self) -> Result<(), Failure> {
        self.client.batch_execute("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Rolls the transaction back, if one is open. Waits for the answer: a runtime that stops in between would keep the
    /// locks of the transaction.
    pub(super) async fn roll_back(&mut self) {
        if self.in_transaction && !self.lost_session {
            self.in_transaction = self.client.batch_execute("ROLLBACK").await.is_err();
        }
    }

    /// Does not use the connection again.
    pub(super) const fn discard(&mut self) {
        self.in_transaction = true;
    }

    fn started(&mut self, started: Result<Started, Failure>) -> Result<(), Failure> {
        let started = started?;
        self.waited = started.waited;
        if started.in_own_session {
            return Ok(());
        }
        self.lost_session = true;
        let error = "a pooler gave the session of a connection to another";
        Err(Failure::Conflict(LedgerError::store(error)))
    }

    /// Returns the statements that are not prepared yet.
    fn unprepared(&self, asks: &[Ask<'_>]) -> Vec<String> {
        if self.session.is_none() {
            return Vec::new();
        }
        let texts = asks.iter().map(|ask| &*ask.sql.text);
        let mut missing: Vec<String> = texts
            .filter(|text| !self.statements.contains_key(*text))
            .map(str::to_owned)
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Prepares statements in the transaction.
    async fn prepare(&mut self, texts: Vec<String>) -> Result<(), Failure> {
        let prepared = texts.iter().map(|text| self.client.prepare(text));
        let prepared = try_join_all(prepared).await?;
        self.statements.extend(texts.into_iter().zip(prepared));
        Ok(())
    }
}

/// The begin of a transaction.
struct Started {
    /// Whether the session is the one that the connection named.
    in_own_session: bool,
    waited: Duration,
}

/// Begins a transaction.
async fn start(client: &Client, begin: &str, session: Option<&str>) -> Result<Started, Failure> {
    let sent = Instant::now();
    let Some(session) = session else {
        client.batch_execute(begin).await?;
        return Ok(Started {
            in_own_session: true,
            waited: sent.elapsed(),
        });
    };
    let sql = format!("{begin}; SELECT current_setting('bursar.session', true)");
    let answers = client.simple_query(&sql).await?;
    let in_own_session = answers.iter().any(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0) == Some(session),
        _ => false,
    });
    Ok(Started {
        in_own_session,
        waited: sent.elapsed(),
    })
}

/// Passes the rows of a statement to its `take`.
async fn answer(
    client: &Client,
    statements: &HashMap<String, Statement>,
    ask: Ask<'_>,
) -> Result<(), Failure> {
    let Ask { sql, mut take } = ask;
    let rows: RowStream = match statements.get(&*sql.text) {
        Some(statement) => client.query_raw(statement, &sql.values).await?,
        None => {
            let typed = sql.values.iter().map(|value| (value, value.kind()));
            client
                .query_typed_raw(&sql.text, typed.collect::<Vec<(&Parameter, Type)>>())
                .await?
        }
    };
    let mut rows = pin!(rows);
    while let Some(row) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
        take(row?)?;
    }
    Ok(())
}

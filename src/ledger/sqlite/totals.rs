//! Running totals in the file: what limits add up, so that no reservation reads all that it adds up.
//!
//! A row is of one window of one scope: its sum, and the moment after which that sum is. Every write of a
//! purchase changes the sums that it is in; a window moves on when it is asked for, by the charges that left
//! it since. So a charge is added once and leaves each window once, whatever the books hold. Holds are in the
//! sums, at the end of time, and lapsed ones until they are freed.

use std::collections::HashMap;

use rusqlite::{Connection, params, params_from_iter};

use super::failed;
use crate::Timestamp;
use crate::ledger::checks::{Measure, Time, Unit};
use crate::ledger::entry::without_query;
use crate::ledger::sql::row::Stored;
use crate::ledger::sum::Sum;
use crate::ledger::{Charge, Entry, LedgerError, State, Tally};
use crate::policy::limit::{LimitKind, Max, Scope, Span};

/// Beside the tables that all databases share.
pub(super) const TABLE: &str = "
CREATE TABLE totals (
    scope TEXT NOT NULL,
    measure TEXT NOT NULL,
    span TEXT NOT NULL,
    time TEXT NOT NULL CHECK (time IN ('spent', 'reserved')),
    start INTEGER NOT NULL,
    sum TEXT NOT NULL,
    used_at INTEGER NOT NULL,
    PRIMARY KEY (scope, measure, span)
) STRICT, WITHOUT ROWID;
";

/// Up to how many entries `growth` measures; without it every total is compared with its charges in tests.
#[cfg(test)]
pub(super) const MEASURED: &str = "BURSAR_GROWTH";
/// Limits on so few payments are counted one by one.
const FEW: u32 = 64;
/// How long a total is kept that no limit asks for any more, in milliseconds.
const UNUSED: i64 = 30 * DAY;
/// How exactly it is known when a total was last asked for.
const DAY: i64 = 86_400_000;

/// Which total: a limit's, but for how much it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    scope: String,
    measure: Measure,
    span: String,
    pub(super) time: Time,
}

/// All that is after `start`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Total {
    pub(super) start: Timestamp,
    pub(super) sum: Sum,
    used_at: Timestamp,
}

impl Key {
    /// And after which moment. `None` for what is read purchase by purchase: what is unresolved, which is
    /// little, limits on few payments, and domains, which are other hosts with each public suffix list.
    pub(super) fn of(tally: Tally<'_>) -> Option<(Self, Timestamp)> {
        let (time, start) = Time::of(tally.span())?;
        let kind = tally.kind();
        let counted = matches!((kind.max(), tally.scope()), (Max::Payments(max), Scope::Global | Scope::Request(_)) if max <= FEW);
        if counted && !matches!(kind, LimitKind::Failures(..)) {
            return None;
        }
        let scope = name(tally.scope())?;
        Some((Self { scope, measure: tally.measure(), span: kind.to_string(), time }, start.unwrap_or(BEGINNING)))
    }
}

pub(super) const BEGINNING: Timestamp = Timestamp::from_millis(i64::MIN);

impl Total {
    pub(super) const fn new(start: Timestamp, sum: Sum, now: Timestamp) -> Self {
        Self { start, sum, used_at: now }
    }

    /// Whether it is time to note that it is still in use.
    pub(super) fn was_used_long_ago(&self, now: Timestamp) -> bool {
        now.millis().saturating_sub(self.used_at.millis()) > DAY
    }
}

/// Whether the entry is in the sums.
pub(super) const fn adds(entry: &Entry) -> bool {
    !matches!(entry.state, State::Freed | State::Released)
}

pub(super) fn find(books: &Connection, key: &Key) -> Result<Option<Total>, LedgerError> {
    let sql = "SELECT start, sum, used_at FROM totals WHERE scope = ? AND measure = ? AND span = ?";
    let mut statement = books.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(params![key.scope, key.measure.written(), key.span]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
    let moment = |column| row.get(column).map(Timestamp::from_millis).map_err(failed);
    Ok(Some(Total { start: moment("start")?, sum: sum(row)?, used_at: moment("used_at")? }))
}

/// Writes a total that began or moved on, and drops those that nothing asks for any more.
pub(super) fn keep(books: &Connection, key: &Key, total: Total, is_new: bool) -> Result<(), LedgerError> {
    let now = total.used_at.millis();
    if is_new {
        let mut statement = books.prepare_cached("DELETE FROM totals WHERE used_at < ?").map_err(failed)?;
        statement.execute([now.saturating_sub(UNUSED)]).map_err(failed)?;
    }
    let sql = "INSERT INTO totals (scope, measure, span, time, start, sum, used_at) VALUES (?, ?, ?, ?, ?, ?, ?) \
               ON CONFLICT (scope, measure, span) DO UPDATE \
               SET start = excluded.start, sum = excluded.sum, used_at = excluded.used_at";
    let mut statement = books.prepare_cached(sql).map_err(failed)?;
    let (start, sum) = (total.start.millis(), total.sum.to_string());
    let values = params![key.scope, key.measure.written(), key.span, key.time.written(), start, sum, now];
    statement.execute(values).map(drop).map_err(failed)
}

/// Changes every sum that the purchase is in or was in.
pub(super) fn change(books: &Connection, before: Option<&Entry>, next: &Entry) -> Result<(), LedgerError> {
    if before.is_some_and(|before| same(before, next)) {
        return Ok(());
    }
    let mut scopes = names(next);
    let earlier = before.map(names).filter(|earlier| *earlier != scopes);
    scopes.extend(earlier.into_iter().flatten());
    for (place, total) in of_scopes(books, &scopes)? {
        let part = |entry: &Entry| {
            let within = names(entry).contains(&place.scope) && place.time.moment(entry) > total.start;
            if within && adds(entry) { place.weigh(entry) } else { Sum::default() }
        };
        let sum = total.sum.minus(before.map(part).unwrap_or_default()).plus(part(next));
        if sum != total.sum {
            let sql = "UPDATE totals SET sum = ? WHERE scope = ? AND measure = ? AND span = ?";
            let mut statement = books.prepare_cached(sql).map_err(failed)?;
            let key = params![sum.to_string(), place.scope, place.measure.written(), place.span];
            statement.execute(key).map_err(failed)?;
        }
    }
    Ok(())
}

impl Key {
    fn weigh(&self, entry: &Entry) -> Sum {
        self.measure.weigh(&Charge::of(entry, Span::Ever)).unwrap_or_default().into()
    }
}

/// Whether no sum can tell the two apart.
fn same(before: &Entry, next: &Entry) -> bool {
    let seen = |entry: &Entry| (adds(entry), Charge::of(entry, Span::Ever), entry.reserved_at, entry.payee);
    seen(before) == seen(next)
        && before.fingerprint == next.fingerprint
        && before.origin == next.origin
        && before.path == next.path
        && before.tag == next.tag
        && before.agent == next.agent
}

fn of_scopes(books: &Connection, scopes: &[String]) -> Result<Vec<(Key, Total)>, LedgerError> {
    let places = vec!["?"; scopes.len()].join(", ");
    let sql = format!("SELECT * FROM totals WHERE scope IN ({places})");
    let mut statement = books.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query(params_from_iter(scopes)).map_err(failed)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &rusqlite::Row<'_>) -> Result<(Key, Total), LedgerError> {
    let text = |column| row.get::<_, String>(column).map_err(failed);
    let moment = |column| row.get(column).map(Timestamp::from_millis).map_err(failed);
    let measure = Measure::parse(&text("measure")?).ok_or_else(|| damaged("measure"))?;
    let time = Time::parse(&text("time")?).ok_or_else(|| damaged("time"))?;
    let key = Key { scope: text("scope")?, measure, span: text("span")?, time };
    Ok((key, Total { start: moment("start")?, sum: sum(row)?, used_at: moment("used_at")? }))
}

fn sum(row: &rusqlite::Row<'_>) -> Result<Sum, LedgerError> {
    let text = row.get_ref("sum").map_err(failed)?.as_str().map_err(|_| damaged("sum"))?;
    Sum::parse(text).ok_or_else(|| damaged("sum"))
}

fn damaged(column: &str) -> LedgerError {
    LedgerError::Damaged(format!("totals, column {column}"))
}

/// Adds all totals up again from purchases, to compare.
pub(super) struct Recount {
    totals: HashMap<String, Vec<(Key, Total, Sum)>>,
}

impl Recount {
    pub(super) fn begin(books: &Connection) -> Result<Self, LedgerError> {
        let mut statement = books.prepare("SELECT * FROM totals").map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut totals: HashMap<_, Vec<_>> = HashMap::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let (key, total) = read(row)?;
            totals.entry(key.scope.clone()).or_default().push((key, total, Sum::default()));
        }
        Ok(Self { totals })
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        if !adds(entry) {
            return;
        }
        for name in names(entry) {
            for (key, total, sum) in self.totals.get_mut(&name).into_iter().flatten() {
                if key.time.moment(entry) > total.start {
                    *sum = sum.plus(key.weigh(entry));
                }
            }
        }
    }

    /// Those that are not what the purchases say, by name.
    pub(super) fn wrong(self) -> Vec<String> {
        let all = self.totals.into_values().flatten();
        let wrong = all.filter(|(_, total, sum)| total.sum != *sum);
        let mut names: Vec<_> =
            wrong.map(|(key, ..)| format!("{} {} in {}", key.scope, key.span, key.measure.written())).collect();
        names.sort();
        names
    }
}

/// A scope as the table names it. `None` for what it keeps no totals of.
fn name(scope: &Scope) -> Option<String> {
    Some(match scope {
        Scope::Global => "global".to_owned(),
        Scope::Origin(origin) => format!("origin {origin}"),
        Scope::Resource(origin, path) => format!("resource {origin} {path}"),
        Scope::Host(pattern) => format!("host {pattern}"),
        Scope::Domain(_) => return None,
        Scope::Payee(payee) => format!("payee {}", payee.written()),
        Scope::Asset(network, asset) => format!("asset {network} {}", asset.written()),
        Scope::Network(network) => format!("network {network}"),
        Scope::Request(fingerprint) => format!("request {}", fingerprint.written()),
        Scope::Tag(tag) => format!("tag {tag}"),
        Scope::Agent(agent) => format!("agent {agent}"),
    })
}

/// The names of all scopes that the entry is in.
fn names(entry: &Entry) -> Vec<String> {
    let host = entry.origin.host();
    let above = host.match_indices('.').filter_map(|(dot, _)| host.get(dot.saturating_add(1)..));
    let mut names = vec![
        "global".to_owned(),
        format!("origin {}", entry.origin),
        format!("resource {} {}", entry.origin, without_query(&entry.path)),
        format!("host {host}"),
        format!("payee {}", entry.payee.written()),
        format!("asset {} {}", entry.network, entry.asset.written()),
        format!("network {}", entry.network),
        format!("request {}", entry.fingerprint.written()),
    ];
    names.extend(above.map(|host| format!("host *.{host}")));
    names.extend(entry.tag.as_ref().map(|tag| format!("tag {tag}")));
    names.extend(entry.agent.as_ref().map(|agent| format!("agent {agent}")));
    names
}

impl Measure {
    fn written(self) -> String {
        let unit = match self.unit {
            Unit::Usd => "usd".to_owned(),
            Unit::Payments => "payments".to_owned(),
            Unit::Failures => "failures".to_owned(),
            Unit::Token(network, asset) => format!("{network} {}", asset.written()),
        };
        if self.net { unit + " net" } else { unit }
    }

    fn parse(text: &str) -> Option<Self> {
        let (unit, net) = text.strip_suffix(" net").map_or((text, false), |unit| (unit, true));
        let unit = match unit {
            "usd" => Unit::Usd,
            "payments" => Unit::Payments,
            "failures" => Unit::Failures,
            token => {
                let (network, asset) = token.split_once(' ')?;
                Unit::Token(Stored::read(network)?, Stored::read(asset)?)
            }
        };
        Some(Self { unit, net })
    }
}

impl Time {
    const fn written(self) -> &'static str {
        match self {
            Self::Spent => "spent",
            Self::Reserved => "reserved",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Spent, Self::Reserved].into_iter().find(|time| time.written() == text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::SqliteLedger;
    use super::*;
    use crate::ledger::conformance::{
        HOUR, NOW, PLACES, at, at_place, hold, lifetime, meter, order, scopes, settled, signed, signed_under, wish,
    };
    use crate::ledger::entry::holds;
    use crate::ledger::{Fault, Ledger, Reserved};
    use crate::policy::limit::Meter;
    use crate::{Network, Usd};

    #[test]
    fn a_scope_has_one_name_and_its_entries_know_it() {
        let scopes = scopes().into_iter().map(|(scope, _)| scope).filter(|scope| name(scope).is_some());
        for scope in scopes {
            for place in 0..PLACES.len() {
                let entry = at_place(place, order("order", 1)).open(0, at(NOW), at(NOW));
                let named = names(&entry).contains(&name(&scope).unwrap());
                assert_eq!(named, holds(&scope, &entry), "{scope:?} {entry:?}");
            }
        }
    }

    #[test]
    fn measures_are_read_as_they_are_written() {
        let token = Unit::Token(Network::from_chain_id(8453), order("order", 1).asset.address());
        for unit in [Unit::Usd, Unit::Payments, Unit::Failures, token] {
            for net in [false, true] {
                let measure = Measure { unit, net };
                assert_eq!(Measure::parse(&measure.written()), Some(measure));
            }
        }
        assert_eq!(Measure::parse("euro"), None);
    }

    fn open() -> (tempfile::TempDir, SqliteLedger, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("books.db");
        let ledger = SqliteLedger::open(&path).unwrap();
        let other = Connection::open(&path).unwrap();
        (directory, ledger, other)
    }

    fn rows(books: &Connection) -> Vec<(String, String)> {
        let mut statement = books.prepare("SELECT span, sum FROM totals ORDER BY span").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn rolling(window: Duration) -> Vec<Meter> {
        vec![meter(Scope::Global, LimitKind::Rolling(window, Usd::MAX.into()))]
    }

    #[tokio::test]
    async fn a_total_that_was_changed_is_found() {
        let (_directory, ledger, other) = open();
        ledger.reserve(&wish(order("one", 10), at(NOW), lifetime(100))).await.unwrap();
        hold(&ledger, order("two", 30), NOW).await;
        assert_eq!(rows(&other), [("lifetime".to_owned(), "40".to_owned())]);
        assert!(ledger.verify(None).await.unwrap().is_sound());
        other.execute_batch("UPDATE totals SET sum = '39'").unwrap();
        let wrong = Fault::TotalChanged { total: "global lifetime in usd".to_owned() };
        assert_eq!(ledger.verify(None).await.unwrap().faults, [wrong]);
    }

    #[tokio::test]
    async fn a_total_that_cannot_be_read_stops_paying() {
        let (_directory, ledger, other) = open();
        ledger.reserve(&wish(order("one", 10), at(NOW), lifetime(100))).await.unwrap();
        for damage in ["sum = '-1'", "sum = ''", "measure = 'euro'"] {
            other.execute_batch(&format!("UPDATE totals SET {damage}")).unwrap();
            let refused = ledger.reserve(&wish(order("two", 10), at(NOW), lifetime(100))).await;
            assert!(matches!(refused, Err(LedgerError::Damaged(_))), "{damage}: {refused:?}");
        }
    }

    #[tokio::test]
    async fn a_total_that_no_limit_asks_for_is_dropped_after_a_month() {
        let (_directory, ledger, other) = open();
        let day = 86_400;
        ledger.reserve(&wish(order("one", 10), at(NOW), [lifetime(100), rolling(HOUR)].concat())).await.unwrap();
        for number in 1..20 {
            let wish = wish(order(&format!("then-{number}"), 1), at(NOW + 2 * number * day), lifetime(100));
            ledger.reserve(&wish).await.unwrap();
        }
        let kept = |books: &Connection| rows(books).into_iter().map(|(span, _)| span).collect::<Vec<_>>();
        assert_eq!(kept(&other), ["lifetime", "rolling 1h"]);
        let other_window = wish(order("last", 1), at(NOW + 39 * day), rolling(2 * HOUR));
        ledger.reserve(&other_window).await.unwrap();
        assert_eq!(kept(&other), ["lifetime", "rolling 2h"]);
        let denied = ledger.reserve(&wish(order("more", 81), at(NOW + 39 * day), lifetime(100))).await.unwrap();
        assert!(matches!(denied, Reserved::Held(_)), "the holds of others have lapsed: {denied:?}");
    }

    /// `BURSAR_GROWTH=1000000 cargo nextest run --run-ignored only --no-capture growth`: what a reservation with ten limits costs when the
    /// books are large, and how long they take to open.
    #[tokio::test]
    #[ignore = "a measurement"]
    async fn growth() {
        let entry = order("order", 10);
        let (origin, asset) = (entry.origin.clone(), entry.asset.clone());
        let all = Usd::MAX;
        let limits = |fingerprint| -> Vec<Meter> {
            let rolling = |scope, hours| meter(scope, LimitKind::Rolling(hours * HOUR, all.into()));
            vec![
                rolling(Scope::Global, 1),
                rolling(Scope::Global, 24),
                meter(Scope::Global, LimitKind::Lifetime(all.into())),
                meter(Scope::Global, LimitKind::Exposure(all.into())),
                meter(Scope::Global, LimitKind::Payments(HOUR, u32::MAX)),
                meter(Scope::Request(fingerprint), LimitKind::Repeats(Duration::from_secs(60), 30)),
                rolling(Scope::Origin(origin.clone()), 24),
                rolling(Scope::Payee(entry.payee), 24),
                rolling(Scope::Network(asset.network()), 24 * 7),
                meter(Scope::Host("a.example".parse().unwrap()), LimitKind::Lifetime(all.into())),
            ]
        };
        let largest: u64 = std::env::var(MEASURED).expect("how many entries").parse().unwrap();
        let directory = tempfile::tempdir_in(".").unwrap();
        let path = directory.path().join("books.db");
        let ledger = SqliteLedger::open(&path).unwrap();
        let then = NOW - 86_400 * 30;
        let key = hold(&ledger, entry.clone(), then).await;
        ledger.record(&key, &signed_under(at(then + 60), then + 60), at(then)).await.unwrap();
        drop(ledger);
        let mut size = 1000;
        while size <= largest {
            // Other requests of the last thirty days, one every so many milliseconds.
            let books = Connection::open(&path).unwrap();
            let columns = {
                let mut columns = books.prepare("SELECT name FROM pragma_table_info('purchases')").unwrap();
                let names = columns.query_map([], |row| row.get::<_, String>(0)).unwrap();
                names.map(Result::unwrap).collect::<Vec<_>>()
            };
            let values = columns.iter().map(|column| match column.as_str() {
                "seq" => "n".to_owned(),
                "purchase" => "'bulk-' || n".to_owned(),
                "nonce" | "fingerprint" => format!("'0x' || substr('{:064}' || n, -64)", 0),
                "state" => "'settled'".to_owned(),
                "reserved_at" | "counts_at" | "expires_at" => {
                    format!("{column} + n * {}", 86_400_000 * 30 / (largest + 1))
                }
                other => other.to_owned(),
            });
            let sql = format!(
                "PRAGMA synchronous = OFF; BEGIN; DELETE FROM totals;
                 INSERT INTO purchases ({}) SELECT {} FROM purchases p, (WITH RECURSIVE numbers (n) AS
                    (SELECT (SELECT max(seq) + 1 FROM purchases) UNION ALL SELECT n + 1 FROM numbers WHERE n < {size}) SELECT n FROM numbers)
                 WHERE p.seq = 1; COMMIT; PRAGMA wal_checkpoint(TRUNCATE)",
                columns.join(", "),
                values.collect::<Vec<_>>().join(", "),
            );
            books.execute_batch(&sql).unwrap();
            drop(books);
            let began = std::time::Instant::now();
            let ledger = SqliteLedger::open(&path).unwrap();
            ledger.stopped().await.unwrap();
            let opened = began.elapsed();
            let mut times = Vec::new();
            let mut first = Duration::ZERO;
            for number in 0..300 {
                let id = format!("new-{size}-{number}");
                let mut entry = order(&id, 10);
                entry.fingerprint = alloy::primitives::keccak256(&id);
                let wish = wish(entry.clone(), at(NOW), limits(entry.fingerprint));
                let began = std::time::Instant::now();
                assert!(matches!(ledger.reserve(&wish).await.unwrap(), Reserved::Held(_)));
                if number == 0 {
                    first = began.elapsed()
                } else {
                    times.push(began.elapsed())
                }
                let key = order(&id, 10).key();
                ledger.record(&key, &signed(NOW + 300), at(NOW)).await.unwrap();
                ledger.record(&key, &settled(), at(NOW)).await.unwrap();
            }
            times.sort();
            let memory = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let memory = memory.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned();
            println!("{size} entries: opened in {opened:?}, first {first:?}, then p50 {:?}, {memory}", times[150]);
            size *= 10;
        }
    }
}

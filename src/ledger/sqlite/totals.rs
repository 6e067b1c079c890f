//! Running totals in the file: what limits add up, so that no reservation reads all that it adds up.
//!
//! A row is of one window of one scope: its sum, the moment after which that sum is, and one before which
//! nothing leaves it. Every write of a purchase changes the sums that it is in; a window moves on when it is asked
//! for, by the charges that left it since. So a charge is added once and leaves each window once, whatever the
//! books hold. Holds are in the sums, at the end of time, and lapsed ones until they are freed. What changed is
//! written once in a transaction, at its end.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::failed;
use super::file::File;
use crate::Timestamp;
use crate::ledger::checks::{Measure, Time, Unit};
use crate::ledger::purchase::without_query;
use crate::ledger::sql::row::Stored;
use crate::ledger::sum::Sum;
use crate::ledger::{Charge, LedgerError, Purchase, Tally};
use crate::policy::limit::{LimitKind, Max, Scope, Span};

/// Beside the tables that all databases share.
pub(super) const TABLE: &str = "
CREATE TABLE totals (
    scope TEXT NOT NULL,
    measure TEXT NOT NULL,
    span TEXT NOT NULL,
    time TEXT NOT NULL CHECK (time = 'spent' OR time = 'reserved' OR time = 'expiring'),
    start INTEGER NOT NULL,
    next INTEGER NOT NULL,
    sum TEXT NOT NULL,
    used_at INTEGER NOT NULL,
    PRIMARY KEY (scope, measure, span)
) STRICT, WITHOUT ROWID;
";

/// Limits on so few payments are counted one by one.
const FEW: u32 = 64;
/// How long a total is kept that no limit asks for any more, in milliseconds.
const UNUSED: i64 = 30 * DAY;
/// How exactly it is known when a total was last asked for.
const DAY: i64 = 86_400_000;

/// Which total: a limit's, but for how much it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) scope: String,
    measure: Measure,
    span: String,
    pub(super) time: Time,
}

/// All that is after `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) start: Timestamp,
    /// What is in the sum is not before this.
    pub(super) next: Timestamp,
    pub(super) sum: Sum,
    used_at: Timestamp,
}

impl Key {
    /// And after which moment. `None` for what is read purchase by purchase: limits on few payments, and
    /// domains, which are other hosts with each public suffix list.
    pub(super) fn of(tally: Tally<'_>, now: Timestamp) -> Option<(Self, Timestamp)> {
        let (time, start) = Time::of(tally.span(), now);
        let kind = tally.kind();
        let counted = matches!((kind.max(), tally.scope()), (Max::Payments(max), Scope::Global | Scope::Request(_)) if max <= FEW);
        if counted && !matches!(kind, LimitKind::Failures(..)) {
            return None;
        }
        let scope = name(tally.scope())?;
        Some((
            Self {
                scope,
                measure: tally.measure(),
                span: kind.to_string(),
                time,
            },
            start.unwrap_or(BEGINNING),
        ))
    }
}

pub(super) const BEGINNING: Timestamp = Timestamp::from_millis(i64::MIN);

impl Total {
    pub(super) const fn new(start: Timestamp, next: Timestamp, sum: Sum, now: Timestamp) -> Self {
        Self {
            start,
            next,
            sum,
            used_at: now,
        }
    }

    /// The same, asked for.
    pub(super) fn used(self, now: Timestamp) -> Self {
        Self {
            used_at: now,
            ..self
        }
    }

    /// Whether it is time to note that it is still in use.
    pub(super) fn was_used_long_ago(&self, now: Timestamp) -> bool {
        now.millis().saturating_sub(self.used_at.millis()) > DAY
    }
}

pub(super) fn find(file: File<'_>, key: &Key) -> Result<Option<Total>, LedgerError> {
    learn(file, &[&key.scope])?;
    Ok(file.known.borrow().total(key))
}

/// Takes a total that began or moved on, and drops those that nothing asks for any more.
pub(super) fn keep(
    file: File<'_>,
    key: &Key,
    total: Total,
    is_new: bool,
) -> Result<(), LedgerError> {
    if is_new {
        write(file)?;
        let mut statement = file
            .books
            .prepare_cached("DELETE FROM totals WHERE used_at < ?")
            .map_err(failed)?;
        if statement
            .execute([total.used_at.millis().saturating_sub(UNUSED)])
            .map_err(failed)?
            > 0
        {
            file.known.borrow_mut().forget_totals();
        }
    }
    // With all others of its scope, which may have been forgotten for a total before it.
    learn(file, &[&key.scope])?;
    file.known.borrow_mut().put_total(key, total);
    Ok(())
}

/// Writes the totals that changed in this transaction, at its end.
pub(super) fn write(file: File<'_>) -> Result<(), LedgerError> {
    let sql = "INSERT INTO totals (scope, measure, span, time, start, next, sum, used_at) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scope, measure, span) DO UPDATE \
               SET start = excluded.start, next = excluded.next, sum = excluded.sum, used_at = excluded.used_at";
    file.known.borrow_mut().write_totals(|key, total| {
        let mut statement = file.books.prepare_cached(sql).map_err(failed)?;
        let Total {
            start,
            next,
            sum,
            used_at,
        } = total;
        let [start, next, used_at] = [start, next, used_at].map(Timestamp::millis);
        let (measure, time, sum) = (key.measure.written(), key.time.written(), sum.to_string());
        let values = params![
            key.scope, measure, key.span, time, start, next, sum, used_at
        ];
        statement.execute(values).map(drop).map_err(failed)
    })?;
    #[cfg(test)]
    assert!(
        file.known.borrow().agrees_with(&all(file.books)?),
        "what is known is what is in the file"
    );
    Ok(())
}

/// Changes every sum that the purchase is in or was in.
pub(super) fn change(
    file: File<'_>,
    before: Option<&Purchase>,
    next: &Purchase,
) -> Result<(), LedgerError> {
    if before.is_some_and(|before| same(before, next)) {
        return Ok(());
    }
    let scopes = names(next);
    // Nearly always the same, and costly to write out.
    let others = before
        .filter(|before| !shares_scopes(before, next))
        .map(names);
    let earlier = before.map(|before| (before, others.as_ref().unwrap_or(&scopes)));
    let also = others
        .iter()
        .flatten()
        .filter(|name| !scopes.contains(*name));
    let all: Vec<&String> = scopes.iter().chain(also).collect();
    learn(file, &all)?;
    let mut known = file.known.borrow_mut();
    for scope in all {
        known.change_totals(scope, |key, total| {
            let part = |entry: &Purchase, scopes: &[String]| {
                let is_in = scopes.contains(scope) && key.adds(entry, total.start);
                if is_in {
                    key.weigh(entry)
                } else {
                    Sum::default()
                }
            };
            let earlier = earlier
                .map(|(before, scopes)| part(before, scopes))
                .unwrap_or_default();
            let added = part(next, &scopes);
            let leaves = if added.is_zero() {
                total.next
            } else {
                total.next.min(key.time.moment(next))
            };
            Total {
                sum: total.sum.minus(earlier).plus(added),
                next: leaves,
                ..total
            }
        });
    }
    Ok(())
}

/// Reads the totals of these scopes, unless they are known.
fn learn(file: File<'_>, scopes: &[&String]) -> Result<(), LedgerError> {
    for scope in scopes {
        if file.known.borrow().knows_totals(scope) {
            continue;
        }
        let mut statement = file
            .books
            .prepare_cached("SELECT * FROM totals WHERE scope = ?")
            .map_err(failed)?;
        let found = read(statement.query([scope]).map_err(failed)?)?;
        file.known.borrow_mut().put_totals((*scope).clone(), found);
    }
    Ok(())
}

fn all(books: &Connection) -> Result<Vec<(Key, Total)>, LedgerError> {
    let mut statement = books.prepare("SELECT * FROM totals").map_err(failed)?;
    read(statement.query([]).map_err(failed)?)
}

impl Key {
    /// Whether the total with this start adds up the entry, if it is in its scope.
    pub(super) fn adds(&self, entry: &Purchase, start: Timestamp) -> bool {
        self.time.adds(entry) && self.time.moment(entry) > start
    }

    fn weigh(&self, entry: &Purchase) -> Sum {
        self.measure
            .weigh(&Charge::of(entry, Span::Ever))
            .unwrap_or_default()
            .into()
    }
}

/// Whether no sum can tell the two apart.
fn same(before: &Purchase, next: &Purchase) -> bool {
    let times = |entry: &Purchase| Time::ALL.map(|time| (time.adds(entry), time.moment(entry)));
    let seen = |entry: &Purchase| (Charge::of(entry, Span::Ever), times(entry));
    seen(before) == seen(next) && shares_scopes(before, next)
}

/// Whether [`names`] says the same of both.
fn shares_scopes(before: &Purchase, next: &Purchase) -> bool {
    before.origin == next.origin
        && before.path == next.path
        && before.payee == next.payee
        && (before.network, before.asset) == (next.network, next.asset)
        && before.fingerprint == next.fingerprint
        && before.tag == next.tag
        && before.agent == next.agent
}

fn read(mut rows: rusqlite::Rows<'_>) -> Result<Vec<(Key, Total)>, LedgerError> {
    let mut totals = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let text = |column| row.get::<_, String>(column).map_err(failed);
        let moment = |column| row.get(column).map(Timestamp::from_millis).map_err(failed);
        let measure = Measure::parse(&text("measure")?).ok_or_else(|| damaged("measure"))?;
        let time = Time::parse(&text("time")?).ok_or_else(|| damaged("time"))?;
        let key = Key {
            scope: text("scope")?,
            measure,
            span: text("span")?,
            time,
        };
        let (start, next, used_at) = (moment("start")?, moment("next")?, moment("used_at")?);
        totals.push((
            key,
            Total {
                start,
                next,
                sum: sum(row)?,
                used_at,
            },
        ));
    }
    Ok(totals)
}

fn sum(row: &rusqlite::Row<'_>) -> Result<Sum, LedgerError> {
    let text = row
        .get_ref("sum")
        .map_err(failed)?
        .as_str()
        .map_err(|_| damaged("sum"))?;
    Sum::parse(text).ok_or_else(|| damaged("sum"))
}

fn damaged(column: &str) -> LedgerError {
    LedgerError::Damaged(format!("totals, column {column}"))
}

/// Adds all totals up again from purchases, to compare.
pub(super) struct Recount {
    totals: HashMap<String, Vec<Recounted>>,
}

struct Recounted {
    key: Key,
    total: Total,
    sum: Sum,
    /// Whether nothing leaves before it is said to.
    stays: bool,
}

impl Recount {
    pub(super) fn begin(books: &Connection) -> Result<Self, LedgerError> {
        let mut totals: HashMap<_, Vec<_>> = HashMap::new();
        for (key, total) in all(books)? {
            let recounted = Recounted {
                key,
                total,
                sum: Sum::default(),
                stays: true,
            };
            totals
                .entry(recounted.key.scope.clone())
                .or_default()
                .push(recounted);
        }
        Ok(Self { totals })
    }

    pub(super) fn add(&mut self, entry: &Purchase) {
        for name in names(entry) {
            for Recounted {
                key,
                total,
                sum,
                stays,
            } in self.totals.get_mut(&name).into_iter().flatten()
            {
                let weight = key.weigh(entry);
                if key.adds(entry, total.start) && !weight.is_zero() {
                    *sum = sum.plus(weight);
                    *stays &= key.time.moment(entry) >= total.next;
                }
            }
        }
    }

    /// Those that are not what the purchases say, by name.
    pub(super) fn wrong(self) -> Vec<String> {
        let all = self.totals.into_values().flatten();
        let wrong =
            all.filter(|recounted| recounted.total.sum != recounted.sum || !recounted.stays);
        let name = |Recounted { key, .. }| {
            format!("{} {} in {}", key.scope, key.span, key.measure.written())
        };
        let mut names: Vec<_> = wrong.map(name).collect();
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
fn names(entry: &Purchase) -> Vec<String> {
    let host = entry.origin.host();
    let above = host
        .match_indices('.')
        .filter_map(|(dot, _)| host.get(dot.saturating_add(1)..));
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
        let (unit, net) = text
            .strip_suffix(" net")
            .map_or((text, false), |unit| (unit, true));
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
            Self::Expiring => "expiring",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|time| time.written() == text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use alloy::primitives::Address;

    use super::super::tests::thread_of;
    use super::super::{Sync, reserve};
    use super::*;
    use crate::ledger::conformance::{
        HOUR, LEASE, NOW, PLACES, at, at_place, hold, lifetime, meter, order, scopes, settled,
        signed, usdc, wish,
    };
    use crate::ledger::purchase::holds;
    use crate::ledger::{Ledger, LedgerFault, NewPurchase, Reserved};
    use crate::policy::limit::Meter;
    use crate::{Network, Usd};

    #[test]
    fn a_scope_has_one_name_and_its_entries_know_it() {
        let scopes = scopes()
            .into_iter()
            .map(|(scope, _)| scope)
            .filter(|scope| name(scope).is_some());
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
        let token = Unit::Token(
            Network::from_chain_id(8453),
            order("order", 1).asset.address(),
        );
        for unit in [Unit::Usd, Unit::Payments, Unit::Failures, token] {
            for net in [false, true] {
                let measure = Measure { unit, net };
                assert_eq!(Measure::parse(&measure.written()), Some(measure));
            }
        }
        assert_eq!(Measure::parse("euro"), None);
    }

    fn open() -> (tempfile::TempDir, Ledger, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("books.db");
        let ledger = Ledger::sqlite(&path).unwrap();
        let other = Connection::open(&path).unwrap();
        (directory, ledger, other)
    }

    fn rows(books: &Connection) -> Vec<(String, String)> {
        let mut statement = books
            .prepare("SELECT span, sum FROM totals ORDER BY span")
            .unwrap();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn rolling(window: Duration) -> Vec<Meter> {
        vec![meter(
            Scope::Global,
            LimitKind::Rolling(window, Usd::MAX.into()),
        )]
    }

    #[tokio::test]
    async fn a_total_that_was_changed_is_found() {
        let (_directory, ledger, other) = open();
        ledger
            .reserve(&wish(order("one", 10), at(NOW), lifetime(100)))
            .await
            .unwrap();
        hold(&ledger, order("two", 30), NOW).await;
        assert_eq!(rows(&other), [("lifetime".to_owned(), "40".to_owned())]);
        assert!(ledger.verify(None).await.unwrap().is_sound());
        other.execute_batch("UPDATE totals SET sum = '39'").unwrap();
        let wrong = LedgerFault::TotalChanged {
            total: "global lifetime in usd".to_owned(),
        };
        assert_eq!(ledger.verify(None).await.unwrap().faults, [wrong]);
    }

    fn tagged(tag: &str) -> Vec<Meter> {
        vec![meter(
            Scope::Tag(tag.to_owned()),
            LimitKind::Lifetime(Usd::MAX.into()),
        )]
    }

    /// Asks for a total, and for others so much later that the first is forgotten at the moment returned.
    async fn leave_one_unused(ledger: &Ledger, others: Vec<Meter>) -> Timestamp {
        const ONE_DAY: u64 = 86_400;
        ledger
            .reserve(&wish(order("one", 10), at(NOW), tagged("unused")))
            .await
            .unwrap();
        ledger
            .reserve(&wish(order("two", 10), at(NOW + 29 * ONE_DAY), others))
            .await
            .unwrap();
        at(NOW + 31 * ONE_DAY)
    }

    #[tokio::test]
    async fn what_changed_is_written_before_totals_are_forgotten() {
        let (_directory, ledger, other) = open();
        let now = leave_one_unused(&ledger, lifetime(100)).await;
        let (three, four) = (
            wish(order("three", 30), now, lifetime(100)),
            wish(order("four", 10), now, tagged("new")),
        );
        let both = move |file: File<'_>| reserve(file, &three).and_then(|_| reserve(file, &four));
        thread_of(&ledger).write(Sync::Now, both).await.unwrap();
        let scopes = |books: &Connection| -> String {
            books
                .query_row("SELECT group_concat(scope) FROM totals", [], |row| {
                    row.get(0)
                })
                .unwrap()
        };
        assert_eq!(scopes(&other), "global,tag new", "the unused one is gone");
        assert!(ledger.verify(None).await.unwrap().is_sound());
    }

    #[tokio::test]
    async fn totals_that_were_forgotten_are_read_again_with_all_others_of_their_scope() {
        let (_directory, ledger, _other) = open();
        let now = leave_one_unused(&ledger, [lifetime(100), rolling(HOUR)].concat()).await;
        let new_first = [tagged("new"), lifetime(100)].concat();
        ledger
            .reserve(&wish(order("three", 30), now, new_first))
            .await
            .unwrap();
        assert!(ledger.verify(None).await.unwrap().is_sound());
    }

    #[tokio::test]
    async fn a_total_that_would_not_let_go_is_found() {
        let (_directory, ledger, other) = open();
        let key = order("one", 10).key();
        ledger
            .reserve(&wish(order("one", 10), at(NOW), rolling(HOUR)))
            .await
            .unwrap();
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
        ledger.record(&key, &settled(), at(NOW)).await.unwrap();
        let next: i64 = other
            .query_row("SELECT next FROM totals", [], |row| row.get(0))
            .unwrap();
        let bought = ledger.purchase(&key).await.unwrap().unwrap();
        assert_eq!(next, bought.counts_at.millis());
        assert!(ledger.verify(None).await.unwrap().is_sound());
        other
            .execute_batch("UPDATE totals SET next = next + 1")
            .unwrap();
        let wrong = LedgerFault::TotalChanged {
            total: "global rolling 1h in usd".to_owned(),
        };
        assert_eq!(ledger.verify(None).await.unwrap().faults, [wrong]);
    }

    #[tokio::test]
    async fn a_total_that_cannot_be_read_stops_paying() {
        let (_directory, ledger, other) = open();
        ledger
            .reserve(&wish(order("one", 10), at(NOW), lifetime(100)))
            .await
            .unwrap();
        for damage in ["sum = '-1'", "sum = ''", "measure = 'euro'"] {
            other
                .execute_batch(&format!("UPDATE totals SET {damage}"))
                .unwrap();
            let refused = ledger
                .reserve(&wish(order("two", 10), at(NOW), lifetime(100)))
                .await;
            assert!(
                matches!(refused, Err(LedgerError::Damaged(_))),
                "{damage}: {refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_hold_that_lapsed_leaves_the_totals_that_it_is_not_taken_into_again() {
        let first = || NewPurchase {
            tag: Some("t".to_owned()),
            agent: Some("a".to_owned()),
            ..order("order", 10)
        };
        let changes: [fn(&mut NewPurchase); 6] = [
            |entry| entry.origin = "https://b.example.com".parse().unwrap(),
            |entry| entry.path = "/other".to_owned(),
            |entry| entry.payee = Address::repeat_byte(9),
            |entry| entry.asset = usdc(Network::from_chain_id(84_532)),
            |entry| entry.tag = None,
            |entry| entry.agent = Some("b".to_owned()),
        ];
        for (number, change) in changes.iter().enumerate() {
            let (_directory, ledger, other) = open();
            let mut next = first();
            change(&mut next);
            let scopes = |entry: &NewPurchase| {
                let tag = entry.tag.clone().map(Scope::Tag);
                let asset = Scope::Asset(entry.asset.network(), entry.asset.address());
                let resource = Scope::Resource(entry.origin.clone(), entry.path.clone());
                [
                    Scope::Payee(entry.payee),
                    asset,
                    resource,
                    Scope::Agent(entry.agent.clone().unwrap()),
                ]
                .into_iter()
                .chain(tag)
            };
            let limit = |scope| meter(scope, LimitKind::Lifetime(Usd::MAX.into()));
            for (entry, now) in [
                (first(), at(NOW)),
                (next.clone(), at(NOW).after(LEASE).after(HOUR)),
            ] {
                let meters = scopes(&first()).chain(scopes(&next)).map(limit).collect();
                let held = ledger.reserve(&wish(entry, now, meters)).await.unwrap();
                assert!(matches!(held, Reserved::Held(_)), "{number}: {held:?}");
            }
            let verified = ledger.verify(None).await.unwrap();
            assert!(verified.is_sound(), "{number}: {verified:?}");
            assert!(
                rows(&other).iter().any(|(_, sum)| sum == "0"),
                "{number}: the totals that it left are kept"
            );
        }
    }

    #[tokio::test]
    async fn a_total_that_no_limit_asks_for_is_dropped_after_a_month() {
        let (_directory, ledger, other) = open();
        let day = 86_400;
        ledger
            .reserve(&wish(
                order("one", 10),
                at(NOW),
                [lifetime(100), rolling(HOUR)].concat(),
            ))
            .await
            .unwrap();
        for number in 1..20 {
            let wish = wish(
                order(&format!("then-{number}"), 1),
                at(NOW + 2 * number * day),
                lifetime(100),
            );
            ledger.reserve(&wish).await.unwrap();
        }
        let kept = |books: &Connection| {
            rows(books)
                .into_iter()
                .map(|(span, _)| span)
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(&other), ["lifetime", "rolling 1h"]);
        let other_window = wish(order("last", 1), at(NOW + 39 * day), rolling(2 * HOUR));
        ledger.reserve(&other_window).await.unwrap();
        assert_eq!(kept(&other), ["lifetime", "rolling 2h"]);
        let denied = ledger
            .reserve(&wish(order("more", 81), at(NOW + 39 * day), lifetime(100)))
            .await
            .unwrap();
        assert!(
            matches!(denied, Reserved::Held(_)),
            "the holds of others have lapsed: {denied:?}"
        );
    }
}

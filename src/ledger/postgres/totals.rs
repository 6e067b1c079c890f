//! Running totals in the database, so that no reservation adds up all charges of a scope.
//!
//! A total has the meaning of [`limit::Total`](crate::limit): the sum of the charges of one scope after a start, in one
//! unit, reservations included. The server itself changes the totals with the purchases, by triggers, so no write needs
//! another round trip, and no program can forget it. A check moves a total on when its window has moved.
//!
//! The total of a registrable domain is that of its hosts, one by one.

use crate::clock::Timestamp;
use crate::ledger::LedgerError;
use crate::ledger::sql::Value;
use crate::ledger::sql::query::{FAILED, Query, counted};
use crate::ledger::sql::row::{Stored, integer, reversed};
use crate::ledger::sql::scope::{condition, indexed_scope};
use crate::limit::{Scope, Since, Unit, Window};

/// The table, and the triggers that keep it. `scope`, `unit` and `span` are the keys of the limit kernel.
///
/// A statement that writes many purchases changes each total once. The functions have the rights of their owner, so a role
/// that writes purchases needs none on the table but to read it. Without `enable_seqscan`, the server would keep a plan
/// for a table that was small.
const TABLES: &str = r#"
CREATE TABLE totals (
    scope TEXT COLLATE "C" NOT NULL,
    unit TEXT COLLATE "C" NOT NULL,
    span TEXT COLLATE "C" NOT NULL,
    moment TEXT NOT NULL,
    after BIGINT NOT NULL,
    next BIGINT NOT NULL,
    sum NUMERIC NOT NULL,
    PRIMARY KEY (scope, unit, span)
) WITH (fillfactor = 50);

CREATE FUNCTION host_of(reversed TEXT, labels BIGINT) RETURNS TEXT LANGUAGE sql IMMUTABLE AS $$
    SELECT string_agg(label, '.' ORDER BY place DESC)
    FROM unnest(string_to_array(reversed, '.')) WITH ORDINALITY AS parts (label, place) WHERE place <= labels
$$;
"#;

/// Whether the role that calls a function with the rights of its owner can write purchases. The name of the schema is quoted.
pub(super) const WRITES: &str = "has_table_privilege(CAST(coalesce(nullif(current_setting('role'), 'none'), session_user) AS name), \
    '{schema}.purchases', 'INSERT')";

/// The functions that version 13 changed. Those who only read purchases cannot write a total.
///
/// `scopes_of` returns the scopes that count a purchase. The server would plan a function in SQL for each row, which took nine
/// tenths of the time of a trigger.
const FUNCTIONS: &str = r#"
CREATE OR REPLACE FUNCTION keep_total(scope TEXT, unit TEXT, span TEXT, moment TEXT, after BIGINT, next BIGINT, sum NUMERIC)
RETURNS BOOLEAN LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    INSERT INTO totals SELECT $1, $2, $3, $4, $5, $6, $7 WHERE {writes} ON CONFLICT (scope, unit, span)
    DO UPDATE SET after = excluded.after, next = excluded.next, sum = excluded.sum RETURNING true
$$;

CREATE OR REPLACE FUNCTION scopes_of(origin TEXT, host_reversed TEXT, network TEXT, asset TEXT, payee TEXT, tag TEXT, agent TEXT)
RETURNS TEXT[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    scopes TEXT[] := ARRAY['global', 'origin ' || origin, 'payee ' || payee, 'asset ' || network || ' ' || asset,
        'network ' || network, 'tag ' || tag, 'agent ' || agent];
    host TEXT;
    label TEXT;
BEGIN
    FOREACH label IN ARRAY string_to_array(host_reversed, '.') LOOP
        IF host IS NULL THEN
            host := label;
        ELSE
            scopes := scopes || ('host *.' || host);
            host := label || '.' || host;
        END IF;
    END LOOP;
    RETURN scopes || ('host ' || host);
END
$$;
"#;

/// A function that changes the totals. `{changes}` are rows of purchases with a sign.
const FUNCTION: &str = r"
CREATE FUNCTION {name}() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {schema}, pg_temp SET enable_seqscan = off AS $$
BEGIN
    UPDATE totals t SET sum = t.sum + d.part, next = least(t.next, d.next)
    FROM (
        SELECT scope, unit, span, sum(part * sign) AS part, min(at) FILTER (WHERE sign = 1) AS next
        FROM ({parts}) AS parts GROUP BY scope, unit, span
    ) AS d
    WHERE t.scope = d.scope AND t.unit = d.unit AND t.span = d.span AND (d.part <> 0 OR d.next < t.next);
    RETURN NULL;
END
$$;
CREATE TRIGGER {name} AFTER {event} ON purchases REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION {name}();
";

/// The parts of the totals that rows of purchases have.
const PARTS: &str = "
    SELECT t.scope, t.unit, t.span, t.next, c.sign, p.at, p.part
    FROM ({changes}) AS c
    CROSS JOIN LATERAL unnest(scopes_of(c.origin, c.host_reversed, c.network, c.asset, c.payee, c.tag, c.agent)) AS s (scope)
    JOIN totals t ON t.scope = s.scope
    CROSS JOIN LATERAL (SELECT
        CASE t.moment WHEN 'counts_at' THEN c.counts_at WHEN 'reserved_at' THEN c.reserved_at
            ELSE CASE WHEN c.state <> 'settled' AND c.state <> 'api_call' THEN c.expires_at END END AS at,
        CASE t.unit WHEN 'usd' THEN {micros} WHEN 'usd net' THEN {net_micros}
            WHEN 'payments' THEN {payments} WHEN 'failures' THEN {failures}
            WHEN c.network || ' ' || c.asset THEN {units} WHEN c.network || ' ' || c.asset || ' net' THEN {net_units}
            ELSE 0 END AS part) AS p
    WHERE p.at > t.after AND p.part > 0";

const MICROS: &str = "CAST(coalesce(verified_usd_micros, usd_micros) AS NUMERIC)";
/// As in [`Charge`](crate::limit::Charge), the part that a refund pays back is rounded down.
const NET_MICROS: &str = "greatest(coalesce(verified_usd_micros, usd_micros) \
    - coalesce(div(coalesce(verified_usd_micros, usd_micros) * CAST(refunded AS NUMERIC), \
        nullif(CAST(coalesce(verified_charge, value) AS NUMERIC), 0)), 0), 0)";
const UNITS: &str = "CAST(coalesce(verified_charge, value) AS NUMERIC)";
const NET_UNITS: &str =
    "greatest(CAST(coalesce(verified_charge, value) AS NUMERIC) - CAST(refunded AS NUMERIC), 0)";
const PAYMENTS: &str = "CASE WHEN state <> 'api_call' THEN 1 ELSE 0 END";

fn failures() -> String {
    format!("CASE WHEN {FAILED} THEN 1 ELSE 0 END")
}

/// Returns [`PARTS`] of the rows that `changes` selects.
fn parts(changes: &str) -> String {
    PARTS
        .replace("{changes}", changes)
        .replace("{micros}", MICROS)
        .replace("{net_micros}", NET_MICROS)
        .replace("{payments}", PAYMENTS)
        .replace("{failures}", &failures())
        .replace("{units}", UNITS)
        .replace("{net_units}", NET_UNITS)
}

/// Returns the SQL that creates the totals in a schema, whose name is quoted.
pub(super) fn create(schema: &str) -> String {
    let new = "SELECT *, 1 AS sign FROM new_rows WHERE live = 1";
    let both = format!("{new} UNION ALL SELECT *, -1 AS sign FROM old_rows WHERE live = 1");
    let function = |name: &str, event: &str, tables: &str, changes: &str| {
        FUNCTION
            .replace("{name}", name)
            .replace("{event}", event)
            .replace("{tables}", tables)
            .replace("{parts}", &parts(changes))
    };
    let added = function("add_to_totals", "INSERT", "NEW TABLE AS new_rows", new);
    let changed = function(
        "change_totals",
        "UPDATE",
        "NEW TABLE AS new_rows OLD TABLE AS old_rows",
        &both,
    );
    let more = [TABLES, &added, &changed].join("\n");
    [more.replace("{schema}", schema), renew(schema)].join("\n")
}

/// Returns the SQL that replaces functions of version 12. The schema is quoted.
pub(super) fn renew(schema: &str) -> String {
    FUNCTIONS
        .replace("{writes}", WRITES)
        .replace("{schema}", schema)
}

/// Lets those who can read purchases read the totals, after a migration.
pub(super) const GRANTS: &str = "
DO $$
DECLARE reader TEXT;
BEGIN
    FOR reader IN SELECT DISTINCT grantee FROM information_schema.role_table_grants
        WHERE table_schema = current_schema() AND table_name = 'purchases' AND privilege_type = 'SELECT'
    LOOP
        IF reader = 'PUBLIC' THEN GRANT SELECT ON totals TO PUBLIC;
        ELSE EXECUTE format('GRANT SELECT ON totals TO %I', reader);
        END IF;
    END LOOP;
END
$$;
";

/// Returns the query of the totals that differ from the sums of their purchases, as `total`. It reads all purchases.
pub(super) fn wrong() -> Query {
    let all = parts("SELECT *, 1 AS sign FROM purchases WHERE live = 1");
    let sql = format!(
        "SELECT CAST(0 AS BIGINT) AS seq, t.scope || ', ' || t.span || ', ' || t.unit AS total FROM totals t \
         LEFT JOIN (SELECT scope, unit, span, sum(part) AS sum, min(at) AS first FROM ({all}) AS parts \
             GROUP BY scope, unit, span) AS d \
         ON t.scope = d.scope AND t.unit = d.unit AND t.span = d.span \
         WHERE t.sum <> coalesce(d.sum, 0) OR d.first < t.next ORDER BY t.scope, t.span, t.unit"
    );
    Query {
        sql: sql.into(),
        values: Vec::new(),
    }
}

/// The time of a check, and the purchase that must not be among the results.
pub(super) struct Check {
    pub(super) now: Timestamp,
    pub(super) except: Option<u64>,
    /// Whether totals that begin or move on are kept. A transaction that only reads cannot.
    pub(super) keeps: bool,
}

/// Whether the server keeps totals of the scope. The purchases of one request are few, and those of a resource are
/// read by its origin.
pub(super) const fn keeps(scope: &Scope) -> bool {
    !matches!(scope, Scope::Request(_) | Scope::Resource(..))
}

/// Returns the query of [`Usage::total`](crate::limit::Usage::total) for a scope that the server [keeps].
///
/// Each row has `total`, and `host_reversed` if the scope is a registrable domain: add up those of its hosts.
pub(super) fn total(
    check: &Check,
    scope: &Scope,
    (since, window): (Since, &Window),
    unit: Unit,
) -> Result<Query, LedgerError> {
    let (at, counted) = counted(since.moment);
    let moment = since.moment.key();
    let except: Value = check
        .except
        .map_or(Ok(0), |seq| integer(seq, "seq"))?
        .into();
    let (hosts, source, mut values) = match scope {
        Scope::Domain(domain) => of_domain(domain),
        _ => (String::new(), ONE_SCOPE, Vec::new()),
    };
    let is_domain = matches!(scope, Scope::Domain(_));
    values.extend([
        unit.key().into(),
        window.key().into(),
        since.after.millis().into(),
        check.now.millis().into(),
    ]);
    if !is_domain {
        values.push(scope.key().into());
    }
    let in_scope = |scope: &Scope| match scope {
        Scope::Domain(_) => ("host_reversed = c.host_reversed", Vec::new()),
        _ => condition(scope),
    };
    let part = match unit {
        Unit::Usd { net: false } => MICROS.to_owned(),
        Unit::Usd { net: true } => NET_MICROS.to_owned(),
        Unit::Token { net: false, .. } => UNITS.to_owned(),
        Unit::Token { net: true, .. } => NET_UNITS.to_owned(),
        Unit::Payments => PAYMENTS.to_owned(),
        Unit::Failures => failures(),
    };
    let (of_token, token): (_, Vec<Value>) = match unit {
        Unit::Token { network, asset, .. } => (
            "network = ? AND asset = ?",
            vec![network.written().into(), asset.written().into()],
        ),
        _ => ("true", Vec::new()),
    };
    let (of_scope, keys) = in_scope(scope);
    let mut sum = |condition: &str, rest: Option<&Value>| {
        values.extend(keys.iter().chain(&token).chain(rest).cloned());
        format!(
            "(SELECT coalesce(sum({part}), 0) FROM purchases WHERE live = 1 AND {counted} \
             AND {of_scope} AND {of_token} AND {condition})"
        )
    };
    // A window that moved by more than its length shares nothing with its old place.
    let is_far = format!(
        "'{moment}' <> 'expires_at' AND CAST(c.start AS NUMERIC) - c.after > CAST(c.now AS NUMERIC) - c.start"
    );
    let all = sum(&format!("{at} > c.start"), None);
    let back = sum(&format!("{at} > c.start AND {at} <= c.after"), None);
    let left = sum(&format!("{at} > c.after AND {at} <= c.start"), None);
    let lapsed = sum(
        &format!("{at} > c.start AND state = 'reserved' AND lease_until <= c.now AND seq <> ?"),
        Some(&except),
    );
    // The sum keeps the server from the index by time, in which it would read the whole window.
    let excepted = match check.except {
        Some(_) => sum(&format!("{at} + 0 > c.start AND seq = ?"), Some(&except)),
        None => "0".to_owned(),
    };
    let kept = if check.keeps {
        let (of_wider, keys) = in_scope(&indexed_scope(scope, since.moment));
        values.extend(keys);
        format!(
            ", CASE WHEN c.is_moved THEN keep_total(c.scope, c.unit, c.span, '{moment}', c.start, \
             CASE WHEN c.current = 0 THEN {MAX} ELSE coalesce((SELECT {at} FROM purchases WHERE live = 1 AND {counted} \
             AND {of_wider} AND {at} > c.start ORDER BY {at} LIMIT 1), {MAX}) END, c.current) END AS kept"
        )
    } else {
        String::new()
    };
    let sql = format!(
        "WITH RECURSIVE {hosts} asked AS (SELECT CAST(? AS TEXT) AS unit, CAST(? AS TEXT) AS span, \
             CAST(? AS BIGINT) AS start, CAST(? AS BIGINT) AS now, s.scope, s.host_reversed FROM {source} AS s), \
         known AS MATERIALIZED (SELECT a.*, k.after, k.next, k.sum FROM asked AS a \
             LEFT JOIN totals AS k ON k.scope = a.scope AND k.unit = a.unit AND k.span = a.span), \
         moved AS MATERIALIZED (SELECT c.*, c.sum IS NULL OR (c.start > c.after AND c.start >= c.next) AS is_moved, \
             CASE WHEN c.sum IS NULL OR (c.start > c.after AND c.start >= c.next AND c.sum > 0 AND {is_far}) THEN {all} \
             WHEN c.start < c.after THEN c.sum + {back} \
             WHEN c.start = c.after OR c.start < c.next OR c.sum = 0 THEN c.sum \
             ELSE c.sum - {left} END AS current FROM known AS c) \
         SELECT CAST(0 AS BIGINT) AS seq, c.host_reversed, CAST(c.current - {lapsed} - {excepted} AS TEXT) AS total{kept} \
         FROM moved AS c"
    );
    Ok(Query {
        sql: sql.into(),
        values,
    })
}

/// The end of time.
const MAX: i64 = i64::MAX;
const ONE_SCOPE: &str = "(SELECT CAST(? AS TEXT) AS scope, '' AS host_reversed)";
const EACH_HOST: &str = "(SELECT 'host ' || host_of(host_reversed, 9223372036854775807) AS scope, host_reversed \
    FROM hosts WHERE host_reversed IS NOT NULL)";

/// Returns the hosts of the ledger that could belong to a domain, found by steps from one to the next in an index.
fn of_domain(domain: &str) -> (String, &'static str, Vec<Value>) {
    let first = reversed(domain);
    // `/` is the byte after the dot.
    let end = format!("{first}/");
    let next = |after: &str| {
        format!(
            "(SELECT host_reversed FROM purchases WHERE live = 1 AND host_reversed {after} AND host_reversed < ? \
             ORDER BY host_reversed LIMIT 1)"
        )
    };
    let hosts = format!(
        "hosts (host_reversed) AS ({} UNION ALL SELECT {} FROM hosts AS last WHERE last.host_reversed IS NOT NULL),",
        next(">= ?"),
        next("> last.host_reversed"),
    );
    let values = vec![first.into(), end.clone().into(), end.into()];
    (hosts, EACH_HOST, values)
}

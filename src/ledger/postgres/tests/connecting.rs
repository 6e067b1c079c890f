//! Connecting: schemas, roles, settings and TLS.

use super::*;

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn purchases_are_kept_when_a_client_connects_again() {
    let (schema, ledger) = new_schema().await;
    let key = hold(&ledger, order("order", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    let before = format!("{:?}", ledger.purchase(&key).await.unwrap());
    drop(ledger);
    let ledger = Ledger::postgres_in(&url(), &schema).await.unwrap();
    assert_eq!(
        format!("{:?}", ledger.purchase(&key).await.unwrap()),
        before
    );
    let next = ledger
        .reserve(&wish(order("next", 1), at(NOW), lifetime(10)))
        .await
        .unwrap();
    assert!(matches!(next, Reserved::Denied(_)), "{next:?}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn schemas_of_others_are_refused_and_untouched() {
    let refused = async |schema: &str| {
        Ledger::postgres_in(&url(), schema)
            .await
            .expect_err("it is refused")
    };
    let (taken, ledger) = new_schema().await;
    drop(ledger);
    meddle(&taken, "UPDATE bursar_schema SET version = version + 1").await;
    assert!(matches!(
        refused(&taken).await,
        LedgerError::Newer { known: VERSION, .. }
    ));
    meddle(&taken, "UPDATE bursar_schema SET version = 1").await;
    assert!(matches!(refused(&taken).await, LedgerError::Damaged(_)));
    let foreign = schema();
    meddle(
        "public",
        &format!("CREATE SCHEMA {foreign}; CREATE VIEW {foreign}.notes AS SELECT 1"),
    )
    .await;
    assert!(matches!(refused(&foreign).await, LedgerError::Damaged(_)));
    let relations =
        format!("SELECT count(*) FROM pg_class WHERE relnamespace = '{foreign}'::regnamespace");
    assert_eq!(number("public", &relations).await, 1);
    for name in ["", "Ledger", "a\"; DROP", "pg_ledger", &"x".repeat(64)] {
        assert!(
            matches!(refused(name).await, LedgerError::Store(_)),
            "{name}"
        );
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn many_may_lay_out_a_schema_at_once() {
    for _ in 0..5 {
        let schema = schema();
        let open = || {
            let schema = schema.clone();
            tokio::spawn(async move { Ledger::postgres_in(&url(), &schema).await.map(drop) })
        };
        let opened: Vec<_> = (0..8).map(|_| open()).collect();
        for opened in opened {
            opened.await.unwrap().unwrap();
        }
        assert_eq!(number(&schema, "SELECT count(*) FROM chain_head").await, 1);
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_server_that_cannot_be_written_to_is_refused() {
    let url = format!("{} options='-c default_transaction_read_only=on'", url());
    let answer = Ledger::postgres_in(&url, &schema()).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_server_that_becomes_read_only_holds_nothing_until_it_is_not() {
    let (schema, ledger) = new_schema().await;
    meddle(&schema, &format!("CREATE ROLE {schema} LOGIN SUPERUSER")).await;
    let url = format!("{} user={schema}", url());
    let as_role = Ledger::postgres_in(&url, &schema).await.unwrap();
    let admin = other("public").await;
    let reconnect = async |setting: &str| {
        admin
            .batch_execute(&format!(
                "ALTER ROLE {schema} SET default_transaction_read_only = {setting}"
            ))
            .await
            .unwrap();
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
        admin.query(kill, &[&schema]).await.unwrap();
    };
    reconnect("on").await;
    let wish = wish(order("order", 10), at(NOW), lifetime(10));
    let answer = as_role.reserve(&wish).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    assert!(ledger.purchases(&Filter::all()).await.unwrap().is_empty());
    reconnect("off").await;
    assert!(matches!(
        as_role.reserve(&wish).await.unwrap(),
        Reserved::Held(_)
    ));
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_role_that_cannot_forget_is_enough() {
    let (schema, _) = new_schema().await;
    let url = paying_role(&schema).await;
    let ledger = Ledger::postgres_in(&url, &schema).await.unwrap();
    let key = hold(&ledger, order("order", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    assert!(ledger.verify(None).await.unwrap().is_sound());
    // It pays also if it cannot count denials.
    let denial = crate::limit::Denial::new(crate::limit::Rule::Host, "not on the list");
    ledger.note_denial(&denial, "a.example");
    assert!(ledger.record_denials().await.is_err());
    let unwritten = ledger.denials().await.unwrap();
    assert_eq!(
        unwritten.iter().map(|denials| denials.count).sum::<u64>(),
        1
    );
    hold(&ledger, order("next", 10), NOW).await;
    meddle(
        &schema,
        &format!("GRANT INSERT, UPDATE ON denials TO {schema}"),
    )
    .await;
    ledger.record_denials().await.unwrap();
    let client = other_by(&url, &schema).await;
    for sql in [
        "UPDATE events SET at = 0",
        "DELETE FROM events",
        "DELETE FROM purchases",
        "DELETE FROM chain_head",
    ] {
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(
            error.code(),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            "{sql}"
        );
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn commits_are_on_disk_whatever_the_server_says() {
    let (_, ledger) = new_schema().await;
    let url = format!(
        "{} options='-c synchronous_commit=off -c search_path=public'",
        url()
    );
    let careless = Ledger::postgres_in(&url, &schema()).await.unwrap();
    for ledger in [ledger, careless] {
        let database = database_of(&ledger);
        let settings = database.write_settings().await.unwrap();
        let mut lease = database.pool.get().await.unwrap();
        let link = lease.link().unwrap();
        link.begin(settings).await.unwrap();
        let client = link.client();
        let show = async |name: &str| {
            let shown = client.query_one(&format!("SHOW {name}"), &[]).await;
            shown.unwrap().get::<_, String>(0)
        };
        assert_eq!(show("synchronous_commit").await, "on");
        assert_eq!(show("transaction_isolation").await, "serializable");
        assert_eq!(show("statement_timeout").await, "10s");
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn no_error_contains_a_secret() {
    let (schema, ledger) = new_schema().await;
    let key = hold(&ledger, order("order", 10), NOW).await;
    meddle(
        &schema,
        "ALTER TABLE purchases ADD CONSTRAINT refuse CHECK (payload IS NULL)",
    )
    .await;
    // The server's own details quote the whole row.
    let error = ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap_err();
    assert!(!format!("{error:?} {error}").contains(PAYLOAD), "{error:?}");
    assert!(error.to_string().contains("23514"), "{error}");
    for url in [
        "postgresql://agent:geheim@127.0.0.1:1/ledger?sslmode=disable",
        "postgresql://agent:geheim@127.0.0.1:1/ledger?geheim=1",
        "host=127.0.0.1 password=geheim gehe im",
        "postgresql://agent:geheim@/%zz",
    ] {
        let error = Ledger::postgres(url).await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("gehe"), "{error:?}");
    }
    assert_eq!(format!("{ledger:?}"), "Ledger(\"postgres\")");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_server_over_tls_is_the_one_it_says_it_is() {
    let url = std::env::var("BURSAR_TEST_POSTGRES_TLS").expect("run by tests/postgres/run");
    let ledger = Ledger::postgres_in(&format!("{url} host=localhost"), &schema())
        .await
        .unwrap();
    hold(&ledger, order("order", 10), NOW).await;
    let mut lease = database_of(&ledger).pool.get().await.unwrap();
    let client = lease.link().unwrap().client();
    let tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(client.query_one(tls, &[]).await.unwrap().get::<_, bool>(0));
    // The certificate is of localhost alone.
    let answer = Ledger::postgres_in(&format!("{url} host=127.0.0.1"), &schema()).await;
    assert!(
        matches!(&answer, Err(LedgerError::Store(error)) if error.to_string().contains("TLS")),
        "{answer:?}"
    );
}

#[test]
fn servers_elsewhere_are_spoken_to_over_tls() {
    use tokio_postgres::config::SslMode;

    for (url, mode) in [
        ("postgresql://h/ledger", SslMode::Require),
        ("postgresql://10.0.0.1/ledger", SslMode::Require),
        ("postgresql://localhost,h/ledger", SslMode::Require),
        ("postgresql://h/ledger?sslmode=disable", SslMode::Disable),
        ("postgresql://localhost/ledger", SslMode::Prefer),
        ("postgresql://127.0.0.1/ledger", SslMode::Prefer),
        ("host=/run/postgresql dbname=ledger", SslMode::Prefer),
    ] {
        assert_eq!(
            pool::with_defaults(url.parse().unwrap(), TIMEOUT).get_ssl_mode(),
            mode,
            "{url}"
        );
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_schema_is_created_when_the_ledger_is_first_used() {
    let schema = schema();
    let exists = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{schema}'");
    let postgres = Postgres::new(&url(), &schema).unwrap();
    let ledger = Ledger::new(Backend::Postgres(postgres));
    assert_eq!(number("public", &exists).await, 0);
    let calls = (0..4).map(|_| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.purchases(&Filter::all()).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap().unwrap().is_empty());
    }
    assert_eq!(number("public", &exists).await, 1);
    hold(&ledger, order("order", 10), NOW).await;
}

/// Removes the functions of version 13, and the tables and functions of version 12.
const NO_TOTALS: &str = "DROP TABLE totals; DROP FUNCTION add_to_totals CASCADE; \
    DROP FUNCTION change_totals CASCADE; DROP FUNCTION keep_total; DROP FUNCTION keep_index; DROP FUNCTION scopes_of; DROP FUNCTION host_of;";

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_schema_without_totals_gets_them_when_it_is_opened_and_its_readers_can_read_them() {
    let (schema, ledger) = new_schema().await;
    ledger
        .reserve(&wish(order("first", 60), at(NOW), lifetime(100)))
        .await
        .unwrap();
    drop(ledger);
    let reader = format!("reader_{schema}");
    let role = format!(
        "CREATE ROLE {reader}; GRANT SELECT ON purchases TO {reader}; \
         UPDATE bursar_schema SET version = 11;"
    );
    meddle(&schema, &[NO_TOTALS, role.as_str()].concat()).await;
    let ledger = Ledger::postgres_in(&url(), &schema).await.unwrap();
    let denied = ledger
        .reserve(&wish(order("second", 41), at(NOW), lifetime(100)))
        .await;
    assert!(matches!(denied, Ok(Reserved::Denied(_))), "{denied:?}");
    ledger
        .reserve(&wish(order("second", 40), at(NOW), lifetime(100)))
        .await
        .unwrap();
    assert!(ledger.verify(None).await.unwrap().is_sound());
    let can_read = format!(
        "SELECT CASE WHEN has_table_privilege('{reader}', 'totals', 'SELECT') THEN 1::bigint ELSE 0 END"
    );
    assert_eq!(number(&schema, &can_read).await, 1);
    let total = "SELECT sum::bigint FROM totals WHERE scope = 'global'";
    assert_eq!(number(&schema, total).await, 100);
    let role = format!("DROP OWNED BY {reader}; DROP ROLE {reader}");
    meddle(&schema, &role).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_schema_of_version_10_is_migrated_when_it_is_opened() {
    let (schema, ledger) = new_schema().await;
    let key = hold(&ledger, order("order", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    let call = crate::ledger::conformance::windows::by_key(order("call", 5), "key");
    hold(&ledger, call, NOW).await;
    let all = Filter::all();
    let before = ledger.purchases(&all).await.unwrap();
    let head = ledger.verify(None).await.unwrap().head;
    drop(ledger);
    let columns = crate::ledger::sql::tables::NEW_COLUMNS
        .map(|(name, _)| format!("ALTER TABLE purchases DROP COLUMN {name};"));
    let version = "UPDATE bursar_schema SET version = 10;";
    meddle(
        &schema,
        &[columns.join("\n").as_str(), NO_TOTALS, version].concat(),
    )
    .await;

    let ledger = Ledger::postgres_in(&url(), &schema).await.unwrap();
    let after = ledger.purchases(&all).await.unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    assert!(ledger.verify(Some(head)).await.unwrap().is_sound());
    hold(&ledger, order("next", 10), NOW).await;
    assert!(ledger.verify(Some(head)).await.unwrap().is_sound());
    let found = number(&schema, "SELECT version FROM bursar_schema").await;
    assert_eq!(found, VERSION);
}

/// The function of version 12.
const SCOPES_12: &str = "CREATE OR REPLACE FUNCTION scopes_of(origin TEXT, host_reversed TEXT, network TEXT, asset TEXT, \
        payee TEXT, tag TEXT, agent TEXT) \
    RETURNS TEXT[] LANGUAGE sql IMMUTABLE AS $$ \
    SELECT ARRAY['global', 'origin ' || origin, 'payee ' || payee, 'asset ' || network || ' ' || asset, \
        'network ' || network, 'tag ' || tag, 'agent ' || agent, 'host ' || host_of(host_reversed, 9223372036854775807)] \
        || ARRAY(SELECT 'host *.' || host_of(host_reversed, n) \
            FROM generate_series(1, cardinality(string_to_array(host_reversed, '.')) - 1) AS n) \
    $$";

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_schema_of_version_12_keeps_its_indices_and_counts_the_same_scopes() {
    const ASKED: &str = "scopes_of('o', $1, 'n', 'a', 'p', NULL, 'agent')";
    let (schema, ledger) = indexed_schema().await;
    ledger
        .reserve(&wish(order("first", 60), at(NOW), lifetime(100)))
        .await
        .unwrap();
    drop(ledger);
    let back = format!(
        "DROP FUNCTION scopes_of; DROP FUNCTION keep_index; {SCOPES_12}; UPDATE bursar_schema SET version = 12"
    );
    meddle(&schema, &back).await;
    let scopes = async || {
        let client = other(&schema).await;
        let mut all = Vec::new();
        for host in ["com.example.api", "localhost", "[::1]", "1.0.0.127", "a..b"] {
            let sql = format!("SELECT ARRAY(SELECT unnest({ASKED}) AS s ORDER BY s)");
            let row = client.query_one(&sql, &[&host]).await.unwrap();
            all.push(row.get::<_, Vec<Option<String>>>(0));
        }
        all
    };
    let before = scopes().await;
    let ledger = Ledger::postgres_in(&url(), &schema).await.unwrap();
    assert_eq!(scopes().await, before);
    let version = number(&schema, "SELECT version FROM bursar_schema").await;
    assert_eq!(version, VERSION);
    let denied = ledger
        .reserve(&wish(order("second", 41), at(NOW), lifetime(100)))
        .await;
    assert!(matches!(denied, Ok(Reserved::Denied(_))), "{denied:?}");
    hold(&ledger, order("third", 40), NOW).await;
    assert!(ledger.verify(None).await.unwrap().is_sound());
    let by_scope = "SELECT count(*) FROM pg_indexes WHERE schemaname = current_schema() AND indexname LIKE 'by\\_%'";
    assert_eq!(number(&schema, by_scope).await, 13);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_ledger_on_a_server_gets_an_index_when_a_limit_reads_it() {
    let (schema, ledger) = new_schema().await;
    let has = async |name: &str| {
        let sql = format!(
            "SELECT count(*) FROM pg_indexes WHERE schemaname = '{schema}' AND tablename = 'purchases' AND indexname = '{name}'"
        );
        number(&schema, &sql).await == 1
    };
    drop(ledger);
    // The role does not own the table.
    let as_role = paying_role(&schema).await;
    let open = async || Ledger::postgres_in(&as_role, &schema).await.unwrap();
    let ledger = open().await;
    for name in indices::names() {
        assert!(!has(name).await, "{name}");
    }
    let reserve = async |ledger: &Ledger, id: &str, limits| {
        let held = ledger.reserve(&wish(order(id, 10), at(NOW), limits)).await;
        assert!(matches!(held, Ok(Reserved::Held(_))), "{held:?}");
    };
    reserve(&ledger, "one", lifetime(1000)).await;
    assert!(has("by_counts_at").await);
    assert!(!has("by_payee").await);
    let payee = crate::limit::Scope::Payee(order("two", 10).payee);
    let limits = || {
        let kind = crate::limit::LimitKind::Payments(crate::ledger::conformance::HOUR, 3);
        vec![crate::ledger::conformance::meter(payee.clone(), kind)]
    };
    // A denial needs it as well, and the index outlives the denied change.
    let none = crate::limit::LimitKind::Payments(crate::ledger::conformance::HOUR, 0);
    let none = vec![crate::ledger::conformance::meter(payee.clone(), none)];
    let denied = ledger.reserve(&wish(order("no", 10), at(NOW), none)).await;
    assert!(matches!(denied, Ok(Reserved::Denied(_))), "{denied:?}");
    assert!(has("by_reserved_at").await || has("by_payee").await);
    reserve(&ledger, "two", limits()).await;
    reserve(&open().await, "three", limits()).await;
    assert!(!has("by_agent").await);
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_ledger_whose_indices_cannot_be_created_pays_all_the_same() {
    let (schema, ledger) = new_schema().await;
    meddle(&schema, "DROP FUNCTION keep_index").await;
    for (id, micros) in [("one", 60), ("two", 40)] {
        let held = ledger
            .reserve(&wish(order(id, micros), at(NOW), lifetime(100)))
            .await;
        assert!(matches!(held, Ok(Reserved::Held(_))), "{held:?}");
    }
    let denied = ledger
        .reserve(&wish(order("three", 1), at(NOW), lifetime(100)))
        .await;
    assert!(matches!(denied, Ok(Reserved::Denied(_))), "{denied:?}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_role_that_only_reads_writes_no_total_and_creates_no_index() {
    let (schema, ledger) = new_schema().await;
    hold(&ledger, order("none", 10), NOW).await;
    ledger
        .reserve(&wish(order("first", 50), at(NOW), lifetime(100)))
        .await
        .unwrap();
    let as_role = reading_role(&schema).await;
    let client = other_by(&as_role, &schema).await;
    client
        .batch_execute("SELECT keep_total(scope, unit, span, moment, after, next, 0) FROM totals")
        .await
        .unwrap();
    let refused = client
        .batch_execute("SELECT keep_index('by_tag')")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    let denied = ledger
        .reserve(&wish(order("second", 41), at(NOW), lifetime(100)))
        .await;
    assert!(matches!(denied, Ok(Reserved::Denied(_))), "{denied:?}");
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn programs_that_migrate_a_schema_at_the_same_time_all_open_it() {
    let (schema, ledger) = new_schema().await;
    hold(&ledger, order("order", 10), NOW).await;
    drop(ledger);
    meddle(&schema, "UPDATE bursar_schema SET version = 12").await;
    let opening = (0..8).map(|_| {
        let schema = schema.clone();
        tokio::spawn(async move {
            let ledger = Ledger::postgres_in(&url(), &schema).await?;
            ledger.purchases(&Filter::all()).await
        })
    });
    for opened in opening.collect::<Vec<_>>() {
        assert_eq!(opened.await.unwrap().unwrap().len(), 1);
    }
    let version = number(&schema, "SELECT version FROM bursar_schema").await;
    assert_eq!(version, VERSION);
}

//! The tables, in the SQL of SQLite. PostgreSQL replaces the names of the types.

/// The oldest version that bursar migrates when it opens the ledger.
pub(in crate::ledger) const OLDEST: i64 = 10;

/// The columns of version 11 with their values for a purchase of version 10, which could be signed by EIP-3009 alone.
pub(in crate::ledger) const NEW_COLUMNS: [(&str, &str); 4] = [
    ("payment_method", "'eip3009'"),
    ("claimed_charge", "NULL"),
    ("verified_charge", "NULL"),
    ("verified_usd_micros", "NULL"),
];

/// Texts are canonical (lower-case hexadecimal, decimals without leading zeros), so that SQL can
/// compare them. Times are in milliseconds since 1970, and `valid_before` is in seconds.
///
/// * `host_reversed` is `com.example.api`. All hosts below a domain are therefore one range.
/// * Indices leave out voided and released purchases. Those never count again, and would pile up at
///   the maximum time, which is the `counts_at` of a hold. The condition is `live` and not `state`,
///   so that a purchase keeps its place in an index when its state changes.
/// * An index that ends in `seq` finds one row: the first or the last.
/// * Every payer can use an id, and `reserve` looks an id up for all of them. Their index begins with it.
/// * Rows are never deleted, so no `seq` is used twice.
/// * A purchase names its last event. Events therefore need no second index, in which every write
///   would touch another page.
/// * `verified_charge` and `verified_usd_micros` count in place of `value` and `usd_micros`.
/// * `payment_method` of a request with an API key is `eip3009` and means nothing. It has no default: a program of version 10 that still has the ledger open can add no purchase to it.
/// * `denials` has a bounded number of rows. It is not in the chain of hashes, because nothing is decided by it.
/// * There is no `IN`: SQLite would build a table from its list with every write.
pub(in crate::ledger) const TABLES: &str = "
CREATE TABLE purchases (
    seq INTEGER PRIMARY KEY,
    purchase TEXT NOT NULL,
    generation INTEGER NOT NULL,
    payer TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state = 'settled' OR state = 'signed' OR state = 'reserved' OR state = 'rejected' OR state = 'unresolved'
            OR state = 'api_call' OR state = 'voided' OR state = 'released_by_proof'),
    live INTEGER NOT NULL CHECK (live = CASE WHEN state = 'voided' OR state = 'released_by_proof' THEN 0 ELSE 1 END),
    fingerprint TEXT NOT NULL,
    identifier TEXT NOT NULL,
    origin TEXT NOT NULL,
    host_reversed TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    foreign_resource TEXT,
    version INTEGER NOT NULL,
    network TEXT NOT NULL,
    asset TEXT NOT NULL,
    symbol TEXT NOT NULL,
    decimals INTEGER NOT NULL,
    payee TEXT NOT NULL,
    value TEXT NOT NULL,
    usd_micros INTEGER CHECK (usd_micros >= 0),
    nonce TEXT NOT NULL,
    tag TEXT,
    agent TEXT,
    credential TEXT,
    reserved_at INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    presenter_lease_until INTEGER NOT NULL,
    counts_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    valid_before INTEGER,
    status INTEGER,
    reason TEXT,
    claimed_transaction TEXT,
    verified_transaction TEXT,
    proof TEXT,
    answer TEXT,
    terms TEXT,
    refunds TEXT NOT NULL,
    refunded TEXT NOT NULL,
    payload TEXT,
    payment_method TEXT NOT NULL
        CHECK (payment_method = 'eip3009' OR payment_method = 'permit2' OR payment_method = 'upto'),
    claimed_charge TEXT,
    verified_charge TEXT,
    verified_usd_micros INTEGER,
    last_event INTEGER NOT NULL,
    UNIQUE (purchase, payer),
    UNIQUE (payer, network, asset, nonce),
    CHECK (state <> 'api_call' OR credential IS NOT NULL),
    CHECK (credential IS NULL OR state = 'api_call' OR state = 'voided'),
    CHECK (state <> 'reserved' OR (counts_at = 9223372036854775807 AND expires_at = 9223372036854775807))
) STRICT;

CREATE INDEX by_reserved_at ON purchases (reserved_at) WHERE live = 1;
CREATE INDEX by_expires_at ON purchases (expires_at)
    WHERE live = 1 AND state <> 'settled' AND state <> 'api_call';
CREATE INDEX by_credential ON purchases (credential, live, reserved_at, seq) WHERE credential IS NOT NULL;
CREATE INDEX by_seller ON purchases (origin, network, asset, seq) WHERE live = 1;

CREATE INDEX by_request ON purchases (fingerprint, reserved_at) WHERE live = 1;
CREATE INDEX undelivered ON purchases (fingerprint, expires_at, seq)
    WHERE state = 'signed' OR state = 'rejected' OR state = 'unresolved' OR (state = 'settled' AND (status IS NULL OR status < 200 OR status >= 400));
CREATE INDEX unproven ON purchases (seq)
    WHERE state = 'signed' OR state = 'rejected' OR state = 'unresolved' OR (state = 'settled' AND proof IS NULL);

CREATE TABLE frozen (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    reason TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT;

CREATE TABLE denials (
    rule TEXT NOT NULL,
    host TEXT NOT NULL,
    count INTEGER NOT NULL CHECK (count > 0),
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (rule, host)
) STRICT;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    payer TEXT NOT NULL,
    purchase TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    detail TEXT NOT NULL CHECK (json_valid(detail)),
    purchase_hash TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
";

-- The tables of a ledger as a careful person writes them by hand: purchases, their events, and one row that holds the
-- limit's sum and the end of the chain.
CREATE SCHEMA by_hand;
CREATE TABLE by_hand.head (seq BIGINT NOT NULL, spent BIGINT NOT NULL, hash TEXT NOT NULL);
INSERT INTO by_hand.head VALUES (0, 0, '');
CREATE TABLE by_hand.purchases (id TEXT PRIMARY KEY, state TEXT NOT NULL, origin TEXT NOT NULL, payee TEXT NOT NULL,
    amount BIGINT NOT NULL, counts_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, payload TEXT);
CREATE INDEX ON by_hand.purchases (counts_at);
CREATE TABLE by_hand.events (seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, purchase TEXT NOT NULL, state TEXT NOT NULL,
    facts TEXT NOT NULL, hash TEXT NOT NULL);

-- One purchase in two transactions, each under the lock of one row: the amount is held with its signed payload, then the
-- outcome is recorded. The hashes are not computed.
\set n random(1, 9000000000000000)
BEGIN;
SELECT seq, spent, hash FROM head FOR UPDATE;
INSERT INTO purchases VALUES ('hand-' || (:n)::bigint::text, 'signed', 'https://api.example.com',
    '0x209693bc6afc0c5328ba36faf03c514ef312287c', 1000, (extract(epoch FROM now()) * 1000)::bigint,
    (extract(epoch FROM now()) * 1000)::bigint + 360000, repeat('p', 1000));
INSERT INTO events SELECT seq + 1, (extract(epoch FROM now()) * 1000)::bigint, 'hand-' || (:n)::bigint::text, 'signed',
    repeat('f', 600), repeat('b', 66) FROM head;
UPDATE head SET seq = seq + 1, spent = spent + 1000, hash = repeat('b', 66) WHERE spent + 1000 <= 1000000000000;
COMMIT;
BEGIN;
SELECT seq, spent, hash FROM head FOR UPDATE;
UPDATE purchases SET state = 'settled', payload = NULL WHERE id = 'hand-' || (:n)::bigint::text;
INSERT INTO events SELECT seq + 1, (extract(epoch FROM now()) * 1000)::bigint, 'hand-' || (:n)::bigint::text, 'settled',
    repeat('f', 300), repeat('c', 66) FROM head;
UPDATE head SET seq = seq + 1, hash = repeat('c', 66);
COMMIT;

-- Version 1: what an empty file becomes. One transaction, opened and ended by connection.py.
--
-- A message is a row of exactly one of ready, delayed, leased, dead; to change its state is to move the row within one
-- transaction. All times are seconds since the epoch; `level` is 9 - priority, so that ascending order is reading order.
-- `body` stands last: a row that is looked at without it does not touch the pages a large body spills into.
-- AUTOINCREMENT where a number must never come back, also after its row has gone.

CREATE TABLE namespace (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    last_sweep  REAL,               -- when, and since when without a gap: model/lapse.py
    swept_since REAL
);

CREATE TABLE queue (
    id        INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL REFERENCES namespace,
    name      TEXT NOT NULL,
    ready     INTEGER NOT NULL DEFAULT 0,    -- how many rows it has there, kept up by every transaction that moves some:
    delayed   INTEGER NOT NULL DEFAULT 0,    -- counting a backlog of millions would hold up whoever waits for the connection
    UNIQUE (namespace, name)
);

-- Read in the order of its key. New work goes behind all of its level, with ranks from 1; what comes back goes before all, with
-- ranks from 0 downwards. So `since` grows with the rank from 1 on, and the oldest message is found without a scan.
CREATE TABLE ready (
    queue      INTEGER NOT NULL,
    level      INTEGER NOT NULL,
    rank       INTEGER NOT NULL,
    id         TEXT NOT NULL,
    is_named   INTEGER NOT NULL,    -- its producer chose the id: see named
    visibility REAL,                -- NULL: the consumer's default
    since      REAL NOT NULL,       -- waiting since
    state      BLOB NOT NULL,
    sig        BLOB,
    body       BLOB NOT NULL,
    PRIMARY KEY (queue, level, rank)
) WITHOUT ROWID;

CREATE TABLE delayed (
    number     INTEGER PRIMARY KEY,
    namespace  INTEGER NOT NULL,
    due        REAL NOT NULL,
    queue      INTEGER NOT NULL,
    level      INTEGER NOT NULL,
    id         TEXT NOT NULL,
    is_named   INTEGER NOT NULL,
    visibility REAL,
    state      BLOB NOT NULL,
    sig        BLOB,
    body       BLOB NOT NULL
);
CREATE INDEX delayed_by_due ON delayed (namespace, due, number);

-- In flight, so small: what is searched for by holder or by time is found by a scan once a second, and claims pay for no index.
-- `state` is as it was before this hand-out: the hand-out itself is counted by whoever reads the row (model/lapse.py).
CREATE TABLE leased (
    token      INTEGER PRIMARY KEY AUTOINCREMENT,
    holder     TEXT NOT NULL,
    ends       REAL NOT NULL,
    is_started INTEGER NOT NULL,    -- a suspect, marked: its lapse is a death
    queue      INTEGER NOT NULL,
    level      INTEGER NOT NULL,
    rank       INTEGER NOT NULL,
    id         TEXT NOT NULL,
    is_named   INTEGER NOT NULL,
    visibility REAL,
    since      REAL NOT NULL,
    state      BLOB NOT NULL,
    sig        BLOB,
    body       BLOB NOT NULL
);

CREATE TABLE dead (
    number     INTEGER PRIMARY KEY,
    queue      INTEGER NOT NULL,
    dead_at    REAL NOT NULL,
    level      INTEGER NOT NULL,
    id         TEXT NOT NULL,
    is_named   INTEGER NOT NULL,
    visibility REAL,
    reason     TEXT NOT NULL,
    meta       BLOB NOT NULL,       -- msgpack
    state      BLOB NOT NULL,
    sig        BLOB,
    body       BLOB NOT NULL
);
CREATE INDEX dead_by_time ON dead (queue, dead_at, number);
CREATE INDEX dead_by_id ON dead (queue, id);

-- The last publication of each sender, kept 10 minutes, so that a repeated one adds nothing.
CREATE TABLE sender (
    namespace INTEGER NOT NULL,
    name      TEXT NOT NULL,
    number    INTEGER NOT NULL,
    at        REAL NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;

-- Ids chosen by producers; ended_at is NULL while the task is pending, and the row goes an hour after its end.
CREATE TABLE named (
    namespace INTEGER NOT NULL,
    id        TEXT NOT NULL,
    ended_at  REAL,
    PRIMARY KEY (namespace, id)
) WITHOUT ROWID;
CREATE INDEX named_by_end ON named (namespace, ended_at);

CREATE TABLE result (
    namespace      INTEGER NOT NULL,
    id             TEXT NOT NULL,
    state          TEXT NOT NULL,
    queue          TEXT,
    replay_count   INTEGER NOT NULL,    -- these four, in this order, decide between two writers: model/lifecycle.py
    attempt        INTEGER NOT NULL,
    delivery_count INTEGER NOT NULL,
    finality       INTEGER NOT NULL,
    created_at     REAL NOT NULL,
    updated_at     REAL NOT NULL,
    expires_at     REAL NOT NULL,
    facts          BLOB NOT NULL,       -- msgpack: error, retryable, meta
    payload        BLOB,
    PRIMARY KEY (namespace, id)
) WITHOUT ROWID;
CREATE INDEX result_by_time ON result (namespace, updated_at);    -- for listings and for expiry

CREATE TABLE revocation (
    version      INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace    INTEGER NOT NULL,
    task_id      TEXT NOT NULL,
    terminate    INTEGER NOT NULL,
    reason       TEXT,
    requested_by TEXT,
    issued_at    REAL NOT NULL,
    expires_at   REAL,
    UNIQUE (namespace, task_id)
);

CREATE TABLE lock (
    fence      INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace  INTEGER NOT NULL,
    key        TEXT NOT NULL,
    owner      TEXT NOT NULL,
    expires_at REAL NOT NULL,
    UNIQUE (namespace, key)
);

CREATE TABLE heartbeat (
    namespace  INTEGER NOT NULL,
    worker     TEXT NOT NULL,
    expires_at REAL NOT NULL,
    snapshot   BLOB NOT NULL,           -- msgpack
    PRIMARY KEY (namespace, worker)
) WITHOUT ROWID;

CREATE TABLE control (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace  INTEGER NOT NULL,
    channel    TEXT NOT NULL,
    expires_at REAL NOT NULL,
    message    BLOB NOT NULL
);
CREATE INDEX control_by_channel ON control (namespace, channel, number);

-- Version 1: what an empty schema becomes. Here and in all our SQL, @name is a table or sequence of the schema in use.
--
-- A message is a row of exactly one of ready, delayed, leased, dead; to change its state is to move the row within one
-- statement (docs/decisions/0015-messages-move-between-tables-in-postgres.md). Times are seconds since the epoch by the
-- server's clock; `level` is 9 - priority, so that ascending order is reading order. Ids and names compare as bytes.

CREATE TABLE @namespace (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text COLLATE "C" NOT NULL UNIQUE,
    last_sweep  double precision,    -- when, and since when without a gap: model/lapse.py
    swept_since double precision
) WITH (fillfactor = 50);

CREATE TABLE @queue (
    id        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace integer NOT NULL REFERENCES @namespace,
    name      text COLLATE "C" NOT NULL,
    replayed  integer NOT NULL DEFAULT 0,    -- dead letters, since a sweep last told of them
    UNIQUE (namespace, name)
);

-- What came later has a greater number; used as it is for new work, and with a minus for what comes back.
CREATE SEQUENCE @number AS bigint;

-- Read in the order of its key. New work goes behind all of its level, what comes back before all. `since` grows with the rank
-- from 1 on, so the oldest message is found without a scan. Rows are never updated, only inserted and deleted.
CREATE TABLE @ready (
    rank       bigint NOT NULL,
    visibility double precision,            -- NULL: the consumer's default
    since      double precision NOT NULL,   -- waiting since
    queue      integer NOT NULL,
    level      smallint NOT NULL,
    marks      smallint NOT NULL,           -- 1: its producer chose the id, see named; 2: it holds a key until its end, see claim
    id         text COLLATE "C" NOT NULL,
    state      bytea NOT NULL,
    sig        bytea,
    body       bytea NOT NULL,
    PRIMARY KEY (queue, level, rank)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = false             -- which takes a lock that holds up everybody
);

CREATE TABLE @delayed (
    due        double precision NOT NULL,
    number     bigint NOT NULL,
    visibility double precision,
    namespace  integer NOT NULL,
    queue      integer NOT NULL,
    level      smallint NOT NULL,
    marks      smallint NOT NULL,
    id         text COLLATE "C" NOT NULL,
    state      bytea NOT NULL,
    sig        bytea,
    body       bytea NOT NULL,
    PRIMARY KEY (namespace, due, number)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = false
);

-- In flight, so small. No index on `ends`: a renewal then rewrites its row in place (HOT), and leaves no index entry behind.
-- `state` is as it was before this hand-out: the hand-out itself is counted by whoever reads the row (model/lapse.py).
CREATE TABLE @leased (
    token      bigint PRIMARY KEY,
    ends       double precision NOT NULL,
    visibility double precision,
    since      double precision NOT NULL,
    namespace  integer NOT NULL,
    queue      integer NOT NULL,
    level      smallint NOT NULL,
    marks      smallint NOT NULL,
    is_started boolean NOT NULL,            -- a suspect, marked: its lapse is a death
    holder     text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    state      bytea NOT NULL,
    sig        bytea,
    body       bytea NOT NULL
) WITH (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = false
);

CREATE TABLE @dead (
    number     bigint PRIMARY KEY,
    dead_at    double precision NOT NULL,
    visibility double precision,
    namespace  integer NOT NULL,
    queue      integer NOT NULL,
    level      smallint NOT NULL,
    marks      smallint NOT NULL,
    id         text COLLATE "C" NOT NULL,
    reason     text NOT NULL,
    meta       bytea NOT NULL,              -- msgpack
    state      bytea NOT NULL,
    sig        bytea,
    body       bytea NOT NULL
);
CREATE INDEX ON @dead (queue, dead_at, number);
CREATE INDEX ON @dead (queue, id);

-- The last publication of each sender, kept 10 minutes, so that a repeated one adds nothing. Rows follow one another instead of
-- being updated: while somebody keeps a transaction open, a row updated at every publication would be ever slower to find.
CREATE TABLE @sender (
    at        double precision NOT NULL,
    number    bigint NOT NULL,
    namespace integer NOT NULL,
    name      text COLLATE "C" NOT NULL,
    answer    bytea,                         -- msgpack: which tasks met another that holds their key, and that one's id
    PRIMARY KEY (namespace, name, number)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- Ids chosen by producers; ended_at is NULL while the task is pending, and the row goes an hour after its end.
CREATE TABLE @named (
    ended_at  double precision,
    namespace integer NOT NULL,
    id        text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, id)
);
CREATE INDEX ON @named (namespace, ended_at);

-- The keys that unique tasks hold: model/uniqueness.py. ends_at is NULL where it is with the task.
CREATE TABLE @claim (
    claimed_at double precision NOT NULL,
    ends_at    double precision,
    refusals   integer NOT NULL,
    namespace  integer NOT NULL,
    queue      integer NOT NULL,
    key        text COLLATE "C" NOT NULL,
    owner      text COLLATE "C" NOT NULL,
    duplicates bytea NOT NULL,              -- msgpack
    PRIMARY KEY (queue, key)
);
CREATE INDEX ON @claim (queue, owner);
CREATE INDEX ON @claim (namespace, ends_at) WHERE ends_at IS NOT NULL;

CREATE TABLE @result (
    created_at     double precision NOT NULL,
    updated_at     double precision NOT NULL,
    expires_at     double precision NOT NULL,
    namespace      integer NOT NULL,
    replay_count   integer NOT NULL,        -- these four, in this order, decide between two writers: model/lifecycle.py
    attempt        integer NOT NULL,
    delivery_count integer NOT NULL,
    finality       smallint NOT NULL,
    id             text COLLATE "C" NOT NULL,
    state          text COLLATE "C" NOT NULL,
    queue          text COLLATE "C",
    facts          bytea NOT NULL,          -- msgpack: error, retryable, meta
    payload        bytea,
    PRIMARY KEY (namespace, id)
);
CREATE INDEX ON @result (namespace, updated_at);    -- for listings and for expiry

CREATE SEQUENCE @version AS bigint;

CREATE TABLE @revocation (
    version      bigint NOT NULL,
    issued_at    double precision NOT NULL,
    expires_at   double precision,
    namespace    integer NOT NULL,
    terminate    boolean NOT NULL,
    task_id      text COLLATE "C" NOT NULL,
    reason       text,
    requested_by text,
    PRIMARY KEY (namespace, task_id)
);
CREATE INDEX ON @revocation (namespace, version);

CREATE TABLE @pause (
    paused_at    double precision NOT NULL,
    namespace    integer NOT NULL,
    queue        text COLLATE "C" NOT NULL,
    reason       text,
    requested_by text,
    PRIMARY KEY (namespace, queue)
);

CREATE SEQUENCE @fence AS bigint;

CREATE TABLE @lock (
    fence      bigint NOT NULL,
    expires_at double precision NOT NULL,
    namespace  integer NOT NULL,
    key        text COLLATE "C" NOT NULL,
    owner      text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, key)
) WITH (fillfactor = 80);

CREATE TABLE @rate (
    full_at   double precision NOT NULL,
    line_ends double precision NOT NULL,
    ends_at   double precision NOT NULL,
    namespace integer NOT NULL,
    key       text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, key)
) WITH (fillfactor = 80);

-- The places of concurrency limits, and the lines of those that wait for one: model/concurrency.py.
CREATE TABLE @place (
    ends_at   double precision NOT NULL,
    namespace integer NOT NULL,
    key       text COLLATE "C" NOT NULL,
    holder    text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, key, holder)
) WITH (fillfactor = 80);

CREATE TABLE @line (
    line_ends  double precision NOT NULL,
    next_since double precision NOT NULL,
    next_until double precision NOT NULL,
    namespace  integer NOT NULL,
    key        text COLLATE "C" NOT NULL,
    next_task  text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, key)
) WITH (fillfactor = 80);

CREATE TABLE @heartbeat (
    expires_at double precision NOT NULL,
    namespace  integer NOT NULL,
    worker     text COLLATE "C" NOT NULL,
    snapshot   bytea NOT NULL,              -- msgpack
    PRIMARY KEY (namespace, worker)
) WITH (fillfactor = 50);

CREATE TABLE @control (
    number     bigint GENERATED ALWAYS AS IDENTITY,
    expires_at double precision NOT NULL,
    namespace  integer NOT NULL,
    channel    text COLLATE "C" NOT NULL,
    message    bytea NOT NULL,
    PRIMARY KEY (namespace, channel, number)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

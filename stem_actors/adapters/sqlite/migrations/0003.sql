-- Version 3: paused queues.

CREATE TABLE pause (
    namespace    INTEGER NOT NULL,
    queue        TEXT NOT NULL,
    reason       TEXT,
    requested_by TEXT,
    paused_at    REAL NOT NULL,
    PRIMARY KEY (namespace, queue)
) WITHOUT ROWID;

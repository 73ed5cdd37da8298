-- Version 2: how many dead letters of a queue were replayed since a sweep last told of them.

ALTER TABLE queue ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0;

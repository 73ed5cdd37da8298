#!lua flags=allow-oom
-- Replace a worker's snapshot, also on a server that is full: nothing grows.
--
-- KEYS    1 heartbeats (hash)
-- ARGV    worker, snapshot
-- Result  1 for a worker that had none

return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])

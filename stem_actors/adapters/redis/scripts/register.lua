#!lua flags=allow-oom
-- List queues, so that they are swept: also on a server that is full, since that is how it drains.
--
-- KEYS    1 queues (set)
-- ARGV    their names
-- Result  how many were not listed

return redis.call('SADD', KEYS[1], unpack(ARGV))

#!lua flags=allow-oom
-- Remove dead letters for good.
--
-- KEYS    1 the queue's meta hash
-- ARGV    members
-- Result  how many

local queue = string.sub(KEYS[1], 1, -5)
redis.call('HDEL', queue .. 'dead:tasks', unpack(ARGV))
return redis.call('ZREM', queue .. 'dead', unpack(ARGV))

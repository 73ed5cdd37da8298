#!lua flags=allow-oom
-- Free places of concurrency limits.
--
-- KEYS    the places of semaphores (sorted sets)
-- ARGV    for each place: which of KEYS, holder
-- Result  0

for at = 1, #ARGV, 2 do redis.call('ZREM', KEYS[tonumber(ARGV[at])], ARGV[at + 1]) end
return 0

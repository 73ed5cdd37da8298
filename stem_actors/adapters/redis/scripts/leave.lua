#!lua flags=allow-oom
-- Wait no longer. Who was woken in vain meanwhile passes that on.
--
-- KEYS    1 the queue's meta hash
-- ARGV    the consumer's channel
-- Result  0

local queue = string.sub(KEYS[1], 1, -5)
if redis.call('LREM', queue .. 'waiters', 0, ARGV[1]) == 0 then wake(queue, 1) end
return 0

#!lua flags=allow-oom
-- Pause queues, also on a server that is full; one that is paused already keeps its time.
--
-- KEYS    1 pauses (hash by queue: since when, in 16 digits of ms, then the rest)
-- ARGV    now or '', the rest, queues
-- Result  0

local now = clock(ARGV[1])
for at = 3, #ARGV do
    local old = redis.call('HGET', KEYS[1], ARGV[at])
    local since = old and string.match(old, '^' .. string.rep('%d', 16)) or string.format('%016.0f', now)
    redis.call('HSET', KEYS[1], ARGV[at], since .. ARGV[2])
end
return 0

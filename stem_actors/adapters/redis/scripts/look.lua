#!lua flags=allow-oom
-- How many messages of a queue could be fetched now. For consumers of several queues, which share a fetch among those with work.
--
-- KEYS    1 the queue's meta hash
-- ARGV    now or '', the consumer's channel or ''; it is listed among those to be woken when there is nothing
-- Result  how many, ms until something falls due or -1

local queue = string.sub(KEYS[1], 1, -5)
local now = clock(ARGV[1])
local due = next_due(queue)
if due and due <= now then
    promote(queue, now, 1000)
    due = next_due(queue)
end
local ready = ready_count(queue)
if ready == 0 and ARGV[2] ~= '' and not redis.call('LPOS', queue .. 'waiters', ARGV[2]) then
    redis.call('RPUSH', queue .. 'waiters', ARGV[2])
end
return {ready, due and math.max(0, due - now) or -1}

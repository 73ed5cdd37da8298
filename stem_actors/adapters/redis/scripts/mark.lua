#!lua flags=allow-oom
-- Note that a suspect has started: the pending entry's own counter becomes 2. Its lease is not prolonged.
--
-- KEYS    1 the queue's meta hash
-- ARGV    consumer, lane, id
-- Result  1 when it is held, else 0

local queue = string.sub(KEYS[1], 1, -5)
local holder, lane, id = ARGV[1], ARGV[2], ARGV[3]
local row = owned(queue, lane, holder, id, id, {id})[id]
if not row then return 0 end
redis.call('XCLAIM', queue .. lane, GROUP, holder, 0, id, 'IDLE', row[3], 'RETRYCOUNT', 2, 'JUSTID')
return 1

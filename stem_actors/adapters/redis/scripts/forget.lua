#!lua flags=allow-oom
-- What a namespace need not remember any longer: senders, chosen ids, control messages, heartbeats.
--
-- KEYS    1 senders (hash), 2 names (sorted set), 3 channels (sorted set by when their last message expires)
-- ARGV    now or '', cursor into the senders, ms for which senders are kept, ms for which names are kept
-- Result  the cursor to go on from

local now = clock(ARGV[1])
local page = redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', 1000)
local fields, old = page[2], {}
for at = 1, #fields, 2 do
    local published = tonumber(string.match(fields[at + 1], ' (%d+)$') or 0)
    if published <= now - tonumber(ARGV[3]) then old[#old + 1] = fields[at] end
end
if #old > 0 then redis.call('HDEL', KEYS[1], unpack(old)) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[4]))
local silent = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 1000)
for _, stream in ipairs(silent) do redis.call('DEL', stream) end
if #silent > 0 then redis.call('ZREM', KEYS[3], unpack(silent)) end
return page[1]

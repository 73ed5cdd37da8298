#!lua flags=no-writes,allow-oom
-- Counts of a queue.
--
-- KEYS    1 the queue's meta hash
-- ARGV    now or ''
-- Result  pending, in flight, delayed, dead, ms for which the oldest waits or -1

local queue = string.sub(KEYS[1], 1, -5)
local now = clock(ARGV[1])
local ready, leased, oldest = 0, 0, nil
for _, level in ipairs(levels_of(queue)) do
    for _, kind in ipairs({'b', 'p'}) do
        local stream = queue .. kind .. level
        local length = redis.call('XLEN', stream)
        local pending, read_to = 0, '0-0'
        local groups = redis.pcall('XINFO', 'GROUPS', stream)
        if not groups.err then
            for _, group in ipairs(groups) do
                if field(group, 'name') == GROUP then pending = field(group, 'pending'); read_to = field(group, 'last-delivered-id') end
            end
        end
        leased = leased + pending
        ready = ready + length - pending
        if length > pending then
            -- What is new waits in its order; what came back does not, but there is little of it.
            for _, entry in ipairs(redis.call('XRANGE', stream, '(' .. read_to, '+', 'COUNT', kind == 'p' and 1 or 1000)) do
                local since = tonumber(parse_header(entry[2]) or '')
                if since and (not oldest or since < oldest) then oldest = since end
            end
        end
    end
end
local delayed, dead = redis.call('ZCARD', queue .. 'delayed'), redis.call('ZCARD', queue .. 'dead')
return {ready, leased, delayed, dead, oldest and math.max(0, now - oldest) or -1}

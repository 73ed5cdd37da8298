#!lua flags=allow-oom
-- What nobody waits for, every half minute: forget consumers that left nothing pending, find streams nobody lists, and say
-- whether the queue can be forgotten altogether.
--
-- KEYS    1 the queue's meta hash
-- ARGV    now or '', ms for which an empty queue is remembered, ms for which an idle consumer is
-- Result  1: it held nothing for so long and its keys are gone; else 0

local queue = string.sub(KEYS[1], 1, -5)
local now = clock(ARGV[1])
for digit = 0, 9 do
    if redis.call('EXISTS', queue .. 'p' .. digit, queue .. 'b' .. digit) > 0 then use_level(queue, tostring(digit)) end
end
local is_empty = redis.call('EXISTS', queue .. 'delayed', queue .. 'dead') == 0
local streams = {}
for _, level in ipairs(levels_of(queue)) do
    for _, kind in ipairs({'b', 'p'}) do
        local stream = queue .. kind .. level
        streams[#streams + 1] = stream
        if redis.call('XLEN', stream) > 0 then is_empty = false end
        local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP)
        if consumers.err then consumers = {} end
        for _, consumer in ipairs(consumers) do
            if field(consumer, 'pending') == 0 then
                if field(consumer, 'idle') >= tonumber(ARGV[3]) then
                    redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, (field(consumer, 'name')))
                end
            else
                is_empty = false
            end
        end
    end
end
if not is_empty then
    redis.call('HDEL', KEYS[1], 'empty')
    return 0
end
local since = tonumber(redis.call('HGET', KEYS[1], 'empty') or '')
if not since or since > now then
    redis.call('HSET', KEYS[1], 'empty', string.format('%.0f', now))
    return 0
end
if now - since < tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[1], queue .. 'waiters', unpack(streams))
return 1

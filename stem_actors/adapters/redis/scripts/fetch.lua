#!lua flags=allow-oom
-- Lease the next messages of a queue to a consumer: highest priority first, what came back before what is new.
--
-- KEYS    1 the queue's meta hash
-- ARGV    now or '', consumer, how many at most, 1 to take the lowest level first, the consumer's channel or '' if it will not wait
-- Result  ms until something falls due or -1, the server's time, then lane, entries, lane, entries …
-- A consumer that finds nothing is listed among those to be woken, in the same step: no message slips in between.

local given, holder, limit, lowest_first, channel = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]
local queue = string.sub(KEYS[1], 1, -5)
local now = clock(given)
local due = next_due(queue)
if due and due <= now then
    promote(queue, now, 1000)
    due = next_due(queue)
end
local levels, left = levels_of(queue), limit
local result = {due and math.max(0, due - now) or -1, now}

local function take(lane)
    if left <= 0 then return 0 end
    local stream = queue .. lane
    local read = redis.pcall('XREADGROUP', 'GROUP', GROUP, holder, 'COUNT', left, 'STREAMS', stream, '>')
    if read and read.err then
        if not string.find(read.err, 'NOGROUP', 1, true) then return redis.error_reply(read.err) end
        create_group(stream)    -- somebody destroyed it: all that is left in the stream is handed out again
        read = redis.call('XREADGROUP', 'GROUP', GROUP, holder, 'COUNT', left, 'STREAMS', stream, '>')
    end
    if not read then return 0 end
    local entries = read[1][2]
    if given ~= '' then
        for _, entry in ipairs(entries) do
            redis.call('XCLAIM', stream, GROUP, holder, 0, entry[1], 'TIME', now, 'JUSTID')
        end
    end
    result[#result + 1] = lane
    result[#result + 1] = entries
    left = left - #entries
    return #entries
end

local function take_level(level)
    local count = 0
    for _, kind in ipairs({'b', 'p'}) do
        local taken = take(kind .. level)
        if type(taken) == 'table' then return taken end
        count = count + taken
    end
    return count
end

if lowest_first then
    for at = #levels, 1, -1 do
        local taken = take_level(levels[at])
        if type(taken) == 'table' then return taken end
        if taken > 0 then break end
    end
end
for _, level in ipairs(levels) do
    local taken = take_level(level)
    if type(taken) == 'table' then return taken end
end
if left == limit then
    if channel ~= '' and not redis.call('LPOS', queue .. 'waiters', channel) then
        redis.call('RPUSH', queue .. 'waiters', channel)
    end
elseif left == 0 and redis.call('EXISTS', queue .. 'waiters') == 1 then
    wake(queue, math.min(1, ready_count(queue)))    -- there is more than this consumer could take
end
return result

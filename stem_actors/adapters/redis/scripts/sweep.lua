#!lua flags=allow-oom
-- Promote what is due, drop old dead letters, and find the leases that may be taken away. `reclaim.lua` takes them: what becomes
-- of each is decided in between, by the one function that all brokers share.
--
-- KEYS    1 the queue's meta hash
-- ARGV    now or '', visibility timeout in ms of messages without one, ms for which dead letters are kept or ''
-- Result  skipped: {0, ms until something falls due or -1}
--         else {now, the same, promoted, dead letters dropped, lapsed: {lane, id, consumer, mark, fields} …,
--         dead letters replayed since the last such answer}

local given, usual, kept = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local queue = string.sub(KEYS[1], 1, -5)
local now = clock(given)
local watch = redis.call('HMGET', KEYS[1], 'last', 'since', 'shortest')
local last, since, shortest = tonumber(watch[1] or ''), tonumber(watch[2] or ''), tonumber(watch[3] or '')

local function due_in()
    local due = next_due(queue)
    return due and math.max(0, due - now) or -1
end

if not last or not since or now < last or now - last > 2000 then since = now
elseif now - last < 500 then return {0, due_in()} end
redis.call('HSET', KEYS[1], 'last', string.format('%.0f', now), 'since', string.format('%.0f', since))

local promoted = promote(queue, now, 1000)
-- A wake-up may have gone to a consumer that was stopped just then: who still waits hears of what is ready.
if redis.call('EXISTS', queue .. 'waiters') == 1 then wake(queue, ready_count(queue)) end

local lapsed, left = {}, 1000
local least = math.min(usual, shortest or usual)
for _, level in ipairs(levels_of(queue)) do
    for _, kind in ipairs({'b', 'p'}) do
        local lane = kind .. level
        -- Where many have a longer visibility timeout than the shortest, a sweep looks at some and the next goes on from there.
        local stream, from = queue .. lane, redis.call('HGET', KEYS[1], 'from:' .. lane)
        local start = from and string.match(from, '^%(%d+%-%d+$') or '-'
        local looked = 0
        repeat
            local rows
            if given == '' then rows = redis.pcall('XPENDING', stream, GROUP, 'IDLE', least, start, '+', 1000)
            else rows = redis.pcall('XPENDING', stream, GROUP, start, '+', 1000) end
            if rows.err then rows = {} end
            for _, row in ipairs(rows) do
                if left == 0 then break end
                local entry = redis.call('XRANGE', stream, row[1], row[1])[1]
                if entry then
                    local _, own = parse_header(entry[2])
                    local visibility = tonumber(own or '') or usual
                    if delivered_at(row, stream, given) + visibility <= now and now - since >= visibility / 3 then
                        lapsed[#lapsed + 1] = {lane, row[1], row[2], row[4] > 1 and 1 or 0, entry[2]}
                        left = left - 1
                    end
                else
                    redis.call('XACK', stream, GROUP, row[1])    -- somebody deleted it from under its lease
                end
                start = '(' .. row[1]
            end
            looked = looked + #rows
        until #rows < 1000 or left == 0 or looked >= 10000
        if looked >= 10000 then redis.call('HSET', KEYS[1], 'from:' .. lane, start)
        elseif from then redis.call('HDEL', KEYS[1], 'from:' .. lane) end
    end
end

local dropped = {}
if kept ~= '' then
    dropped = redis.call('ZRANGEBYSCORE', queue .. 'dead', '-inf', now - tonumber(kept), 'LIMIT', 0, 1000)
    if #dropped > 0 then
        redis.call('ZREM', queue .. 'dead', unpack(dropped))
        redis.call('HDEL', queue .. 'dead:tasks', unpack(dropped))
    end
end
local replayed = redis.call('HGET', KEYS[1], 'replayed')
if replayed then redis.call('HDEL', KEYS[1], 'replayed') end
return {now, due_in(), promoted, #dropped, lapsed, tonumber(replayed or '') or 0}

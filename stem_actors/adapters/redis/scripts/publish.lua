-- Store messages, all or none.
--
-- KEYS    1 senders (hash), 2 names (sorted set), then the meta hash of each queue
-- ARGV    now or '', sender, its number, how many chosen ids, those ids, for each queue the shortest visibility timeout in ms or '';
--         then runs of messages that go the same way: which queue (1…), level, delay in ms, how many,
--         for each the rest of its header, signature, body
-- Result  0: stored now or before; else the chosen id that is in use
-- No allow-oom: a full server refuses it.

local now = clock(ARGV[1])
local sender, number, chosen = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local last = string.match(redis.call('HGET', KEYS[1], sender) or '', '^(%d+) ')
if last and number <= tonumber(last) then return 0 end

-- A script that fails midway undoes nothing: whatever may be of a wrong type is read before anything is written.
local queues, unused, seen = {}, {}, {}
for n = 3, #KEYS do queues[n - 2] = string.sub(KEYS[n], 1, -5) end
local at = 5 + chosen + #queues
while at < #ARGV do
    local queue, level = queues[tonumber(ARGV[at])], ARGV[at + 1]
    local stream = queue .. 'p' .. level
    if not seen[stream] then
        seen[stream] = true
        redis.call('XLEN', stream)
        local levels = redis.call('HGET', queue .. 'meta', 'levels')
        if not levels or not string.find(levels, level, 1, true) then unused[#unused + 1] = {queue, level} end
    end
    if ARGV[at + 2] ~= '0' then redis.call('ZCARD', queue .. 'delayed') end
    at = at + 4 + 3 * tonumber(ARGV[at + 3])
end

at = 5
if chosen > 0 then
    local twice = {}
    for n = at, at + chosen - 1 do
        local id = ARGV[n]
        local ended = tonumber(redis.call('ZSCORE', KEYS[2], id) or 0)
        if twice[id] or ended > now - 3600000 then return id end
        twice[id] = true
    end
    for id in pairs(twice) do redis.call('ZADD', KEYS[2], '+inf', id) end
end
at = at + chosen
redis.call('HSET', KEYS[1], sender, string.format('%.0f %.0f', number, now))

for n, queue in ipairs(queues) do
    local shortest = tonumber(ARGV[at] or '')
    local known_shortest = shortest and tonumber(redis.call('HGET', KEYS[n + 2], 'shortest') or '')
    if shortest and (not known_shortest or shortest < known_shortest) then
        redis.call('HSET', KEYS[n + 2], 'shortest', ARGV[at])
    end
    at = at + 1
end
for _, each in ipairs(unused) do use_level(each[1], each[2]) end

local ready, sooner = {}, {}
local since = string.format('%.0f', now) .. '\n'
while at < #ARGV do
    local n, level, delay, count = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local queue = queues[n]
    local stream = queue .. 'p' .. level
    local last = at + 1 + 3 * count
    for each = at + 4, last, 3 do
        local header, signature, body = since .. ARGV[each], ARGV[each + 1], ARGV[each + 2]
        if delay > 0 then
            local fields = {'h', header, 'b', body}
            if signature ~= '' then fields[5] = 'g'; fields[6] = signature end
            if add_delayed(queue, level, now + delay, fields, now) then sooner[n] = true end
        elseif signature ~= '' then
            redis.call('XADD', stream, '*', 'h', header, 'b', body, 'g', signature)
        else
            redis.call('XADD', stream, '*', 'h', header, 'b', body)
        end
    end
    if delay <= 0 then ready[n] = (ready[n] or 0) + count end
    at = last + 3
end
for n, count in pairs(ready) do pcall(wake, queues[n], count) end    -- stored is stored
for n in pairs(sooner) do pcall(alarm, queues[n]) end
return 0

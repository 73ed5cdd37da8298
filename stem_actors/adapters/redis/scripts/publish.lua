-- Store messages, all or none.
--
-- KEYS    1 senders (hash), 2 names (sorted set), then the meta hash of each queue
-- ARGV    now or '', sender, its number, how many chosen ids, those ids;
--         then for each message: which queue (1…), level, delay in ms, rest of its header, signature, body
-- Result  0: stored now or before; else the chosen id that is in use
-- No allow-oom: a full server refuses it.

local now = clock(ARGV[1])
local sender, number, chosen = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local last = string.match(redis.call('HGET', KEYS[1], sender) or '', '^(%d+) ')
if last and number <= tonumber(last) then return 0 end

-- A script that fails midway undoes nothing: whatever may be of a wrong type is looked at before anything is written.
local queues = {}
for n = 3, #KEYS do
    queues[n - 2] = string.sub(KEYS[n], 1, -5)
    redis.call('HLEN', KEYS[n])
end
local known = {}
for at = 5 + chosen, #ARGV, 6 do
    local queue = queues[tonumber(ARGV[at])]
    local stream = queue .. 'p' .. ARGV[at + 1]
    if not known[stream] then
        redis.call('XLEN', stream)
        redis.call('ZCARD', queue .. 'delayed')
        redis.call('LLEN', queue .. 'waiters')
        known[stream] = queue
    end
end

local at = 5
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

local ready, sooner, shortest = {}, {}, {}
for stream, queue in pairs(known) do use_level(queue, string.sub(stream, -1)) end
local since = string.format('%.0f', now) .. '\n'
while at < #ARGV do
    local n, level, delay = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
    local queue = queues[n]
    local stream = queue .. 'p' .. level
    local visibility = tonumber(string.match(ARGV[at + 3], '^%d+') or '')
    if visibility then shortest[n] = math.min(shortest[n] or visibility, visibility) end
    local header, signature, body = since .. ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
    if delay > 0 then
        local fields = {'h', header, 'b', body}
        if signature ~= '' then fields[5] = 'g'; fields[6] = signature end
        if add_delayed(queue, level, now + delay, fields, now) then sooner[n] = true end
    elseif signature ~= '' then
        redis.call('XADD', stream, '*', 'h', header, 'b', body, 'g', signature)
        ready[n] = (ready[n] or 0) + 1
    else
        redis.call('XADD', stream, '*', 'h', header, 'b', body)
        ready[n] = (ready[n] or 0) + 1
    end
    at = at + 6
end
for n, visibility in pairs(shortest) do
    local known_shortest = tonumber(redis.call('HGET', KEYS[n + 2], 'shortest') or '')
    if not known_shortest or visibility < known_shortest then
        redis.call('HSET', KEYS[n + 2], 'shortest', string.format('%.0f', visibility))
    end
end
for n, count in pairs(ready) do wake(queues[n], count) end
for n in pairs(sooner) do alarm(queues[n]) end
return 0

-- Store messages, all or none.
--
-- KEYS    1 senders (hash), 2 names (sorted set), then the meta hash of each queue
-- ARGV    now or '', sender, its number, how many chosen ids, how many claims, those ids, those claims: which message (1…), which
--         queue, key, id, 1 if it replaces, ms for which it lasts or '' until its end; for each queue the shortest visibility timeout in ms or '';
--         then runs of messages that go the same way: which queue (1…), level, delay in ms, how many,
--         for each the rest of its header, signature, body
-- Result  0: stored now or before; else the chosen id that is in use; else a list of the ids that claims keep out or that replace
--         others, each followed by the other's
-- No allow-oom: a full server refuses it.

local now = clock(ARGV[1])
local sender, number, chosen, claims = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local said = redis.call('HGET', KEYS[1], sender) or ''
local last = tonumber(string.match(said, '^(%d+) ') or '')
if last and number <= last then
    local answer = number == last and string.match(said, '^%d+ (.+) %d+$')
    return answer and cmsgpack.unpack(answer) or 0
end

-- A script that fails midway undoes nothing: whatever may be of a wrong type is read before anything is written.
local queues, unused, seen = {}, {}, {}
for n = 3, #KEYS do queues[n - 2] = string.sub(KEYS[n], 1, -5) end
local at = 6 + chosen + 6 * claims + #queues
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

-- Who is kept out by whom; what is held afterwards, by name of its key; the key that each message holds until its end, by place.
local others, out, out_at, held, key_of = {}, {}, {}, {}, {}
at = 6 + chosen
for _ = 1, claims do
    local place, queue, key, id, replaces, lasts = unpack(ARGV, at, at + 5)
    local name = queues[tonumber(queue)] .. 'unique:' .. key
    local claim = held[name] or read_claim(name, now)
    if claim then others[#others + 1] = id; others[#others + 1] = claim[1] end
    if claim and (replaces == '' or claim[1] == id) then
        claim[4] = claim[4] + 1
        local kept = claim[5]
        kept[#kept + 1] = id
        kept[#kept + 1] = now
        if #kept > 40 then table.remove(kept, 1); table.remove(kept, 1) end
        out[id], out_at[tonumber(place)] = true, true
    else
        claim = {id, now, lasts ~= '' and now + lasts or 0, 0, {}}
        if lasts == '' then key_of[tonumber(place)] = key end
    end
    held[name] = claim
    at = at + 6
end

if chosen > 0 then
    local twice = {}
    for n = 6, 5 + chosen do
        local id = ARGV[n]
        if not out[id] then
            local ended = tonumber(redis.call('ZSCORE', KEYS[2], id) or 0)
            if twice[id] or ended > now - 3600000 then return id end
            twice[id] = true
        end
    end
    for id in pairs(twice) do redis.call('ZADD', KEYS[2], '+inf', id) end
end
said = #others > 0 and cmsgpack.pack(others) .. ' ' or ''
redis.call('HSET', KEYS[1], sender, string.format('%.0f ', number) .. said .. string.format('%.0f', now))
for name, claim in pairs(held) do
    if claim[3] == 0 then redis.call('SET', name, cmsgpack.pack(claim))
    else redis.call('SET', name, cmsgpack.pack(claim), 'PX', math.max(1, math.ceil(claim[3] - now))) end
end

for n, queue in ipairs(queues) do
    local shortest = tonumber(ARGV[at] or '')
    local known_shortest = shortest and tonumber(redis.call('HGET', KEYS[n + 2], 'shortest') or '')
    if shortest and (not known_shortest or shortest < known_shortest) then
        redis.call('HSET', KEYS[n + 2], 'shortest', ARGV[at])
    end
    at = at + 1
end
for _, each in ipairs(unused) do use_level(each[1], each[2]) end

local ready, sooner, place = {}, {}, 0
local since = string.format('%.0f', now) .. '\n'
while at < #ARGV do
    local n, level, delay, count = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local queue = queues[n]
    local stream = queue .. 'p' .. level
    local last = at + 1 + 3 * count
    for each = at + 4, last, 3 do
        local header, signature, body = since .. ARGV[each], ARGV[each + 1], ARGV[each + 2]
        place = place + 1
        if out_at[place] then
            count = count - 1
        elseif delay > 0 or key_of[place] then
            local fields = {'h', header, 'b', body}
            if signature ~= '' then fields[5] = 'g'; fields[6] = signature end
            if key_of[place] then fields[#fields + 1] = 'u'; fields[#fields + 1] = key_of[place] end
            if delay <= 0 then redis.call('XADD', stream, '*', unpack(fields))
            elseif add_delayed(queue, level, now + delay, fields, now) then sooner[n] = true end
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
return #others > 0 and others or 0

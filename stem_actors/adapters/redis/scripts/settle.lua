#!lua flags=allow-oom
-- End leases of one consumer in one queue, and store the records that come with them.
--
-- KEYS    1 the queue's meta hash, 2 names (sorted set), 3 index of records (stream), then the key of each record
-- ARGV    now or '', consumer, time to live of records in ms, listing of the records, how many lanes;
--         for each lane: its name, lowest and highest id among its items,
--             how many plain acks with a record, their ids and records in turn, how many without, their ids;
--         how many other items; for each: verdict, lane, id, chosen id or '', after a * if it claims, 1 if it has a record, then with verdict
--             A (ack) nothing more
--             R (release) state or ''
--             D (defer, retry) delay in ms, state or ''
--             X (dead letter) reason, meta, state or ''
--             and the record, if it has one
-- Result  1 for each item that was held, else 0: the plain acks lane by lane, then the others

local given, holder, ttl, listing = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local queue = string.sub(KEYS[1], 1, -5)
local now = clock(given)
local held, ended, answers, keys, records = {}, {}, {}, {}, {}
local at, key = 6, 3
if #KEYS > 3 then redis.call('XLEN', KEYS[3]) end

for _ = 1, tonumber(ARGV[5]) do
    local lane = ARGV[at]
    local mine, done = owned(queue, lane, holder, ARGV[at + 1], ARGV[at + 2], {}), {}
    local last = at + 2 + 2 * tonumber(ARGV[at + 3])
    for n = at + 4, last, 2 do
        local id = ARGV[n]
        key = key + 1
        if mine[id] then
            done[#done + 1] = id
            keys[#keys + 1] = KEYS[key]
            records[#records + 1] = ARGV[n + 1]
            answers[#answers + 1] = 1
        else
            answers[#answers + 1] = 0
        end
    end
    at = last + 2
    for n = at + 1, at + tonumber(ARGV[at]) do
        local is_held = mine[ARGV[n]] ~= nil
        if is_held then done[#done + 1] = ARGV[n] end
        answers[#answers + 1] = is_held and 1 or 0
    end
    at = at + tonumber(ARGV[at]) + 1
    held[lane], ended[lane] = mine, done
end
if ARGV[at] ~= '0' then
    for lane in pairs(held) do check_types(queue, string.sub(lane, 2)) end
    redis.call('ZCARD', KEYS[2])
end

local ready, sooner = 0, false

-- Carry out a verdict under which the message lives on; `n` is where its arguments begin.
local function move(verdict, lane, id, n)
    local entry, level = redis.call('XRANGE', queue .. lane, id, id)[1], string.sub(lane, 2)
    if not entry then return end    -- somebody deleted it from under its lease: there is nothing to send back
    local fields = entry[2]
    if verdict == 'R' then
        send_back(fields, ARGV[n])
        add(queue, 'b' .. level, fields)
        ready = ready + 1
    elseif verdict == 'D' then
        local delay = tonumber(ARGV[n])
        send_back(fields, ARGV[n + 1], delay <= 0 and now or nil)
        if delay > 0 then
            sooner = add_delayed(queue, level, now + delay, fields, now) or sooner
        else
            add(queue, 'p' .. level, fields)
            ready = ready + 1
        end
    else
        send_back(fields, ARGV[n + 2])
        bury(queue, level, fields, ARGV[n], ARGV[n + 1], now)
    end
end

local arity = {A = 0, R = 1, D = 2, X = 3}
local others = tonumber(ARGV[at])
at = at + 1
for _ = 1, others do
    local verdict, lane, id, name, has_record = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4] == '1'
    local is_held, claims = held[lane][id] ~= nil, string.sub(name, 1, 1) == '*'
    if claims then name = string.sub(name, 2) end
    held[lane][id] = nil    -- a lease twice in one batch ends once
    answers[#answers + 1] = is_held and 1 or 0
    if is_held and verdict ~= 'A' then
        move(verdict, lane, id, at + 5)
    elseif is_held and claims then
        local entry = redis.call('XRANGE', queue .. lane, id, id)[1]
        if entry then end_claim(queue, entry[2]) end
    end
    at = at + 5 + arity[verdict]
    if has_record then key = key + 1 end
    if is_held then
        local done = ended[lane]
        done[#done + 1] = id
        if name ~= '' and (verdict == 'A' or verdict == 'X') then redis.call('ZADD', KEYS[2], now, name) end
        if has_record then keys[#keys + 1] = KEYS[key]; records[#records + 1] = ARGV[at] end
    end
    if has_record then at = at + 1 end
end
for lane, ids in pairs(ended) do
    if #ids > 0 then
        redis.call('XACK', queue .. lane, GROUP, unpack(ids))
        redis.call('XDEL', queue .. lane, unpack(ids))
    end
end
if #keys > 0 then
    local _, final = store_records(KEYS[3], now, ttl, keys, records, listing)
    announce(KEYS[3], final)
end
if ready > 0 then pcall(wake, queue, ready) end    -- settled is settled, whatever somebody did to the list of waiters
if sooner then pcall(alarm, queue) end
return answers

#!lua flags=allow-oom
-- End leases of one consumer in one queue, and store the records that come with them.
--
-- KEYS    1 the queue's meta hash, 2 names (sorted set), 3 index of records (stream), then the key of each record
-- ARGV    now or '', consumer, time to live of records in ms, how many lanes;
--         for each lane: its name, lowest and highest id among its items;
--         how many items; for each: verdict, lane, id, chosen id or '', and with verdict
--             A (ack) nothing more
--             R (release) state or ''
--             D (defer, retry) delay in ms, state or ''
--             X (dead letter) reason, meta, state or ''
--         then for each record: which item (1…), the record
-- Result  1 for each item that was held, else 0

local given, holder, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local queue = string.sub(KEYS[1], 1, -5)
local now = clock(given)
local at = 5
local held, ended = {}, {}
for _ = 1, tonumber(ARGV[4]) do
    held[ARGV[at]] = owned(queue, ARGV[at], holder, ARGV[at + 1], ARGV[at + 2], {})
    ended[ARGV[at]] = {}
    at = at + 3
end

local answers, back, ready, sooner = {}, false, 0, false
local count = tonumber(ARGV[at])
at = at + 1
for item = 1, count do
    local verdict, lane, id, name = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    at = at + 4
    local is_held = held[lane][id] ~= nil
    held[lane][id] = nil    -- a lease twice in one batch ends once
    answers[item] = is_held and 1 or 0
    if verdict ~= 'A' then
        local arity = verdict == 'R' and 1 or verdict == 'D' and 2 or 3
        if is_held then
            local entry = redis.call('XRANGE', queue .. lane, id, id)[1]
            local fields, level = entry and entry[2], string.sub(lane, 2)
            if not fields then
                -- Somebody deleted it from under its lease: there is nothing to send back.
            elseif verdict == 'R' then
                send_back(fields, ARGV[at])
                add(queue, 'b' .. level, fields)
                ready = ready + 1
            elseif verdict == 'D' then
                local delay = tonumber(ARGV[at])
                send_back(fields, ARGV[at + 1], delay > 0 and nil or now)
                if delay > 0 then
                    sooner = add_delayed(queue, level, now + delay, fields, now) or sooner
                else
                    add(queue, 'p' .. level, fields)
                    ready = ready + 1
                end
            else
                send_back(fields, ARGV[at + 2])
                bury(queue, level, fields, ARGV[at], ARGV[at + 1], now)
            end
        end
        at = at + arity
    end
    if is_held then
        local ids = ended[lane]
        ids[#ids + 1] = id
        if name ~= '' and (verdict == 'A' or verdict == 'X') then redis.call('ZADD', KEYS[2], now, name) end
    end
end
for lane, ids in pairs(ended) do
    if #ids > 0 then
        redis.call('XACK', queue .. lane, GROUP, unpack(ids))
        redis.call('XDEL', queue .. lane, unpack(ids))
    end
end

local keys, records = {}, {}
local key = 4
while at < #ARGV do
    if answers[tonumber(ARGV[at])] == 1 then
        keys[#keys + 1] = KEYS[key]
        records[#records + 1] = ARGV[at + 1]
    end
    key = key + 1
    at = at + 2
end
if #keys > 0 then
    local _, final = store_records(KEYS[3], now, ttl, keys, records)
    announce(KEYS[3], final)
end
if ready > 0 then pcall(wake, queue, ready) end    -- settled is settled, whatever somebody did to the list of waiters
if sooner then pcall(alarm, queue) end
return answers

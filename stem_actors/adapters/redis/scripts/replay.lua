#!lua flags=allow-oom
-- Queue dead letters again.
--
-- KEYS    1 the queue's meta hash, 2 names (sorted set), 3 index of records (stream), then the key of each record
-- ARGV    now or '', delay in ms, time to live of records in ms; for each: member, state or '' (it cannot be read), record or ''
-- Result  1 for each that was still there, else 0

local given, delay, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local queue = string.sub(KEYS[1], 1, -5)
local now = clock(given)
local answers, ready, sooner, key = {}, 0, false, 4
redis.call('ZCARD', KEYS[2])
redis.call('XLEN', KEYS[3])
for _, level in ipairs(levels_of(queue)) do check_types(queue, level) end
for at = 4, #ARGV, 3 do
    local member, state, record = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local record_key
    if record ~= '' then record_key = KEYS[key]; key = key + 1 end
    local ok, letter = pcall(cmsgpack.unpack, redis.call('HGET', queue .. 'dead:tasks', member) or '')
    if not ok or type(letter) ~= 'table' or type(letter[4]) ~= 'table' then
        answers[#answers + 1] = 0
    else
        local level, fields = letter[3], letter[4]
        local _, visibility, named, handouts, id = parse_header(fields)
        if state ~= '' then with_field(fields, 's', state); handouts = '0' end
        if id then write_header(fields, now, visibility, named, handouts, id) end
        if delay > 0 then
            sooner = add_delayed(queue, level, now + delay, fields, now) or sooner
        else
            add(queue, 'p' .. level, fields)
            ready = ready + 1
        end
        if named == '1' then redis.call('ZADD', KEYS[2], '+inf', id) end
        if record_key then store_records(KEYS[3], now, ttl, {record_key}, {record}, string.sub(record, 32, 32) .. string.sub(record_key, #KEYS[3] + 1) .. '\n') end
        redis.call('ZREM', queue .. 'dead', member)
        redis.call('HDEL', queue .. 'dead:tasks', member)
        answers[#answers + 1] = 1
    end
end
local replayed = 0
for _, answer in ipairs(answers) do replayed = replayed + answer end
if replayed > 0 then redis.call('HINCRBY', KEYS[1], 'replayed', replayed) end
if ready > 0 then pcall(wake, queue, ready) end
if sooner then pcall(alarm, queue) end
return answers

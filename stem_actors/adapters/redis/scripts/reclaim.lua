#!lua flags=allow-oom
-- Take lapsed leases away: each delivery comes back at the head of its level as a new entry, or is set aside as poison.
--
-- KEYS    1 the queue's meta hash, 2 names (sorted set), 3 index of records (stream), then the key of each record
-- ARGV    now or '', visibility timeout in ms of messages without one, time to live of records in ms; for each lease:
--         lane, id, consumer, state or '' (it cannot be read and stays), meta of the dead letter or '', record or ''
-- Result  how many came back, how many were poison
-- Each is looked at again: who renewed or settled since the sweep keeps it, and what another sweeper took is gone.

local given, usual, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local queue = string.sub(KEYS[1], 1, -5)
local now = clock(given)
local returned, poisoned, key = 0, 0, 4
redis.call('ZCARD', KEYS[2])
redis.call('XLEN', KEYS[3])
for at = 4, #ARGV, 6 do check_types(queue, string.sub(ARGV[at], 2)) end
for at = 4, #ARGV, 6 do
    local lane, id, holder, state, meta, record = unpack(ARGV, at, at + 5)
    local record_key
    if record ~= '' then record_key = KEYS[key]; key = key + 1 end
    local row = owned(queue, lane, holder, id, id, {id})[id]
    local entry = row and redis.call('XRANGE', queue .. lane, id, id)[1]
    if entry then
        local fields, level = entry[2], string.sub(lane, 2)
        local _, own, named, _, task = parse_header(fields)
        local visibility = tonumber(own or '') or usual
        if delivered_at(row, queue .. lane, given) + visibility <= now then
            send_back(fields, state)
            if meta == '' then
                add(queue, 'b' .. level, fields)
                returned = returned + 1
            else
                bury(queue, level, fields, 'poison', meta, now)
                if named == '1' then redis.call('ZADD', KEYS[2], now, task) end
                if record_key then
                    local _, final = store_records(KEYS[3], now, ttl, {record_key}, {record}, string.sub(record, 32, 32) .. string.sub(record_key, #KEYS[3] + 1) .. '\n')
                    announce(KEYS[3], final)
                end
                poisoned = poisoned + 1
            end
            redis.call('XACK', queue .. lane, GROUP, id)
            redis.call('XDEL', queue .. lane, id)
        end
    end
end
if returned > 0 then pcall(wake, queue, returned) end
return {returned, poisoned}

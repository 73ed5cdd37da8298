#!lua flags=allow-oom
-- Say that redeliveries are about to run. A final record of the same attempt is left and returned; else the record is stored.
--
-- KEYS    1 index of records (stream), then the key of each record
-- ARGV    now or '', time to live in ms, listing, the records
-- Result  for each: the final record of the same attempt, or nothing

local now, ttl = clock(ARGV[1]), tonumber(ARGV[2])
local keys, records, found = {}, {}, {}
for at = 2, #KEYS do
    local key, record = KEYS[at], ARGV[at + 2]
    local standing = redis.call('MGET', key)[1]
    if standing and (tonumber(string.sub(standing, 27, 39)) or 0) > now and string.byte(standing, 70) == 51
        and string.sub(standing, 40, 59) == string.sub(record, 1, 20) then
        found[at - 1] = standing
    else
        found[at - 1] = ''
        keys[#keys + 1] = key
        records[#records + 1] = record
    end
end
if #keys > 0 then store_records(KEYS[1], now, ttl, keys, records, ARGV[3]) end
return found

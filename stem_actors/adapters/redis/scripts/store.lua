#!lua flags=allow-oom
-- Store task records, each unless one of higher precedence stands.
--
-- KEYS    1 index of records (stream), then the key of each record
-- ARGV    now or '', time to live in ms, listing, the records
-- Result  1 for each that was stored, else 0

local keys, records = {}, {}
for at = 2, #KEYS do keys[at - 1] = KEYS[at]; records[at - 1] = ARGV[at + 2] end
local answers, final = store_records(KEYS[1], clock(ARGV[1]), tonumber(ARGV[2]), keys, records, ARGV[3])
announce(KEYS[1], final)
return answers

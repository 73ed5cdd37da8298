#!lua flags=allow-oom
-- Forget records past their time, at most those of a few index entries. The server removes them by itself; this drops them from
-- the index, and counts.
--
-- KEYS    1 index of records (stream)
-- ARGV    now or '', time to live in ms
-- Result  how many records, how many index entries

local index, now = KEYS[1], clock(ARGV[1])
local limit = now - tonumber(ARGV[2])
local count, dropped, looked = 0, {}, 0
for _, entry in ipairs(redis.call('XRANGE', index, '-', '+', 'COUNT', 100)) do
    local written = tonumber(field(entry[2], 't') or '')
    if looked >= 1000 or (written and written > limit) then break end
    for id in string.gmatch(field(entry[2], 'r') or '', '.([^\n]*)\n') do
        local key = string.sub(index, 1, -2) .. ':' .. id
        local stamps = redis.pcall('GETRANGE', key, 13, 38)    -- updated, expires
        local updated = type(stamps) == 'string' and tonumber(string.sub(stamps, 1, 13)) or nil
        local expires = updated and tonumber(string.sub(stamps, 14)) or 0
        if not updated or (updated == written and expires <= now) then
            count = count + 1
            redis.call('DEL', key)
        end
        looked = looked + 1
    end
    dropped[#dropped + 1] = entry[1]
end
if #dropped > 0 then redis.call('XDEL', index, unpack(dropped)) end
return {count, #dropped}

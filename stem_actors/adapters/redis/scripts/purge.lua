#!lua flags=allow-oom
-- Remove what is ready or delayed, at most 1,000 of it.
--
-- KEYS    1 the queue's meta hash, 2 names (sorted set)
-- ARGV    none
-- Result  how many; call again while it is not 0

local queue = string.sub(KEYS[1], 1, -5)
local left = 1000

local function forget_name(fields)
    local _, _, named, _, id = parse_header(fields)
    if named == '1' then redis.call('ZREM', KEYS[2], id) end
    end_claim(queue, fields)
end

for _, level in ipairs(levels_of(queue)) do
    for _, kind in ipairs({'b', 'p'}) do
        local stream, read_to = queue .. kind .. level, '0-0'
        local groups = redis.pcall('XINFO', 'GROUPS', stream)
        if not groups.err then
            for _, group in ipairs(groups) do
                if field(group, 'name') == GROUP then read_to = field(group, 'last-delivered-id') end
            end
        end
        local entries = left > 0 and redis.call('XRANGE', stream, '(' .. read_to, '+', 'COUNT', left) or {}
        local ids = {}
        for at, entry in ipairs(entries) do
            forget_name(entry[2])
            ids[at] = entry[1]
        end
        if #ids > 0 then redis.call('XDEL', stream, unpack(ids)) end
        left = left - #ids
    end
end
if left > 0 then
    local members = redis.call('ZRANGE', queue .. 'delayed', 0, left - 1)
    for _, member in ipairs(members) do
        local _, fields = read_delayed(member)
        forget_name(fields)
    end
    if #members > 0 then redis.call('ZREMRANGEBYRANK', queue .. 'delayed', 0, #members - 1) end
    left = left - #members
end
return 1000 - left

#!lua flags=allow-oom
-- Move what is not of the type it should be out of the way, under another name: the next call makes the key anew.
--
-- KEYS    those to look at
-- ARGV    now or '', the type each should have
-- Result  the new names

local now, moved = clock(ARGV[1]), {}
for at, key in ipairs(KEYS) do
    local is = redis.call('TYPE', key).ok
    if is ~= 'none' and is ~= ARGV[at + 1] then
        local name = key .. ':quarantine:' .. string.format('%.0f', now)
        redis.call('RENAME', key, name)
        moved[#moved + 1] = name
    end
end
return moved

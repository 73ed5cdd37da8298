#!lua flags=allow-oom
-- Take, renew, read or release a lock.
--
-- KEYS    1 the lock (hash: owner, fence, expires), 2 counter of fences
-- ARGV    now or '', acquire | renew | release, owner, fence or '', time to live in ms
-- Result  acquire: the fence, or 0 while another holds it; renew and release: 1 when it is held, else 0

local now, verb, owner, fence, ttl = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local lock = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'expires')
local is_live = lock[1] and lock[2] and (tonumber(lock[3] or '') or 0) > now    -- one of ours has all three

local function hold(number)
    redis.call('HSET', KEYS[1], 'owner', owner, 'fence', number, 'expires', string.format('%.0f', now + ttl))
    redis.call('PEXPIRE', KEYS[1], math.max(1, ttl))
end

if verb == 'acquire' then
    if is_live and lock[1] ~= owner then return '0' end
    local number = is_live and lock[2] or string.format('%.0f', next_number(KEYS[2], now))
    hold(number)
    return number
end
if not is_live or lock[1] ~= owner or lock[2] ~= fence then return '0' end
if verb == 'renew' then hold(fence) else redis.call('DEL', KEYS[1]) end
return '1'

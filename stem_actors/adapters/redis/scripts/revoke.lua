#!lua flags=allow-oom
-- Store revocations under new versions; the newest of a task stands.
--
-- KEYS    1 revocations (hash by task), 2 their order (sorted set by version), 3 their ends (sorted set), 4 counter of versions
-- ARGV    now or '', for each: task, expires in ms or '', the rest
-- Result  the version of each

local now, versions = clock(ARGV[1]), {}
for at = 2, #ARGV, 3 do
    local version = next_number(KEYS[4], now)
    redis.call('HSET', KEYS[1], ARGV[at], string.format('%016.0f', version) .. ARGV[at + 2])
    redis.call('ZADD', KEYS[2], version, ARGV[at])
    if ARGV[at + 1] == '' then redis.call('ZREM', KEYS[3], ARGV[at]) else redis.call('ZADD', KEYS[3], ARGV[at + 1], ARGV[at]) end
    versions[#versions + 1] = version
end
return versions

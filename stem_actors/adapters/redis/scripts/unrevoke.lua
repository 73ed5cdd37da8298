#!lua flags=allow-oom
-- Remove expired revocations, at most 1,000.
--
-- KEYS    1 revocations (hash by task), 2 their order (sorted set by version), 3 their ends (sorted set)
-- ARGV    now or ''
-- Result  how many

local expired = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', clock(ARGV[1]), 'LIMIT', 0, 1000)
if #expired > 0 then
    redis.call('HDEL', KEYS[1], unpack(expired))
    redis.call('ZREM', KEYS[2], unpack(expired))
    redis.call('ZREM', KEYS[3], unpack(expired))
end
return #expired

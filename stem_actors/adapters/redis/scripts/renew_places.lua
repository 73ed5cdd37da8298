#!lua flags=allow-oom
-- Let places last their full time from now; one that lapsed meanwhile is taken anew while there is room.
--
-- KEYS    the places of semaphores (sorted sets)
-- ARGV    now or '', for each place: which of KEYS, how many there are, holder, ms for which it lasts
-- Result  1 for each that is held, else 0

local now, answers = clock(ARGV[1]), {}
for _, places in ipairs(KEYS) do redis.call('ZREMRANGEBYSCORE', places, '-inf', now) end
for at = 2, #ARGV, 4 do
    local places, number, holder, lasts = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 1]), ARGV[at + 2], tonumber(ARGV[at + 3])
    local is_held = redis.call('ZSCORE', places, holder) or redis.call('ZCARD', places) < number
    if is_held then
        redis.call('ZADD', places, now + lasts, holder)
        if redis.call('PTTL', places) < lasts then redis.call('PEXPIRE', places, lasts) end
    end
    answers[#answers + 1] = is_held and 1 or 0
end
return answers

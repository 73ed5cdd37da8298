#!lua flags=allow-oom
-- Deliveries of one consumer in one lane are about to start, and hold their keys no more.
--
-- KEYS    1 the queue's meta hash
-- ARGV    consumer, lane, the lowest and the highest of the ids, ids of entries
-- Result  1 for each that is held, else 0

local queue = string.sub(KEYS[1], 1, -5)
local lane, ids, answers = ARGV[2], {}, {}
for at = 5, #ARGV do ids[#ids + 1] = ARGV[at] end
local held = owned(queue, lane, ARGV[1], ARGV[3], ARGV[4], ids)
for at, id in ipairs(ids) do
    local entry = held[id] and redis.call('XRANGE', queue .. lane, id, id)[1]
    if entry then end_claim(queue, entry[2]) end
    answers[at] = held[id] and 1 or 0
end
return answers

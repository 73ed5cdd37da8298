#!lua flags=allow-oom
-- Let leases of one consumer in one lane last a full visibility timeout from now.
--
-- KEYS    1 the queue's meta hash
-- ARGV    now or '', consumer, lane, lowest and highest id, ids …
-- Result  1 for each id that is held, else 0

local queue = string.sub(KEYS[1], 1, -5)
local given, holder, lane = ARGV[1], ARGV[2], ARGV[3]
local ids, answers, mine = {}, {}, {}
for at = 6, #ARGV do ids[#ids + 1] = ARGV[at] end
local held = owned(queue, lane, holder, ARGV[4], ARGV[5], ids)
for at, id in ipairs(ids) do
    answers[at] = held[id] and 1 or 0
    if held[id] then mine[#mine + 1] = id end
end
if #mine > 0 then
    local arguments = {queue .. lane, GROUP, holder, 0}
    for _, id in ipairs(mine) do arguments[#arguments + 1] = id end
    if given ~= '' then arguments[#arguments + 1] = 'TIME'; arguments[#arguments + 1] = given end
    arguments[#arguments + 1] = 'JUSTID'
    redis.call('XCLAIM', unpack(arguments))
end
return answers

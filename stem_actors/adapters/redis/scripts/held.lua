#!lua flags=allow-oom
-- What a consumer holds of a queue, read without touching it.
--
-- KEYS    1 the queue's meta hash
-- ARGV    now or '', consumer, lane to go on from or '', id in it after which to go on
-- Result  now, lane and id to go on from or '', '', then for each: lane, id, delivered at, fields

local queue = string.sub(KEYS[1], 1, -5)
local given, holder, from_lane, from_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local result, left = {clock(given), '', ''}, 1000
local is_reached = from_lane == ''
for _, level in ipairs(levels_of(queue)) do
    for _, kind in ipairs({'b', 'p'}) do
        local lane = kind .. level
        local start = '-'
        if lane == from_lane then is_reached = true; start = '(' .. from_id end
        if is_reached and left > 0 then
            local rows = redis.pcall('XPENDING', queue .. lane, GROUP, start, '+', left, holder)
            if rows.err then rows = {} end
            for _, row in ipairs(rows) do
                local entry = redis.call('XRANGE', queue .. lane, row[1], row[1])[1]
                if entry then
                    for _, each in ipairs({lane, row[1], delivered_at(row, queue .. lane, given), entry[2]}) do result[#result + 1] = each end
                end
                left = left - 1
                if left == 0 then result[2] = lane; result[3] = row[1] end
            end
        end
    end
end
return result

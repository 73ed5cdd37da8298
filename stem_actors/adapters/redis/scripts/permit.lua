#!lua flags=allow-oom
-- Take tokens from the buckets of rate limits, for each who asks from all of his or from none; as `model/rate.py` has it.
--
-- KEYS    the buckets (strings: when it is full, when its line ends)
-- ARGV    now or '', seconds that a line may last, for each who asks: how many buckets, for each: which of KEYS, number, interval
--         in ms
-- Result  for each who asks: '' when he may, else the ms after which to ask again

local now, longest = clock(ARGV[1]), ARGV[2] * 1000
local full, line, answers, changed = {}, {}, {}, {}
for at, value in ipairs(redis.call('MGET', unpack(KEYS))) do
    local full_at, line_ends = string.match(value or '', '^([%d.]+) ([%d.]+)$')
    full[at], line[at] = tonumber(full_at) or 0, tonumber(line_ends) or 0
end

local at = 3
while at <= #ARGV do
    local asked, wait = {}, 0
    for number = 1, tonumber(ARGV[at]) do
        local from = at + 1 + (number - 1) * 3
        local bucket, interval = tonumber(ARGV[from]), tonumber(ARGV[from + 2])
        local spacing = interval / ARGV[from + 1]
        local full_at = math.min(math.max(full[bucket], now), now + interval)
        asked[number] = {bucket = bucket, spacing = spacing, full_at = full_at, turn = full_at - interval + spacing}
        if asked[number].turn > now + 0.001 then wait = 1 end
    end
    at = at + 1 + #asked * 3
    local is_granted = wait == 0
    for _, each in ipairs(asked) do
        if is_granted then
            full[each.bucket] = each.full_at + each.spacing
            changed[each.bucket] = true
        elseif each.turn > now + 0.001 then
            local place = math.max(each.turn, line[each.bucket] + each.spacing)
            if place - each.turn > longest then place = each.turn end
            line[each.bucket] = place
            changed[each.bucket] = true
            wait = math.max(wait, place - now)
        end
    end
    answers[#answers + 1] = is_granted and '' or string.format('%.3f', wait)
end

for bucket in pairs(changed) do
    local value = string.format('%.3f %.3f', full[bucket], line[bucket])
    redis.call('SET', KEYS[bucket], value, 'PX', math.max(1, math.ceil(math.max(full[bucket], line[bucket]) - now)))
end
return answers

#!lua flags=allow-oom
-- Take tokens from the buckets of rate limits and places of concurrency limits, for each who asks all of his or none; as
-- `model/rate.py` and `model/concurrency.py` have it.
--
-- KEYS    the buckets (strings: when it is full, when its line ends); then for each semaphore its places (sorted set: holders by the
--         end of their lease) and its line (string: when it ends; of the next one since when it waits, until when it is, its id)
-- ARGV    now or '', seconds that a line may last, ms for which a place is kept, how many buckets;
--         for each who asks: how many buckets, for each: which of KEYS, number, interval in ms;
--         how many places, for each: which semaphore, number, holder, task, since, ms for which it lasts, pace in ms
-- Result  for each who asks: '' when he may, else the ms after which to ask again

local now, longest, grace, buckets = clock(ARGV[1]), ARGV[2] * 1000, tonumber(ARGV[3]), tonumber(ARGV[4])
local full, line, answers, changed = {}, {}, {}, {}
for at, value in ipairs(buckets > 0 and redis.call('MGET', unpack(KEYS, 1, buckets)) or {}) do
    local full_at, line_ends = string.match(value or '', '^([%d.]+) ([%d.]+)$')
    full[at], line[at] = tonumber(full_at) or 0, tonumber(line_ends) or 0
end

local semaphores = {}
local function semaphore(which)
    local found = semaphores[which]
    if not found then
        local places = KEYS[buckets + 2 * which - 1]
        redis.call('ZREMRANGEBYSCORE', places, '-inf', now)
        local line_ends, since, kept, task =
            string.match(redis.call('GET', KEYS[buckets + 2 * which]) or '', '^([%d.]+) ([%d.]+) ([%d.]+) (.*)$')
        found = {
            places = places, held = redis.call('ZCARD', places), line_ends = tonumber(line_ends) or 0,
            since = tonumber(since) or 0, kept = tonumber(kept) or 0, task = task or '',
        }
        semaphores[which] = found
    end
    return found
end

-- The ms after which to ask again for one of the places, or nil when there is one.
local function place_wait(each)
    local of = each.of
    local is_kept = of.kept > now and of.task ~= each.task
    if redis.call('ZSCORE', of.places, each.holder) then each.is_held = true; return nil end
    if each.number - of.held > (is_kept and 1 or 0) then return nil end
    of.is_changed = true
    if of.kept <= now or of.task == each.task or each.since < of.since then
        of.task, of.since, of.kept = each.task, each.since, now + each.pace + grace
        return each.pace
    end
    local turn = math.max(now, of.line_ends) + each.pace
    if turn - now > longest then turn = now + each.pace end
    of.line_ends = turn
    return turn - now
end

local at = 5
while at <= #ARGV do
    local asked, places, wait = {}, {}, 0
    for number = 1, tonumber(ARGV[at]) do
        local from = at + 1 + (number - 1) * 3
        local bucket, interval = tonumber(ARGV[from]), tonumber(ARGV[from + 2])
        local spacing = interval / ARGV[from + 1]
        local full_at = math.min(math.max(full[bucket], now), now + interval)
        asked[number] = {bucket = bucket, spacing = spacing, full_at = full_at, turn = full_at - interval + spacing}
    end
    at = at + 1 + #asked * 3
    for number = 1, tonumber(ARGV[at]) do
        local from = at + 1 + (number - 1) * 7
        places[number] = {
            of = semaphore(tonumber(ARGV[from])), number = tonumber(ARGV[from + 1]), holder = ARGV[from + 2],
            task = ARGV[from + 3], since = tonumber(ARGV[from + 4]), lasts = tonumber(ARGV[from + 5]), pace = tonumber(ARGV[from + 6]),
        }
    end
    at = at + 1 + #places * 7
    for _, each in ipairs(places) do wait = math.max(wait, place_wait(each) or 0) end
    if wait == 0 then
        for _, each in ipairs(asked) do
            if each.turn > now + 0.001 then
                local place = math.max(each.turn, line[each.bucket] + each.spacing)
                if place - each.turn > longest then place = each.turn end
                line[each.bucket] = place
                changed[each.bucket] = true
                wait = math.max(wait, place - now)
            end
        end
        for _, each in ipairs(wait == 0 and asked or {}) do
            full[each.bucket] = each.full_at + each.spacing
            changed[each.bucket] = true
        end
        for _, each in ipairs(wait == 0 and places or {}) do
            local of = each.of
            redis.call('ZADD', of.places, now + each.lasts, each.holder)
            if redis.call('PTTL', of.places) < each.lasts then redis.call('PEXPIRE', of.places, each.lasts) end
            if not each.is_held then of.held = of.held + 1 end
            if of.task == each.task then of.task, of.kept, of.is_changed = '', 0, true end
        end
    end
    answers[#answers + 1] = wait == 0 and '' or string.format('%.3f', wait)
end

for bucket in pairs(changed) do
    local value = string.format('%.3f %.3f', full[bucket], line[bucket])
    redis.call('SET', KEYS[bucket], value, 'PX', math.max(1, math.ceil(math.max(full[bucket], line[bucket]) - now)))
end
for which, of in pairs(semaphores) do
    if of.is_changed then
        local value = string.format('%.3f %.3f %.3f ', of.line_ends, of.since, of.kept) .. of.task
        local lasts = math.max(1, math.ceil(math.max(of.line_ends, of.kept) - now))
        redis.call('SET', KEYS[buckets + 2 * which], value, 'PX', lasts)
    end
end
return answers

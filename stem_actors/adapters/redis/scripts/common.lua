-- What scripts share: each gets those functions that it uses, directly or not. A blank line ends a function.
--
-- Names: a queue is its prefix `<ns>:{<name>}:`; a lane is one of its streams, `p5` for what is new at priority 5, `b5` for what
-- came back there, read before it. Times are milliseconds since the epoch.
--
-- An entry's fields are `h`, `b` and, where there is one, `s`, `g` and `u`: header, body, state, signature, and the key that it
-- holds until its end. A header has five lines:
-- waiting since, visibility timeout or empty, 1 for an id its producer chose, hand-outs that the state does not count, id.

local GROUP = 'stem'

local function server_time()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The server's clock, unless a test stands in for it.
local function clock(given)
    return given ~= '' and tonumber(given) or server_time()
end

-- A number that grows though the server forgot the last one, or its clock was set back.
local function next_number(key, now)
    local number = math.max((tonumber(redis.call('GET', key) or 0) or 0) + 1, now)
    redis.call('SET', key, string.format('%.0f', number))
    return number
end

local function levels_of(queue)
    local levels = {}
    for digit in string.gmatch(redis.call('HGET', queue .. 'meta', 'levels') or '', '%d') do levels[#levels + 1] = digit end
    return levels
end

local function create_group(stream)
    redis.pcall('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
end

-- Make sure that fetches look at this level.
local function use_level(queue, level)
    local levels = redis.call('HGET', queue .. 'meta', 'levels') or ''
    if string.find(levels, level, 1, true) then return end
    local used = {}
    for digit = 9, 0, -1 do
        local each = tostring(digit)
        if each == level or string.find(levels, each, 1, true) then used[#used + 1] = each end
    end
    create_group(queue .. 'p' .. level)
    create_group(queue .. 'b' .. level)
    redis.call('HSET', queue .. 'meta', 'levels', table.concat(used))
end

local function field(fields, name)
    for at = 1, #fields, 2 do
        if fields[at] == name then return fields[at + 1], at + 1 end
    end
end

local function with_field(fields, name, value)
    local _, at = field(fields, name)
    if at then fields[at] = value
    else fields[#fields + 1] = name; fields[#fields + 1] = value end
end

-- since, visibility, named, hand-outs, id; nil when it is no header of ours.
local function parse_header(fields)
    return string.match(field(fields, 'h') or '', '^(%d+)\n(%d*)\n(1?)\n(%d+)\n(.*)$')
end

local function write_header(fields, since, visibility, named, handouts, id)
    with_field(fields, 'h', string.format('%.0f', since) .. '\n' .. visibility .. '\n' .. named .. '\n' .. handouts .. '\n' .. id)
end

-- Change an entry's fields in place for its way back. `state` '' leaves the state and counts the hand-out; `since` nil: as it was.
local function send_back(fields, state, since)
    local waited, visibility, named, handouts, id = parse_header(fields)
    if state ~= '' then with_field(fields, 's', state); handouts = '0'
    elseif handouts then handouts = string.format('%.0f', handouts + 1) end
    if waited then write_header(fields, since or tonumber(waited), visibility, named, handouts, id) end
end

local function add(queue, lane, fields)
    use_level(queue, string.sub(lane, 2))
    redis.call('XADD', queue .. lane, '*', unpack(fields))
end

-- How many messages of a queue could be fetched now.
local function ready_count(queue)
    local ready = 0
    for _, level in ipairs(levels_of(queue)) do
        for _, kind in ipairs({'b', 'p'}) do
            local stream = queue .. kind .. level
            local pending = redis.pcall('XPENDING', stream, GROUP)
            ready = ready + redis.call('XLEN', stream) - (pending.err and 0 or pending[1])
        end
    end
    return ready
end

-- Wake as many consumers as there are messages for; those that died meanwhile have no subscription left.
local function wake(queue, count)
    while count > 0 do
        local waiter = redis.call('LPOP', queue .. 'waiters')
        if not waiter then return end
        if redis.call('PUBLISH', waiter, queue) > 0 then count = count - 1 end
    end
end

-- Something falls due sooner than waiting consumers think: all look again.
local function alarm(queue)
    for _, waiter in ipairs(redis.call('LRANGE', queue .. 'waiters', 0, 99)) do redis.call('PUBLISH', waiter, 'look') end
end

local function next_due(queue)
    return tonumber(redis.call('ZRANGE', queue .. 'delayed', 0, 0, 'WITHSCORES')[2])
end

-- A number of its own for a member of a sorted set; equal scores keep the order of arrival.
local function serial(queue, now)
    local number = math.max(tonumber(redis.call('HGET', queue .. 'meta', 'serial') or 0) or 0, now * 1000) + 1
    redis.call('HSET', queue .. 'meta', 'serial', string.format('%.0f', number))
    return string.format('%016.0f', number)
end

-- Returns whether it became the first to fall due.
local function add_delayed(queue, level, due, fields, now)
    local first = next_due(queue)
    redis.call('ZADD', queue .. 'delayed', due, serial(queue, now) .. cmsgpack.pack({level, fields}))
    return first == nil or due < first
end

-- Level and fields of a delayed message; garbage becomes a message without header, whose consumer sets it aside.
local function read_delayed(member)
    local ok, entry = pcall(cmsgpack.unpack, string.sub(member, 17))
    if ok and type(entry) == 'table' and type(entry[1]) == 'string' and string.find(entry[1], '^%d$')
        and type(entry[2]) == 'table' and #entry[2] > 0 and #entry[2] % 2 == 0 then
        for _, each in ipairs(entry[2]) do
            if type(each) ~= 'string' then return '0', {'b', member} end
        end
        return entry[1], entry[2]
    end
    return '0', {'b', member}
end

-- What is due joins the tail of its level, in the order in which it fell due.
local function promote(queue, now, limit)
    local members = redis.call('ZRANGEBYSCORE', queue .. 'delayed', '-inf', now, 'LIMIT', 0, limit)
    for _, member in ipairs(members) do
        local level, fields = read_delayed(member)
        local _, visibility, named, handouts, id = parse_header(fields)
        if id then write_header(fields, now, visibility, named, handouts, id) end
        add(queue, 'p' .. level, fields)
    end
    if #members > 0 then redis.call('ZREMRANGEBYRANK', queue .. 'delayed', 0, #members - 1) end
    return #members
end

-- A script that fails midway undoes nothing: whatever may be of a wrong type is looked at before anything is written.
local function check_types(queue, level)
    redis.call('HLEN', queue .. 'meta')
    redis.call('XLEN', queue .. 'b' .. level)
    redis.call('XLEN', queue .. 'p' .. level)
    redis.call('ZCARD', queue .. 'delayed')
    redis.call('ZCARD', queue .. 'dead')
    redis.call('HLEN', queue .. 'dead:tasks')
end

-- Who holds a key of this queue, if anybody does: id, since, until or 0, how many it kept out, ids and times of the last of them.
local function read_claim(name, now)
    local value = redis.pcall('GET', name)
    local ok, claim = pcall(cmsgpack.unpack, type(value) == 'string' and value or '')
    if not ok or type(claim) ~= 'table' or type(claim[1]) ~= 'string' or type(claim[5]) ~= 'table' then return nil end
    if claim[3] == 0 or claim[3] > now then return claim end
end

-- The key that a message holds is free from now on, unless it is another's.
local function end_claim(queue, fields)
    local key = field(fields, 'u')
    if not key then return end
    local _, _, _, _, id = parse_header(fields)
    local claim = read_claim(queue .. 'unique:' .. key, 0)
    if claim and claim[1] == id then redis.call('DEL', queue .. 'unique:' .. key) end
end

local function bury(queue, level, fields, reason, meta, now)
    local _, _, _, _, id = parse_header(fields)
    local member = serial(queue, now) .. ':' .. (id or '')
    redis.call('HSET', queue .. 'dead:tasks', member, cmsgpack.pack({reason, meta, level, fields}))
    redis.call('ZADD', queue .. 'dead', now, member)
    end_claim(queue, fields)
end

-- Which of these entries are pending for this consumer, by id: the whole fence. `first` and `last` bound the ids.
local function owned(queue, lane, holder, first, last, ids)
    local held = {}
    local rows = redis.pcall('XPENDING', queue .. lane, GROUP, first, last, 5000, holder)
    if rows.err then return held end
    for _, row in ipairs(rows) do held[row[1]] = row end
    if #rows == 5000 then
        for _, id in ipairs(ids) do
            held[id] = redis.call('XPENDING', queue .. lane, GROUP, id, id, 1, holder)[1]
        end
    end
    return held
end

-- When a pending entry was handed out or extended. For a test's clock exactly: asked again until no time passes in between.
local function delivered_at(row, stream, given)
    local now
    repeat
        now = server_time()
        if given ~= '' then row = redis.call('XPENDING', stream, GROUP, row[1], row[1], 1)[1] end
    until given == '' or server_time() == now
    return now - row[3]
end

-- ---------------------------------------------------------------- task records

-- A stored record is: created, updated, expires (13 digits each), then as its writer sent it: precedence (31 digits, which compare
-- as they should), state (1), the rest. `listing` names all that may be written here; a reader finds out what was.
local function store_records(index, now, ttl, keys, records, listing)
    local old = redis.call('MGET', unpack(keys))
    local seen, final, answers = {}, {}, {}
    local stamp = string.format('%013.0f', now)
    local stamps = stamp .. string.format('%013.0f', now + ttl)
    local fresh, lasting = stamp .. stamps, string.format('%.0f', ttl)
    for at, key in ipairs(keys) do
        local record, before, head = records[at], seen[key] or old[at], fresh
        answers[at] = 1
        if before and #before >= 71 and (tonumber(string.sub(before, 27, 39)) or 0) > now then
            if string.sub(before, 40, 70) > string.sub(record, 1, 31) then answers[at] = 0 end
            head = string.sub(before, 1, 13) .. stamps
        end
        if answers[at] == 1 then
            local value = head .. record
            redis.call('SET', key, value, 'PX', lasting)
            seen[key] = value
            if string.byte(record, 31) == 51 then final[#final + 1] = key end    -- a final state is a 3
        end
    end
    redis.call('XADD', index, '*', 't', stamp, 'r', listing)
    return answers, final
end

-- Tell those who wait for one of these; a single look when nobody waits for anything.
local function announce(index, keys)
    local prefix = string.sub(index, 1, -8)    -- without `results`
    if #keys == 0 or redis.call('PUBSUB', 'NUMSUB', prefix .. 'waiters')[2] == 0 then return end
    local channels = {}
    for at, key in ipairs(keys) do channels[at] = prefix .. 'done:' .. string.sub(key, #index + 1) end    -- `result:` is as long
    local counts = redis.call('PUBSUB', 'NUMSUB', unpack(channels))
    for at = 2, #counts, 2 do
        if counts[at] > 0 then redis.call('PUBLISH', counts[at - 1], '') end
    end
end


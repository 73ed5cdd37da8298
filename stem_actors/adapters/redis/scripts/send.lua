#!lua flags=allow-oom
-- Put a message on a control channel and wake its readers.
--
-- KEYS    1 the channel (stream), 2 counter of messages, 3 channels (sorted set by when their last message expires)
-- ARGV    now or '', time to live in ms, message
-- Result  the message's number
-- The counter numbers the messages of all channels, so that one number is a reader's place in each.

local now, ttl = clock(ARGV[1]), tonumber(ARGV[2])
local number = string.format('%.0f', next_number(KEYS[2], now))
redis.call('XADD', KEYS[1], 'MAXLEN', '~', 10000, number .. '-0', 'x', string.format('%.0f', now + ttl), 'm', ARGV[3])
redis.call('ZADD', KEYS[3], 'GT', now + ttl, KEYS[1])
redis.call('PUBLISH', KEYS[1], number)
return number

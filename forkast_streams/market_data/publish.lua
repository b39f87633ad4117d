-- Publishes one change of one symbol's book, whole or not at all.
-- KEYS: meta, bids, asks, changes, trades
-- ARGV: mode (delta, whole, force), previous, sequence, timestamp, last price, message, changes kept, trades kept,
--       number of bids, then price and value each; asks likewise; trades likewise (sequence and JSON each).
-- Answers: OK; KNOWN (Redis has this already); RESYNC (Redis is not where the change begins); AHEAD (Redis has more).
local mode, previous, sequence = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local known = tonumber(redis.call('HGET', KEYS[1], 'sequence') or '-1')
if mode == 'delta' then
    if known >= sequence then return 'KNOWN' end
    if known ~= previous then return 'RESYNC' end
else
    if known == sequence and mode == 'whole' then return 'KNOWN' end
    if known > sequence and mode == 'whole' then return 'AHEAD' end
    redis.call('DEL', KEYS[2], KEYS[3])
    if known > sequence then redis.call('DEL', KEYS[4], KEYS[5]) end
end
local at = 9
for side = 2, 3 do
    local count = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, count do
        if ARGV[at + 1] == '' then
            redis.call('HDEL', KEYS[side], ARGV[at])
        else
            redis.call('HSET', KEYS[side], ARGV[at], ARGV[at + 1])
        end
        at = at + 2
    end
end
local trades = tonumber(ARGV[at])
at = at + 1
for _ = 1, trades do
    -- A trade that is there already is refused for its id; that is as it should be.
    redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', ARGV[8], ARGV[at] .. '-0', 'trade', ARGV[at + 1])
    at = at + 2
end
redis.call('HSET', KEYS[1], 'sequence', ARGV[3], 'timestamp', ARGV[4], 'lastPrice', ARGV[5])
redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', ARGV[7], ARGV[3] .. '-0', 'change', ARGV[6])
redis.call('SET', 'books:published', '1')
return 'OK'

-- Brings what Redis holds of one symbol to a newer state, all at once, and never back, but when it is to be written anew.
--
-- KEYS: meta, buy, sell, changes, trades
-- ARGV: mode ("change", "whole", or "anew": a whole book that replaces one of the same log that is not so any more),
--       born, previous, sequence, timestamp,
--       the changed levels as the rest of a JSON object,
--       number of buy arguments, number of sell arguments,
--       then price and level ("quantity orders", empty when gone) for buy and for sell,
--       then sequence and JSON for each trade, oldest first.
--
-- Answers: for what was written, which log it is of to readers, and for a change also from which sequence it went on and
-- its JSON; KNOWN when Redis is there already or further, after a crash of the keeper; FOREIGN when Redis holds a newer
-- log; RESYNC when the change does not fit what Redis holds, so that the whole book is needed.

local meta_key, buy_key, sell_key, changes_key, trades_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local mode, born, previous, sequence = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local CHANGES_KEPT, CHANGES_BYTES_KEPT, TRADES_KEPT = 10000, 16777216, 1000

local stored = redis.pcall('HMGET', meta_key, 'born', 'sequence', 'rewritten')
if stored.err then
    -- What is there is nothing of a keeper's: as good as lost, and the whole book takes its place.
    stored = {}
end
local stored_born, current = tonumber(stored[1] or ''), tonumber(stored[2] or '')
local is_known = stored_born ~= nil and current ~= nil

if is_known and stored_born > born then
    return 'FOREIGN'
end
local is_same_log = is_known and stored_born == born
local rewritten = is_same_log and tonumber(stored[3] or '') or 0
if mode == 'change' then
    if not is_same_log or current < previous then
        return 'RESYNC'
    elseif current >= sequence then
        return 'KNOWN'
    end
else
    if mode == 'whole' and is_same_log and current > sequence then
        return 'KNOWN'
    end
    if mode == 'anew' and is_same_log then
        rewritten = rewritten + 1
    end
    redis.call('DEL', meta_key, buy_key, sell_key, changes_key, trades_key)
    current = -1
end
-- Sequences that come a second time, with other events, are to readers those of another log.
local log = string.format('%.0f', born + rewritten)

local function write_levels(key, first, count)
    for at = first, first + count - 1, 2 do
        if ARGV[at + 1] == '' then
            redis.call('HDEL', key, ARGV[at])
        else
            redis.call('HSET', key, ARGV[at], ARGV[at + 1])
        end
    end
    return first + count
end

local after_buy = write_levels(buy_key, 9, tonumber(ARGV[7]))
local first_trade = write_levels(sell_key, after_buy, tonumber(ARGV[8]))
for at = first_trade, #ARGV, 2 do
    if tonumber(ARGV[at]) > current then
        redis.call('XADD', trades_key, 'MAXLEN', '~', TRADES_KEPT, ARGV[at] .. '-0', 'json', ARGV[at + 1])
    end
end
redis.call('HSET', meta_key, 'born', ARGV[2], 'sequence', ARGV[4], 'timestamp', ARGV[5], 'rewritten', rewritten)
if mode == 'change' then
    -- Levels are absolute, so what Redis holds may lie anywhere behind the change's own previous sequence.
    local json = '{"type":"change","orderBookSnapShotId":' .. ARGV[4] .. ',"previousSnapShotId":' .. stored[2]
        .. ',"timestamp":' .. ARGV[5] .. ',' .. ARGV[6]
    -- As if all were as long as this one: short ones that come behind long ones push those out in the end.
    local kept = math.max(1, math.min(CHANGES_KEPT, math.floor(CHANGES_BYTES_KEPT / #json)))
    redis.call('XADD', changes_key, 'MAXLEN', '~', kept, ARGV[4] .. '-0', 'born', log, 'previous', stored[2],
        'json', json)
    return {log, stored[2], json}
end
redis.call('XADD', changes_key, ARGV[4] .. '-0', 'born', log, 'reset', '1')
return {log}

-- Tells what Redis holds of symbols: of each its log, its sequence and the numbers of its levels, -1 for what is not
-- there, or is nothing of a keeper's: that must not hide the other symbols.
--
-- KEYS: meta, buy, sell of each

local function levels(key)
    local count = redis.pcall('HLEN', key)
    return type(count) == 'number' and count or -1
end

local found = {}
for at = 1, #KEYS, 3 do
    local stored = redis.pcall('HMGET', KEYS[at], 'born', 'sequence')
    found[#found + 1] = {
        tonumber(stored[1] or '') or -1, tonumber(stored[2] or '') or -1, levels(KEYS[at + 1]), levels(KEYS[at + 2])}
end
return found

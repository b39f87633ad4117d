-- Token buckets that all processes share. KEYS[i] is a bucket; ARGV[3i-2], ARGV[3i-1] and ARGV[3i] are its tokens a
-- second, its size, and the tokens that the caller has spent since its last report. Answers the tokens left in each,
-- below 0 for a debt. A clock that goes back makes no time pass; one that goes forward can only fill a bucket.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local left = {}
for i, key in ipairs(KEYS) do
    local rate, size, spent = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
    local stored = redis.pcall('HMGET', key, 'tokens', 'at')
    if stored.err then
        -- It is no bucket, and would keep all others in this call from being counted.
        redis.call('DEL', key)
        stored = {}
    end
    local tokens = tonumber(stored[1] or size)
    local elapsed = math.max(0, now - tonumber(stored[2] or now))
    local before = math.min(size, tokens + elapsed * rate)
    tokens = math.max(math.min(before, -math.max(size, spent - size)), before - spent)
    redis.call('HSET', key, 'tokens', string.format('%.6f', tokens), 'at', string.format('%.6f', now))
    redis.call('PEXPIRE', key, math.ceil((size - tokens) / rate * 1000) + 1000)
    left[i] = string.format('%.6f', tokens)
end
return left

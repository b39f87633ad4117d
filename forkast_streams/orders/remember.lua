-- Remembers pending orders: each by its id, and among the newest ones of its user.
-- ARGV: seconds to remember them, how many of a user are listed, and one flat MessagePack array with the id, user id,
-- time and JSON of each order, one after the other.

-- By user, as ZADD takes them: time, id, time, id ...
local listed = {}
local orders = cmsgpack.unpack(ARGV[3])
for at = 1, #orders, 4 do
    local id, user = orders[at], orders[at + 1]
    redis.call('SETEX', 'pending-order:' .. id, ARGV[1], orders[at + 3])
    local members = listed[user] or {}
    members[#members + 1], members[#members + 2] = orders[at + 2], id
    listed[user] = members
end
for user, members in pairs(listed) do
    local key = 'pending-orders:' .. user
    -- Whatever else is there would keep the orders of all users in this call from being remembered.
    if redis.call('TYPE', key).ok ~= 'zset' then
        redis.call('DEL', key)
    end
    redis.call('ZADD', key, unpack(members))
    redis.call('ZREMRANGEBYRANK', key, 0, -ARGV[2] - 1)
    redis.call('EXPIRE', key, ARGV[1])
end

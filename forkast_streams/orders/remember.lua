-- Remembers pending orders: each by its id, and among the newest ones of its user.
-- ARGV: seconds to remember them, how many of a user are listed, and as MessagePack of each order its id, user id, time
-- and JSON.

local users = {}
for _, order in ipairs(cmsgpack.unpack(ARGV[3])) do
    local id, user = order[1], 'user-orders:' .. order[2]
    redis.call('SET', 'order:' .. id, order[4], 'EX', ARGV[1])
    redis.call('ZADD', user, order[3], id)
    users[user] = true
end
for user in pairs(users) do
    redis.call('ZREMRANGEBYRANK', user, 0, -ARGV[2] - 1)
    redis.call('EXPIRE', user, ARGV[1])
end

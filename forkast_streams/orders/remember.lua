-- Remembers pending orders: each by its id, and among the newest ones of its user.
-- ARGV: seconds to remember them, how many of a user are listed, and of each order its id, user id, time and JSON.

local users = {}
for at = 3, #ARGV, 4 do
    local id, user = ARGV[at], 'user-orders:' .. ARGV[at + 1]
    redis.call('SET', 'order:' .. id, ARGV[at + 3], 'EX', ARGV[1])
    redis.call('ZADD', user, ARGV[at + 2], id)
    users[user] = true
end
for user in pairs(users) do
    redis.call('ZREMRANGEBYRANK', user, 0, -ARGV[2] - 1)
    redis.call('EXPIRE', user, ARGV[1])
end

-- Whether the tables are so far past a claim made %(age_s)s seconds ago that an order sent for it would be in them: it
-- came into the log within %(late_s)s seconds or never will, they have a trade of the same partition from later than that,
-- and a partition's events are written in their order.
SELECT EXISTS (
    SELECT FROM "SymbolSequence" AS own
    JOIN "SymbolSequence" AS neighbour ON neighbour.partition = own.partition
    CROSS JOIN LATERAL (
        SELECT "timestamp" FROM "Trade" AS t WHERE t."symbolId" = neighbour."symbolId" ORDER BY sequence DESC LIMIT 1
    ) AS last
    WHERE own."symbolId" = %(symbol_id)s
    AND last."timestamp" > (now() AT TIME ZONE 'UTC') - make_interval(secs => %(age_s)s - %(late_s)s)
) AS "isPast"

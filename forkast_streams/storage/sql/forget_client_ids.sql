-- Some of those that stand for nothing any more; the rest the next time.
DELETE FROM "ClientOrderId" WHERE ("userId", "clientOrderId") IN (
    SELECT "userId", "clientOrderId" FROM "ClientOrderId"
    WHERE "createdAt" < (now() AT TIME ZONE 'UTC') - interval '25 hours'
    LIMIT 20000
)
RETURNING 1

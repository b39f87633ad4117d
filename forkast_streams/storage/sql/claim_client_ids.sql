-- Registers client order ids that are free, or were taken more than 24 hours ago, and returns what each stands for. A
-- row that another transaction made or renewed in this very moment is not returned; the caller asks again.
WITH claims AS (
    SELECT * FROM json_to_recordset(%(claims)s::json) AS c(
        "userId" integer, "clientOrderId" text, "orderId" uuid, "symbolId" integer, digest text)
),
taken AS (
    INSERT INTO "ClientOrderId" AS known ("userId", "clientOrderId", "orderId", "symbolId", digest)
    -- In one order, so that two statements never wait for each other.
    SELECT "userId", "clientOrderId", "orderId", "symbolId", decode(digest, 'hex') FROM claims
    ORDER BY "userId", "clientOrderId"
    ON CONFLICT ("userId", "clientOrderId") DO UPDATE SET
        "orderId" = excluded."orderId", "symbolId" = excluded."symbolId", digest = excluded.digest,
        "createdAt" = excluded."createdAt"
    WHERE known."createdAt" < excluded."createdAt" - interval '24 hours'
    RETURNING "userId", "clientOrderId", "orderId", "symbolId", digest
)
SELECT "userId", "clientOrderId", "orderId"::text, "symbolId", encode(digest, 'hex') AS digest, true AS "isNew",
    0.0::float8 AS "ageS"
FROM taken
UNION ALL
SELECT known."userId", known."clientOrderId", known."orderId"::text, known."symbolId",
    encode(known.digest, 'hex'), false,
    extract(epoch FROM (now() AT TIME ZONE 'UTC') - known."createdAt")::float8
FROM "ClientOrderId" AS known JOIN claims USING ("userId", "clientOrderId")
-- Who waited for a transaction that renewed an old row sees it here as it was before.
WHERE known."createdAt" >= (now() AT TIME ZONE 'UTC') - interval '24 hours'
AND NOT EXISTS (
    SELECT FROM taken
    WHERE taken."userId" = known."userId" AND taken."clientOrderId" = known."clientOrderId"
)

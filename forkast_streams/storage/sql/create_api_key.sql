-- Several at once may get past the limit by as many; it is there against heaps of keys, not to the unit.
INSERT INTO "ApiKey" (id, "userId", name, scopes, "secretHash", "signingKey")
SELECT %(id)s, %(user_id)s, %(label)s, %(scopes)s, %(secret_hash)s, %(signing_key)s
WHERE (SELECT count(*) FROM "ApiKey" WHERE "userId" = %(user_id)s AND "revokedAt" IS NULL) < %(most)s
RETURNING id, name, scopes, "signingKey" IS NOT NULL AS "canSign", "createdAt"

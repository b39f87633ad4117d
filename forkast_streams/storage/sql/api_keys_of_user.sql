SELECT id, name, scopes, "signingKey" IS NOT NULL AS "canSign", "createdAt"
FROM "ApiKey"
WHERE "userId" = %(user_id)s AND "revokedAt" IS NULL
ORDER BY "createdAt" DESC, id

SELECT k."userId", u.email, k.scopes, k."secretHash", k."signingKey"
FROM "ApiKey" AS k
JOIN "User" AS u ON u.id = k."userId"
WHERE k.id = %(id)s AND k."revokedAt" IS NULL

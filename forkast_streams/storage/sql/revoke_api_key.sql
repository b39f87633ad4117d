UPDATE "ApiKey" SET "revokedAt" = now() AT TIME ZONE 'UTC'
WHERE id = %(id)s AND "userId" = %(user_id)s AND "revokedAt" IS NULL
RETURNING id

UPDATE "Symbol" SET status = %(status)s WHERE id = %(id)s AND "updatedAt" = %(seen)s RETURNING id

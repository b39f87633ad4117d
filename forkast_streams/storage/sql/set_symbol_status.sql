UPDATE "Symbol" SET status = %(status)s WHERE id = %(id)s RETURNING id

SELECT "updatedAt" FROM "Symbol" WHERE id = %(id)s

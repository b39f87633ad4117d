SELECT id, email, password FROM "User" WHERE email = %(email)s

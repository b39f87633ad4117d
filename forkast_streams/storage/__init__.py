"""Where history and users are kept: Postgres, and the SQL for it by name."""

"""Stream processors: what happens to each record of a topic."""

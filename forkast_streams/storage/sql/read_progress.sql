-- How far a partition is: the next offset, and the last sequences of its symbols as a JSON object; one snapshot.
SELECT
    "nextOffset",
    (SELECT coalesce(json_object_agg("symbolId", sequence), '{}') FROM "SymbolSequence" WHERE partition = %(partition)s)
FROM "SinkProgress"
WHERE topic = %(topic)s AND partition = %(partition)s

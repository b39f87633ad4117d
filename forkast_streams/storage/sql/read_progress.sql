-- How far a partition is: the next offset, the last sequences of its symbols as a JSON object, and the digest of the
-- last record; one snapshot.
SELECT
    "nextOffset",
    (SELECT coalesce(json_object_agg("symbolId", sequence), '{}') FROM "SymbolSequence" WHERE partition = %(partition)s),
    "lastDigest"
FROM "SinkProgress"
WHERE topic = %(topic)s AND partition = %(partition)s

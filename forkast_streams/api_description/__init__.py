"""What the exchange answers and writes, for programs: OpenAPI of its routes, AsyncAPI of its topics and streams.

`oms`, `keeper` and `process` hold one entry for each route that a role registers; `commands`, `answers` and
`forkast_streams.wire_events` hold the values. All schemas are generated from the types by which the values are decoded
or, where the exchange puts them together by hand, from types that the tests hold against what is really answered.
"""

"""The benchmarks' clients: what they measure from, and what they take for an answer."""

from __future__ import annotations

import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.http_load import Client, Connection, open_loop, percentile, post
from benchmarks.steady_load import Lag


async def test_each_request_has_one_answer_over_connections_that_stay() -> None:
    async def place(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), status=201)

    app = web.Application()
    app.router.add_post("/orders", place)
    answers: list[tuple[int, bytes]] = []
    async with TestServer(app) as server:
        assert server.port is not None
        async with Client(server.port, 3) as client:
            requests = [post("/orders", b"%d" % number, number) for number in range(10)]
            await client.send_all(requests, lambda status, body: answers.append((status, body)))
            assert client.under_way == 0
            assert client.statuses == {201: 10}
    assert sorted(answers) == [(201, b"%d" % number) for number in range(10)]


@pytest.mark.parametrize("cut", [5, 30, 60, 70])
def test_an_answer_may_come_in_parts(cut: int) -> None:
    body = b'{"orderId":"1"}'
    answer = b"HTTP/1.1 201 Created\r\nContent-Length: 15\r\nServer: forkast-test\r\n\r\n" + body
    answers: list[tuple[int, bytes]] = []
    idle: list[Connection] = []
    one = Connection(idle.append, lambda status, body: answers.append((status, body)))
    one.data_received(answer[:cut])
    assert not answers
    assert not idle
    one.data_received(answer[cut:])
    assert answers == [(201, body)]
    assert idle == [one]


async def test_a_lost_connection_ends_the_measurement() -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_post("/orders", hang_up)
    async with TestServer(app) as server:
        assert server.port is not None
        async with Client(server.port, 2) as client:
            with pytest.raises(RuntimeError, match="connection was lost"):
                await client.send_all([post("/orders", b"{}")], lambda *_: None)


async def test_an_open_loop_counts_from_when_a_request_was_due_not_from_when_it_could_be_sent() -> None:
    waited = []

    def act(number: int, due: float) -> None:
        if number == 5:
            time.sleep(0.1)
        waited.append(time.perf_counter() - due)

    await open_loop(1_000, 100, act)
    assert len(waited) == 100
    assert min(waited) >= 0
    # Those that became due meanwhile have waited for nearly as long.
    assert sum(one > 0.02 for one in waited) > 50


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert percentile(values, 0.5) == 51
    assert percentile(values, 0.99) == 100
    assert percentile([7.0], 0.999) == 7


def test_a_reader_is_behind_since_the_log_ended_where_it_is() -> None:
    lag = Lag()
    assert lag.seconds(0.0, [10, 0], [10, 0]) == 0
    assert lag.seconds(1.0, [20, 5], [10, 0]) == 1.0
    assert lag.seconds(2.0, [30, 9], [20, 4]) == 2.0, "one partition has not moved beyond the first look"
    assert lag.seconds(3.0, [40, 9], [25, 6]) == 2.0, "all have passed the look at 1.0"
    assert lag.seconds(4.0, [40, 9], [40, 9]) == 0

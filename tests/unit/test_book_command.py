"""``forkast book`` says what is wrong: with the request, with the address, and that it connects again."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from forkast_streams.cli import app
from forkast_streams.cli.book import follow
from forkast_streams.devstack.ports import free_ports
from forkast_streams.errors import ForkastError

Answer = tuple[int, str]
SNAPSHOT: Answer = (200, 'id: 7\ndata: {"n": 1}\n\nid: 8\ndata: {"n":')
CHANGE: Answer = (200, 'id: 8\ndata: {"n": 2}\n\n')
AWAY: Answer = (503, json.dumps({"error": {"code": "UNAVAILABLE", "message": "Redis is out of reach"}}))
UNKNOWN: Answer = (404, json.dumps({"error": {"code": "NOT_FOUND", "message": "there is no symbol 9"}}))
REFUSED: Answer = (401, json.dumps({"error": {"code": "UNAUTHORIZED", "message": "who are you?"}}))


async def told(answers: list[Answer]) -> tuple[list[Any], list[str]]:
    """What is read of streams with these answers, one after the other, and what they were asked to go on behind.

    Breaks are "-", and the error that ends it is its sentence.
    """
    told: list[Any] = []
    asked: list[str] = []

    async def stream(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Last-Event-ID", ""))
        status, text = answers.pop(0)
        return web.Response(status=status, text=text, content_type="application/json")

    keeper = web.Application()
    keeper.add_routes([web.get("/stream", stream)])
    async with TestServer(keeper) as server, ClientSession() as client:
        try:
            async for message in follow(client, str(server.make_url("/stream")), lambda: told.append("-"), pause_s=0):
                told.append(message["n"])  # noqa: PERF401 - what came before an error counts
        except ForkastError as exc:
            told.append(str(exc))
    return told, asked


@pytest.mark.parametrize("answer", [UNKNOWN, REFUSED, AWAY], ids=["404", "401", "503"])
async def test_a_refusal_ends_it(answer: Answer) -> None:
    """In one sentence with its code."""
    error = json.loads(answer[1])["error"]
    assert await told([answer]) == ([f"{error['code']}: {error['message']}"], [""])


async def test_after_a_break_it_goes_on() -> None:
    """Behind the last whole message, as often as need be, unless the stream is refused."""
    heard, asked = await told([SNAPSHOT, AWAY, CHANGE, REFUSED])
    assert heard == [1, "-", "-", 2, "-", "UNAUTHORIZED: who are you?"]
    assert asked == ["", "7", "7", "8"]


async def test_forkast_book_asks_again_for_what_it_has_seen_half() -> None:
    """An event that breaks off has not been seen, with an error or without one."""
    asked: list[str | None] = []
    answers = [b'id: 1-1\ndata: {"n": 1}\n\nid: 2-1\ndata: {"n"', b'id: 2-1\ndata: {"n": 2}\n\nid: 3-1\ndata: {"n": 3']

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Last-Event-ID"))
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(answers[len(asked) - 1] if len(asked) <= len(answers) else b'data: {"n": 9}\n\n')
        if len(asked) == 1:
            assert request.transport is not None
            request.transport.abort()
        return response

    app = web.Application()
    app.router.add_get("/", answer)
    seen = []
    async with (
        TestServer(app) as server,
        ClientSession() as client,
        aclosing(follow(client, str(server.make_url("/")), lambda: None, pause_s=0.0)) as messages,
    ):
        async for message in messages:
            seen.append(message["n"])
            if message["n"] == 9:
                break
    assert seen[-2:] == [2, 9]
    assert asked[1:] == ["1-1" if 1 in seen else None, "2-1"]


async def test_an_address_with_nothing_behind_it_is_one_sentence() -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}/stream"
    async with ClientSession() as client:
        with pytest.raises(ForkastError, match=f"{url} does not answer"):
            await anext(follow(client, url, lambda: None))


@pytest.mark.parametrize("command", [["book", "AAPL"], ["order", "list"], ["audit"]])
def test_a_user_with_a_colon_is_no_user(command: list[str]) -> None:
    """It would end there, before the password."""
    result = CliRunner().invoke(app, [*command, "--user", "a:b"])
    assert result.exit_code == 2
    assert "colon" in result.output


def test_an_odd_digit_is_the_name_of_a_symbol() -> None:
    """One that stands for no number."""
    result = CliRunner().invoke(app, ["book", "²", "--url", f"http://127.0.0.1:{free_ports(1)[0]}"])
    assert isinstance(result.exception, ForkastError)

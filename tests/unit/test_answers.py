"""An answer written in one piece is the one that aiohttp writes, and a remembered route the one that it finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from forkast_streams.limits import REQUEST_S_MAX
from web import errors
from web.answers import STANDING_HEADERS, JsonAnswer
from web.errors import error_response, json_response
from web.fixed_routes import FixedRoutes

_BODY = {"price": "101.25"}
_ROUTES = web.AppKey("routes", FixedRoutes)


async def _quick(_: web.Request) -> web.Response:
    return json_response(_BODY, status=202)


async def _by_aiohttp(_: web.Request) -> web.Response:
    answer = json_response(_BODY, status=202)
    assert type(answer) is JsonAnswer
    return web.Response(body=answer.body, status=202, content_type="application/json", charset="utf-8")


async def _by_id(request: web.Request) -> web.Response:
    return json_response({"id": request.match_info["id"], "app": request.app is not None})


async def _slow(_: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return json_response(_BODY)


async def _more_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["RateLimit-Remaining"] = "7"


@pytest.fixture
async def app() -> web.Application:
    return web.Application()


@pytest.fixture
async def port(app: web.Application) -> AsyncIterator[int]:
    errors.install(app, behind_tls_proxy=True)
    app.on_response_prepare.append(_more_headers)
    app[STANDING_HEADERS].vary(lambda _: "RateLimit-Remaining: 7\r\n")
    app.router.add_get("/same", _quick)
    app.router.add_get("/same/{id}", _by_id)
    app.router.add_get("/other", _by_aiohttp)
    app.router.add_get("/slow", _slow)
    app.router.add_route("*", "/any", _quick)
    app[_ROUTES] = FixedRoutes(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    runner.server.request_handler = app[_ROUTES].handle
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def _ask(port: int, *requests: bytes) -> list[tuple[bytes, dict[bytes, bytes], bytes]]:
    """The answers to requests that are sent one after the other on one connection: first line, headers, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for request in requests:
        writer.write(request)
        first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines)
        assert len(headers) == len(lines), "no header comes twice"
        has_body = not request.startswith(b"HEAD")
        answers.append((first, headers, await reader.readexactly(int(headers[b"content-length"]) if has_body else 0)))
    writer.close()
    return answers


@pytest.mark.parametrize(
    "request_of",
    [
        b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET %s HTTP/1.0\r\nHost: x\r\n\r\n",
        b"GET %s HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
        b"HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET %s?page=2 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_an_answer_in_one_piece_is_aiohttps(port: int, request_of: bytes) -> None:
    """The first time and once the route is known."""
    for _ in range(2):
        [quick] = await _ask(port, request_of % b"/same")
        [other] = await _ask(port, request_of % b"/other")
        quick[1][b"date"] = other[1][b"date"]
        assert quick == other
        assert quick[1][b"ratelimit-remaining"] == b"7"
        assert quick[1][b"strict-transport-security"] == b"max-age=31536000"


async def test_only_what_a_route_is_called_is_remembered(port: int) -> None:
    get = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
    paths = [b"/same", b"/same/7", b"/same", b"/same?a=1", b"/same/8", b"/none", b"/same"]
    answers = await _ask(port, *[get % path for path in paths], b"PUT /same HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [int(first.split()[1]) for first, _, _ in answers] == [202, 200, 202, 202, 200, 404, 202, 405]
    assert [body for _, _, body in answers[1:5:3]] == [b'{"id":"7","app":true}', b'{"id":"8","app":true}']


async def test_no_more_is_remembered_than_there_are_routes(app: web.Application, port: int) -> None:
    """Neither paths that nobody serves, nor ids, nor the many methods there are."""
    lines = [b"GET /same", b"GET /same/7", b"GET /none", b"GET /same?x", b"GET /other", b"POST /any", b"PROPFIND /any"]
    answers = await _ask(port, *[line + b" HTTP/1.1\r\nHost: x\r\n\r\n" for line in lines * 2])
    assert [int(first.split()[1]) for first, _, _ in answers] == [202, 200, 404, 202, 202, 202, 202] * 2
    assert set(app[_ROUTES]._found) == {("GET", "/same"), ("GET", "/other")}


async def test_a_request_that_takes_too_long_is_answered(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one has its whole time again."""
    monkeypatch.setattr(errors, "REQUEST_S_MAX", 0.1)
    assert REQUEST_S_MAX > 1
    get = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
    late, after = await _ask(port, get % b"/slow", get % b"/same")
    assert late[0].split()[1] == b"503"
    assert b"took too long" in late[2]
    assert late[1][b"x-content-type-options"] == b"nosniff"
    assert after[0].split()[1] == b"202"


def test_an_answer_with_headers_of_its_own_goes_aiohttps_way() -> None:
    assert type(json_response(_BODY, headers={"Retry-After": "1"})) is web.Response
    assert type(error_response(errors.ApiError(404, "NOT_FOUND", "nothing"))) is web.Response

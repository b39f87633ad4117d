"""``/openapi.json``, ``/asyncapi.json``, and ``/docs``: a page to read the routes and to try them.

The page is Swagger UI as the package aiohttp-swagger3 brings it, served from here: nothing comes from another host.
"""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import msgspec
from aiohttp import web

from forkast_streams import __version__
from forkast_streams.api_description import keeper, oms
from forkast_streams.api_description.asyncapi import asyncapi
from forkast_streams.api_description.openapi import openapi
from forkast_streams.api_description.process import ASYNCAPI_PATH, DOCS_FILE_PATH, DOCS_PATH, OPENAPI_PATH
from forkast_streams.errors import ApiError
from forkast_streams.roles import ExchangeApp

_TITLE = "forkast-streams"
_ROUTES = {"oms": oms.ROUTES, "keeper": keeper.ROUTES}
_OURS = Path(__file__).parent / "static" / "docs"
_PAGE = "index.html"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".png": "image/png"}
# Pictures in style sheets are data URLs; everything else comes from this server or not at all.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def _viewer_folder() -> Path:
    """Where Swagger UI's files are, found without importing the package around them."""
    spec = find_spec("aiohttp_swagger3")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "swagger_ui"


# The files there are; a name of a request is only looked up here, never made into a path.
_FILES = {
    _PAGE: _OURS / _PAGE,
    "start.js": _OURS / "start.js",
    **{name: _viewer_folder() / name for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")},
}


@dataclass(frozen=True, slots=True)
class _File:
    """A file's content, as it is and compressed, and its media type."""

    raw: bytes
    compressed: bytes
    media: str


@lru_cache
def _read(name: str) -> _File:
    raw = _FILES[name].read_bytes()
    return _File(raw, gzip.compress(raw), _TYPES[_FILES[name].suffix])


class Descriptions:
    """The documents of one role and the page that shows them."""

    def __init__(self, role: str) -> None:
        title = f"{_TITLE}: {role}"
        self._openapi = msgspec.json.encode(openapi(title, __version__, _ROUTES[role]))
        self._asyncapi = msgspec.json.encode(asyncapi(_TITLE, __version__))

    async def openapi(self, _request: web.Request) -> web.Response:
        """The role's routes."""
        return web.Response(body=self._openapi, content_type="application/json", charset="utf-8")

    async def asyncapi(self, _request: web.Request) -> web.Response:
        """The topics and streams."""
        return web.Response(body=self._asyncapi, content_type="application/json", charset="utf-8")

    async def page(self, request: web.Request) -> web.Response:
        """The page."""
        return await _answer(request, _PAGE)

    async def file(self, request: web.Request) -> web.Response:
        """What the page is made of.

        Raises:
            ApiError: 404, there is no such file.
        """
        name = request.match_info["file"]
        if name not in _FILES:
            raise ApiError(404, "NOT_FOUND", "there is no such file")
        return await _answer(request, name)


async def _answer(request: web.Request, name: str) -> web.Response:
    file = await asyncio.to_thread(_read, name)
    response = web.Response(content_type=file.media, charset="utf-8" if file.media.startswith("text") else None)
    response.headers["Vary"] = "Accept-Encoding"
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        response.headers["Content-Encoding"] = "gzip"
        response.body = file.compressed
    else:
        response.body = file.raw
    return response


async def _loosen_policy(request: web.Request, response: web.StreamResponse) -> None:
    """Let the page load its own files; every other answer keeps the policy that allows nothing."""
    if request.path == DOCS_PATH and response.status == 200:
        response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY


def register(app: ExchangeApp) -> None:
    """Add the routes; behind ``web.health``, whose headers the page's go before."""
    views = Descriptions(app.role.name)
    web_app = app.web.web_app
    web_app.router.add_get(OPENAPI_PATH, views.openapi)
    web_app.router.add_get(ASYNCAPI_PATH, views.asyncapi)
    web_app.router.add_get(DOCS_PATH, views.page)
    web_app.router.add_get(DOCS_FILE_PATH, views.file)
    web_app.on_response_prepare.append(_loosen_policy)

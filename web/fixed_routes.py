"""Finds the handlers of paths without parameters in a dictionary.

aiohttp looks for a route along the parts of a path and puts its middlewares together around each request. What it found
once for a path without parameters it finds again, so that is remembered; all else is left to it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial

from aiohttp import web
from aiohttp.web_urldispatcher import PlainResource, UrlMappingMatchInfo

from web.errors import Handler

# A middleware that is called with the request and the handler.
_NEW_STYLE = 1


class FixedRoutes:
    """Handles the requests of an application that is complete."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        # By the method and the path as they were sent, of which there are as many as routes.
        self._found: dict[tuple[str, str], tuple[UrlMappingMatchInfo, Handler]] = {}

    def handle(self, request: web.Request) -> Awaitable[web.StreamResponse]:
        """Answer ``request``; without a coroutine of its own, which each step of a request would go through."""
        found = self._found.get((request.method, request.raw_path))
        if found is None or "Expect" in request.headers:
            return self._find(request)
        request._match_info, handler = found  # noqa: SLF001 - as the application sets it
        return handler(request)

    async def _find(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._app._handle(request)  # noqa: SLF001 - what the server would call
        finally:
            self._learn(request)

    def _learn(self, request: web.Request) -> None:
        match = request._match_info  # noqa: SLF001 - None when no route was looked for
        if match is None or match.http_exception is not None or len(match.apps) != 1:
            return
        resource = match.route.resource
        # Only the one way to write it: what else leads to the path, such as a query, is not what was sent.
        if not isinstance(resource, PlainResource) or resource.canonical != request.raw_path:
            return
        # A route for any method would be remembered once for each of the many there are.
        if match.route.method != request.method:
            return
        if any(getattr(one, "__middleware_version__", None) != _NEW_STYLE for one in self._app.middlewares):
            return
        handler: Handler = match.handler
        for middleware in reversed(self._app.middlewares):
            handler = partial(middleware, handler=handler)
        self._found[request.method, request.raw_path] = match, handler

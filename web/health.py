"""``GET /health`` and ``GET /ready`` of every role."""

from __future__ import annotations

from aiohttp import web

from forkast_streams.roles import ExchangeApp
from web import errors, protocol


class Health:
    """Alive is answering at all; ready is recovered, assigned and caught up."""

    def __init__(self, app: ExchangeApp) -> None:
        self._app = app

    async def health(self, _request: web.Request) -> web.Response:
        """200 as long as the process answers."""
        return errors.json_response({"role": self._app.role.name, "status": "up"})

    async def ready(self, _request: web.Request) -> web.Response:
        """200 when the role does its work, else 503 with the reasons."""
        reasons = self._why_not_ready()
        body = {"role": self._app.role.name, "ready": not reasons, "reasons": reasons}
        return errors.json_response(body, status=503 if reasons else 200)

    def _why_not_ready(self) -> list[str]:
        app = self._app
        if not app.started:
            return ["starting"]
        # Two workers of a role that consumes nothing are a group, too, whose rebalances concern nobody.
        if app.role.consumes and (app.rebalancing or not app.tables.actives_ready):
            return ["partitions are being assigned and recovered"]
        return [reason for check in app.ready_checks if (reason := check()) is not None]


def register(app: ExchangeApp) -> None:
    """Add the two routes, and to all routes of the role the one format of errors."""
    errors.install(app.web.web_app, behind_tls_proxy=app.settings.behind_tls_proxy)
    protocol.install(app)
    health = Health(app)
    app.web.web_app.router.add_get("/health", health.health)
    app.web.web_app.router.add_get("/ready", health.ready)

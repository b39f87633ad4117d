"""When a role says that it is ready."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from forkast_streams.config import Settings
from forkast_streams.roles import create_app
from web.health import Health


@pytest.mark.parametrize(("role", "status"), [("oms", 200), ("engine", 503), ("keeper", 503), ("sink", 503)])
async def test_a_rebalance_concerns_only_those_who_consume(role: str, status: int, tmp_path: Path) -> None:
    """A second OMS that starts must not take the first out of its load balancer."""
    app = create_app(role, Settings(data_dir=tmp_path))
    app.ready_checks.clear()
    app._started.set()
    app.rebalancing = True
    answer = await Health(app).ready(make_mocked_request("GET", "/ready"))
    assert answer.status == status
    assert json.loads(answer.body)["ready"] is (status == 200)

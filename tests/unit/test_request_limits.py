"""What a request counts, and for whom."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from forkast_streams import rate_limits
from forkast_streams.config import RateSettings
from forkast_streams.errors import ApiError
from forkast_streams.rate_limits import RateLimits
from forkast_streams.storage.redis import connect
from web.rate_limits import RequestLimits, add_rate_headers, charge, rate_header_lines


@pytest.fixture
def limits() -> RequestLimits:
    """Limits whose Redis does not exist."""
    rates = RateSettings(user=1, user_burst=50, address=1, address_burst=100)
    return RequestLimits(RateLimits(connect("redis://127.0.0.1:1")), rates, behind_proxy=False)


def arrived(limits: RequestLimits, user_id: int) -> web.Request:
    """A request that was counted as one."""
    request = make_mocked_request("POST", "/orders")
    limits.charge_address(request, "192.0.2.1")
    limits.charge_user(request, user_id)
    return request


async def remaining(request: web.Request) -> int:
    """What the answer says is left."""
    response = web.Response()
    await add_rate_headers(request, response)
    return int(response.headers["RateLimit-Remaining"])


async def test_batch_counts_its_orders(limits: RequestLimits) -> None:
    """The request itself is the first of them."""
    request = arrived(limits, 1)
    charge(request, 10)
    assert await remaining(request) == 40


async def test_batch_over_the_limit_takes_nothing(limits: RequestLimits) -> None:
    """Neither from the user nor from the address."""
    request = arrived(limits, 1)
    charge(request, 30)
    with pytest.raises(ApiError) as caught:
        charge(arrived(limits, 1), 25)
    assert (caught.value.status, caught.value.code) == (429, "RATE_LIMITED")
    assert caught.value.headers["Retry-After"] == "6"
    assert await remaining(arrived(limits, 1)) == 18


@pytest.mark.parametrize(("count", "user_id"), [(2, 1), (25, 1), (50, 1), (100, 1), (50, 3), (100, 3)])
async def test_whoever_waits_as_told_is_served(
    limits: RequestLimits, monkeypatch: pytest.MonkeyPatch, count: int, user_id: int
) -> None:
    """The second time, however many orders a batch has, and whichever of the two limits it was over."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(rate_limits, "time", SimpleNamespace(monotonic=lambda: clock.now))
    charge(arrived(limits, 1), 49)
    if user_id != 1:
        charge(arrived(limits, 2), 50)
    with pytest.raises(ApiError) as caught:
        charge(arrived(limits, user_id), count)
    clock.now += int(caught.value.headers["Retry-After"])
    charge(arrived(limits, user_id), count)


async def test_batches_of_several_users_count_for_their_address(limits: RequestLimits) -> None:
    """Two of 50 fill it."""
    charge(arrived(limits, 1), 50)
    charge(arrived(limits, 2), 50)
    with pytest.raises(ApiError, match="address"):
        arrived(limits, 3)


async def test_largest_batch_needs_a_rested_limit(limits: RequestLimits) -> None:
    """One that is larger than the limit is taken from a full one, and is worked off afterwards."""
    charge(arrived(limits, 1), 80)
    with pytest.raises(ApiError) as caught:
        arrived(limits, 1)
    assert int(caught.value.headers["Retry-After"]) == 31


@pytest.mark.parametrize(("address", "user", "told"), [(0, 0, None), (0, 1, 49), (1, 0, 99), (1, 1, 49)])
async def test_what_is_not_limited_is_not_counted(address: int, user: int, told: int | None) -> None:
    """Each of the two limits holds without the other, and an answer tells of the user's before the address's."""
    rates = RateSettings(user=user, user_burst=50, address=address, address_burst=100)
    limits = RequestLimits(RateLimits(connect("redis://127.0.0.1:1")), rates, behind_proxy=False)
    first = arrived(limits, 1)
    response = web.Response()
    await add_rate_headers(first, response)
    assert response.headers.get("RateLimit-Remaining") == (None if told is None else str(told))
    assert ("RateLimit-Remaining" in rate_header_lines(first)) == (told is not None)
    if told is None:
        for _ in range(300):
            charge(arrived(limits, 1), 100)
        return
    charge(first, told + 1)
    with pytest.raises(ApiError) as caught:
        arrived(limits, 1)
    assert (caught.value.status, caught.value.code) == (429, "RATE_LIMITED")


@pytest.mark.parametrize(
    ("remote", "forwarded", "direct", "behind_proxy"),
    [
        ("192.0.2.1", [], "192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1", "203.0.113.9"),
        ("192.0.2.1", ["10.0.0.1, 203.0.113.9"], "192.0.2.1", "203.0.113.9"),
        ("192.0.2.1", ["10.0.0.1", "203.0.113.9"], "192.0.2.1", "203.0.113.9"),
        ("::ffff:192.0.2.1", [], "192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", [], "2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("192.0.2.1", ["203.0.113.9:5678"], "192.0.2.1", "203.0.113.9"),
        ("192.0.2.1", ["10.0.0.1, 2001:db8:1:2:3::4"], "192.0.2.1", "2001:db8:1:2::/64"),
        ("192.0.2.1", ["[2001:db8:1:2:3::4]"], "192.0.2.1", "2001:db8:1:2::/64"),
        ("192.0.2.1", ["[2001:db8:1:2:3::4]:5678"], "192.0.2.1", "2001:db8:1:2::/64"),
        ("192.0.2.1", ["[::ffff:203.0.113.9]:5678"], "192.0.2.1", "203.0.113.9"),
        ("192.0.2.1", ["203.0.113.9:"], "192.0.2.1", "unknown"),
        ("192.0.2.1", ["[203.0.113.9"], "192.0.2.1", "unknown"),
        ("192.0.2.1", ["no address"], "192.0.2.1", "unknown"),
    ],
)
def test_address_is_the_clients(remote: str, forwarded: list[str], direct: str, behind_proxy: str) -> None:
    """What a client says of itself counts only when the proxy says it."""
    request = make_mocked_request("GET", "/").clone(remote=remote)
    headers = [("X-Forwarded-For", value) for value in forwarded]
    request = request.clone(headers=headers, remote=remote)
    limits = RateLimits(connect("redis://127.0.0.1:1"))
    assert RequestLimits(limits, RateSettings(), behind_proxy=False).address_of(request) == direct
    assert RequestLimits(limits, RateSettings(), behind_proxy=True).address_of(request) == behind_proxy


@pytest.mark.parametrize(
    ("forwarded", "said"),
    [
        ("unix:\x1b[0m", r"has sent 'unix:\x1b[0m', which is no address"),
        ("", "has sent none"),
        ("203.0.113.9:5678", None),
    ],
)
def test_a_proxy_that_names_no_client_is_told_of_once(
    caplog: pytest.LogCaptureFixture, forwarded: str, said: str | None
) -> None:
    """All clients share one limit then."""
    limits = RequestLimits(RateLimits(connect("redis://127.0.0.1:1")), RateSettings(), behind_proxy=True)
    request = make_mocked_request("GET", "/").clone(headers={"X-Forwarded-For": forwarded}, remote="192.0.2.1")
    for _ in range(3):
        limits.address_of(request)
    assert len(caplog.messages) == (said is not None)
    assert said is None or said in caplog.messages[0]


async def test_credentials_that_are_being_checked_count_as_wrong_ones(limits: RequestLimits) -> None:
    """Or many could be tried at once; one that was right gives its place back."""
    with ExitStack() as checks:
        for _ in range(10):
            checks.enter_context(limits.login_under_way("192.0.2.1", "alice"))
        with pytest.raises(ApiError, match="too many logins"), limits.login_under_way("192.0.2.1", "alice"):
            pass
        with limits.login_under_way("192.0.2.1", "bob"), limits.login_under_way("192.0.2.2", "alice"):
            pass
    limits.login_failed("192.0.2.1", "alice")
    with ExitStack() as checks:
        for _ in range(9):
            checks.enter_context(limits.login_under_way("192.0.2.1", "alice"))
        with pytest.raises(ApiError, match="too many logins"):
            limits.require_login_allowed("192.0.2.1", "alice")
    assert not limits._under_way

"""Rate limits on real servers: floods, guessed passwords, several processes, and a Redis that hangs."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from forkast_streams.devstack import Stack
from forkast_streams.rate_limits import Limit, RateLimits
from forkast_streams.storage.redis import RedisClient, connect
from tests.integration.boundary import hanging, timed
from tests.integration.exchange import Worker, wait_until
from tests.integration.test_oms import call, changed, env  # noqa: F401 - env is a fixture

STRICT = {
    "FORKAST_RATE_USER": "20",
    "FORKAST_RATE_USER_BURST": "40",
    "FORKAST_RATE_LOGIN_FAILURES": "30",
    "FORKAST_RATE_LOGIN_FAILURES_USER": "5",
}


@pytest.fixture(scope="module")
def oms(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:  # noqa: F811
    """An OMS with narrow limits."""
    worker = Worker("oms", env | STRICT, tmp_path_factory.mktemp("limits") / "oms")
    worker.start().wait_ready()
    yield worker
    worker.end()


@pytest.fixture
async def redis(stack_env: dict[str, str]) -> AsyncIterator[RedisClient]:
    """Redis."""
    client = connect(stack_env["REDIS_URL"])
    yield client
    await client.aclose()


def get(oms: Worker, user: str, password: str, *, source: str = "127.0.0.1") -> tuple[int, dict[str, str]]:
    """Read the orders with a password, from an address of this machine; return status and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", oms.port, timeout=15, source_address=(source, 0))
    token = b64encode(f"{user}:{password}".encode()).decode()
    connection.request("GET", "/symbols", headers={"Authorization": f"Basic {token}"})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert json.loads(body)
    return response.status, dict(response.headers)


def test_flood_of_one_user_is_refused_and_others_are_served(oms: Worker) -> None:
    """429 with the seconds to wait, and the limits on every answer."""
    answers, counts = [], Counter[int]()
    # However slow the machine is, the flood is faster than what comes back.
    while counts[429] < 20 and len(answers) < 2_000:
        answers.append(call(oms, "GET", "/symbols", user="alice"))
        counts[answers[-1][0]] += 1
    assert counts[200] >= 40
    assert counts[429] == 20
    refused = next(answer for answer in answers if answer[0] == 429)
    assert refused[1]["error"]["code"] == "RATE_LIMITED"
    assert int(refused[2]["Retry-After"]) >= 1
    for _, _, headers in answers:
        assert headers["RateLimit-Limit"] == "40"
        assert 0 <= int(headers["RateLimit-Remaining"]) < 40
        assert 1 <= int(headers["RateLimit-Reset"]) <= 4
    assert call(oms, "GET", "/symbols", user="bob")[0] == 200


def test_guessing_a_password_locks_out_the_guesser_not_the_owner(oms: Worker) -> None:
    """The owner is served from another address, and from the same one while the credential is known."""
    statuses = [get(oms, "carol@example.com", f"guess {number}", source="127.0.0.3")[0] for number in range(20)]
    assert statuses[:5] == [401] * 5
    assert statuses[5:] == [429] * 15
    status, headers = get(oms, "carol@example.com", "guess", source="127.0.0.3")
    assert (status, int(headers["Retry-After"]) >= 1) == (429, True)
    assert get(oms, "carol@example.com", "carol@example.com", source="127.0.0.4")[0] == 200
    assert get(oms, "carol@example.com", "carol@example.com", source="127.0.0.3")[0] == 200


def test_one_password_for_many_users_is_refused_by_address(oms: Worker) -> None:
    """Each user is tried once only."""
    statuses = [get(oms, f"user{number}@example.com", "password", source="127.0.0.5")[0] for number in range(60)]
    assert statuses[:30] == [401] * 30
    assert set(statuses[35:]) == {429}
    assert get(oms, "david@example.com", "david@example.com", source="127.0.0.6")[0] == 200


def test_hanging_redis_neither_holds_requests_nor_lifts_limits(oms: Worker, stack: Stack) -> None:
    """Each process limits by itself then."""
    wait_until(lambda: call(oms, "POST", "/orders", changed(), user="grace")[0] == 201, "the limits being rested")
    with hanging(stack, "redis"):
        answers = [timed(oms, "POST", "/orders", changed(), user="grace") for _ in range(120)]
    assert max(seconds for _, _, seconds in answers) < 0.5
    counts = Counter(status for status, _, _ in answers)
    assert set(counts) == {201, 429}


async def test_processes_share_what_a_user_may_do(redis: RedisClient) -> None:
    """Three of them together let through one burst each at most, and then the rate of one."""
    limit, user = Limit("shared", rate=100, size=50), uuid.uuid4().hex
    processes = [RateLimits(redis) for _ in range(3)]
    start, through = time.monotonic(), 0
    while (passed := time.monotonic() - start) < 4.0:
        for process in processes:
            through += sum(process.take(limit, user)[0] for _ in range(20))
            await process.report()
    assert 50 + limit.rate * passed * 0.7 < through < 3 * 50 + limit.rate * passed * 1.1


async def test_jumps_of_the_clock_of_redis_refuse_nobody(redis: RedisClient) -> None:
    """A bucket of the future is one of now, and a debt is one bucket at most, or what one request needed besides."""
    limit, user = Limit("clock", rate=1, size=10), uuid.uuid4().hex
    for at in ("99999999999", "0", "-5"):
        await redis.hset(f"rate:clock:{user}", mapping={"tokens": "5", "at": at})
        process = RateLimits(redis)
        assert process.take(limit, user)[0]
        await process.report()
        assert process.bucket(limit, user).tokens == pytest.approx(4 if at == "99999999999" else 9, abs=0.1)
    for spent, requests, left in ((1, 1_000, 10), (25, 10, 15)):
        for _ in range(requests):
            process.spend(process.bucket(limit, user), user, spent)
        await process.report()
        assert float(await redis.hget(f"rate:clock:{user}", "tokens")) == -left
        assert 0 < await redis.pttl(f"rate:clock:{user}") <= (left + 11) * 1_000
    # Small ones behind it neither add to what is owed nor forgive it.
    process.spend(process.bucket(limit, user), user)
    await process.report()
    assert -15 <= float(await redis.hget(f"rate:clock:{user}", "tokens")) < -14


async def test_key_that_is_no_bucket_keeps_no_other_from_being_counted(redis: RedisClient) -> None:
    """It becomes one."""
    limit, users = Limit("wrong", rate=1, size=10), [uuid.uuid4().hex for _ in range(2)]
    await redis.lpush(f"rate:wrong:{users[0]}", "something else")
    process = RateLimits(redis)
    for user in users:
        assert process.take(limit, user)[0]
    await process.report()
    for user in users:
        assert float(await redis.hget(f"rate:wrong:{user}", "tokens")) == 9


async def test_flushed_redis_gives_no_second_burst(redis: RedisClient) -> None:
    """What this process knows of a spent limit stands."""
    limit, user = Limit("flushed", rate=0.01, size=10), uuid.uuid4().hex
    process = RateLimits(redis)
    for _ in range(10):
        process.take(limit, user)
    await process.report()
    await redis.delete(f"rate:flushed:{user}")
    await redis.script_flush()
    process.spend(process.bucket(limit, user), user, 0.001)
    await process.report()
    assert not process.take(limit, user)[0]
    assert await redis.exists(f"rate:flushed:{user}")

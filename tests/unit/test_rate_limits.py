"""Rate limits without Redis: what a process decides by itself, and how fast."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from forkast_streams import rate_limits
from forkast_streams.config import RateSettings, Settings
from forkast_streams.errors import SetupError
from forkast_streams.rate_limits import Limit, RateLimits
from forkast_streams.storage.redis import connect

TEN = Limit("test", rate=10, size=20)


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The limits' clock."""
    clock = Clock()
    monkeypatch.setattr(rate_limits.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def limits() -> RateLimits:
    """Limits whose Redis does not exist."""
    return RateLimits(connect("redis://127.0.0.1:1"))


def taken(limits: RateLimits, key: str, attempts: int, limit: Limit = TEN) -> int:
    """How many of so many attempts are let through."""
    return sum(limits.take(limit, key)[0] for _ in range(attempts))


def test_burst_then_rate(limits: RateLimits, clock: Clock) -> None:
    """A full bucket at once, then what comes back."""
    assert taken(limits, "a", 100) == 20
    clock.now += 1.0
    assert taken(limits, "a", 100) == 10
    clock.now += 0.05
    assert taken(limits, "a", 100) == 0
    clock.now += 1_000.0
    assert taken(limits, "a", 100) == 20


def test_keys_and_limits_are_apart(limits: RateLimits, clock: Clock) -> None:
    """One that is over its limit costs nobody else."""
    taken(limits, "a", 100)
    assert taken(limits, "b", 100) == 20
    assert taken(limits, "a", 100, Limit("other", rate=1, size=5)) == 5


def test_refusal_says_when_to_come_back(limits: RateLimits, clock: Clock) -> None:
    """A client that waits as long as it is told is let through."""
    slow = Limit("slow", rate=0.5, size=3)
    taken(limits, "a", 3, slow)
    allowed, bucket = limits.take(slow, "a")
    assert not allowed
    assert bucket.retry_after_s() == 2
    clock.now += bucket.retry_after_s()
    assert limits.take(slow, "a")[0]


def test_requests_far_larger_than_a_bucket_keep_to_the_rate(limits: RateLimits, clock: Clock) -> None:
    """Each of them waits until the one before has been paid off."""
    small, passed = Limit("small", rate=5, size=10), 0
    for _ in range(1_000):
        clock.now += 0.1
        passed += 100 * limits.take(small, "a", 100)[0]
    # A hundred seconds at five a second, and the one request that the full bucket let through.
    assert 500 <= passed <= 600


def test_what_is_owed_is_bounded_and_nothing_forgives_it(limits: RateLimits, clock: Clock) -> None:
    """By failed logins, which are counted whether there are tokens or not, no more than a bucket."""
    small = Limit("small", rate=5, size=10)
    limits.take(small, "a", 100)
    limits.spend(limits.bucket(small, "a"), "a")
    assert limits.bucket(small, "a").tokens == -90
    for _ in range(100):
        limits.spend(limits.bucket(small, "b"), "b")
    assert limits.bucket(small, "b").tokens == -10


def test_more_than_a_bucket_holds_needs_a_full_one_and_leaves_a_debt(limits: RateLimits, clock: Clock) -> None:
    """A large batch is possible, and costs the time it stands for."""
    assert limits.take(TEN, "a", 30)[0]
    assert limits.bucket(TEN, "a").tokens == -10
    clock.now += 1.0
    assert not limits.take(TEN, "a")[0]
    clock.now += 0.1
    assert limits.take(TEN, "a")[0]


def test_rate_0_limits_nothing(limits: RateLimits, clock: Clock) -> None:
    """And nothing of it is reported."""
    assert taken(limits, "a", 10_000, Limit("off", rate=0, size=1)) == 10_000
    assert not limits._unreported


async def test_without_redis_each_process_limits_by_itself(limits: RateLimits, clock: Clock) -> None:
    """Reports fail without harm, and what they would have told is kept for later, within bounds."""
    for _ in range(5):
        taken(limits, "a", 100)
        await limits.report()
        clock.now += 100.0
    assert taken(limits, "a", 100) == 20
    assert limits._unreported["test", "a"].spent == 2 * TEN.size


def test_memory_is_bounded(limits: RateLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of addresses pushes the oldest out."""
    monkeypatch.setattr(rate_limits, "_BUCKETS_MAX", 100)
    for number in range(1_000):
        limits.take(TEN, str(number))
    assert len(limits._buckets) == 100
    assert limits._unreported.keys() == limits._buckets.keys()


async def test_failed_report_brings_back_nothing_that_was_pushed_out(
    limits: RateLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis is away and a flood of names goes on, the memory of what it is to be told stays bounded."""
    monkeypatch.setattr(rate_limits, "_BUCKETS_MAX", 100)

    limits.take(TEN, "old")
    for number in range(99):
        limits.take(TEN, str(number))

    async def fail_late(*_: object) -> list[bytes]:
        for number in range(50):
            limits.take(TEN, f"new {number}")
        limits.bucket(TEN, "old")
        raise ConnectionError

    monkeypatch.setattr(limits, "_run", fail_late)
    await limits.report()
    # The old name's new bucket has nothing to tell.
    del limits._buckets["test", "old"]
    assert len(limits._buckets) == 99
    assert limits._unreported == limits._buckets


def test_decision_costs_microseconds(limits: RateLimits) -> None:
    """Far below the 200 µs that a request has at 5,000 a second."""
    rounds, limit = 20_000, Limit("fast", rate=1e9, size=1e9)
    best = min(_seconds(limits, limit, rounds) for _ in range(5)) / rounds
    assert best < 20e-6


def _seconds(limits: RateLimits, limit: Limit, rounds: int) -> float:
    start = time.perf_counter()
    for _ in range(rounds):
        limits.take(limit, "user")
    return time.perf_counter() - start


def test_settings_come_from_the_environment() -> None:
    """Each limit has its variable."""
    settings = Settings.from_env({"FORKAST_RATE_USER": "20000", "FORKAST_RATE_ADDRESS": "0"})
    assert settings.rates == RateSettings(user=20_000, address=0)


@pytest.mark.parametrize("value", ["-1", "many", "nan", "inf"])
def test_setting_that_is_no_limit_is_refused(value: str) -> None:
    """With the variable's name in the sentence."""
    with pytest.raises(SetupError, match="FORKAST_RATE_USER_BURST"):
        Settings.from_env({"FORKAST_RATE_USER_BURST": value})


@pytest.mark.parametrize("name", ["USER", "ADDRESS"])
def test_burst_that_lets_nothing_through_is_refused(name: str) -> None:
    """It would be taken for no limit, as a rate of 0 is; where there is no limit it does not matter."""
    burst = {f"FORKAST_RATE_{name}_BURST": "0"}
    with pytest.raises(SetupError, match=f"FORKAST_RATE_{name}=0 takes the limit off"):
        Settings.from_env(burst)
    Settings.from_env(burst | {f"FORKAST_RATE_{name}": "0"})

"""What a scenario is, and how one is run: load on, faults in, times measured, load off, drained, log checked."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.exchange import Exchange
from tests.chaos.journal import Journal
from tests.chaos.load import KafkaLoad
from tests.chaos.traders import HttpLoad
from tests.chaos.verify import Verdict, verify, wait_until_drained
from tests.chaos.watch import GIVE_UP_S, Follower, Recovery

_DRAIN_S_MAX = 120.0
_WARM_UP_S = 1.0
# No client ever waits longer than this, whatever is broken.
_REQUEST_S_MAX = 10.5


@dataclass(frozen=True, slots=True)
class Scenario:
    """A row of the fault matrix.

    Attributes:
        name: such as ``F-8``.
        title: what is done.
        inject: breaks things and measures how long they take to work again.
        limits: the largest allowed value of each measure, mostly seconds.
        statuses: what clients may be answered meanwhile to a new order; 0 is no answer.
        failures: share of all requests that may have another status.
        no_repeats: whether no event may come twice.
        brokers: how many there are.
    """

    name: str
    title: str
    inject: Callable[[Chaos], Awaitable[None]]
    limits: Mapping[str, float]
    statuses: frozenset[int] = frozenset({201})
    failures: float = 0.0
    no_repeats: bool = False
    brokers: int = 1


class Chaos:
    """What an injection works with.

    Attributes:
        quick: fewer rounds and shorter outages.
        measures: values by name, of which the largest counts.
        violations: what an injection found wrong itself.
    """

    def __init__(self, exchange: Exchange, seed: int, *, quick: bool) -> None:
        self.exchange = exchange
        self.chance = random.Random(seed)
        self.quick = quick
        self.follower = Follower(exchange)
        self.http = HttpLoad(exchange, seed)
        self.kafka = KafkaLoad(exchange, seed)
        self.recovery = Recovery(exchange, self.follower, self.http)
        self.measures: dict[str, list[float]] = {}
        self.violations: list[str] = []

    def rounds(self, count: int) -> range:
        """How often to inject."""
        return range(1 if self.quick else count)

    def seconds(self, wanted: float) -> float:
        """How long an outage lasts."""
        return min(wanted, 3.0) if self.quick else wanted

    def note(self, name: str, value: float) -> None:
        """Keep a measured value."""
        self.measures.setdefault(name, []).append(value)

    async def recovers(self, since: float | None = None) -> None:
        """Measure until everything works again after ``since`` (monotonic seconds, default now)."""
        for name, seconds in (await self.recovery.measure(since or time.monotonic())).items():
            self.note(name, seconds)

    async def start(self) -> None:
        """Turn the load on and wait until everything is seen to work."""
        for part in (self.follower, self.http, self.kafka):
            part.start()
        await self.recovery.measure(time.monotonic())
        await asyncio.sleep(_WARM_UP_S)

    async def stop(self) -> None:
        """Turn the load off."""
        for part in (self.http, self.kafka, self.follower):
            await part.stop()


@dataclass(slots=True)
class Result:
    """What a scenario gave."""

    name: str
    title: str
    seconds: float
    measures: dict[str, float]
    limits: dict[str, float]
    requests: dict[int, int]
    kinds: dict[str, int]
    verdict: Verdict
    worker_ends: list[str]
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        counts = ("commands", "events", "repeats", "dead", "commands_by_kind", "events_by_type")
        verdict = {name: getattr(self.verdict, name) for name in counts}
        return {
            "name": self.name, "title": self.title, "passed": self.passed, "seconds": round(self.seconds, 1),
            "measures": {name: round(value, 2) for name, value in self.measures.items()}, "limits": self.limits,
            "requests": {str(status): count for status, count in self.requests.items()}, "taken": self.kinds,
            "log": verdict, "audit": self.verdict.audit,
            "workerEnds": self.worker_ends, "failures": self.failures,
        }  # fmt: skip


async def run(scenario: Scenario, exchange: Exchange, seed: int, *, quick: bool, audited: bool = True) -> Result:
    """Run one scenario on a running exchange.

    Args:
        scenario: the row of the matrix.
        exchange: all its workers run.
        seed: of every random choice.
        quick: one round each and short outages.
        audited: whether the audit follows at once; else what clients were told waits for the next one.
    """
    chaos = Chaos(exchange, seed, quick=quick)
    began = time.monotonic()
    crash = None
    try:
        await chaos.start()
        await scenario.inject(chaos)
    except Exception as exc:
        crash = f"the injection failed: {exc!r}"
    finally:
        await chaos.stop()
    try:
        async with asyncio.timeout(_DRAIN_S_MAX):
            await wait_until_drained(exchange)
    except TimeoutError:
        chaos.violations.append(f"I-20: not drained within {_DRAIN_S_MAX:g} s")
    exchange.unaudited.requests += chaos.http.journal.requests
    verdict = await verify(exchange, exchange.unaudited if audited else None)
    if audited:
        exchange.unaudited = Journal()
    repeats_before, exchange.repeats = exchange.repeats, verdict.repeats
    verdict.repeats -= repeats_before
    said = [sentence for member in exchange.members.values() for sentence in member.ends]
    ends = [sentence.split(" Its log")[0] for sentence in said if "ended with" in sentence]
    for member in exchange.members.values():
        member.ends.clear()
    result = Result(
        scenario.name, scenario.title, time.monotonic() - began,
        {name: max(values) for name, values in chaos.measures.items()}, dict(scenario.limits),
        dict(chaos.http.journal.statuses()), dict(chaos.http.journal.kinds()), verdict, ends,
    )  # fmt: skip
    result.failures += [crash] if crash else []
    result.failures += chaos.violations + verdict.violations + _beyond(scenario, chaos, verdict, result.measures)
    return result


def _beyond(scenario: Scenario, chaos: Chaos, verdict: Verdict, measures: Mapping[str, float]) -> list[str]:
    """What is beyond the limits of the scenario."""
    never = float("inf")
    # A function without a limit of its own must still come back.
    limits = {name: GIVE_UP_S for name, value in measures.items() if value == never} | dict(scenario.limits)
    failures = [
        f"{name}: {measures.get(name, never):.2f}, limit {limit:g}"
        for name, limit in limits.items()
        if measures.get(name, never) > limit
    ]
    journal = chaos.http.journal
    unexpected = journal.unexpected(scenario.statuses)
    if unexpected.total() > scenario.failures * max(1, len(journal.requests)):
        failures.append(f"requests had the answers {dict(unexpected)}, allowed is {sorted(scenario.statuses)}")
    longest = journal.longest()
    if longest is not None and longest.seconds > _REQUEST_S_MAX:
        failures.append(f"a request ({longest.kind}) took {longest.seconds:.1f} s, answered with {longest.status}")
    if scenario.no_repeats and verdict.repeats:
        failures.append(f"{verdict.repeats} events came twice")
    return failures

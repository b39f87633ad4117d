"""When a worker counts as one that should move and does not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, UnknownTopicOrPartitionError
from faust.types import TP

from forkast_streams import lifecycle
from forkast_streams.config import Settings
from forkast_streams.lifecycle import ProgressJudge, Watchdog
from forkast_streams.producer import EventProducer
from forkast_streams.roles import create_app


def test_value_that_stays_for_longer_than_the_limit_is_a_stall() -> None:
    """It is named; what moves is not."""
    judge = ProgressJudge(30)
    assert judge.judge(0, {"a": 1, "b": 1}) is None
    assert judge.judge(20, {"a": 1, "b": 2}) is None
    assert judge.judge(31, {"a": 1, "b": 3}) == "a"
    assert judge.judge(40, {"a": 2, "b": 3}) is None


def test_time_without_anything_pending_does_not_count() -> None:
    """An outage, told by an empty sample, starts the count again, and so does work that was done meanwhile."""
    judge = ProgressJudge(30)
    judge.judge(0, {"a": 1})
    judge.judge(15, {"a": 1})
    assert judge.judge(29, {}) is None
    assert judge.judge(31, {"a": 1}) is None
    assert judge.judge(46, {"a": 1}) is None
    assert judge.judge(60, {"a": 1}) is None
    assert judge.judge(62, {"a": 1}) == "a"


def test_a_process_that_was_stopped_counts_as_one_that_has_just_begun() -> None:
    """A debugger, or a virtual machine that was paused; then it has its time again."""
    judge = ProgressJudge(30)
    judge.judge(0, {"a": 1})
    assert judge.judge(45, {"a": 1}) is None
    assert judge.judge(60, {"a": 1}) is None
    assert judge.judge(76, {"a": 1}) == "a"


class _GrowingLog:
    """Tells of each partition an end that is further on each time."""

    def __init__(self) -> None:
        self._end = 1_000

    async def end_offsets(self, tps: list[TP]) -> dict[TP, int]:
        """Ends by partition."""
        self._end += 10
        return dict.fromkeys(tps, self._end)


def _app(positions: dict[TP, int]) -> Any:
    return SimpleNamespace(
        rebalancing=False,
        tables=SimpleNamespace(actives_ready=True),
        consumer=SimpleNamespace(positions=positions),
    )


class _LostPartitions(_GrowingLog):
    """One partition's leader does not answer, and one's is unknown."""

    is_away = False

    async def topics(self) -> set[str]:
        """What any broker knows."""
        if self.is_away:
            raise KafkaConnectionError
        return set()

    async def end_offsets(self, tps: list[TP]) -> dict[TP, int]:
        """Ends by partition."""
        if tps == [TP("orders.new", 1)]:
            await asyncio.Event().wait()
        if tps == [TP("orders.new", 2)]:
            raise UnknownTopicOrPartitionError
        return await super().end_offsets(tps)


async def test_a_partition_without_a_leader_blinds_nobody_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker says that it is not ready, and one that stands still is seen all the same."""
    monkeypatch.setattr(lifecycle, "_ENDS_S_MAX", 0.01)
    watchdog = Watchdog(_app({TP("orders.new", number): 100 for number in range(3)}), [])
    assert watchdog.why_not_ready() is None
    assert await watchdog._pending(_LostPartitions()) == {"orders.new-0 at 100": 100}  # type: ignore[arg-type]
    assert "orders.new-1, orders.new-2" in (watchdog.why_not_ready() or "")
    await watchdog._pending(_GrowingLog())  # type: ignore[arg-type]
    assert watchdog.why_not_ready() is None


async def test_no_question_outlives_the_probe() -> None:
    """A worker that cannot reach the leaders asks every five seconds."""
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await lifecycle._ends(_LostPartitions(), [TP("orders.new", 1)])  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_worker_of_nothing_but_such_partitions_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a broker answers at all; without Kafka nothing is wrong with the worker."""
    monkeypatch.setattr(lifecycle, "_ENDS_S_MAX", 0.01)
    watchdog, probe = Watchdog(_app({TP("orders.new", number): 100 for number in (1, 2)}), []), _LostPartitions()
    assert await watchdog._pending(probe) == {}  # type: ignore[arg-type]
    assert "orders.new-1, orders.new-2" in (watchdog.why_not_ready() or "")
    probe.is_away = True
    with pytest.raises(KafkaConnectionError):
        await watchdog._pending(probe)  # type: ignore[arg-type]


async def test_worker_that_stands_still_while_the_log_grows_is_a_stall() -> None:
    """What moves on is the log, not the worker."""
    positions = {TP("orders.new", 0): 100, TP("orders.new", 1): 100}
    watchdog, judge, probe = Watchdog(_app(positions), []), ProgressJudge(30), _GrowingLog()
    for now in range(0, 31, 5):
        assert judge.judge(now, await watchdog._pending(probe)) is None  # type: ignore[arg-type]
        positions[TP("orders.new", 1)] += 5
    assert judge.judge(35, await watchdog._pending(probe)) == "orders.new-0 at 100"  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ["engine", "keeper"])
def test_a_worker_that_waits_for_its_producer_does_not_stand_still(role: str, tmp_path: Path) -> None:
    """It says that it is not ready, and why."""
    app = create_app(role, Settings(data_dir=tmp_path))
    for sentences in (app.excuses, app.ready_checks):
        assert any(isinstance(getattr(one, "__self__", None), EventProducer) for one in sentences)

"""When a worker counts as one that should move and does not."""

from __future__ import annotations

from forkast_streams.lifecycle import ProgressJudge


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
    assert judge.judge(29, {}) is None
    assert judge.judge(31, {"a": 1}) is None
    assert judge.judge(60, {"a": 1}) is None
    assert judge.judge(62, {"a": 1}) == "a"

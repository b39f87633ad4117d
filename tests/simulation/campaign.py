"""Many runs, in as many processes as there are processors."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.simulation.exchange import run_seed
from tests.simulation.flow import corpus

_SEEDS_AT_ONCE = 5


class Outcome(NamedTuple):
    """What became of one seed.

    Attributes:
        counts: what happened in the run and what was checked.
        digest: of the run's log, or of nothing when a promise was broken.
        failure: which promise was broken and where; None when all hold.
    """

    seed: int
    counts: Counter[str]
    digest: str
    failure: str | None


def outcome_of(seed: int) -> Outcome:
    """Run one seed; whatever goes wrong in it is its outcome."""
    try:
        result = run_seed(seed)
    except Exception as exc:
        return Outcome(seed, Counter(), "", "".join(traceback.format_exception(exc)))
    return Outcome(seed, result.counts, result.digest, None)


def outcomes(seeds: Iterable[int], *, jobs: int | None = None) -> Iterator[Outcome]:
    """Run ``seeds``, in no particular order.

    Args:
        seeds: what to run.
        jobs: number of processes; as many as there are processors when it is None.
    """
    # Made once and inherited by all processes.
    corpus()
    jobs = jobs or len(os.sched_getaffinity(0))
    if jobs == 1:
        yield from map(outcome_of, seeds)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(outcome_of, seeds, chunksize=_SEEDS_AT_ONCE)

"""The harness of the benchmarks: what it records, judges, writes and draws. No test here takes the time of anything."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import book_flows
from benchmarks.flows import mixed_commands
from benchmarks.harness import Benchmark, Goal, Registry, Run, all_benchmarks
from benchmarks.our_book import Ours
from benchmarks.report import write_report
from benchmarks.results import Plot, Result, load_results
from benchmarks.svg import draw
from forkast_streams.cli import bench as bench_command
from forkast_streams.codec import decode_command
from forkast_streams.engine.commands import Amend, Cancel, Command, NewOrder, cancel_order, limit_order
from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.events import CommandRejected
from forkast_streams.engine.matching_engine import MatchingEngine
from forkast_streams.errors import SetupError
from forkast_streams.topics import PARTITIONS_DEFAULT, partition_for

_GOALS = [Goal("ours / theirs", ">=", 2.0), Goal("pause", "<=", 50), Goal("size", "<=", 1), Goal("absent", ">=", 1)]
_BARS = Plot("speed", "Speed & more", "bars", ["ours", "theirs"], {"now": [30.0, 10.0]}, "", "orders/s", mark=20.0)
_LINE = Plot("depth", "Cost", "line", [1.0, 1000.0, 1e6], {"cost": [0.0, 2.0, 1.0]}, "orders", "µs")
_HISTOGRAM = Plot("times", "Batches", "histogram", [0.5, 1.0], {"1": [1.0, 0.0], "2": [900.0, 3.0]}, "ms", "batches")


def _measure(run: Run) -> None:
    for at in run.rounds(3):
        run.record("ours", run.scaled(300) + at, "orders/s")
        run.record("theirs", run.scaled(100), "orders/s")
    run.ratio("ours / theirs", "ours", "theirs")
    run.ratio("ours / missing", "ours", "missing")
    run.record("pause", 50.0, "ms")
    run.record("size", 3, "bytes")
    run.note("A sentence.")
    run.note("A sentence.")
    for plot in (_BARS, _LINE, _HISTOGRAM):
        run.plot(plot)
    assert run.folder.is_dir()


def _run(*, quick: bool = False, name: str = "example") -> Result:
    return Benchmark(name, "How fast?", _GOALS, _measure).execute(quick=quick, console=Console(file=io.StringIO()))


def test_a_figure_has_a_value_a_round_and_a_ratio_is_taken_round_by_round() -> None:
    """Three rounds of both sides give three ratios; a peer that was not measured gives none."""
    result = _run()
    ratio = result.figure("ours / theirs")
    assert ratio is not None
    assert ratio.values == [3.0, 3.01, 3.02]
    assert (ratio.median, ratio.unit) == (3.01, "x")
    assert result.figure("ours / missing") is None


def test_a_quick_run_has_one_round_of_a_tenth_of_the_size() -> None:
    """The ratios stay, the sizes do not."""
    result = _run(quick=True)
    assert [figure.values for figure in result.figures[:3]] == [[30.0], [10.0], [3.0]]


def test_goals_are_judged_by_the_median_and_their_bounds_are_met() -> None:
    """A bound is met by its own value; what was not measured is neither met nor missed."""
    assert [judged.is_met for judged in _run().judged()] == [True, True, False, None]


def test_a_result_is_read_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    """The file also says minimum, median, maximum and verdicts for readers without this code."""
    result = _run()
    file = result.save(tmp_path)
    content = json.loads(file.read_text())
    assert content["figures"][0] | {"unit": ""} == {
        "name": "ours", "unit": "", "values": [300.0, 301.0, 302.0], "min": 300.0, "median": 301.0, "max": 302.0
    }  # fmt: skip
    assert [goal["met"] for goal in content["goals"]] == [True, True, False, None]
    assert content["machine"]["cores"] >= 1
    assert Result.from_json(content) == result


def test_quick_results_stand_beside_the_full_ones_and_are_not_reported(tmp_path: Path) -> None:
    """A quick run must not overwrite a full one."""
    full = _run()
    assert full.save(tmp_path) != _run(quick=True).save(tmp_path)
    assert load_results(tmp_path) == [full]


def test_the_report_has_every_goal_figure_note_and_plot_and_drops_old_plots(tmp_path: Path) -> None:
    """Its pictures are the files that it names."""
    _run().save(tmp_path / "results")
    pictures = tmp_path / "docs" / "benchmarks"
    pictures.mkdir(parents=True)
    (pictures / "gone.svg").write_text("")
    page = write_report(tmp_path / "results", tmp_path / "docs").read_text()
    assert "| [example](#example) | ours / theirs | ≥ 2 x | 3.01 x | yes |" in page
    assert "| [example](#example) | size | ≤ 1 bytes | 3 bytes | no |" in page
    assert "| absent | ≥ 1  | not measured  | ? |" in page
    assert "| ours | 301 | 300 to 302 | orders/s |" in page
    assert page.count("- A sentence.") == 1
    files = {file.name for file in pictures.iterdir()}
    assert files == {"example-speed.svg", "example-depth.svg", "example-times.svg"}
    assert all(f"(benchmarks/{name})" in page for name in files)


def test_the_report_keeps_what_was_not_measured_again(tmp_path: Path) -> None:
    """Section, goals and pictures of a benchmark that has no result here, in the order of their names."""
    results, docs = tmp_path / "results", tmp_path / "docs"
    other = replace(_run(), name="another")
    other.save(results)
    before = write_report(results, docs).read_text()
    for file in results.iterdir():
        file.unlink()
    _run().save(results)
    both = write_report(results, docs).read_text()
    assert (
        before.partition("## another")[2].strip() == both.partition("## another")[2].partition("## example")[0].strip()
    )
    assert both.count("| [another](#another) |") == len(other.goals) == both.count("| [example](#example) |")
    assert len(list((docs / "benchmarks").iterdir())) == 2 * len(other.plots)
    assert write_report(results, docs).read_text() == both


@pytest.mark.parametrize("plot", [_BARS, _LINE, _HISTOGRAM], ids=lambda plot: plot.kind)
def test_a_plot_is_a_well_formed_picture_with_its_title_and_a_shape_for_each_value(plot: Plot) -> None:
    """Every kind draws every value, a zero too."""
    picture = ElementTree.fromstring(draw(plot))
    texts = [element.text for element in picture.iter() if element.tag.endswith("}text")]
    shape = "circle" if plot.kind == "line" else "rect"
    shapes = [element for element in picture.iter() if element.tag.endswith("}" + shape)]
    legend = len(plot.y) if len(plot.y) > 1 else 0
    assert plot.title in texts
    assert len(shapes) == sum(map(len, plot.y.values())) + legend


def test_two_benchmarks_of_one_name_are_refused() -> None:
    """Their results would overwrite each other."""
    registry = Registry()
    registry.add(Benchmark("one", "?", [], _measure))
    with pytest.raises(ValueError, match="two benchmarks named one"):
        registry.add(Benchmark("one", "?", [], _measure))


def test_every_benchmark_asks_a_question_and_is_stored_under_its_name() -> None:
    """The list shows the question, the result's file has the name; goals are about figures that differ."""
    found = all_benchmarks().benchmarks
    engine_side = {"matching", "memory", "engine", "naive", "depth", "recovery", "sink", "keeper", "scale"}
    assert engine_side <= found.keys()
    for name, one in found.items():
        assert one.name == name
        assert name.isidentifier()
        assert one.question.endswith("?")
        figures = [goal.figure for goal in one.goals]
        assert len(figures) == len(set(figures))


@pytest.mark.parametrize("name", book_flows.NAMES)
def test_a_flow_cancels_only_orders_that_are_open(name: str) -> None:
    """Checked by our engine, which answers any other cancel with a rejection."""
    loaded, steps = book_flows.make(name, 3_000, 500)
    engine = MatchingEngine()
    engine.process(DefineSymbol(1, "S1", Decimal("0.01"), Decimal(1), "TRADING", None), 0, 0)
    rejected = 0
    for offset, (order_id, user_id, side, quantity, price) in enumerate(Ours().prepare(loaded + steps), start=1):
        command: Command = cancel_order(1, order_id, user_id)
        if quantity:
            command = limit_order(1, order_id, user_id, side, quantity, price)
        rejected += sum(isinstance(event, CommandRejected) for event in engine.process(command, offset, offset))
    assert rejected == 0
    assert (name == "sweeping") == all(step.quantity for step in steps)


def test_cancel_heavy_is_as_it_says_however_long_it_is() -> None:
    """Orders that may not be cancelled do not pile up until nothing is left to cancel."""
    _, steps = book_flows.make("cancel-heavy", 60_000, 0)
    tail = steps[-20_000:]
    cancelled = sum(not step.quantity for step in tail)
    assert 0.94 < cancelled / (len(tail) - cancelled) < 0.96


def test_the_mixed_commands_are_the_same_every_time_and_one_symbol_a_partition() -> None:
    """Runs of one benchmark are comparable, and all partitions have work."""
    records = list(mixed_commands(2_000))
    assert records == list(mixed_commands(2_000))
    assert {partition_for(symbol_id, PARTITIONS_DEFAULT) for symbol_id, _ in records} == set(range(PARTITIONS_DEFAULT))
    kinds = Counter(type(decode_command(value)) for _, value in records)
    assert kinds.keys() == {NewOrder, Cancel, Amend}
    assert 400 < kinds[Cancel] < 600


def test_an_unknown_benchmark_is_answered_with_the_names_there_are() -> None:
    """The message is the remedy."""
    with pytest.raises(SetupError, match=r"no benchmark speed; there are .*\."):
        all_benchmarks().named("speed")


def test_without_a_checkout_the_command_says_where_the_benchmarks_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel has no benchmarks folder."""
    monkeypatch.setattr(bench_command, "__file__", str(tmp_path / "forkast_streams" / "cli" / "bench.py"))
    with pytest.raises(SetupError, match="in a checkout of the project"):
        bench_command.bench(show_list=True)

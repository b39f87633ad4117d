"""What is compiled gives the same bytes as its source, and is never that of an older source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forkast_streams import compiled
from forkast_streams.errors import SetupError

ROOT = Path(__file__).parents[2]
DIGEST = """
import hashlib
from forkast_streams.compiled import is_compiled
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.market_data.state import MarketDataState
from tests.unit.flows import PARTITIONS, Record, home_of, mixed_flow, records_of

state = EnginePartition(home_of(1), PARTITIONS)
outputs = state.process(records_of(list(mixed_flow(5_000, seed=11))))
digest = hashlib.sha256()
for record in [*outputs.events, *outputs.dead]:
    digest.update(record.value)
digest.update(repr((state.head(), state.take_changes(), state.take_journal())).encode())
keeper = MarketDataState(home_of(1))
events = [Record(offset, 0, record.key, record.value) for offset, record in enumerate(outputs.events)]
digest.update(repr([keeper.apply(events[at : at + 50]) for at in range(0, len(events), 50)]).encode())
digest.update(repr((keeper.head(), keeper.take_changes(), list(keeper.sweep()[1]))).encode())
print(is_compiled(), len(outputs.events), digest.hexdigest())
"""


def digest_in(folder: Path) -> list[str]:
    env = os.environ | {"PYTHONPATH": str(folder)}
    run = subprocess.run(
        [sys.executable, "-c", DIGEST], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    return run.stdout.split()


def test_source_and_compiled_modules_give_the_same_bytes(tmp_path: Path) -> None:
    """Where there is no C compiler both are the source, and the setup has said so."""
    for package in ("forkast_streams", "tests"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.so", "*.sha256"))
    is_compiled, *here = digest_in(ROOT)
    is_copy_compiled, *from_source = digest_in(tmp_path)
    assert is_copy_compiled == "False"
    assert is_compiled == str(compiled.is_compiled())
    assert here == from_source
    assert int(here[0]) > 5_000


def test_the_installed_command_finds_what_it_needs_from_anywhere(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "forkast"
    run = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "worker" in run.stdout


def test_an_edited_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "forkast_streams"
    shutil.copytree(ROOT / "forkast_streams", package, ignore=shutil.ignore_patterns("*.so", "*.sha256"))
    monkeypatch.setattr(compiled, "_PACKAGE", package)
    compiled.require_fresh()
    compiled.write_down(tmp_path)
    compiled.require_fresh()
    source = package / "engine" / "taking.py"
    source.write_text(source.read_text() + "\n# edited\n")
    with pytest.raises(SetupError, match="make setup"):
        compiled.require_fresh()
    compiled.remove()
    compiled.require_fresh()

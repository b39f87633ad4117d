"""What is compiled gives the same bytes as its source, and is never that of an older source."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forkast_streams import compiled
from forkast_streams.cli import app
from forkast_streams.errors import SetupError

ROOT = Path(__file__).parents[2]
DIGEST = """
import hashlib
from forkast_streams.compiled import is_compiled
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.market_data.state import MarketDataState
from tests.support.flows import PARTITIONS, Record, home_of, mixed_flow, records_of

state = EnginePartition(home_of(1), PARTITIONS)
outputs = state.process(records_of(list(mixed_flow(5_000, seed=11))))
digest = hashlib.sha256()
for record in [*outputs.events, *outputs.dead]:
    digest.update(record.value)
digest.update(repr((state.head(), state.drain_changes(), state.drain_journal())).encode())
keeper = MarketDataState(home_of(1))
events = [Record(offset, 0, record.key, record.value) for offset, record in enumerate(outputs.events)]
digest.update(repr([keeper.apply(events[at : at + 50]) for at in range(0, len(events), 50)]).encode())
digest.update(repr((keeper.head(), keeper.drain_changes(), list(keeper.sweep()[1]))).encode())
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
    for package in ("forkast_streams", "tests", "benchmarks"):
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


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, not compiled, that `compiled` takes for its own."""
    package = tmp_path / "forkast_streams"
    shutil.copytree(ROOT / "forkast_streams", package, ignore=shutil.ignore_patterns("*.so", "*.sha256"))
    monkeypatch.setattr(compiled, "_PACKAGE", package)
    return package


@pytest.mark.parametrize(
    "name", ["engine/matching.py", "codec/wire_command.py", "engine/define_symbol.py", "limits.py"]
)
def test_an_edited_source_is_refused(package: Path, name: str) -> None:
    """One that is compiled, or whose constants and types are in what is compiled."""
    compiled.require_fresh()
    compiled.write_down(package.parent, compiled.hash_of_sources())
    compiled.require_fresh()
    source = package / name
    source.write_text(source.read_text() + "\n# edited\n")
    with pytest.raises(SetupError, match="make setup"):
        compiled.require_fresh()
    compiled.remove()
    compiled.require_fresh()


def test_modules_of_a_compilation_that_was_cut_off_are_refused(package: Path) -> None:
    """Those of a training count what they do, and lie there without a hash when the compilation is killed."""
    module = package / "engine" / "matching.cpython-311-x86_64-linux-gnu.so"
    module.write_bytes(b"")
    with pytest.raises(SetupError, match="make uncompiled"):
        compiled.require_fresh()
    compiled.remove()
    assert not module.exists()
    compiled.require_fresh()


@pytest.mark.parametrize("command", ["up", "worker engine", "bench matching", "replay lobster flow.csv --symbol AAPL"])
def test_commands_that_run_compiled_modules_look_first(package: Path, command: str) -> None:
    """One sentence, before a server is started or a figure measured."""
    (package / "engine" / "matching.so").touch()
    refused = CliRunner().invoke(app, command.split())
    assert isinstance(refused.exception, SetupError)
    assert "make setup" in str(refused.exception)


def _with_imports(first: list[Path], *, without: str = "") -> set[Path]:
    """These modules, what they import of this repository, and what that imports; one package can be left out."""
    seen: set[Path] = set()
    ahead = list(first)
    while ahead:
        path = ahead.pop()
        if path in seen or not path.exists() or path.relative_to(ROOT).parts[0] == without:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                module = ROOT.joinpath(*(node.module or "").split("."))
                ahead += [module.with_suffix(".py"), *(module / f"{alias.name}.py" for alias in node.names)]
    return seen


def test_every_constant_that_is_compiled_in_is_in_the_hash() -> None:
    """What is Final in a module that a compiled one imports, or that such a module imports."""
    with_constants = {path for path in _with_imports(compiled.sources()) if re.search(r"\bFinal\b", path.read_text())}
    assert ROOT / "forkast_streams" / "limits.py" in with_constants
    assert with_constants - set(compiled.made_of()) == set()


def test_make_looks_at_all_that_the_training_reads() -> None:
    """What the modules are trained with decides how fast they are; no edit of a test does."""
    names = re.search(r"^TRAINING := \$\(addprefix benchmarks/,(.*)\)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert names is not None
    folder = ROOT / "benchmarks"
    assert {folder / name for name in names[1].split()} == _with_imports(
        [folder / "training.py"], without="forkast_streams"
    )


def test_what_is_compiled_of_is_told_by_a_python_without_packages() -> None:
    """Make asks before it has installed any; else it would compile again at the second start."""
    command = [sys.executable, "-S", "-m", "forkast_streams.compiled"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.split()[0] == compiled.hash_of_sources()


def test_nothing_is_noted_where_nothing_is_compiled(package: Path) -> None:
    """Else workers would refuse an edited source though they run it as it is."""
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, package.parent)
    env = os.environ | {"FORKAST_COMPILE": "0", "PYTHONPATH": ""}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=package.parent, env=env, capture_output=True, check=True)
    assert not compiled.is_compiled()


class Checkout:
    """A folder with the Makefile and an environment whose programs only note how they are called."""

    LOCK = "requirements.lock"
    SOURCE = "forkast_streams/limits.py"
    TRAINING = "benchmarks/mixed_flow.py"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Makefile", "setup.py", "pyproject.toml", self.LOCK):
            shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name in ("python", "uv"):
            looks = f'case "$*" in "-m forkast_streams.compiled"*) exec {sys.executable} "$@";; esac'
            (programs / name).write_text(f'#!/bin/sh\n{looks}\necho "{name} $*" >> calls\n')
            (programs / name).chmod(0o755)

    def setup(self, python: str = sys.executable) -> list[str]:
        """What `make setup` did, of installing and compiling."""
        self.make("setup", f"PYTHON={python}")
        calls = self.folder / "calls"
        text = calls.read_text() if calls.exists() else ""
        calls.unlink(missing_ok=True)
        return [what for what, sign in (("install", "uv pip sync"), ("compile", "build_ext")) if sign in text]

    def make(self, *arguments: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        run = subprocess.run(
            ["make", *arguments],
            cwd=self.folder,
            env=env | {"PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr

    def edit(self, name: str) -> None:
        """Change a file as an archive of another version does, which keeps the age of its files."""
        file = self.folder / name
        file.write_text(file.read_text() + "\n# edited\n")
        os.utime(file, (1, 1))


def test_setup_does_what_the_contents_ask_for(package: Path) -> None:
    """An upgrade brings files that are older than what was made of their forerunners; a second call does nothing."""
    checkout = Checkout(package.parent)
    assert checkout.setup() == ["install", "compile"]
    assert checkout.setup() == []
    # The environment has a Python of its own.
    assert checkout.setup("/nonexistent/python") == []
    for path in package.rglob("*.py"):
        path.touch()
    assert checkout.setup() == []
    checkout.edit(checkout.SOURCE)
    assert checkout.setup() == ["compile"]
    for name in ("setup.py", checkout.TRAINING):
        checkout.edit(name)
        assert checkout.setup() == ["compile"]
    checkout.edit(checkout.LOCK)
    assert checkout.setup() == ["install", "compile"]
    assert checkout.setup() == []
    # What a compilation that was killed leaves.
    (package / "engine" / "matching.so").touch()
    assert checkout.setup() == ["compile"]
    (package / "engine" / "matching.so").unlink()
    assert checkout.setup() == []


def test_clean_leaves_nothing_that_is_compiled(package: Path) -> None:
    """Whether the environment is there or not; without it nobody could say what the compiled modules are of."""
    checkout = Checkout(package.parent)
    for _ in range(2):
        (package / "engine" / "taking.cpython-311.so").touch()
        (package / "compiled.sha256").touch()
        (package.parent / "data").mkdir(exist_ok=True)
        checkout.make("clean", f"PYTHON={sys.executable}")
        assert [*package.rglob("*.so"), *package.rglob("*.sha256")] == []
        assert sorted(path.name for path in package.parent.iterdir() if path.name in (".venv", "data")) == ["data"]

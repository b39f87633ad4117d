"""What a stack's folder remembers: which ports, how they were chosen, who manages it."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from forkast_streams.devstack.ports import AUTO_PORTS
from forkast_streams.devstack.state import DEFAULT_PORTS, FolderLock, StackState, choose_ports
from forkast_streams.errors import SetupError

AUTO = StackState("auto", {"kafka": 1, "postgres": 2, "redis": 3, "kafka_controller": 4})
FIXED = StackState("fixed", {"kafka": 11, "postgres": 12, "redis": 13, "kafka_controller": 14})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """The file is plain JSON."""
    AUTO.save(tmp_path / "stack.json")
    assert StackState.load(tmp_path / "stack.json") == AUTO
    assert json.loads((tmp_path / "stack.json").read_text())["ports"]["kafka"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["stack.json"]


def test_no_file_is_no_state(tmp_path: Path) -> None:
    """A fresh folder has none."""
    assert StackState.load(tmp_path / "stack.json") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"mode": "auto"}',
        '{"mode": "other", "ports": {"kafka": 1, "postgres": 2, "redis": 3}}',
    ],
)
def test_a_damaged_file_gives_the_remedy(tmp_path: Path, content: str) -> None:
    """It only holds ports, so deleting it is safe."""
    (tmp_path / "stack.json").write_text(content)
    with pytest.raises(SetupError, match=r"stack\.json is damaged: delete it"):
        StackState.load(tmp_path / "stack.json")


def test_default_ports_are_the_well_known_ones() -> None:
    """Without a choice too; the controller's port is any free one."""
    for choice in ("default", None):
        state = choose_ports(choice, None)
        assert state.mode == "default"
        assert {**DEFAULT_PORTS}.items() <= dict(state.ports).items()
        assert state.ports["kafka_controller"] in AUTO_PORTS


def test_recorded_ports_are_kept() -> None:
    """Without a choice, and with the choice that was made before."""
    assert choose_ports(None, AUTO) == AUTO
    assert choose_ports(None, FIXED) == FIXED
    assert choose_ports("auto", AUTO) == AUTO


def test_another_choice_replaces_recorded_ports() -> None:
    """``--ports auto`` is the remedy for a taken port, so it must not return to the recorded one."""
    chosen = choose_ports("auto", FIXED)
    assert not set(chosen.ports.values()) & set(FIXED.ports.values())
    assert choose_ports("default", AUTO).ports["kafka"] == DEFAULT_PORTS["kafka"]


def test_a_mapping_names_some_ports() -> None:
    """The others are as recorded."""
    assert choose_ports({"redis": 99}, FIXED) == StackState("fixed", {**FIXED.ports, "redis": 99})


def test_a_mapping_with_an_unknown_server_is_refused() -> None:
    """The sentence lists the names there are."""
    with pytest.raises(SetupError, match="no server mysql: ports are for kafka"):
        choose_ports({"mysql": 3306}, None)


def _try_lock(file: Path, answers: multiprocessing.SimpleQueue[str]) -> None:
    lock = FolderLock(file)
    try:
        lock.acquire()
    except SetupError as error:
        answers.put(str(error))
    else:
        answers.put("acquired")


def test_a_folder_has_one_manager(tmp_path: Path) -> None:
    """Another process is told who holds the lock, and gets it after its release."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    lock = FolderLock(tmp_path / "stack.lock")
    lock.acquire()
    for _ in range(2):
        other = context.Process(target=_try_lock, args=(tmp_path / "stack.lock", answers))
        other.start()
        other.join()
        lock.release()
    assert f"managed by process {multiprocessing.current_process().pid}" in answers.get()
    assert answers.get() == "acquired"

"""``forkast keys``: what it writes is what the engine reads, and nothing that once held is taken back."""

from __future__ import annotations

import os
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from forkast_streams.cli import keys
from forkast_streams.cli.keys import app
from forkast_streams.devstack.server import write_atomic
from forkast_streams.errors import InvalidRecord, SetupError
from forkast_streams.producer_keys import read_key_file
from forkast_streams.record_signatures import Signer, verify
from forkast_streams.topics import ORDERS_NEW


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--file", str(file)], catch_exceptions=False)


def new(file: Path, *arguments: str) -> tuple[str, Signer]:
    """Make a key; return its id and what a producer signs with."""
    result = run(file, "new", *arguments)
    assert result.exit_code == 0
    name, _, text = result.stdout.strip().partition("=")
    signer = Signer.from_env({name: text})
    assert signer is not None
    return signer.key_id, signer


def verdict(file: Path, signer: Signer | None, at: int, *, user_id: int = 1) -> str | None:
    """How a record that is written at a moment, ms of the log's time, is judged by the file."""
    headers = []
    if signer is not None:
        signer._now_ms = lambda: at
        headers.append(signer.header(ORDERS_NEW, b"1", b"{}"))
    try:
        verify(headers, b"1", b"{}", at, read_key_file(file), topic=ORDERS_NEW, user_id=user_id)
    except InvalidRecord as exc:
        return exc.code
    return None


def test_a_key_holds_from_when_it_says_until_it_is_revoked(file: Path) -> None:
    began = int(time.time() * 1_000)
    key_id, signer = new(file, "--producer", "oms")
    [key] = read_key_file(file).content.keys
    assert key.id == key_id
    assert began + 10_000 <= key.valid_from <= int(time.time() * 1_000) + 10_000
    assert verdict(file, signer, key.valid_from) is None
    assert run(file, "revoke", key_id, "--in", "20").exit_code == 0
    [key] = read_key_file(file).content.keys
    assert key.valid_until is not None
    assert key.valid_until >= began + 20_000
    assert verdict(file, signer, key.valid_until - 1) is None
    assert verdict(file, signer, key.valid_until) == "BAD_SIGNATURE"


def test_a_key_for_some_users_is_for_them_alone(file: Path) -> None:
    _, signer = new(file, "--producer", "partner", "--users", "1,7")
    at = read_key_file(file).content.keys[0].valid_from
    assert [verdict(file, signer, at, user_id=user) for user in (1, 7, 2)] == [None, None, "USER_NOT_ALLOWED"]


def test_signatures_can_be_required_and_not_any_more(file: Path) -> None:
    new(file, "--producer", "oms")
    assert run(file, "require", "on").exit_code == 0
    since = read_key_file(file).content.required[0].since
    assert [verdict(file, None, at) for at in (since - 1, since)] == [None, "UNSIGNED"]
    assert run(file, "require", "off", "--in", "60").exit_code == 0
    [span] = read_key_file(file).content.required
    assert span.until is not None
    assert [verdict(file, None, at) for at in (span.until - 1, span.until)] == ["UNSIGNED", None]
    assert run(file, "require", "on", "--in", "90").exit_code == 0
    assert len(read_key_file(file).content.required) == 2


def test_nobody_else_can_read_the_file_and_no_list_shows_a_secret(file: Path) -> None:
    result = run(file, "new", "--producer", "oms", "--symbols")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = result.stdout.strip().partition(":")[2]
    shown = run(file, "list").stdout
    assert secret not in shown
    assert re.search(r"oms-[0-9a-f]{8} +│ \* +│ yes", shown)
    file.chmod(0o640)
    new(file, "--producer", "partner")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_link_to_the_file_stays_one(file: Path) -> None:
    """As a configuration is laid out by links, and engines read the target."""
    new(file, "--producer", "oms")
    link = file.with_name("link.json")
    link.symlink_to(file)
    new(link, "--producer", "partner")
    assert link.is_symlink()
    assert [key.producer for key in read_key_file(file).content.keys] == ["oms", "partner"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_file_stays_whose_it_is(file: Path) -> None:
    """An operator calls the command with sudo; the engines' user must go on reading the file."""
    new(file, "--producer", "oms")
    os.chown(file, 1234, 1235)
    file.chmod(0o640)
    assert "belonged" not in run(file, "new", "--producer", "partner").stderr
    after = file.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (1234, 1235, 0o640)


def test_a_file_that_cannot_be_given_back_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody of another group may read it then."""
    new(file, "--producer", "oms")
    file.chmod(0o640)
    real = file.stat()
    foreign = os.stat_result((*real[:4], 4321, 4322, *real[6:]))

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr("os.fchown", refuse)
    write_atomic(file, file.read_text(), like=foreign)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys._tell_new_owner(file, foreign)
    assert "belonged to 4321:4322 and is " in capsys.readouterr().err


def test_changes_at_one_time_lose_no_key(file: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda number: run_new(file, number), range(12)))
    assert {key.id for key in read_key_file(file).content.keys} == set(results)


def run_new(file: Path, number: int) -> str:
    """Make a key without the runner, which takes standard output of the whole process."""
    key_id = f"oms-{number}"
    key = keys.ProducerKey(key_id, "oms", bytes(32), "*", 1)
    keys._change(file, lambda content: keys.replace(content, keys=(*content.keys, key)), may_make=True)
    return key_id


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["new", "--producer", "No Name"], "--producer must be a name"),
        (["new", "--producer", "oms", "--users", "1,x"], "--users must be ids"),
        (["new", "--producer", "oms", "--users", ""], "--users must be ids"),
        (["revoke", "oms-1"], "has no key oms-1"),
        (["require", "off"], "not required already"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(file: Path, arguments: list[str], sentence: str) -> None:
    new(file, "--producer", "oms")
    before = file.read_bytes()
    with pytest.raises(SetupError, match=sentence):
        run(file, *arguments)
    assert file.read_bytes() == before


def test_a_key_ends_once(file: Path) -> None:
    key_id, _ = new(file, "--producer", "oms")
    run(file, "revoke", key_id)
    with pytest.raises(SetupError, match=r"ends at .* already"):
        run(file, "revoke", key_id)


def test_a_time_that_engines_may_have_reached_is_refused(file: Path) -> None:
    assert run(file, "new", "--producer", "oms", "--in", "1").exit_code == 2
    assert not file.exists()


def test_without_a_file_there_is_a_sentence(file: Path) -> None:
    with pytest.raises(SetupError, match="make the file with `forkast keys new`"):
        run(file, "list")

"""What a worker refuses to serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkast_streams import roles
from forkast_streams.config import Settings
from forkast_streams.errors import SetupError
from forkast_streams.start_checks import DEMO_EMAILS, require_safe_transport
from forkast_streams.storage.postgres import _packaged


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_passwords_without_tls_stay_on_this_machine(host: str) -> None:
    """Loopback is served as it is."""
    require_safe_transport(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "no such host"])
def test_passwords_without_tls_cross_no_network(host: str) -> None:
    """Anything else needs a proxy that ends TLS, and somebody who says that it is there."""
    with pytest.raises(SetupError, match="FORKAST_BEHIND_TLS_PROXY=1"):
        require_safe_transport(Settings(host=host))
    require_safe_transport(Settings(host=host, behind_tls_proxy=True))


def test_faust_looks_before_it_starts_a_role_as_the_command_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """``faust -A forkast_streams.roles:engine worker`` asks the module for the app."""
    monkeypatch.setenv("KAFKA_BROKERS", "127.0.0.1:1")
    with pytest.raises(SetupError, match="Kafka is not reachable"):
        _ = roles.engine
    monkeypatch.setenv("FORKAST_HOST", "0.0.0.0")
    with pytest.raises(SetupError, match="without TLS"):
        _ = roles.oms


def test_a_data_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    """As where the data folder is another user's, or its name a file's."""
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"local state .*file/engine-1.* cannot be made: Not a directory; name one"):
        roles.create_app("engine", Settings(data_dir=tmp_path / "file" / "engine-1"))


def test_every_demo_user_is_known() -> None:
    """Those that init.sql makes are those that are looked for."""
    made = _packaged("init.sql").partition("-- demo users:")[2]
    assert [email for email in DEMO_EMAILS if f"'{email}'" not in made] == []
    assert made.count("@example.com") == len(DEMO_EMAILS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FORKAST_DEMO_USERS", "maybe"),
        ("FORKAST_SIGNING_SECRET", "short"),
        ("FORKAST_SIGNATURE_WINDOW_MS", "60001"),
        ("FORKAST_SIGNATURE_WINDOW_MS", "0"),
    ],
)
def test_setting_that_can_not_be_meant_is_refused(name: str, value: str) -> None:
    """With the variable's name in the sentence, and never a secret."""
    with pytest.raises(SetupError, match=name) as caught:
        Settings.from_env({name: value})
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "-1", "0", "0.9", "60000.5"])
def test_signature_window_that_is_none_is_refused_with_what_it_may_be(value: str) -> None:
    """There is always a window, so the sentence does not offer 0 for no limit, as those of the rate limits do."""
    with pytest.raises(SetupError, match=r"milliseconds from 1 to 60000, was '") as caught:
        Settings.from_env({"FORKAST_SIGNATURE_WINDOW_MS": value})
    assert "no limit" not in str(caught.value)


def test_signature_window_is_what_was_set() -> None:
    """Blanks around it do not count; an empty one is as if it was not set."""
    windows = [Settings.from_env({"FORKAST_SIGNATURE_WINDOW_MS": text}).signature_window_ms for text in (" 60000 ", "")]
    assert windows == [60_000, 5_000]


def test_secret_is_not_shown_with_the_settings() -> None:
    """Settings are printed and logged."""
    assert "x" * 32 not in repr(Settings(signing_secret="x" * 32))

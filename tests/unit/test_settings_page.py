"""docs/settings.md lists the environment variables that the code reads, all of them and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from forkast_streams.cli import client
from forkast_streams.config import RateSettings, Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text()
# Names that are ours by their beginning, wherever they stand by themselves; others are seen where they are read.
OURS = re.compile(r"FORKAST_[A-Z_]*[A-Z]|KAFKA_(SECURITY|SASL|SSL)_[A-Z_]*[A-Z]")


def sources() -> Iterator[ast.AST]:
    for package in ("forkast_streams", "agents", "tables", "web"):
        for file in (ROOT / package).rglob("*.py"):
            yield from ast.walk(ast.parse(file.read_text()))
    yield from ast.walk(ast.parse((ROOT / "setup.py").read_text()))


def text_of(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def is_environment(node: ast.AST) -> bool:
    """``env``, ``os.environ`` and the like."""
    return isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node).rpartition(".")[2] in ("env", "environ")


def names_read_at(node: ast.AST) -> Iterator[str | None]:
    """The variables that an expression reads, None for one that it does not name."""
    if isinstance(node, ast.Constant):
        text = text_of(node)
        yield text if text is not None and OURS.fullmatch(text) else None
    elif isinstance(node, ast.Subscript) and is_environment(node.value):
        yield text_of(node.slice)
    elif isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called.endswith(".get") and isinstance(node.func, ast.Attribute) and is_environment(node.func.value):
            yield text_of(node.args[0])
        if called.endswith("getenv"):
            yield text_of(node.args[0])
        if called == "read_secret":
            name = text_of(node.args[1])
            assert name is not None
            yield from (name, f"{name}_FILE")
        yield from (text_of(keyword.value) for keyword in node.keywords if keyword.arg == "envvar")


def read_by_the_code() -> set[str]:
    named = {name for node in sources() for name in names_read_at(node) if name is not None}
    return named | {f"FORKAST_RATE_{limit.name.upper()}" for limit in fields(RateSettings)}


def rows() -> dict[str, list[str]]:
    """The cells of the row of each variable."""
    found: dict[str, list[str]] = {}
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            for name in re.findall(r"`([A-Z_]+)`", cells[0]):
                assert name not in found, f"{name} has two rows"
                found[name] = cells
    return found


def test_the_page_has_the_variables_that_are_read_and_no_others() -> None:
    read = read_by_the_code()
    assert len(read) > 30
    assert sorted(read - rows().keys()) == []
    assert sorted(rows().keys() - read) == []


def test_every_row_says_default_meaning_and_reader() -> None:
    assert [name for name, cells in rows().items() if len(cells) != 4 or not all(cells)] == []


def test_defaults_are_those_of_the_code() -> None:
    settings, page = Settings(), rows()
    defaults = {
        "KAFKA_BROKERS": settings.kafka_brokers,
        "REDIS_URL": settings.redis_url,
        "DATABASE_URL": settings.database_url,
        "FORKAST_DATA_DIR": settings.data_dir,
        "FORKAST_HOST": settings.host,
        "FORKAST_INSTANCE": settings.instance,
        "FORKAST_SIGNATURE_WINDOW_MS": settings.signature_window_ms,
        "FORKAST_BEHIND_TLS_PROXY": int(settings.behind_tls_proxy),
        "FORKAST_DEMO_USERS": int(settings.demo_users),
        "FORKAST_URL": client.OMS_URL,
        "FORKAST_KEEPER_URL": client.KEEPER_URL,
        "FORKAST_USER": client.DEMO_USER,
    }
    assert [name for name, default in defaults.items() if not page[name][1].startswith(f"`{default}`")] == []


def test_the_page_is_found() -> None:
    assert "(docs/settings.md)" in (ROOT / "README.md").read_text()

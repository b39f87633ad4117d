"""The walk-through of docs/api.md, line by line, on a running exchange."""

from __future__ import annotations

import json
import re
import shlex
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

from tests.acceptance.running import Exchange
from tests.integration.exchange import wait_until

API = Path(__file__).parents[2] / "docs" / "api.md"
_EXAMPLE = re.compile(r"```sh\n(curl .*?)```\s+```json\n(.*?)```", re.DOTALL)
_NAME = re.compile(r"<([a-z]+)>")
_ROLES = {"localhost:3001": "oms", "localhost:3002": "keeper"}


def examples() -> list[tuple[str, Any]]:
    """Commands and answers of the walk-through."""
    text = API.read_text().partition("## A walk-through")[2].partition("\n## ")[0]
    return [(command, json.loads(answer)) for command, answer in _EXAMPLE.findall(text)]


def curl(exchange: Exchange, command: str) -> tuple[str, Any]:
    """Do what curl would do; return method and body."""
    words = iter(shlex.split(command.replace("\\\n", " "))[1:])
    url, method, body, headers = "", None, None, {}
    for word in words:
        if word == "-u":
            headers["Authorization"] = f"Basic {b64encode(next(words).encode()).decode()}"
        elif word == "-X":
            method = next(words)
        elif word == "-d":
            body = next(words).encode()
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        else:
            assert not url, f"curl has no meaning of {word}"
            url = word
    host, slash, path = url.partition("/")
    request = urllib.request.Request(exchange.url(_ROLES[host]) + slash + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            return request.get_method(), json.loads(response.read())
    except urllib.error.HTTPError as error:
        return request.get_method(), json.loads(error.read())


def matches(documented: Any, answered: Any, names: dict[str, str]) -> bool:
    """Whether the answer has what is documented; a name stands for what it stood for first."""
    if isinstance(documented, dict):
        return isinstance(answered, dict) and all(
            key in answered and matches(value, answered[key], names) for key, value in documented.items()
        )
    if isinstance(documented, list):
        return (
            isinstance(answered, list)
            and len(documented) == len(answered)
            and all(matches(one, other, names) for one, other in zip(documented, answered, strict=True))
        )
    if isinstance(documented, str) and (name := _NAME.fullmatch(documented)):
        return bool(names.setdefault(name[1], answered) == answered)
    return bool(documented == answered)


def test_the_walk_through_is_what_happens(exchange: Exchange) -> None:
    """What was asked for is there at once; what the engine decides is there soon."""
    names: dict[str, str] = {}
    steps = examples()
    assert len(steps) >= 20
    for command, documented in steps:
        named = _NAME.sub(lambda name: names[name[1]], command)
        method, answered = curl(exchange, named)
        if method == "GET":
            seen = [answered]

            def is_there(named: str = named, documented: Any = documented, seen: list[Any] = seen) -> bool:
                seen.append(curl(exchange, named)[1])
                return matches(documented, seen[-1], names)

            try:
                wait_until(is_there, "the documented answer", within_s=10)
            except TimeoutError:
                raise AssertionError(f"{command}\nis documented as\n{documented}\nwas\n{seen[-1]}") from None
        else:
            assert matches(documented, answered, names), f"{command}\nis documented as\n{documented}\nwas\n{answered}"

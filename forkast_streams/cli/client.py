"""What the commands that talk to a running exchange share: where it is, who asks, and how errors are told."""

from __future__ import annotations

from typing import Annotated, Any

import aiohttp
import typer

from forkast_streams.errors import ForkastError


def _without_colon(user: str) -> str:
    if ":" in user:
        raise typer.BadParameter("an e-mail address has no colon, which would end it before the password")
    return user


OmsUrl = Annotated[str, typer.Option("--url", envvar="FORKAST_URL", help="Where the OMS is.")]
KeeperUrl = Annotated[str, typer.Option("--keeper-url", envvar="FORKAST_KEEPER_URL", help="Where the keeper is.")]
UserName = Annotated[
    str, typer.Option("--user", envvar="FORKAST_USER", callback=_without_colon, help="E-mail of the user.")
]
Password = Annotated[
    str | None,
    typer.Option("--password", envvar="FORKAST_PASSWORD", help="Default: the e-mail, as demo users have it."),
]

OMS_URL = "http://localhost:3001"
KEEPER_URL = "http://localhost:3002"
DEMO_USER = "alice@example.com"

_CONNECT_S = 15


def session(user: str, password: str | None, *, total_s: float | None = 15) -> aiohttp.ClientSession:
    """An HTTP session with the user's credentials."""
    headers = {"Authorization": aiohttp.encode_basic_auth(user, password or user)}
    timeout = aiohttp.ClientTimeout(total=total_s, connect=_CONNECT_S)
    return aiohttp.ClientSession(headers=headers, timeout=timeout)


async def call(client: aiohttp.ClientSession, method: str, url: str, body: Any = None) -> Any:
    """Send a request and return the JSON of its answer.

    Raises:
        ForkastError: nothing answers there, or the request is refused; the message says why.
    """
    try:
        async with client.request(method, url, json=body) as response:
            await check(response)
            return await response.json()
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise no_answer(url, exc) from exc


async def check(response: aiohttp.ClientResponse) -> None:
    """Let an answer pass that is what was asked for.

    Raises:
        ForkastError: the request is refused; the message says why.
    """
    if response.status >= 400:
        answer = await response.json()
        error = answer.get("error", {})
        raise ForkastError(f"{error.get('code', response.status)}: {error.get('message', answer)}")


def no_answer(url: str, exc: BaseException) -> ForkastError:
    """The error that nothing, or nothing that makes sense, is at ``url``."""
    # A time-out has no words of its own.
    why = str(exc) or repr(exc)
    return ForkastError(f"{url} does not answer ({why}); is the exchange up (`forkast up`), is the address right?")


async def symbol_id_of(client: aiohttp.ClientSession, oms_url: str, symbol: str) -> int:
    """The id of a symbol given by name or id.

    Raises:
        ForkastError: there is no such symbol.
    """
    if symbol.isdecimal():
        return int(symbol)
    symbols = (await call(client, "GET", f"{oms_url}/symbols"))["symbols"]
    ids = {row["symbol"]: int(row["id"]) for row in symbols}
    if symbol.upper() not in ids:
        raise ForkastError(f"there is no symbol {symbol}; there are {', '.join(ids)}")
    return ids[symbol.upper()]

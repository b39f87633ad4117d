"""Users over HTTP who use every route and order type, and repeat what was not answered."""

from __future__ import annotations

import asyncio
import base64
import random
import time
import uuid
from typing import Any

import aiohttp

from forkast_streams.start_checks import DEMO_EMAILS
from tests.chaos.exchange import Exchange
from tests.chaos.journal import PLACE, Journal, Order, Request

# Whole lots and prices on the grid for every one of these demo symbols.
_SYMBOLS = (1, 2, 3, 4, 5)
_TRADERS = 8
_REQUEST_S_MAX = 15.0
_KEPT_MAX = 50
# What expires must have expired when a scenario has drained.
EXPIRES_MS_MAX = 2_000
_UNAVAILABLE = frozenset({"UNAVAILABLE", "LOG_UNAVAILABLE"})


def client(name: str) -> aiohttp.ClientSession:
    """A session with a demo user's credentials; an answer may take a while, but not for ever."""
    credentials = base64.b64encode(f"{name}@example.com:{name}@example.com".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}"}
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=_REQUEST_S_MAX))


async def call(session: aiohttp.ClientSession, method: str, url: str, body: Any) -> tuple[int, dict[str, Any]]:
    """Send a request; status 0 when no answer came."""
    try:
        async with session.request(method, url, json=body) as response:
            return response.status, await response.json()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0, {}


def order_body(chance: random.Random, owner: str) -> dict[str, Any]:
    """A new order of any type; two of five have a client order id."""
    quantity = chance.randint(1, 20)
    body: dict[str, Any] = {
        "symbolId": chance.choice(_SYMBOLS),
        "type": "LIMIT",
        "side": chance.choice(["BUY", "SELL"]),
    }
    body |= {"quantity": quantity, "price": 100 + chance.randint(-5, 5)}
    match chance.randint(1, 24):
        case 1 | 2:
            body["type"] = "MARKET"
            del body["price"]
        case 3:
            del body["price"], body["quantity"]
            body |= {"type": "MARKET", "quoteQuantity": chance.randint(500, 3_000)}
        case 4:
            del body["price"]
            body |= {"type": "STOP", "stopPrice": chance.randint(97, 103)}
        case 5:
            body |= {"type": "STOP_LIMIT", "stopPrice": chance.randint(97, 103)}
        case 6 | 7:
            body["displayQuantity"] = chance.randint(-(-quantity // 10), quantity)
        case 8 | 9:
            expires_at = int(time.time() * 1_000) + chance.randint(300, EXPIRES_MS_MAX)
            body |= {"timeInForce": "GTD", "expiresAt": expires_at}
        case 10 | 11:
            body["timeInForce"] = chance.choice(["IOC", "FOK"])
        case 12:
            body["postOnly"] = True
        case 13 | 14:
            body["selfTradePrevention"] = chance.choice(["EXPIRE_MAKER", "EXPIRE_BOTH", "NONE"])
    if chance.random() < 0.4:
        body["clientOrderId"] = f"{owner}-{uuid.uuid4().hex[:20]}"
    return body


class Trader:
    """One user who waits for each answer before going on.

    Args:
        name: of a demo user.
        session: with that user's credentials.
        journal: where every request is noted.
    """

    def __init__(
        self, exchange: Exchange, name: str, session: aiohttp.ClientSession, journal: Journal, chance: random.Random
    ) -> None:
        self._exchange = exchange
        self._name = name
        self._user_id = 1 + DEMO_EMAILS.index(f"{name}@example.com")
        self._session = session
        self._journal = journal
        self._chance = chance
        self._mine: list[tuple[str, dict[str, Any]]] = []
        # Orders with a client order id of which it is unknown whether they were taken, or that are sent again.
        self._again: list[dict[str, Any]] = []

    async def act(self) -> None:
        """Send one request of any kind."""
        chance = self._chance
        if self._again and chance.random() < 0.5:
            await self._place(self._again.pop(0), "repeat")
        elif not self._mine or chance.random() < 0.7:
            await self.place()
        else:
            match chance.randint(1, 60):
                case number if number <= 20:
                    await self._cancel()
                case number if number <= 40:
                    await self._amend()
                case number if number <= 48:
                    await self._replace()
                case number if number <= 52:
                    await self._place_batch()
                case number if number <= 55:
                    await self._cancel_batch()
                case number if number <= 57:
                    await self._cancel_all()
                case _:
                    await self._cancel_after()

    async def place(self) -> Request:
        """Place one order."""
        return await self._place(order_body(self._chance, self._name), PLACE)

    async def _place(self, body: dict[str, Any], kind: str) -> Request:
        at = time.monotonic()
        status, answer = await self._call("POST", "/orders", body)
        orders = self._keep([answer], [body]) if status == 201 else ()
        client_order_id = body.get("clientOrderId")
        if client_order_id is not None and (status in (0, 503) or (kind == PLACE and self._chance.random() < 0.1)):
            # The last one that a client can know nothing of until it asks again.
            self._again = [*self._again[-_KEPT_MAX:], body]
        return self._note(at, status, kind, orders)

    async def _place_batch(self) -> None:
        bodies = [order_body(self._chance, self._name) for _ in range(self._chance.randint(2, 6))]
        at = time.monotonic()
        status, answer = await self._call("POST", "/orders/batch", {"orders": bodies})
        results = answer.get("results", [])
        self._note(at, _worst(status, results), "place batch", self._keep(results, bodies))

    async def _amend(self) -> None:
        order_id, body = self._chance.choice(self._mine)
        change: dict[str, Any] = {"quantity": self._chance.randint(20, 30)}
        if body["type"] == "LIMIT" and self._chance.random() < 0.5:
            change = {"price": 100 + self._chance.randint(-5, 5)}
        at = time.monotonic()
        status, _ = await self._call("PATCH", f"/orders/{order_id}", change)
        self._note(at, status, "amend")

    async def _cancel(self) -> None:
        order_id, body = self._pop()
        if "clientOrderId" in body and self._chance.random() < 0.5:
            order_id = f"client:{body['clientOrderId']}"
        at = time.monotonic()
        status, _ = await self._call("DELETE", f"/orders/{order_id}", None)
        self._note(at, status, "cancel")

    async def _replace(self) -> None:
        order_id, old = self._pop()
        body = order_body(self._chance, self._name) | {"symbolId": old["symbolId"]}
        at = time.monotonic()
        status, answer = await self._call("POST", f"/orders/{order_id}/replace", body)
        self._note(at, status, "replace", self._keep([answer], [body]) if status == 202 else ())

    async def _cancel_batch(self) -> None:
        ids = [self._pop()[0] for _ in range(min(3, len(self._mine)))]
        at = time.monotonic()
        status, answer = await self._call("POST", "/orders/batch-cancel", {"ids": ids})
        self._note(at, _worst(status, answer.get("results", [])), "cancel batch")

    async def _cancel_all(self) -> None:
        at = time.monotonic()
        status, _ = await self._call("DELETE", f"/orders{self._some_symbol()}", None)
        self._note(at, status, "cancel all")

    async def _cancel_after(self) -> None:
        at = time.monotonic()
        timeout = self._chance.randint(0, EXPIRES_MS_MAX // 1_000)
        status, _ = await self._call("POST", f"/orders/cancel-after{self._some_symbol()}", {"timeout": timeout})
        self._note(at, status, "cancel after")

    def _some_symbol(self) -> str:
        return f"?symbolId={self._chance.choice(_SYMBOLS)}" if self._chance.random() < 0.8 else ""

    def _pop(self) -> tuple[str, dict[str, Any]]:
        return self._mine.pop(self._chance.randrange(len(self._mine)))

    def _keep(self, results: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> tuple[Order, ...]:
        orders = []
        for result, body in zip(results, bodies, strict=False):
            if "orderId" in result:
                orders.append(Order(result["orderId"], body.get("clientOrderId")))
                self._mine = [*self._mine[-_KEPT_MAX:], (result["orderId"], body)]
        return tuple(orders)

    def _note(self, at: float, status: int, kind: str, orders: tuple[Order, ...] = ()) -> Request:
        request = Request(at, time.monotonic() - at, status, kind, self._user_id, orders)
        self._journal.requests.append(request)
        return request

    async def _call(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        return await call(self._session, method, f"{self._exchange.member('oms').url}{path}", body)


def _worst(status: int, results: list[dict[str, Any]]) -> int:
    """The status of a batch: that of its answer, or what a single request with its worst element's error has."""
    codes = {result["error"]["code"] for result in results if "error" in result}
    codes -= {"NOT_FOUND", "ALREADY_CLOSED"}
    if not codes:
        return status
    return 503 if codes <= _UNAVAILABLE else 400


class HttpLoad:
    """Several traders at once."""

    def __init__(self, exchange: Exchange, seed: int, *, users: int = 4, pause_s: float = 0.05) -> None:
        self.journal = Journal()
        self._exchange = exchange
        self._seed = seed
        self._users = users
        self._pause_s = pause_s
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        for number in range(self._users):
            name = DEMO_EMAILS[number % _TRADERS].partition("@")[0]
            self._tasks.append(asyncio.create_task(self._use(name, random.Random(self._seed * 1_000 + number))))

    async def stop(self) -> None:
        """Let each user finish its request."""
        self._stopping = True
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*tasks)

    async def _use(self, name: str, chance: random.Random) -> None:
        async with client(name) as session:
            trader = self.trader(name, session, chance)
            while not self._stopping:
                await asyncio.sleep(self._pause_s * (0.5 + chance.random()))
                await trader.act()

    def trader(self, name: str, session: aiohttp.ClientSession, chance: random.Random) -> Trader:
        """Another trader, whose requests are noted with those of the others."""
        return Trader(self._exchange, name, session, self.journal, chance)

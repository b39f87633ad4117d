"""Rate limits of requests: by address before anything else is known, by user once the user is, and of logins.

An answer tells what is left of the user's limit, or of the address's where there is no user or users are not limited:
``RateLimit-Limit`` is what can be sent at once after a pause, ``RateLimit-Remaining`` what is left of it,
``RateLimit-Reset`` the seconds until all of it is back.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from aiohttp import web

from forkast_streams.config import RateSettings
from forkast_streams.errors import ApiError
from forkast_streams.rate_limits import Bucket, Limit, RateLimits
from web.request_state import note, peek

log = logging.getLogger(__name__)

_IPV6_HOME_BITS = 64
# An address as proxies write it with its port, or one of IPv6 in brackets.
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", re.ASCII)
_UNKNOWN = "unknown"
_LOGGED_CHARS_MAX = 100
_MINUTE_S = 60.0


class RequestLimits:
    """What the requests of a role may do.

    Args:
        limits: the buckets.
        rates: how large they are.
        behind_proxy: whether the client's address is the last one of ``X-Forwarded-For``.
    """

    def __init__(self, limits: RateLimits, rates: RateSettings, *, behind_proxy: bool) -> None:
        self._limits = limits
        self._behind_proxy = behind_proxy
        self._is_proxy_told = False
        self._user = Limit("user", rates.user, rates.user_burst)
        self._address = Limit("address", rates.address, rates.address_burst)
        failures, of_user = rates.login_failures, rates.login_failures_user
        self._failures = Limit("login", failures / _MINUTE_S, max(1.0, failures))
        self._failures_of_user = Limit("login-user", of_user / _MINUTE_S, max(1.0, of_user))
        # Credentials that are being checked, by limit and key.
        self._under_way: Counter[tuple[str, str]] = Counter()

    def address_of(self, request: web.Request) -> str:
        """The network that counts as one client: an IPv4 address, or an IPv6 home's 64 bits."""
        if not self._behind_proxy:
            return _network_of(request.remote or _UNKNOWN)
        # Only the proxy's own entry can be believed: what stands before it the client may have sent.
        sent = request.headers.getall("X-Forwarded-For", [""])[-1].rpartition(",")[2].strip()
        address = _network_of(sent)
        if address == _UNKNOWN:
            self._tell_of_proxy(sent)
            if not sent:
                return _network_of(request.remote or _UNKNOWN)
        return address

    def _tell_of_proxy(self, sent: str) -> None:
        """Say once that clients cannot be told from each other."""
        if not self._is_proxy_told:
            self._is_proxy_told = True
            what = f"{sent[:_LOGGED_CHARS_MAX]!a}, which is no address" if sent else "none"
            log.warning(
                "the proxy must append the client's address to X-Forwarded-For and has sent %s: clients without "
                "one share a rate limit",
                what,
            )

    def charge_address(self, request: web.Request, address: str) -> None:
        """Count a request of an address.

        Raises:
            ApiError: 429.
        """
        charges = _Charges(self)
        note(request, _CHARGES, charges)
        self._count(charges, self._address, address)

    def charge_user(self, request: web.Request, user_id: int) -> None:
        """Count a request of a user; that of its address was counted.

        Raises:
            ApiError: 429.
        """
        self._count(request[_CHARGES], self._user, str(user_id))

    def _count(self, charges: _Charges, limit: Limit, key: str) -> None:
        if not limit.rate:
            return
        allowed, bucket = self._limits.take(limit, key)
        charges.taken.append((bucket, key))
        if not allowed:
            raise _too_many(bucket, 1)

    def require_login_allowed(self, address: str, name: str) -> None:
        """Refuse to check a credential after too many wrong ones.

        Args:
            address: where it comes from.
            name: what it is for: an e-mail or the id of a key. Others, and the owner elsewhere, are not held up.

        Raises:
            ApiError: 429.
        """
        for limit, key in self._login_keys(address, name):
            bucket = self._limits.bucket(limit, key)
            if limit.rate and bucket.tokens - self._under_way[limit.name, key] < 1:
                message = "too many logins have failed from here; wait before you try again"
                headers = {"Retry-After": str(bucket.retry_after_s())}
                raise ApiError(429, "TOO_MANY_LOGINS", message, headers=headers)

    @contextmanager
    def login_under_way(self, address: str, name: str) -> Iterator[None]:
        """Count a credential that is being checked as a wrong one for as long: nobody can try many at once.

        Raises:
            ApiError: 429, see ``require_login_allowed``.
        """
        self.require_login_allowed(address, name)
        keys = [(limit.name, key) for limit, key in self._login_keys(address, name)]
        self._under_way.update(keys)
        try:
            yield
        finally:
            self._under_way.subtract(keys)
            for key in keys:
                if not self._under_way[key]:
                    del self._under_way[key]

    def login_failed(self, address: str, name: str) -> None:
        """Count a wrong credential."""
        for limit, key in self._login_keys(address, name):
            self._limits.spend(self._limits.bucket(limit, key), key)

    def _login_keys(self, address: str, name: str) -> tuple[tuple[Limit, str], tuple[Limit, str]]:
        # Names come from anybody: as a digest they are short, and nobody's e-mail stands in Redis.
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]
        return (self._failures, address), (self._failures_of_user, f"{address}:{digest}")

    def charge_more(self, taken: list[tuple[Bucket, str]], tokens: int) -> None:
        """Take ``tokens`` more from each bucket, one of which was taken before, or from none.

        Raises:
            ApiError: 429.
        """
        buckets = [self._limits.bucket(bucket.limit, key) for bucket, key in taken]
        lacking = [bucket for bucket in buckets if bucket.tokens < min(tokens, bucket.limit.size - 1)]
        if lacking:
            # The request comes again as a whole, to both of them.
            whole = tokens + 1
            raise _too_many(max(lacking, key=lambda bucket: bucket.seconds_until(whole)), whole)
        for bucket, key in taken:
            self._limits.spend(self._limits.bucket(bucket.limit, key), key, tokens)


class _Charges:
    """What a request was counted in: the address's bucket, then the user's, without those that limit nothing."""

    __slots__ = ("limits", "taken")

    def __init__(self, limits: RequestLimits) -> None:
        self.limits = limits
        self.taken: list[tuple[Bucket, str]] = []


_CHARGES = web.RequestKey("charges", _Charges)


def charge(request: web.Request, count: int) -> None:
    """Let ``request`` count as ``count`` requests in all; it was counted as one when it came.

    For a request that carries ``count`` orders. Takes microseconds, and nothing when it raises.

    Raises:
        ApiError: 429, the user or the address would be over the limit; no order may be taken then.
    """
    charges = peek(request, _CHARGES)
    if charges is not None and count > 1:
        charges.limits.charge_more(charges.taken, count - 1)


async def add_rate_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Tell what is left of the limit."""
    bucket = _told_bucket(request)
    if bucket is not None:
        headers = response.headers
        headers["RateLimit-Limit"] = str(int(bucket.limit.size))
        headers["RateLimit-Remaining"] = str(bucket.remaining)
        headers["RateLimit-Reset"] = str(_reset_s(bucket))


def rate_header_lines(request: web.Request) -> str:
    """As ``add_rate_headers``, for headers that are written as text."""
    bucket = _told_bucket(request)
    if bucket is None:
        return ""
    return (
        f"RateLimit-Limit: {int(bucket.limit.size)}\r\n"
        f"RateLimit-Remaining: {bucket.remaining}\r\n"
        f"RateLimit-Reset: {_reset_s(bucket)}\r\n"
    )


def _told_bucket(request: web.Request) -> Bucket | None:
    """The bucket that an answer tells of; None when nothing was limited."""
    charges = peek(request, _CHARGES)
    return charges.taken[-1][0] if charges is not None and charges.taken else None


def _reset_s(bucket: Bucket) -> int:
    return math.ceil(bucket.seconds_until(bucket.limit.size))


def _too_many(bucket: Bucket, tokens: int) -> ApiError:
    message = f"too many requests of this {bucket.limit.name}; wait before you send more"
    return ApiError(429, "RATE_LIMITED", message, headers={"Retry-After": str(bucket.retry_after_s(tokens))})


@lru_cache(maxsize=10_000)
def _network_of(text: str) -> str:
    with_port = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address(text if with_port is None else with_port[1] or with_port[2])
    except ValueError:
        return _UNKNOWN
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ip_network((address, _IPV6_HOME_BITS), strict=False))
    return str(address)

"""The form of a route's description, and what routes have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from forkast_streams.api_description.fields import JsonSchema

Method = Literal["GET", "POST", "PATCH", "DELETE"]
Codes = tuple[str, ...]

JSON = "application/json"
IDEMPOTENT_REPLAY = "Idempotent-Replay"

# What any request to a route that knows its user may be answered with.
AUTHENTICATED_ERRORS: dict[int, Codes] = {
    400: ("MALFORMED_REQUEST",),
    401: ("UNAUTHORIZED",),
    403: ("FORBIDDEN",),
    429: ("RATE_LIMITED", "TOO_MANY_LOGINS"),
    503: ("UNAVAILABLE",),
}
OPEN_ERRORS: dict[int, Codes] = {400: ("MALFORMED_REQUEST",), 429: ("RATE_LIMITED",), 503: ("UNAVAILABLE",)}
BODY_ERRORS: dict[int, Codes] = {
    400: (
        "INVALID_JSON",
        "BODY_NOT_OBJECT",
        "UNKNOWN_FIELD",
        "DUPLICATE_FIELD",
        "MISSING_FIELD",
        "INVALID_TYPE",
        "INVALID_ENUM",
        "INVALID_VALUE",
    ),
    408: ("BODY_TIMEOUT",),
    413: ("BODY_TOO_LARGE",),
    415: ("UNSUPPORTED_MEDIA_TYPE",),
}
PARAMETER_ERRORS: dict[int, Codes] = {400: ("INVALID_TYPE", "OUT_OF_RANGE", "DUPLICATE_PARAM")}
LOG_ERRORS: dict[int, Codes] = {503: ("LOG_UNAVAILABLE",)}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the path, the query or the headers."""

    name: str
    place: Literal["path", "query", "header"]
    schema: JsonSchema
    description: str

    @property
    def is_required(self) -> bool:
        """Paths are nothing without their parameters; everything else has a default."""
        return self.place == "path"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers when nothing is wrong, or when the answer is no error body.

    Attributes:
        status: HTTP status.
        description: one sentence.
        body: the type of the body; None: it is not JSON, see ``media``.
        media: media type of the body.
        links: names of the routes that take the answer's ``orderId`` as their ``id``.
        headers: names of headers that it may have besides those of all answers.
    """

    status: int
    description: str
    body: type | None = None
    media: str = JSON
    links: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    Attributes:
        method: HTTP method; what answers GET answers HEAD, too, but for streams.
        path: as it is registered, its parameters in braces.
        name: operation id, unique.
        summary: a few words.
        description: sentences, if there is more to say.
        tag: heading under which it stands.
        answers: the good ones.
        errors: codes by status, without those of ``AUTHENTICATED_ERRORS`` or ``OPEN_ERRORS``.
        parameters: of path, query and headers.
        body: the type its body is decoded as.
        example: a body.
        credentials: who gets in: anybody, a user, or a user with the password and not with an API key.
    """

    method: Method
    path: str
    name: str
    summary: str
    tag: str
    answers: tuple[Answer, ...]
    description: str = ""
    errors: Mapping[int, Codes] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    body: type | None = None
    example: Any = None
    credentials: Literal["none", "user", "password"] = "user"

    def all_errors(self) -> dict[int, Codes]:
        """The codes by status, with those of all routes of its kind."""
        return merged(OPEN_ERRORS if self.credentials == "none" else AUTHENTICATED_ERRORS, self.errors)


def merged(*errors: Mapping[int, Codes]) -> dict[int, Codes]:
    """Codes by status, put together; each once, in the order in which they come."""
    together: dict[int, dict[str, None]] = {}
    for each in errors:
        for status, codes in each.items():
            together.setdefault(status, {}).update(dict.fromkeys(codes))
    return {status: tuple(codes) for status, codes in sorted(together.items())}

"""Every error this project raises on purpose.

ForkastError
├── SetupError         the environment is not usable; the message is a sentence with the remedy
├── InvalidRecord      a record that cannot be taken as a command; it goes to ``orders.dead``
├── Unavailable        a server is out of reach now; trying again later may help
├── CorruptLog         a topic or checkpoint contradicts itself; the worker must stop
└── ApiError           an HTTP request that is answered with an error body
"""

from __future__ import annotations


class ForkastError(Exception):
    """Base of all errors raised on purpose."""


class SetupError(ForkastError):
    """The environment is not usable. The message is one sentence that says what to do."""


class InvalidRecord(ForkastError):
    """A record of ``orders.new`` that cannot be taken as a command.

    Attributes:
        code: stable reason code, an upper-case word such as ``INVALID_JSON``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unavailable(ForkastError):
    """A server is out of reach or too slow now; trying again later may help."""


class CorruptLog(ForkastError):
    """A log or a checkpoint contradicts itself; going on would invent or lose something."""


class ApiError(ForkastError):
    """An HTTP request that is refused.

    Attributes:
        status: HTTP status of the answer.
        code: stable upper-case word, documented in ``docs/api.md``.
        field: the body field or parameter at fault, if one is.
        order_id: of the order whose fate is unknown, for who asks what became of it.
        headers: extra headers of the answer, such as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        order_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field
        self.order_id = order_id
        self.headers = headers or {}

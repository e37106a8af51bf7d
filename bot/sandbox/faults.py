"""Faults on demand: what the next N calls, downloads or updates shall suffer.

Keeps the orders and hands them out; those who serve calls, downloads and updates carry them out.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from bot.sandbox.errors import UserError

DOWNLOAD = "download"
"""Stands for file downloads where the name of a method is asked for."""


class FaultKind(StrEnum):
    """What can go wrong.

    TOO_MANY_REQUESTS: 429 with `retry_after_s`.
    SERVER_ERROR: an answer with `status` (400 to 599) and nothing but its name, as JSON.
    RESET: the connection is reset before the call is carried out.
    LOST_ANSWER: the call is carried out and the connection reset instead of an answer.
    SLOW: the answer comes `delay_s` late; a download stalls half-way for as long.
    TRUNCATED_DOWNLOAD: the connection ends half-way through the file.
    DUPLICATE_UPDATE: an update is delivered once more after it was acknowledged.
    REORDER_UPDATES: an update is delivered after the one that follows it.
    """

    TOO_MANY_REQUESTS = "too_many_requests"
    SERVER_ERROR = "server_error"
    RESET = "reset"
    LOST_ANSWER = "lost_answer"
    SLOW = "slow"
    TRUNCATED_DOWNLOAD = "truncated_download"
    DUPLICATE_UPDATE = "duplicate_update"
    REORDER_UPDATES = "reorder_updates"


_OF_UPDATES = {FaultKind.DUPLICATE_UPDATE, FaultKind.REORDER_UPDATES}


@dataclass(frozen=True, slots=True)
class Fault:
    """One order: `count` times, for calls of `method`.

    Attributes:
        kind: what goes wrong.
        count: how many times, 1 to 1000.
        method: a Bot API method, "download", or "*" for any (getUpdates only by its name, so
            that an order meant for answers is not eaten by polling).
        retry_after_s: for TOO_MANY_REQUESTS, seconds, 1 to 3600.
        status: for SERVER_ERROR, 400 to 599.
        delay_s: for SLOW, seconds, 0 to 600.
    """

    kind: FaultKind
    count: int = 1
    method: str = "*"
    retry_after_s: int = 1
    status: int = 502
    delay_s: float = 5.0

    def __post_init__(self) -> None:
        checks = (
            (1 <= self.count <= 1000, "count must be 1 to 1000"),
            (1 <= self.retry_after_s <= 3600, "retry_after_s must be 1 to 3600"),
            (400 <= self.status <= 599, "status must be 400 to 599"),
            (0 <= self.delay_s <= 600, "delay_s must be 0 to 600"),
        )
        for holds, complaint in checks:
            if not holds:
                raise UserError("bad_fault", f"{complaint}.")

    def concerns(self, method: str) -> bool:
        """Whether a call of this method (or "download") falls under the order."""
        if self.kind in _OF_UPDATES:
            return False
        if self.kind is FaultKind.TRUNCATED_DOWNLOAD:
            return method == DOWNLOAD
        if self.method == "*":
            return method != "getupdates"
        return self.method.lower() == method


class Faults:
    """The open orders, served oldest first."""

    def __init__(self) -> None:
        self._orders: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Order a fault."""
        self._orders.append(fault)

    def clear(self) -> None:
        """Forget all orders."""
        self._orders.clear()

    def pending(self) -> tuple[Fault, ...]:
        """The open orders, with the counts that are left."""
        return tuple(self._orders)

    def take(self, method: str) -> Fault | None:
        """The fault that this call shall suffer, counted; None for none."""
        return self._take(lambda fault: fault.concerns(method.lower()))

    def take_kind(self, kind: FaultKind) -> Fault | None:
        """The next fault of a kind that concerns updates, counted; None for none."""
        return self._take(lambda fault: fault.kind is kind)

    def _take(self, wanted: Any) -> Fault | None:
        for index, fault in enumerate(self._orders):
            if wanted(fault):
                if fault.count == 1:
                    del self._orders[index]
                else:
                    self._orders[index] = replace(fault, count=fault.count - 1)
                return fault
        return None


def fault_from(fields: Mapping[str, Any]) -> Fault:
    """A fault from JSON.

    Raises:
        UserError: a field is unknown, missing or out of range.
    """
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in _TYPES:
            raise UserError("bad_fault", f"A fault has no field {name!r}.")
        if isinstance(value, bool) or not isinstance(value, _TYPES[name]):
            raise UserError("bad_fault", f"The field {name!r} is of the wrong type.")
        values[name] = value
    try:
        values["kind"] = FaultKind(values["kind"])
    except (KeyError, ValueError):
        kinds = ", ".join(FaultKind)
        raise UserError("bad_fault", f"A fault needs a kind, one of: {kinds}.") from None
    return Fault(**values)


_TYPES: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "count": (int,),
    "method": (str,),
    "retry_after_s": (int,),
    "status": (int,),
    "delay_s": (int, float),
}


def fields_of(fault: Fault) -> dict[str, Any]:
    """A fault as JSON."""
    return asdict(fault)

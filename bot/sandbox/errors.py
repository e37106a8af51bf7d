"""The faults that the two sides of the sandbox answer with.

    SandboxError
    ├── ApiError    what a bot gets: Telegram's {"ok": false, "error_code", "description"}
    └── UserError   what a person's client gets: a stable code and a sentence

The descriptions of `ApiError` are Telegram's own, because libraries match on them.
"""

from typing import Any


class SandboxError(Exception):
    """A request that the sandbox refuses."""


class ApiError(SandboxError):
    """A refused Bot API call.

    Args:
        status: HTTP status and `error_code`.
        description: Telegram's sentence, prefix included ("Bad Request: ...").
        parameters: Telegram's ResponseParameters, such as {"retry_after": 3}.
    """

    def __init__(
        self, status: int, description: str, parameters: dict[str, Any] | None = None
    ) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.parameters = parameters

    def body(self) -> dict[str, Any]:
        """The error object as Telegram sends it."""
        answer: dict[str, Any] = {
            "ok": False,
            "error_code": self.status,
            "description": self.description,
        }
        if self.parameters:
            answer["parameters"] = self.parameters
        return answer


def bad_request(reason: str) -> ApiError:
    """Telegram's 400 for a reason such as "message text is empty"."""
    return ApiError(400, f"Bad Request: {reason}")


def too_many_requests(seconds: int) -> ApiError:
    """Telegram's 429, which asks to be left alone for a time."""
    description = f"Too Many Requests: retry after {seconds}"
    return ApiError(429, description, {"retry_after": seconds})


class UserError(SandboxError):
    """A refused action of a person; `code` is stable, `message` is an English sentence."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status

    def body(self) -> dict[str, Any]:
        """The error object as the user's side of the sandbox sends it."""
        return {"error": {"code": self.code, "message": self.message}}

"""The engine as its users see it: one protocol, however far away the engine is.

Importing this module loads no torch; building an `EmbeddedEngine` does.
"""

from types import TracebackType
from typing import Protocol, Self

from engine.types import Analysis, EngineInfo


class Engine(Protocol):
    """An engine, in this process or elsewhere. Use it as an async context manager."""

    async def analyze(
        self, photo: bytes, *, top_k: int = 5, embed: bool = False, timeout_s: float | None = None
    ) -> Analysis:
        """Find the faces of a photo and whom each resembles.

        Args:
            photo: a picture file's bytes; see `engine.image` for what is accepted.
            top_k: how many people to name for each face, at least 1.
            embed: whether each face carries its embedding.
            timeout_s: after how long an answer is of no use any more; None waits for ever.

        Raises:
            ImageError: the bytes cannot become a picture (one subclass per reason).
            Busy: the queue is full.
            DeadlineExceeded: `timeout_s` passed.
            Unavailable: the engine is closed or out of reach.
            InternalError: a bug.
        """
        ...

    async def info(self) -> EngineInfo:
        """Tell what the engine is made of."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

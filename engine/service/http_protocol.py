"""HTTP connections that cannot be held open by sending slowly, nor by not reading.

uvicorn waits for ever for the rest of a request's headers, for the rest of a body that nobody
reads because the request was answered early, and for a caller to take its answer. Here all have a
limit; bodies that are read have their request's deadline. Knows nothing about what is asked.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_IDLE_S = 10.0
"""Seconds that a connection may take over what nobody is busy answering."""

MAX_SEND_S = 60.0
"""Seconds that a caller may take over an answer: the largest needs 7 Mbit/s."""


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 on h11, which cuts connections that dribble."""

    max_idle_s = MAX_IDLE_S
    max_send_s = MAX_SEND_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cut: asyncio.TimerHandle | None = None
        self._give_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time for the first request's headers."""
        super().connection_made(transport)
        # Whatever the system's own buffers do not take counts as not taken, however little.
        transport.set_write_buffer_limits(high=0)
        self._start()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """Start the time for the answer to be taken."""
        super().pause_writing()
        # Closing would wait until everything is sent.
        self._give_up = self.loop.call_later(self.max_send_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The answer was taken."""
        self._stop_giving_up()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop()
        self._stop_giving_up()
        super().connection_lost(exc)

    def _look(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        begun = self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])
        if answering or not begun:
            self._stop()  # the request's own deadline counts, or uvicorn's keep-alive time
        else:
            self._start()

    def _start(self) -> None:
        if self._cut is None:
            self._cut = self.loop.call_later(self.max_idle_s, self.transport.close)

    def _stop(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None

    def _stop_giving_up(self) -> None:
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None

"""Whether the service may be sent photos. Knows nothing about HTTP or what is computed."""

from collections.abc import Mapping
from typing import Protocol

MAX_STALL_S = 20.0
"""After which the device counts as hanging: far more than any batch takes."""

OK = "ok"


class Watched(Protocol):
    """An engine, as far as its health goes."""

    @property
    def stalled_s(self) -> float:
        """For how long nothing has come of what the device has or could have."""
        ...

    @property
    def decoding_s(self) -> float:
        """For how long no photo that is being decoded has made place for another."""
        ...


class Health:
    """What is well and what is not; a service is born without a model."""

    def __init__(self) -> None:
        self.engine: Watched | None = None
        self.stopping = False

    def checks(self) -> Mapping[str, str]:
        """The name of each check, and "ok" or what is the matter."""
        stalled_s = 0.0 if self.engine is None else self.engine.stalled_s
        hangs = stalled_s > MAX_STALL_S
        decoding_s = 0.0 if self.engine is None else self.engine.decoding_s
        decodes = decoding_s <= MAX_STALL_S
        return {
            "model": OK if self.engine is not None else "not loaded",
            "device": f"no batch has ended for {stalled_s:.0f} s" if hangs else OK,
            "decoding": OK if decodes else f"no photo has been decoded for {decoding_s:.0f} s",
            "stopping": "no new photos are taken" if self.stopping else OK,
        }

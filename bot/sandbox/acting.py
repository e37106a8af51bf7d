"""A performer for the chat page: the engine finds the face in a photo, `performer` moves it.

Knows neither what is done with the clips nor how they are judged.
"""

import asyncio
import random
from collections.abc import Mapping

from bot.login.liveness import Challenge
from bot.sandbox import rehearsal
from bot.sandbox.errors import UserError
from bot.sandbox.performer import FRAMES_PER_S, NEEDS_OTHER, Attack, Portrait, perform
from engine.client import Engine
from engine.errors import EngineError, ImageError

AS_ASKED = "as_asked"


class Acting:
    """Does as asked, or cheats in one of the ways of `Attack`.

    Args:
        engine: finds faces.
        lot: draws what differs from clip to clip.
        frames_per_s: of the clips; fewer are made sooner and judged worse.
    """

    def __init__(
        self, engine: Engine, lot: random.Random, *, frames_per_s: int = FRAMES_PER_S
    ) -> None:
        self._engine = engine
        self._lot = lot
        self._frames_per_s = frames_per_s

    @property
    def ways(self) -> Mapping[str, bool]:
        """See `Performer.ways`."""
        return {AS_ASKED: False} | {attack.value: attack in NEEDS_OTHER for attack in Attack}

    async def perform(self, photo: bytes, *, steps: str, way: str, other: bytes | None) -> bytes:
        """See `Performer.perform`."""
        try:
            challenge = Challenge.parse(steps)
        except ValueError as error:
            raise UserError("bad_steps", str(error)) from None
        attack = None if way == AS_ASKED else Attack(way)
        actor = await self._portrait(photo)
        beside = None
        if attack in NEEDS_OTHER and other is not None:
            beside = await self._portrait(other)
        return await asyncio.to_thread(
            perform,
            actor,
            challenge,
            seed=self._lot.getrandbits(32),
            attack=attack,
            other=beside,
            frames_per_s=self._frames_per_s,
        )

    async def _portrait(self, photo: bytes) -> Portrait:
        """The face of a photo, which knows how far it has to move where that could be found out."""
        try:
            seen = await self._engine.analyze(photo, top_k=1)
            if not seen.faces:
                raise UserError("no_face", "There is no face in this photo.")
            portrait = await asyncio.to_thread(Portrait.of, photo, seen.faces[0].landmarks)
            clip = await asyncio.to_thread(rehearsal.clip, portrait)
            track = await self._engine.track(clip)
        except ImageError:
            raise UserError("not_a_photo", "This file is no photo.", 415) from None
        except EngineError:
            raise UserError("no_engine", "The engine does not look at photos now.", 503) from None
        return rehearsal.rehearsed(portrait, track) or portrait

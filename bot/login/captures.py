"""Fetches what the login asked for, has it seen, and makes sure that it is new and good enough.

The same for enrolling and verifying. Knows nothing about whose face it should be.
"""

import numpy as np
from telegram import Message

from bot.engine_gateway import Calibrations, answered
from bot.login.capture_quality import gate
from bot.store import Clip, Store
from bot.telegram.incoming import Intake, LoginCapture, Occasion, Reason, Refusal
from bot.telegram.request import Request
from engine.client import Engine
from engine.decision import LoginCalibration
from engine.types import Face, Track

_CLIP_PATTERNS = 12
"""Frames of a clip by which it is known again, at most."""


class Captures:
    """Selfies and clips of people who enroll or verify.

    Args:
        intake: fetches files.
        engine: looks at them.
        store: remembers which were seen.
    """

    def __init__(self, intake: Intake, engine: Engine, store: Store) -> None:
        self._intake = intake
        self._engine = engine
        self._calibrations = Calibrations(engine)
        self._store = store

    async def calibration(self, request: Request) -> LoginCalibration | Refusal:
        """What a likeness of two faces is worth; see `Calibrations.present`."""
        return await self._calibrations.present(request.look_until_s())

    async def selfie(
        self, request: Request, message: Message, occasion: Occasion
    ) -> tuple[Face, LoginCalibration] | Refusal:
        """The one good face, with its embedding, of a photo that nobody has sent before.

        A photo that was seen is never new again, whatever is wrong with it; one that could not be
        looked at, for a reason of ours, may be sent again.

        Args:
            request: whom it is for.
            message: what came.
            occasion: what it must be.

        Returns:
            The face, and the calibration of the very bundle that saw it: during a rollout the one
            that was asked before may have been another's.
        """
        capture = await self._fetch(request, message, occasion)
        if isinstance(capture, Refusal):
            return capture
        until_s = request.look_until_s()
        asked = self._engine.analyze(capture.content, top_k=1, embed=True, deadline_s=until_s)
        seen = await answered(request, asked)
        if isinstance(seen, Refusal):
            return seen
        calibration = await self._calibrations.present(until_s, bundle=seen.bundle)
        if isinstance(calibration, Refusal):
            return calibration
        # Of the largest face, which is the one that is compared.
        patterns = tuple(face.pattern for face in seen.faces[:1] if face.pattern)
        if not await self._store.claim_capture(
            request.person, capture.file_unique_id, capture.content, patterns
        ):
            return Refusal(Reason.SEEN_BEFORE)
        face = gate(seen)
        return face if isinstance(face, Refusal) else (face, calibration)

    async def clip(
        self, request: Request, message: Message, occasion: Occasion
    ) -> tuple[Track, LoginCalibration, Clip] | Refusal:
        """What is seen in a clip, and what it is known by; whether it is new is not asked here.

        Args:
            request: whom it is for.
            message: what came.
            occasion: what it must be.
        """
        capture = await self._fetch(request, message, occasion)
        if isinstance(capture, Refusal):
            return capture
        until_s = request.look_until_s()
        asked = self._engine.track(capture.content, deadline_s=until_s)
        seen = await answered(request, asked)
        if isinstance(seen, Refusal):
            return seen
        calibration = await self._calibrations.of(seen, until_s)
        if isinstance(calibration, Refusal):
            return calibration
        embedder, patterns = embedder_of(calibration), patterns_of(seen)
        clip = Clip(capture.file_unique_id, capture.content, patterns, embedder)
        return seen, calibration, clip

    async def _fetch(
        self, request: Request, message: Message, occasion: Occasion
    ) -> LoginCapture | Refusal:
        with request.timed("download"):
            return await self._intake.login_capture(message, occasion, request.look_until_s())


def patterns_of(track: Track) -> tuple[bytes, ...]:
    """Of some frames at equal distances, a bounded number, that show the face."""
    found = [f.face.pattern for f in track.frames if f.face is not None and f.face.pattern]
    places = np.linspace(0, len(found) - 1, min(len(found), _CLIP_PATTERNS)).round()
    return tuple(found[int(place)] for place in places)


def embedder_of(calibration: LoginCalibration) -> str:
    """What templates are compared with: the embedder, its weights and the preprocessing."""
    return embedder_id(calibration.embedder, calibration.weights_sha256, calibration.preprocessing)


def embedder_id(embedder: str, weights_sha256: str, preprocessing: int) -> str:
    """The same, of its parts."""
    return f"{embedder}/{weights_sha256[:16]}/{preprocessing}"

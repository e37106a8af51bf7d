"""Fetches what the login asked for, has it seen, and makes sure that it is new and good enough.

The same for enrolling and verifying. Knows nothing about whose face it should be.
"""

import numpy as np
from telegram import Message

from bot.engine_gateway import EngineGateway
from bot.login.capture_quality import gate
from bot.store import Store
from bot.telegram.incoming import Intake, LoginCapture, Occasion, Reason, Refusal
from bot.telegram.request import Request
from engine.decision import LoginCalibration
from engine.types import Face, Track

_CLIP_PATTERNS = 12
"""Frames of a clip by which it is known again, at most."""


class Captures:
    """Selfies and clips of people who enroll or verify.

    Args:
        intake: fetches files.
        gateway: has the engine look at them.
        store: remembers which were seen.
    """

    def __init__(self, intake: Intake, gateway: EngineGateway, store: Store) -> None:
        self._intake = intake
        self._gateway = gateway
        self._store = store

    async def calibration(self, request: Request) -> LoginCalibration | Refusal:
        """What a likeness of two faces is worth; see `EngineGateway.calibration`."""
        return await self._gateway.calibration(request.before_sending_s())

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
        within_s = request.before_sending_s()
        seen = await self._gateway.look(request, capture.content, within_s, embed=True)
        if isinstance(seen, Refusal):
            return seen
        calibration = await self._calibration_of(request, seen.bundle)
        if isinstance(calibration, Refusal):
            return calibration
        # Of the largest face, which is the one that is compared.
        patterns = tuple(face.pattern for face in seen.faces[:1] if face.pattern)
        if not await self._is_new(request.person, capture, patterns):
            return Refusal(Reason.SEEN_BEFORE)
        face = gate(seen)
        return face if isinstance(face, Refusal) else (face, calibration)

    async def clip(
        self, request: Request, message: Message, occasion: Occasion, subject: int
    ) -> tuple[Track, LoginCalibration] | Refusal:
        """What is seen in a clip that nobody has sent before: as `selfie`.

        Args:
            request: whom it is for.
            message: what came.
            occasion: what it must be.
            subject: Telegram id of whose face it is to be: none that is like an earlier one of
                theirs is new.
        """
        capture = await self._fetch(request, message, occasion)
        if isinstance(capture, Refusal):
            return capture
        seen = await self._gateway.watch(request, capture.content, request.before_sending_s())
        if isinstance(seen, Refusal):
            return seen
        calibration = await self._calibration_of(request, seen.bundle)
        if isinstance(calibration, Refusal):
            return calibration
        if not await self._is_new(subject, capture, patterns_of(seen)):
            return Refusal(Reason.SEEN_BEFORE)
        return seen, calibration

    async def _calibration_of(self, request: Request, bundle: str) -> LoginCalibration | Refusal:
        return await self._gateway.calibration(request.before_sending_s(), bundle=bundle)

    async def _fetch(
        self, request: Request, message: Message, occasion: Occasion
    ) -> LoginCapture | Refusal:
        with request.timed("download"):
            within_s = request.before_sending_s()
            return await self._intake.login_capture(message, occasion, within_s)

    async def _is_new(
        self, telegram_id: int, capture: LoginCapture, patterns: tuple[bytes, ...]
    ) -> bool:
        return await self._store.claim_capture(
            telegram_id, capture.file_unique_id, capture.content, patterns
        )


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

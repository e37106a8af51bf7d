"""Fetches what the login asked for, has it seen, and makes sure that it is new and good enough.

The same for enrolling and verifying. Knows nothing about whose face it should be.
"""

from telegram import Message

from bot.gates import gate
from bot.intake import Intake, LoginCapture, Occasion, Reason, Refusal
from bot.request import Request
from bot.seeing import Eyes
from bot.store import Store
from engine.decision import LoginCalibration
from engine.types import Face, Track

_PRINT_EVERY_S = 1.0
"""Between the frames of a clip by which it is known again."""


class Captures:
    """Selfies and clips of people who enroll or verify.

    Args:
        intake: fetches files.
        eyes: look at them.
        store: remembers which were seen.
    """

    def __init__(self, intake: Intake, eyes: Eyes, store: Store) -> None:
        self._intake = intake
        self._eyes = eyes
        self._store = store

    async def calibration(self, request: Request) -> LoginCalibration | Refusal:
        """What a likeness of two faces is worth; see `Eyes.calibration`."""
        return await self._eyes.calibration(request.before_sending_s())

    async def selfie(
        self, request: Request, message: Message, occasion: Occasion
    ) -> Face | Refusal:
        """The one good face, with its embedding, of a photo that nobody has sent before.

        A photo that was seen is never new again, whatever is wrong with it; one that could not be
        looked at, for a reason of ours, may be sent again.

        Args:
            request: whom it is for.
            message: what came.
            occasion: what it must be.
        """
        capture = await self._fetch(request, message, occasion)
        if isinstance(capture, Refusal):
            return capture
        within_s = request.before_sending_s()
        seen = await self._eyes.look(request, capture.content, within_s, embed=True)
        if isinstance(seen, Refusal):
            return seen
        prints = () if seen.fingerprint is None else (seen.fingerprint,)
        if not await self._is_new(request, capture, prints):
            return Refusal(Reason.SEEN_BEFORE)
        return gate(seen)

    async def clip(self, request: Request, message: Message, occasion: Occasion) -> Track | Refusal:
        """What is seen in a clip that nobody has sent before: arguments as in `selfie`."""
        capture = await self._fetch(request, message, occasion)
        if isinstance(capture, Refusal):
            return capture
        seen = await self._eyes.watch(request, capture.content, request.before_sending_s())
        if isinstance(seen, Refusal):
            return seen
        if not await self._is_new(request, capture, _prints(seen)):
            return Refusal(Reason.SEEN_BEFORE)
        return seen

    async def _fetch(
        self, request: Request, message: Message, occasion: Occasion
    ) -> LoginCapture | Refusal:
        with request.timed("download"):
            within_s = request.before_sending_s()
            return await self._intake.login_capture(message, occasion, within_s)

    async def _is_new(
        self, request: Request, capture: LoginCapture, prints: tuple[bytes, ...]
    ) -> bool:
        return await self._store.claim_capture(
            request.person, capture.file_unique_id, capture.content, prints
        )


def _prints(track: Track) -> tuple[bytes, ...]:
    """Fingerprints of frames at equal distances in time."""
    chosen, due_s = [], 0.0
    for frame in track.frames:
        if frame.time_s >= due_s:
            chosen.append(frame.fingerprint)
            due_s += _PRINT_EVERY_S
    return tuple(chosen)


def embedder_of(calibration: LoginCalibration) -> str:
    """What templates are compared with: the embedder, its weights and the preprocessing."""
    return embedder_id(calibration.embedder, calibration.weights_sha256, calibration.preprocessing)


def embedder_id(embedder: str, weights_sha256: str, preprocessing: int) -> str:
    """The same, of its parts."""
    return f"{embedder}/{weights_sha256[:16]}/{preprocessing}"
